"""The low-level client: one connection, with metrics, at the API version agreed with the engine."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
import structlog
import urllib3

import docker
from boilerhouse.telemetry import tracing
from pools.instruments import DOCKER_ERRORS, DOCKER_SECONDS
from pools.runtime.docker import dialect

log = structlog.get_logger(__name__)


class Speech:
    """The API version that a process uses with its engine: one for all its clients."""

    def __init__(self) -> None:
        self._agreed: dialect.Dialect | None = None

    def agreed(self, client: MeteredClient) -> dialect.Dialect:
        """The agreed version; queries the engine with ``client``, within its deadline, if there is none yet."""
        if (version := self._agreed) is None:  # two threads may both query it, with the same result
            version = self._agreed = dialect.agree(client.said_version())
        return version

    def heard(self, newest: str | None) -> None:
        """Record the engine's newest version in a response: if it changed, the engine was replaced."""
        version = self._agreed
        if version is not None and newest is not None and newest != version.newest:
            log.info("the engine behind the socket has changed", was=version.newest, now=newest)
            self._agreed = None

    def forget(self) -> None:
        """Agree on the version again before the next call."""
        self._agreed = None


class MeteredClient(docker.APIClient):
    """Counts each call by its path without names: its duration, and whether the engine failed it.

    Uses the version that ``speech`` has agreed with the engine.
    """

    def __init__(self, base_url: str, timeout_s: float | None, speech: Speech) -> None:
        deadline: Any = timeout_s  # requests accepts fractions and None, the stubs do not
        super().__init__(base_url=base_url, version=dialect.OLDEST, timeout=deadline, max_pool_size=32)
        self.trust_env = not self.is_socket  # which has neither a proxy nor an entry in .netrc
        self._speech = speech

    def agree(self) -> None:
        """Use a version that the engine supports. Raises EngineUnsupported."""
        self._version = self._speech.agreed(self).version

    def said_version(self) -> dict[str, Any]:
        """The engine's description of itself; the one call that needs no version."""
        version: dict[str, Any] = self.version(api_version=False)
        return version

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        answer = self._asked(str(method), str(url), *args, **options)
        if answer.status_code == 400 and dialect.is_refusal(400, answer.content):
            # The engine was replaced since the version was agreed. It has done nothing yet, so the call can be
            # repeated once.
            self._speech.forget()
            self.agree()
            if hasattr(options.get("data"), "seek"):
                options["data"].seek(0)
            spoken = _VERSION.sub(f"/v{self._version}", str(url), count=1)
            answer = self._asked(str(method), spoken, *args, **options)
        return answer

    def _asked(self, method: str, url: str, *args: Any, **options: Any) -> requests.Response:
        with _metered(_call_of(method, url)) as report:
            answer = super().request(method, url, *args, **options)
            report(answer.status_code)
        self._speech.heard(answer.headers.get("Api-Version"))
        return answer

    def state_of(self, name: str) -> dict[str, Any]:
        """``inspect_container`` at about half its cost if the engine is a socket: every claim makes this call.

        Any unexpected response is requested again in the ordinary way, which handles errors.
        """
        if self.is_socket and _PLAIN_NAME.match(name):
            pool = self.get_adapter(self.base_url).get_connection(self.base_url)  # type: ignore[attr-defined]
            with _metered("GET /containers/{id}/json") as report:
                path = f"/v{self._version}/containers/{name}/json"
                answer = pool.urlopen("GET", path, retries=False, timeout=self.timeout)
                report(answer.status)
            self._speech.heard(answer.headers.get("Api-Version"))
            if answer.status == 200:
                document: dict[str, Any] = answer.json()
                return document
        return dict(self.inspect_container(name))

    @property
    def is_socket(self) -> bool:
        return str(self.base_url).startswith("http+docker:")


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


@contextlib.contextmanager
def _metered(call: str) -> Iterator[Callable[[int], None]]:
    """Count a call and its duration; the caller passes the response's status to the yielded function."""
    began = time.monotonic()

    def told(status: int) -> None:
        if status >= 500:
            DOCKER_ERRORS.labels(call, str(status)).inc()

    try:
        with tracing.span(f"docker {call}"):
            yield told
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        is_late = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
        DOCKER_ERRORS.labels(call, "timeout" if is_late else "unreachable").inc()
        raise
    finally:
        DOCKER_SECONDS.labels(call).observe(time.monotonic() - began)


_VERSION = re.compile(r"(?<=[^/])/v\d+\.\d+(?=/)")
_BEFORE_PATH = re.compile(r"^[a-z+]+://[^/]*(/v\d+\.\d+(?=/))?")
_NAMED = re.compile(
    r"/(containers|images|networks|exec|distribution)/(?!create$|json$|search$|load$|prune$).+?(/\w+)?$"
)


def _call_of(method: str, url: str) -> str:
    """``POST /containers/{id}/start``"""
    path = _BEFORE_PATH.sub("", url).partition("?")[0]
    return f"{method.upper()} {_NAMED.sub(lambda match: f'/{match[1]}/{{id}}{match[2] or str()}', path)}"

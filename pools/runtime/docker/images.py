"""Images at the engine, and their registries."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

import docker.errors
import requests

from pools import errors, pull_errors, references
from pools.pull_errors import PullFault
from pools.runtime.base import Image, Probe, Pull, RegistryLogin
from pools.runtime.docker.engine import BUILD_S, NEVER, SLOW_S, Engine
from pools.runtime.docker.logins import body_of, header_of
from pools.runtime.docker.probes import probe_command
from pools.runtime.docker.pull_stream import error_of
from pools.runtime.docker.pulls import DockerPull
from pools.runtime.docker.translation import all_words, translated

TAG_S = 15
"""The longest time that resolving a tag at a registry occupies a worker."""


class Images(Engine):
    """Operations on images, and their registries."""

    def find_image(self, image: str) -> Image:
        with translated():
            return _image(_inspect_image(self._api(), references.at_engine(image)))

    def pull(
        self, reference: references.Reference, login: RegistryLogin | None = None, patience_s: float = SLOW_S
    ) -> Pull:
        # A separate client: it reads root's ~/.docker/config.json as it is now, and has no deadline.
        with translated():
            api = self._own_api(NEVER)
        return DockerPull(api, reference, login, patience_s)

    def named_digest(self, reference: references.Reference, login: RegistryLogin | None = None) -> str:
        with translated(), contextlib.closing(self._own_api(TAG_S)) as own:
            api: Any = own
            url = api._url(f"/distribution/{reference.name}:{reference.version}/json")
            try:
                answer = api._get(url, headers=header_of(reference, login, api))
                api._raise_for_status(answer)
            except requests.ReadTimeout as error:
                words = f"{reference.registry} sent nothing for {TAG_S} s"
                raise pull_errors.pull_failed(reference, words, PullFault.TIMEOUT) from error
            except docker.errors.APIError as error:
                raise pull_errors.pull_failed(reference, all_words(error), login=login) from error
            return str(answer.json()["Descriptor"]["digest"])

    def log_in(self, registry: str, login: RegistryLogin) -> None:
        with translated(), contextlib.closing(self._own_api(TAG_S)) as own:
            api: Any = own
            try:
                answer = api._post_json(api._url("/auth"), data=body_of(registry, login))
                api._raise_for_status(answer)
            except requests.ReadTimeout as error:
                words = f"it sent nothing for {TAG_S} s"
                raise pull_errors.login_failed(registry, words, login, PullFault.TIMEOUT) from error
            except docker.errors.APIError as error:
                if error.status_code == 403:  # by the Docker socket proxy: the registry itself answers 401
                    raise
                raise pull_errors.login_failed(registry, all_words(error), login) from error

    def build(self, context: bytes, tag: str) -> Iterator[str]:
        with translated():
            stream = self._api(BUILD_S).build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
            )
            for chunk in stream:
                if words := error_of(chunk):
                    raise errors.EngineFailure(f"Building {tag} failed: {words}")
                if line := str(chunk.get("stream", "")).strip():
                    yield line


def _inspect_image(api: Any, name: str) -> dict[str, Any]:
    """As ``inspect_image``, which encodes @ as %40; the Docker socket proxy rejects %."""
    if _PLAIN_IMAGE.match(name):
        answer: dict[str, Any] = api._result(api._get(api._url(f"/images/{name}/json")), True)
        return answer
    return dict(api.inspect_image(name))


_PLAIN_IMAGE = re.compile(r"[\w./:@-]+\Z")


def _image(document: dict[str, Any]) -> Image:
    config = document.get("Config") or {}
    return Image(
        document["Id"],
        tuple(sorted(config.get("Volumes") or ())),
        config.get("WorkingDir") or "",
        _images_probe(config),
        tuple(document.get("RepoDigests") or ()),
        tuple(config.get("Entrypoint") or ()),
        tuple(config.get("Cmd") or ()),
        int(document.get("Size") or 0),
    )


def _images_probe(config: dict[str, Any]) -> Probe | None:
    """The HEALTHCHECK of an image, with the engine's defaults for missing values."""
    check = config.get("Healthcheck") or {}
    command = probe_command(config)
    if not command:
        return None

    def ms(name: str, default: int) -> int:
        return (check.get(name) or 0) // 1_000_000 or default

    return Probe(
        command, ms("Interval", 30_000), ms("Timeout", 30_000), check.get("Retries") or 3, ms("StartPeriod", 0)
    )

"""One pull of an image."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import docker.errors
import requests

import docker
from pools import errors, pull_errors, references
from pools.pull_errors import PullFault
from pools.runtime.base import PullProgress, RegistryLogin
from pools.runtime.docker.engine import FAST_S
from pools.runtime.docker.logins import header_of
from pools.runtime.docker.pull_stream import Layers, error_of
from pools.runtime.docker.translation import all_words, translated


class DockerPull:
    """One pull, over one connection: the engine continues as long as that is open."""

    def __init__(
        self, api: docker.APIClient, reference: references.Reference, login: RegistryLogin | None, patience_s: float
    ) -> None:
        self._api: Any = api  # streaming is not part of its public interface
        self._reference, self._login, self._patience_s = reference, login, patience_s
        self._connection: socket.socket | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[PullProgress]:
        try:
            with translated():
                yield from self._progress()
        finally:
            self._api.close()

    def _progress(self) -> Iterator[PullProgress]:
        reference, layers = self._reference, Layers()
        answer = self._ask()
        try:
            for line in self._api._stream_helper(answer, decode=True):
                if words := error_of(line):
                    raise pull_errors.pull_failed(reference, words, login=self._login)
                if layers.hear(line):
                    yield layers.progress
        finally:
            answer.close()
        if self._is_closed:
            raise errors.EngineUnavailable("The pull was aborted.")

    def _ask(self) -> requests.Response:
        reference, api = self._reference, self._api
        query = {"fromImage": reference.name, "tag": reference.version}
        allowed = (FAST_S, self._patience_s)
        url, headers = api._url("/images/create"), header_of(reference, self._login, api)
        try:
            answer: requests.Response = api._post(url, params=query, headers=headers, stream=True, timeout=allowed)
        except requests.ReadTimeout as error:
            words = f"{reference.registry} sent nothing for {self._patience_s:.0f} s"
            raise pull_errors.pull_failed(reference, words, PullFault.TIMEOUT) from error
        try:
            api._raise_for_status(answer)
        except docker.errors.APIError as error:
            raise pull_errors.pull_failed(reference, all_words(error), login=self._login) from error
        stream: Any = api._get_raw_response_socket(answer)
        self._connection = getattr(stream, "_sock", stream)
        self._connection.settimeout(None)  # it may be silent while other pulls run first
        if self._is_closed:
            self.close()
        return answer

    def close(self) -> None:
        self._is_closed = True
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it has ended
                self._connection.shutdown(socket.SHUT_RDWR)

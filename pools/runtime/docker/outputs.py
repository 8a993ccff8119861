"""Engine events, and the output of containers' processes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import docker.errors

import docker
from pools.runtime.base import EngineEvent, LogStream
from pools.runtime.docker.engine import FAST_S, NEVER, Engine
from pools.runtime.docker.translation import translated

LOG_BYTES = 64 * 1024


class Outputs(Engine):
    """Engine events, and the output of a container's processes."""

    def events(self, labels: dict[str, str]) -> Iterator[EngineEvent]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        filters = {"type": "container", "label": wanted, "event": ["die", "oom", "destroy", "health_status"]}
        with translated():
            api = self._own_api(FAST_S)
            stream = api.events(decode=True, filters=filters)
        return _events(api, stream)

    def logs(
        self,
        name: str,
        tail: int,
        since: float | None = None,
        limit_bytes: int = LOG_BYTES,
        *,
        timestamps: bool = False,
        errors_only: bool = False,
    ) -> bytes:
        with translated():
            # As a stream, so that only the limited part is held in memory.
            chunks = deque[bytes]()
            size = 0
            options: Any = {"tail": tail, "since": since, "timestamps": timestamps, "stdout": not errors_only}
            for chunk in self._api().logs(name, **options, stream=True, follow=False):
                chunks.append(chunk)
                size += len(chunk)
                while size - len(chunks[0]) >= limit_bytes:
                    size -= len(chunks.popleft())
            return b"".join(chunks)[-limit_bytes:]

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        with translated():
            api = self._own_api(NEVER)
            options: Any = {"tail": tail, "since": since, "timestamps": timestamps}
            return _Followed(api, api.logs(name, **options, stream=True, follow=True))


def _events(api: docker.APIClient, stream: Any) -> Iterator[EngineEvent]:
    with translated():
        try:
            for event in stream:
                kind, _, health = event["Action"].partition(": ")
                attributes = event["Actor"]["Attributes"]
                code = attributes.get("exitCode")
                yield EngineEvent(
                    "health" if kind == "health_status" else kind,
                    attributes,
                    event["Actor"]["ID"],
                    int(code) if code is not None else None,
                    health,
                )
        finally:
            api.close()


class _Followed:
    """The output of a container, until it ends or another thread calls ``close``."""

    def __init__(self, api: docker.APIClient, stream: Any) -> None:
        self._api, self._stream = api, stream

    def __iter__(self) -> Iterator[bytes]:
        with translated():
            yield from self._stream

    def close(self) -> None:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            self._stream.close()
        self._api.close()

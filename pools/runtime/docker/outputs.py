"""Engine events, and the output of containers' processes."""

from __future__ import annotations

import contextlib
import struct
import threading
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
        label_filters = [f"{name}={value}" for name, value in labels.items()]
        filters = {"type": "container", "label": label_filters, "event": ["die", "oom", "destroy", "health_status"]}
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
        timeout_s: float | None = None,
    ) -> bytes:
        with translated(), self._answering_within(timeout_s) as api:
            # As a stream, so that only the limited part is held in memory.
            chunks = deque[bytes]()
            size = 0
            options: Any = {"tail": tail, "since": since, "timestamps": timestamps, "stdout": not errors_only}
            stream = api.logs(name, **options, stream=True, follow=False)
            with _cut_after(stream, timeout_s):
                for chunk in stream:
                    chunks.append(chunk)
                    size += len(chunk)
                    while size - len(chunks[0]) >= limit_bytes:
                        size -= len(chunks.popleft())
            return b"".join(chunks)[-limit_bytes:]

    @contextlib.contextmanager
    def _answering_within(self, timeout_s: float | None) -> Iterator[docker.APIClient]:
        """The shared client; with a time limit one of its own, whose connection can be cut."""
        if timeout_s is None:
            yield self._api()
            return
        api = self._own_api(timeout_s)
        try:
            yield api
        finally:
            api.close()

    def follow_logs(self, name: str, tail: int, since: float | None = None, *, timestamps: bool = False) -> LogStream:
        with translated():
            api = self._own_api(NEVER)
            options: Any = {"tail": tail, "since": since, "timestamps": timestamps}
            return _Followed(api, api.logs(name, **options, stream=True, follow=True))


@contextlib.contextmanager
def _cut_after(stream: Any, timeout_s: float | None) -> Iterator[None]:
    """End the stream at that time: the client reads streams without a deadline, and an engine may stop midway."""
    if timeout_s is None:
        yield
        return
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with contextlib.suppress(docker.errors.DockerException, OSError):
            stream.close()

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (struct.error, OSError, ValueError):
        if not cut.is_set():  # otherwise a block was cut
            raise
    finally:
        timer.cancel()


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

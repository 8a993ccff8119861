"""``deploy/docker-proxy`` for tests: its modules, and the running proxy in front of this machine's engine."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

DIRECTORY = Path(__file__).resolve().parents[1] / "deploy" / "docker-proxy"
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


def module(name: str) -> ModuleType:
    if str(DIRECTORY) not in sys.path:
        sys.path.insert(0, str(DIRECTORY))
    return importlib.import_module(name)


class Sockets:
    """The two sockets of a running proxy."""

    def __init__(self, directory: Path) -> None:
        self.web, self.worker = (directory / name / f"{name}.sock" for name in ("web", "worker"))
        self.pid = 0
        """Of the proxy."""

    def url(self, name: str) -> str:
        return f"unix://{getattr(self, name)}"


@contextmanager
def running(
    directory: Path, data: Path, settings: Mapping[str, str] = {}, before: Sequence[str] = ()
) -> Iterator[Sockets]:
    """A proxy that lets directories below ``data`` be mounted; ``before`` its command, such as setpriv."""
    sockets = Sockets(directory)
    environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(data), **settings}
    command = [*before, sys.executable, str(DIRECTORY / "proxy.py"), str(directory), ENGINE]
    proxy = subprocess.Popen(command, env=environment)
    sockets.pid = proxy.pid
    try:
        until = time.monotonic() + 30
        while not sockets.worker.exists():
            assert time.monotonic() < until, "the proxy does not start"
            time.sleep(0.02)
        yield sockets
    finally:
        proxy.terminate()
        proxy.wait(10)


def say(path: Path, *parts: bytes) -> bytes:
    """Send the parts one after another, and return the answer until the other side closes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(str(path))
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05 if len(parts) > 1 else 0)
            while chunk := connection.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionError, BrokenPipeError):
            pass  # a stream that stays open, or that was hung up on
        return answer

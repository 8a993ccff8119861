"""A guest agent in a namespace of processes of its own, and one that lies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from boilerhouse.process import pids
from pools.guest import connections, paths, sealing

AGENT = Path(__file__).resolve().parents[1] / "guest" / "build" / "agent"


class Agent:
    """The agent as process 1, as root of this machine but in namespaces of processes and mounts of its own."""

    def __init__(self, directory: Path, *command: str, program: Path = AGENT) -> None:
        self._program = program
        self.directory, self._command = directory, command or ("sleep", "1000")
        self._errors = directory.with_suffix(".errors")

    def __enter__(self) -> Agent:
        self.directory.mkdir()
        with self._errors.open("wb") as errors:
            self._unshare = subprocess.Popen(
                ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", self._program, "init",
                 self.directory / paths.SOCKET, "--", *self._command],
                stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        deadline = time.monotonic() + 10
        while not (self.directory / paths.SOCKET).exists() and self._unshare.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        if self._unshare.poll() is None:
            for process in pids.children(self._unshare.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._unshare.wait(10)

    def process_1(self) -> int:
        return pids.children(self._unshare.pid)[0]

    def ended(self) -> int:
        """The exit code of process 1, as ``unshare`` passes it on."""
        return self._unshare.wait(20)

    def errors(self) -> str:
        return self._errors.read_text()

    def commands(self, words: str) -> list[str]:
        """The command lines inside that contain these words."""
        todo, lines = [self.process_1()], list[str]()
        while todo:
            process = todo.pop()
            with contextlib.suppress(OSError):
                todo += pids.children(process)
                lines.append(Path(f"/proc/{process}/cmdline").read_text().replace("\0", " "))
        return [line for line in lines if words in line and "agent" not in line]

    def wait_for(self, words: str) -> None:
        self._wait(lambda: bool(self.commands(words)))

    def wait_until_gone(self, words: str) -> None:
        self._wait(lambda: not self.commands(words))

    def _wait(self, condition: object) -> None:
        deadline = time.monotonic() + 10
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill_session(self, session: int, process_1: int) -> bool:
        """As ``host_processes.kill_session``, for an agent that has no cgroup of its own."""
        assert process_1 == self.process_1()
        todo, found = [session], list[int]()
        while todo:
            found.append(todo.pop())
            todo += pids.children(found[-1])
        for process in found:
            os.kill(process, signal.SIGKILL)
        return True


@contextlib.contextmanager
def sealed_agent(directory: Path, monkeypatch: Any, program: Path = AGENT) -> Iterator[Agent]:
    """An agent that serves every container of this process."""
    with Agent(directory, program=program) as agent:
        monkeypatch.setattr(connections, "run_dir", lambda _: agent.directory)
        monkeypatch.setattr(sealing, "run_dir", lambda _: agent.directory)
        assert sealing.seal(uuid4(), agent.process_1())
        yield agent


@contextlib.contextmanager
def lying_agent(directory: Path, hello: bytes, words: bytes, for_ever: bytes, drip_s: float) -> Iterator[list[bytes]]:
    """Something in a sealed directory that says ``hello``, and the words when it was asked for anything.

    Yields what it was asked, which is complete at the end.
    """
    directory.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / paths.SOCKET))
    listener.listen()
    os.chown(directory, connections.SEALED, connections.SEALED)
    asked: list[bytes] = []

    def lie() -> None:
        connection, _ = listener.accept()
        data = b""
        with connection, contextlib.suppress(OSError):  # the host may hang up at any point
            connection.settimeout(10)
            for byte in hello if drip_s else b"":
                connection.sendall(bytes([byte]))
                time.sleep(drip_s)
            connection.sendall(b"" if drip_s else hello)
            data = connection.recv(65536) if words or for_ever else b""
            connection.sendall(words)
            while for_ever:
                connection.sendall(for_ever)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                data += chunk
        asked.append(data)

    thread = threading.Thread(target=lie)
    thread.start()
    try:
        yield asked
    finally:
        thread.join(15)
        listener.close()

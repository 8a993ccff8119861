"""A single web process with its own database and directory, so that attacks on it affect no other test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class WebServer:
    port: int
    key: str
    directory: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "web.log").read_text(errors="replace")

    def connect(self, first: bytes = b"", timeout: float = 20) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        if first:
            opened.sendall(first)
        return opened

    def health(self) -> int:
        return requests.get(f"{self.base}/health", timeout=10).status_code

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def spooled_bytes(self) -> int:
        """Of files that the process has open and that have no name any more."""
        found = 0
        for one in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "(deleted)" in os.readlink(one):
                    found += one.stat().st_size
        return found

    def memory_bytes(self) -> int:
        """Of its own: pages of the database's file are the system's."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def rest(opened: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := opened.recv(65536):
            found += chunk
    return found


@contextlib.contextmanager
def running(directory: Path, **more: str) -> Iterator[WebServer]:
    """A web process on the database in ``directory``, which is made if there is none."""
    environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(directory / "data"), "BOILERHOUSE_LOG_FORMAT": "json"}
    environment.pop("DATABASE_URL", None)
    environment |= more
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    number = listening.fileno()
    log = (directory / "web.log").open("ab")
    made = WebServer(listening.getsockname()[1], "", directory, None, environment)  # type: ignore[arg-type]
    kept = directory / "key"
    if not kept.exists():
        made.manage("migrate", "-v", "0")
        kept.write_text(made.manage("create_api_key", "--name", "tests", "--role", "admin").strip())
    made.key = kept.read_text()
    command = [
        "-m",
        "boilerhouse.web.server",
        "-v",
        "0",
        "--no-server-name",
        "boilerhouse.asgi:application",
        "--fd",
        str(number),
    ]
    made.process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, pass_fds=(number,), stdout=log, stderr=log
    )
    listening.close()
    try:
        until = time.monotonic() + 60
        while True:
            assert made.process.poll() is None, made.log[-3000:]
            with contextlib.suppress(requests.RequestException):
                if made.health() == 200:
                    break
            assert time.monotonic() < until, made.log[-3000:]
            time.sleep(0.1)
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        try:
            made.process.wait(20)
        finally:
            made.process.kill()
            log.close()

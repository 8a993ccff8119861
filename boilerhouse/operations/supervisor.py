"""Runs web, worker, controller and the embedded S3 as children of one process."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import structlog

from boilerhouse.core import keys
from boilerhouse.core.deployment import data_dir
from boilerhouse.core.errors import Failed
from boilerhouse.process import commands, processes
from syncing import rclone
from syncing.locations import MARKER_ROOT
from syncing.sinks import outbound

log = structlog.get_logger("boilerhouse.up")

STOP_S = 8.0
"""How long children have to end by themselves; in total it stays below the ten seconds promised."""
LAST_WAIT_S = 1.0
"""Time for the kernel to end killed processes."""
MIN_LIFE_S = 5.0
SETTLED_S = 60.0
"""A process that fails earlier than this never came up; on a busy machine that takes longer than MIN_LIFE_S."""
START_AGAIN_S = 2.0
BUCKET = "boilerhouse"
FIRST_PORT = 20_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The range of ports that the kernel gives to outgoing connections and to sockets without a port."""


@dataclass(frozen=True, slots=True)
class EmbeddedS3:
    """``rclone serve s3`` for a directory of the data directory."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    bucket: str = BUCKET

    def sink(self, prefix: str) -> dict[str, object]:
        """The sink of a sync spec that uses this server."""
        return {
            "type": "s3", "bucket": self.bucket, "region": "us-east-1", "prefix": prefix, "endpoint": self.endpoint,
            "provider": "Rclone", "accessKeyId": self.access_key_id, "secretAccessKey": self.secret_access_key,
        }  # fmt: skip


def embedded_s3(port: int | None = None) -> EmbeddedS3:
    """The embedded S3 of this data directory. Its keys are created once, so that specs can refer to them."""
    remembered = data_dir() / outbound.EMBEDDED_PORT
    if port is None:
        port = int(remembered.read_text()) if remembered.exists() else free_port()
    remembered.write_text(str(port))
    directory = data_dir()
    access = keys.stored(directory, "s3-access-key", lambda: f"BH{secrets.token_hex(8).upper()}")
    return EmbeddedS3(f"http://127.0.0.1:{port}", access, keys.stored(directory, "s3-secret-key", _s3_secret))


def _s3_secret() -> str:
    return secrets.token_hex(24)


def start_s3(s3: EmbeddedS3) -> subprocess.Popen[bytes]:
    root = data_dir() / "s3"
    markers = root / s3.bucket / MARKER_ROOT
    markers.mkdir(parents=True, exist_ok=True)
    # rclone removes a folder together with its last file and can lose a file that is being created in it.
    (markers / "stays").touch()
    address = s3.endpoint.removeprefix("http://")
    return rclone.serve_s3(root, address, s3.access_key_id, s3.secret_access_key, data_dir() / "s3.log")


def free_port() -> int:
    """A free port of 127.0.0.1 outside the range that the kernel gives to connections."""
    first, end = FIRST_PORT, int(EPHEMERAL.read_text().split()[0])
    for _ in range(100 if end > first else 0):
        port = first + secrets.randbelow(end - first)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(slots=True)
class Child:
    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_after: float = 0.0
    quick_ends: int = 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def has_ended_early(self) -> bool:
        """Whether another start would probably fail too, which is not so for a process that was killed or stopped."""
        assert self.process is not None
        has_failed = (self.process.returncode or 0) > 0
        return time.monotonic() - self.started < (SETTLED_S if has_failed else MIN_LIFE_S)


@dataclass(slots=True)
class Supervisor:
    """Starts children, restarts those that die, and stops all within ten seconds. One failing child does not block the
    others."""

    children: list[Child] = field(default_factory=list)

    def add(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.children.append(Child(name, start))

    def run(self, stop: Event) -> None:
        """Run until ``stop`` is set. The restart delay of a child that keeps failing at its start grows."""
        for child in self.children:
            self._start(child)
        while not stop.wait(0.3):
            for child in self.children:
                self._look_after(child)
        self.stop()

    def _look_after(self, child: Child) -> None:
        if child.is_running or time.monotonic() < child.start_after:
            return
        if child.process is not None:
            child.quick_ends = child.quick_ends + 1 if child.has_ended_early else 0
            child.start_after = time.monotonic() + min(10, child.quick_ends)
            log.error("process ended", process=child.name, code=child.process.returncode)
            child.process = None
        if time.monotonic() >= child.start_after:
            self._start(child)

    def _start(self, child: Child) -> None:
        try:
            child.process, child.started = child.start(), time.monotonic()
        except OSError as error:  # no memory or no process available at the moment
            child.start_after = time.monotonic() + START_AGAIN_S
            log.error("process not started", process=child.name, error=str(error))

    def stop(self) -> None:
        """SIGTERM in reverse order of starting, then SIGKILL for the rest: everything has ended within ten seconds."""
        for child in reversed(self.children):
            if child.process and child.is_running:
                child.process.send_signal(signal.SIGTERM)
        self._wait(STOP_S)
        for child in self.children:
            if child.process and child.is_running:
                log.warning("process killed", process=child.name)
                processes.kill_tree(child.process.pid)
        self._wait(LAST_WAIT_S)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(child.is_running for child in self.children) and time.monotonic() < deadline:
            time.sleep(0.02)


WEB = ["-m", "boilerhouse.web.server", "-v", "0", "--no-server-name", "boilerhouse.asgi:application"]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for ``web``. While no web process runs, connections wait in it. Raises Failed."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=1024)
    except OSError as error:
        raise Failed(f"Cannot listen on {host}:{port}: {error.strerror or error}") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def web(listening: socket.socket) -> subprocess.Popen[bytes]:
    """A web process that inherits a listening socket, which outlives it."""
    number = listening.fileno()
    return commands.spawn([*WEB, "--fd", str(number)], cwd=commands.MANAGE.parent, pass_fds=(number,))


def command(name: str) -> subprocess.Popen[bytes]:
    return commands.spawn([str(commands.MANAGE), name, "--skip-checks"], cwd=commands.MANAGE.parent)


def write_state(path: Path, **values: object) -> None:
    """Record this deployment's address for other commands."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(values))
    draft.rename(path)

"""The processes of ``up``: web, worker, controller and the embedded S3, and where they listen."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from boilerhouse.core import keys
from boilerhouse.core.deployment import data_dir
from boilerhouse.core.errors import Failed
from boilerhouse.operations.supervise import Program
from boilerhouse.process import commands
from syncing import rclone
from syncing.locations import MARKER_ROOT
from syncing.sinks import outbound
from tenants.gateway.route_server import PASSED

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


def serve_s3(s3: EmbeddedS3) -> Program:
    """The embedded S3. Its directory exists when this returns."""
    root = data_dir() / "s3"
    markers = root / s3.bucket / MARKER_ROOT
    markers.mkdir(parents=True, exist_ok=True)
    # rclone removes a folder together with its last file and can lose a file that is being created in it.
    (markers / "stays").touch()
    address = s3.endpoint.removeprefix("http://")
    command, environment = rclone.s3_server(root, address, s3.access_key_id, s3.secret_access_key)
    return Program("s3", command, environment, log=str(data_dir() / "s3.log"))


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


WEB = ["-m", "boilerhouse.web.server", "-v", "0", "--no-server-name", "boilerhouse.asgi:application"]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for ``web``. While no web process runs, connections wait in it. Raises Failed."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=1024)
    except OSError as error:
        raise Failed(f"Cannot listen on {host}:{port}: {error.strerror or error}") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def web(listening: socket.socket, asked_by_gateway: socket.socket | None = None) -> Program:
    """A web process that inherits a listening socket, and the one that the gateway asks; both outlive it."""
    number = listening.fileno()
    command, sockets = [sys.executable, *WEB, "--fd", str(number)], [number]
    if asked_by_gateway is None:
        return Program("web", command, sockets=sockets)
    passed = asked_by_gateway.fileno()
    return Program("web", command, {**os.environ, PASSED: str(passed)}, [*sockets, passed])


def node_server() -> Program:
    """The web server that other nodes reach."""
    return Program("node-server", [sys.executable, "-m", "boilerhouse.web.node_server"])


def command(name: str, does: str) -> Program:
    return Program(name, [sys.executable, str(commands.MANAGE), does, "--skip-checks"])

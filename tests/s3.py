"""A real S3 endpoint that tests can stop and restart."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import subprocess
import time
import uuid
from pathlib import Path

from boilerhouse.operations.supervisor import free_port
from syncing import rclone
from syncing.locations import PLACE_KEY
from syncing.sinks import S3Sink
from tests import environment

TLS_NAME = "sink.test"
HOSTS = Path("/etc/hosts")


def name_loopback(name: str) -> None:
    """Afterwards ``name`` is 127.0.0.1 on this machine; the name stays, for other tests may use it at the same time."""
    with HOSTS.open("r+") as hosts:
        fcntl.flock(hosts, fcntl.LOCK_EX)
        text = hosts.read()
        if not any(name in line.partition("#")[0].split()[1:] for line in text.splitlines()):
            hosts.write(("" if text.endswith("\n") or not text else "\n") + f"127.0.0.1 {name}\n")


class S3Server:
    """``rclone serve s3`` over a directory; ``bucket`` exists.

    With TLS it is https at a host's name, ``sink.test``, and only the tests' own authority vouches for it. A name that
    is not known here is known to a proxy.
    """

    def __init__(self, directory: Path, *, tls: bool = False, name: str = "") -> None:
        self.directory, self.port, self.tls = directory, free_port(), tls
        self.name = name or (TLS_NAME if tls else "127.0.0.1")
        self.bucket, self.access_key, self.secret_key = (
            "testbucket",
            "AKIDTESTS3",
            f"secret-of-tests-{uuid.uuid4().hex}",
        )
        self.process: subprocess.Popen[bytes] | None = None
        (directory / self.bucket).mkdir(parents=True)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"

    def start(self) -> None:
        address = f"127.0.0.1:{self.port}"
        log = self.directory.parent / f"{self.directory.name}.log"
        flags = []
        if self.name == TLS_NAME:
            name_loopback(TLS_NAME)
        if self.tls:
            shown = environment.AUTHORITY.issue(self.name)
            flags = ["--cert", str(shown.certificate), "--key", str(shown.key)]
        self.process = rclone.serve_s3(self.directory, address, self.access_key, self.secret_key, log, *flags)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError("S3 did not start")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:  # it waits for clients that hang
                self.process.kill()
                self.process.wait()
            self.process = None

    def sink(self, **over: object) -> S3Sink:
        values = {"bucket": self.bucket, "region": "us-east-1", "prefix": "", "endpoint": self.endpoint}
        values |= {"provider": "Rclone", "access_key_id": self.access_key, "secret_access_key": self.secret_key}
        return S3Sink(**{**values, **over})  # type: ignore[arg-type]

    def json(self, prefix: str) -> dict[str, object]:
        """The sink of a sync spec's body."""
        return {
            "type": "s3", "bucket": self.bucket, "region": "us-east-1", "prefix": prefix, "endpoint": self.endpoint,
            "provider": "Rclone", "accessKeyId": self.access_key, "secretAccessKey": self.secret_key,
        }  # fmt: skip

    def keys(self, prefix: str = "") -> dict[str, int]:
        """Every object below the prefix with its size; without one, all but the object that names the place."""
        if prefix:
            return dict(self.sink().names(prefix))
        return {key: size for key, size in self._all() if key != PLACE_KEY}

    def _all(self) -> list[tuple[str, int]]:
        client = self.sink()._client(15)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", ())]

"""A real S3 endpoint for tests that can be stopped and started again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path

from boilerhouse.dashboard.supervisor import free_port
from syncing import rclone
from syncing.sinks import S3Sink


class S3Server:
    """``rclone serve s3`` over a directory; ``bucket`` exists."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self.bucket, self.access_key, self.secret_key = "testbucket", "AKIDTESTS3", "secret-key-of-tests"
        self.process: subprocess.Popen[bytes] | None = None
        (directory / self.bucket).mkdir(parents=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        address = f"127.0.0.1:{self.port}"
        log = self.directory.parent / f"{self.directory.name}.log"
        self.process = rclone.serve_s3(self.directory, address, self.access_key, self.secret_key, log)
        deadline = time.monotonic() + 15
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
        """Every object below the prefix with its size."""
        return dict(self.sink().names(prefix)) if prefix else dict(self._all())

    def _all(self) -> list[tuple[str, int]]:
        client = self.sink()._client(15)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", ())]

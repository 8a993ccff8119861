"""Finds the S3 server that ``up --s3`` runs, for those who offer it as a sink."""

from __future__ import annotations

import socket
from contextlib import suppress

from boilerhouse.core.deployment import data_dir
from boilerhouse.operations.supervisor import EmbeddedS3
from syncing.sinks import outbound

ANSWER_S = 0.3


def running() -> EmbeddedS3 | None:
    """The embedded S3 of this data directory; None if it was never started here, or does not listen now."""
    with suppress(OSError, ValueError):
        port = int((data_dir() / outbound.EMBEDDED_PORT).read_text())
        access, secret = ((data_dir() / "keys" / f"s3-{kind}-key").read_text().strip() for kind in ("access", "secret"))
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S):
            return EmbeddedS3(f"http://127.0.0.1:{port}", access, secret)
    return None

"""A lock for setting up what all processes of this host share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boilerhouse.core import deployment, file_locks
from pools.errors import HostNotReady

CHANGING_S = 60.0
"""A process that changes the node finishes within this time, or hangs."""


@contextmanager
def changing_the_host() -> Iterator[None]:
    """Allow one process of this node at a time to set up what all share."""
    with (deployment.data_dir() / "host.lock").open("w") as file:
        if not file_locks.take(file.fileno(), CHANGING_S):
            raise HostNotReady(
                f"Another process has been changing this node for {CHANGING_S:.0f} s; it holds {file.name}."
            )
        yield

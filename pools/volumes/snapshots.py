"""Snapshots: the copies that a save of a running container sends."""

from __future__ import annotations

import contextlib
from uuid import UUID

from boilerhouse.process.steps import each
from pools import quota
from pools.errors import DirectoryGone, Locked
from pools.volumes.directories import on_disk
from pools.volumes.locks import locked
from pools.volumes.paths import home, snapshot_dir
from pools.volumes.removal import destroy


def clear_snapshots(container_id: UUID) -> None:
    """Delete leftovers of a killed save. The caller holds the container's lock."""
    for parent in (home(container_id), home(container_id) / quota.MOUNT):
        destroy(snapshot_dir(parent))


def sweep_snapshots() -> int:
    """Delete leftovers of killed saves in containers without a lock holder; return the number of containers."""
    return each(on_disk(), _sweep_snapshots)


def _sweep_snapshots(container_id: UUID) -> int:
    if any(snapshot_dir(directory).exists() for directory in (home(container_id), home(container_id) / quota.MOUNT)):
        with contextlib.suppress(DirectoryGone, Locked), locked(container_id):
            clear_snapshots(container_id)
            return 1
    return 0

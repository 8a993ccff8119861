"""Paths of a container's directories on this node."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from boilerhouse.core import deployment
from pools import quota


def containers_dir() -> Path:
    return deployment.data_dir() / "containers"


def trash_dir() -> Path:
    return deployment.data_dir() / "trash"


def home(container_id: UUID) -> Path:
    return containers_dir() / str(container_id)


def secrets_dir(container_id: UUID) -> Path:
    return deployment.ram_dir() / str(container_id) / "secrets"


def volume_path(container_id: UUID, volume: str) -> Path:
    """A volume's path on this host, for the engine's mount."""
    return secrets_dir(container_id) if volume == "secrets" else quota.root(home(container_id)) / volume


def placeholder_dir() -> Path:
    """A directory that stays empty, for mounts that only block a path for the engine."""
    path = deployment.data_dir() / "empty"
    path.mkdir(exist_ok=True, mode=0o500)
    return path


def staging_dir(container_id: UUID) -> Path:
    """On the file system of the volumes, so that staged files move in by rename."""
    return quota.root(home(container_id)) / "staging"


def snapshot_dir(home_or_disk: Path) -> Path:
    """The path of a snapshot; no volume can have that name."""
    return home_or_disk / ".snapshot"

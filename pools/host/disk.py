"""Free space on the disk of the containers' directories."""

from __future__ import annotations

import os

from django.conf import settings

from boilerhouse.core import deployment


def disk_mb() -> int:
    """The size of the file system of containers' directories, in MiB."""
    status = os.statvfs(deployment.data_dir())
    return status.f_blocks * status.f_frsize // (1 << 20)


def free_disk_mb() -> int:
    """Free space for containers' directories, in MiB."""
    status = os.statvfs(deployment.data_dir())
    return status.f_bavail * status.f_frsize // (1 << 20)


def disk_is_low() -> bool:
    """Whether less is free than the floor below which no container is started."""
    return free_disk_mb() < int(settings.BOILERHOUSE_DISK_FLOOR_MB)


def disk_words() -> str:
    return (
        f"Less than {settings.BOILERHOUSE_DISK_FLOOR_MB} MiB are free on the disk of {deployment.data_dir()}, so"
        " no container is started. Free disk space, or lower BOILERHOUSE_DISK_FLOOR_MB."
    )

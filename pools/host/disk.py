"""What is free on the disk where the containers' directories lie."""

from __future__ import annotations

import os

from django.conf import settings

from boilerhouse.core import deployment


def free_disk_mb() -> int:
    """What is free where containers' directories lie, in MiB."""
    seen = os.statvfs(deployment.data_dir())
    return seen.f_bavail * seen.f_frsize // (1 << 20)


def disk_is_low() -> bool:
    """Whether less is free than the floor below which no container is started."""
    return free_disk_mb() < int(settings.BOILERHOUSE_DISK_FLOOR_MB)


def disk_words() -> str:
    return (
        f"Less than {settings.BOILERHOUSE_DISK_FLOOR_MB} MiB are free on the disk of {deployment.data_dir()}; no"
        f" container is started until there is more. Free some, or lower BOILERHOUSE_DISK_FLOOR_MB."
    )

"""A reserve file in the data directory: space for the database when the node's disk is completely full.

Otherwise nothing could be recorded, not even the release of the tenant that fills the disk. The file is then deleted.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import structlog

from boilerhouse.core import deployment
from pools import host

log = structlog.get_logger(__name__)

RESERVE_MB = 32
FULL_MB = 8
"""With less free space, a database transaction may already fail."""


def _path() -> Path:
    return deployment.data_dir() / "reserve"


def keep() -> None:
    """Create the file, unless the disk is too full for it."""
    if _path().exists() or host.disk_is_low():
        return
    draft = _path().with_suffix(".draft")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, RESERVE_MB << 20)
    except OSError as error:
        draft.unlink()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        return
    finally:
        os.close(file)
    draft.rename(_path())


def give() -> None:
    """Delete the file, so that the database can be written."""
    if _path().exists():
        log.warning("disk full, reserve file deleted", free_mb=host.free_disk_mb())
        remove()


def remove() -> None:
    """Delete the file for good."""
    _path().unlink(missing_ok=True)


def is_needed() -> bool:
    """Whether the disk is so full that writes to the database may fail."""
    return host.free_disk_mb() < FULL_MB

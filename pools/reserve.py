"""A file of nothing in the data directory: room for the database when the node's disk is full to the last byte.

Then nothing can be written down, not even that whoever fills the disk is released; the file goes, and it can.
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
"""With less than that free a transaction of the database may already fail."""


def _path() -> Path:
    return deployment.data_dir() / "reserve"


def keep() -> None:
    """Have the file, unless the disk is low or too full for it."""
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
    """Give its room to whoever writes next."""
    if _path().exists():
        log.warning("disk is full; the reserve is given up", free_mb=host.free_disk_mb())
        remove()


def remove() -> None:
    """Afterwards there is no such file."""
    _path().unlink(missing_ok=True)


def is_needed() -> bool:
    """Whether the disk is so full that the database may no longer be written to."""
    return host.free_disk_mb() < FULL_MB

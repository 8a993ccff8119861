"""A container's disk limit: an ext4 file system in a file of that size, for all its volumes except secrets.

Loop mounts work wherever we are root on the engine's host. Project quotas would need no file, but neither ext4 nor xfs
offers them on every kernel, and two mechanisms would double the errors. Where mounting is impossible, the limit is
watched: disk use is measured, and tenants above it are released. The deployment's default, which applies to every
container, is also watched: a file system for each would double the time of a start (ADR 44).
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog
from django.conf import settings

from pools.errors import DirectoryGone, HostNotReady
from pools.spec import Resources

log = structlog.get_logger(__name__)

OVERHEAD_MB, OVERHEAD = 2, 1.07
"""Space that a file system uses itself: mostly inodes, 256 bytes for each 4 KiB."""
FRESH_BYTES, FRESH_FILES = 128 << 10, 32
"""Inodes used on a fresh one: lost+found, the directories of volumes and of a restore, ext4's own."""
SPARE, SPARE_BYTES = ".spare", 128 << 10
FILES_PER_MB = 256
"""Files, directories and links; ext4 has as many inodes with 4 KiB for each."""
WATCHED_BLOCK = 4096
IMAGE, MOUNT = "disk.img", "disk"


def is_enforced() -> bool:
    """Whether the file system enforces limits; otherwise they are only watched."""
    wish = str(settings.BOILERHOUSE_DISK_LIMITS)
    return wish == "loop" or (wish == "auto" and _can_mount())


@cache
def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _make(Path(scratch), 1)
            _mount(Path(scratch))
            release(Path(scratch))
        except HostNotReady:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of all volumes of a container except secrets."""

    mb: int
    files: int
    is_default: bool
    """Whether it is the deployment's default, because the workload sets none."""

    @property
    def bytes(self) -> int:
        return self.mb << 20

    @property
    def name(self) -> str:
        """The setting and its value, for messages."""
        return f"{'BOILERHOUSE_DEFAULT_DISK_MB' if self.is_default else 'diskMb'} {self.mb}"

    @property
    def remedy(self) -> str:
        """How to raise the limit."""
        return "set the workload's diskMb" if self.is_default else "raise the workload's diskMb"


def limit_of(resources: Resources) -> Limit | None:
    """The workload's limit, otherwise the deployment's; None if there is none."""
    mb = resources.disk_mb or int(settings.BOILERHOUSE_DEFAULT_DISK_MB)
    if not mb:
        return None
    return Limit(mb, mb * FILES_PER_MB, is_default=resources.disk_mb is None)


def ensure(home: Path, disk_mb: int | None) -> Path:
    """The directory of the volumes of the container at ``home``; mounted if they have a limit.

    Raises HostNotReady if the file system cannot be created or mounted.
    """
    if disk_mb is not None and not (home / IMAGE).exists() and is_enforced():
        _make(home, disk_mb)
        root(home)
        _keep_spare(home)
    return root(home)


def root(home: Path) -> Path:
    """``ensure`` for an existing directory, also after a reboot that unmounted it.

    Raises DirectoryGone if its disk image is missing, HostNotReady as ``ensure``.
    """
    if os.path.ismount(home / MOUNT):
        return home / MOUNT
    if (home / IMAGE).exists():
        _mount(home)
        return home / MOUNT
    if (home / MOUNT).is_dir():
        raise DirectoryGone(f"{home / IMAGE}, the disk image of this container, does not exist.")
    return home


def _make(home: Path, disk_mb: int) -> None:
    draft = home / f"{IMAGE}.draft"
    with draft.open("wb") as file:
        file.truncate(int(disk_mb * OVERHEAD + OVERHEAD_MB) << 20)
    _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", "-i", "4096", "-E", "nodiscard", str(draft))
    draft.rename(home / IMAGE)


def _mount(home: Path) -> None:
    (home / MOUNT).mkdir(mode=0o700, exist_ok=True)
    _run("mount", "-o", "loop,nosuid,nodev", str(home / IMAGE), str(home / MOUNT))


def release(home: Path) -> None:
    """Unmount it; the content stays in the file."""
    while os.path.ismount(home / MOUNT):
        _run("umount", str(home / MOUNT))


@dataclass(frozen=True, slots=True)
class Capacity:
    """The capacity for files and their directories that are restored into a container."""

    bytes: int
    files: int
    """Including directories and links."""
    block: int
    """The block size in bytes."""


def capacity(home: Path, resources: Resources) -> Capacity | None:
    """The capacity of the container's own file system, ignoring its content, otherwise of the watched limit; None
    without a limit."""
    if os.path.ismount(home / MOUNT):
        status = os.statvfs(home / MOUNT)
        reserved = min(status.f_blocks // 50, 4096)  # by ext4 itself
        return Capacity(
            (status.f_blocks - reserved) * status.f_frsize - FRESH_BYTES, status.f_files - FRESH_FILES, status.f_frsize
        )
    limit = limit_of(resources)
    return Capacity(limit.bytes, limit.files, WATCHED_BLOCK) if limit else None


@contextmanager
def spare(home: Path) -> Iterator[None]:
    """Within the block, the file system has a little more space: a restore has directories of its own.

    Otherwise state that filled the disk to the last block could not be restored.
    """
    (home / MOUNT / SPARE).unlink(missing_ok=True)
    try:
        yield
    finally:
        _keep_spare(home)


def _keep_spare(home: Path) -> None:
    if not os.path.ismount(home / MOUNT):
        return
    file = os.open(home / MOUNT / SPARE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, SPARE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        log.warning("disk too full for the spare images", home=str(home))
    finally:
        os.close(file)


def used_bytes(home: Path) -> int | None:
    """The use of the container's own file system; None if it has none."""
    if not os.path.ismount(home / MOUNT):
        return None
    status = os.statvfs(home / MOUNT)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostNotReady(f"Cannot run {command[0]}: {error}") from error
    if result.returncode != 0:
        raise HostNotReady(f"{command[0]} failed: {result.stderr.strip()[:200]}")

"""A container's disk limit: an ext4 file system in a file of that size, which all its volumes but secrets lie on.

Loop mounts work wherever we are root on the engine's host. Project quotas would do without the file, but neither
ext4 nor xfs offers them on every kernel, and two ways are two ways to be wrong. Where mounting is not possible the
limit is watched: measured, and whoever is over it is released. So is the deployment's default, which is for every
container: a file system for each would double what a start costs (ADR 44).
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
"""What a file system takes for itself: mostly inodes, 256 bytes for each 4 KiB."""
FRESH_BYTES, FRESH_FILES = 128 << 10, 32
"""What lies on a fresh one: lost+found, the directories of volumes and of a restore, ext4's own inodes."""
SPARE, SPARE_BYTES = ".spare", 128 << 10
FILES_PER_MB = 256
"""Of files, directories and links alike; ext4 has as many inodes with 4 KiB for each."""
WATCHED_BLOCK = 4096
IMAGE, MOUNT = "disk.img", "disk"


def is_enforced() -> bool:
    """Whether limits are kept by the file system; otherwise they are only watched."""
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
    """What all volumes of a container but secrets may hold together."""

    mb: int
    files: int
    is_default: bool
    """Whether it is the deployment's, as the workload says nothing."""

    @property
    def bytes(self) -> int:
        return self.mb << 20

    @property
    def name(self) -> str:
        """Which number it is, for messages."""
        return f"{'BOILERHOUSE_DEFAULT_DISK_MB' if self.is_default else 'diskMb'} {self.mb}"

    @property
    def remedy(self) -> str:
        """How to allow more."""
        return "set diskMb of the workload" if self.is_default else "raise diskMb of the workload"


def limit_of(resources: Resources) -> Limit | None:
    """The workload's limit, else the deployment's; None if there is none."""
    mb = resources.disk_mb or int(settings.BOILERHOUSE_DEFAULT_DISK_MB)
    if not mb:
        return None
    return Limit(mb, mb * FILES_PER_MB, is_default=resources.disk_mb is None)


def ensure(home: Path, disk_mb: int | None) -> Path:
    """Where the volumes of the container whose directory is ``home`` lie; mounted if they have a limit.

    Raises HostNotReady when the file system cannot be made or mounted.
    """
    if disk_mb is not None and not (home / IMAGE).exists() and is_enforced():
        _make(home, disk_mb)
        root(home)
        _keep_spare(home)
    return root(home)


def root(home: Path) -> Path:
    """``ensure`` for a directory that was made before, also after a reboot that unmounted it.

    Raises DirectoryGone when it had a file system of its own whose image is not there, HostNotReady as ``ensure``.
    """
    if os.path.ismount(home / MOUNT):
        return home / MOUNT
    if (home / IMAGE).exists():
        _mount(home)
        return home / MOUNT
    if (home / MOUNT).is_dir():
        raise DirectoryGone(f"{home / IMAGE}, the disk of this container, is not there.")
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
    """Unmount it; what it holds stays in the file."""
    while os.path.ismount(home / MOUNT):
        _run("umount", str(home / MOUNT))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a container may be given back of files and their directories."""

    bytes: int
    files: int
    """Directories and links among them."""
    block: int
    """Bytes of which each file takes a multiple."""


def capacity(home: Path, resources: Resources) -> Capacity | None:
    """That of the container's own file system, whatever is in it, else of the limit that is watched; None for any."""
    if os.path.ismount(home / MOUNT):
        seen = os.statvfs(home / MOUNT)
        kept = min(seen.f_blocks // 50, 4096)  # by ext4, for its own ends
        return Capacity((seen.f_blocks - kept) * seen.f_frsize - FRESH_BYTES, seen.f_files - FRESH_FILES, seen.f_frsize)
    limit = limit_of(resources)
    return Capacity(limit.bytes, limit.files, WATCHED_BLOCK) if limit else None


@contextmanager
def spare(home: Path) -> Iterator[None]:
    """Meanwhile the file system has a little more room: a restore has directories of its own.

    Otherwise what filled the disk to the last block would not come back.
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
        log.warning("disk is too full to keep something spare", home=str(home))
    finally:
        os.close(file)


def used_bytes(home: Path) -> int | None:
    """What lies on the container's own file system; None if it has none."""
    if not os.path.ismount(home / MOUNT):
        return None
    seen = os.statvfs(home / MOUNT)
    return (seen.f_blocks - seen.f_bfree) * seen.f_frsize


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostNotReady(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise HostNotReady(f"{command[0]} failed: {done.stderr.strip()[:200]}")

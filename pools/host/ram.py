"""The RAM file system that holds config and secrets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from django.conf import settings

from boilerhouse.core import deployment
from pools.errors import HostNotReady
from pools.host import machine_lock
from pools.host.setup_lock import CHANGING_S, changing_the_host


def ensure_ram_dir() -> Path:
    """Mount our RAM file system for config and secrets if necessary. Raises HostNotReady."""
    path = deployment.ram_dir()
    if not settings.BOILERHOUSE_RAM_DIR and path.parent.is_dir():
        path.parent.chmod(0o700)  # an earlier version, or another deployment, may have created it
    if _is_in_ram(path):
        return path
    with changing_the_host(), machine_lock.lock("ram", CHANGING_S):  # nodes of one machine share the default path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_in_ram(path):  # a second mount on top would hide the content of the first
            _mount_ram(path)
    return path


def _is_in_ram(path: Path) -> bool:
    if not path.is_dir() or _file_system(path) not in ("tmpfs", "ramfs"):
        return False
    return bool(settings.BOILERHOUSE_RAM_DIR) or os.path.ismount(path)


def _mount_ram(path: Path) -> None:
    options = f"size={settings.BOILERHOUSE_RAM_SIZE_MB}m,mode=0700,nosuid,nodev,noexec"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "boilerhouse", str(path)],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        raise HostNotReady(f"Cannot mount a RAM file system for secrets at {path}: {mounted.stderr.strip()[:200]}")


def remove_ram_dir() -> None:
    """Unmount and remove it, unless it still contains something: another node of this machine may use it."""
    path = deployment.ram_dir()
    if path.is_dir() and any(path.iterdir()):
        return
    if os.path.ismount(path):
        subprocess.run(["umount", str(path)], timeout=15, check=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _file_system(path: Path) -> str:
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mountpoint, file_system, *_ = line.split()
        if path.is_relative_to(mountpoint) and len(mountpoint) >= len(best):
            best, kind = mountpoint, file_system
    return kind

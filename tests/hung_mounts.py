"""A mount whose server does not answer: every process that accesses it waits in the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import small_disks

_libc = ctypes.CDLL(None, use_errno=True)
DETACH = 2


@contextlib.contextmanager
def hung_mount(at: Path) -> Iterator[None]:
    """Mount a FUSE file system without a server over the directory. Processes that wait there can be killed."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hung", os.fsencode(at), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        try:
            yield
        finally:
            _libc.umount2(os.fsencode(at), DETACH)
    finally:
        os.close(device)  # who waits gets an error


@contextlib.contextmanager
def frozen_mount(directory: Path) -> Iterator[Path]:
    """An ext4 that accepts no write until ``thaw``: a writer waits, and not even SIGKILL ends it."""
    with small_disks.mounted(directory, 16) as mount:
        subprocess.run(["fsfreeze", "--freeze", str(mount)], check=True)
        try:
            yield mount
        finally:
            thaw(mount)


def thaw(mount: Path) -> None:
    subprocess.run(["fsfreeze", "--unfreeze", str(mount)], check=False, stderr=subprocess.DEVNULL)

"""A small file system that can be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MB = 1 << 20


@contextlib.contextmanager
def mounted(directory: Path, size_mb: int) -> Iterator[Path]:
    """An ext4 of which everybody may use all."""
    image, mount = directory / "small.img", directory / "small"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mb * MB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=False)  # a fixture may have done it


def fill(path: Path) -> None:
    """Until the file system has not a byte left."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    for size in (MB, 4096, 512):
        with contextlib.suppress(OSError):
            while os.write(file, bytes(size)) == size:
                pass
    os.close(file)

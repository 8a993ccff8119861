"""Directory handles that refuse links, because a tenant may create anything in a volume."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path, PurePosixPath

from boilerhouse.core import deployment
from pools.errors import DirectoryGone
from pools.spec import Owner

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN_FILE, PLAIN_DIR = 0o644, 0o755
"""Default modes of a restored file and directory; only other modes are recorded."""
KEPT_BITS = 0o3777
"""The recorded bits of a mode: all except setuid, which has no effect in a container without new privileges."""


def directory_gone(path: Path) -> DirectoryGone:
    return DirectoryGone(f"The directory {path} does not exist on node {deployment.node_id()}.")


def open_directory(root: Path) -> int:
    try:
        return os.open(root, DIRECTORY)
    except FileNotFoundError as error:
        raise directory_gone(root) from error


def descend(root: Path, relative: PurePosixPath, create_for: Owner | None = None) -> int:
    """Open a directory below ``root`` without following links; create missing ones for ``create_for``.

    The caller closes it. Raises DirectoryGone if ``root`` itself is missing, FileNotFoundError for missing directories
    in it, NotADirectoryError / OSError(ELOOP) for anything else in their place.
    """
    current = open_directory(root)
    try:
        for part in relative.parts:
            if create_for is not None:
                with contextlib.suppress(FileExistsError):
                    make_dir(current, part, create_for)
            inner = os.open(part, DIRECTORY, dir_fd=current)
            os.close(current)
            current = inner
    except BaseException:
        os.close(current)
        raise
    return current


def make_dir(parent: int, name: str, owner: Owner) -> None:
    """Create a plain directory of the container's user, whatever this process's umask is. Raises FileExistsError."""
    os.mkdir(name, 0o700, dir_fd=parent)
    allow_mode(parent, name, PLAIN_DIR)
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)


def allow_mode(directory: int, name: str, mode: int) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)

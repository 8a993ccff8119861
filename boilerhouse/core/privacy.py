"""The data directory and its content are accessible only to their owner: keys, sessions, tenants' state and metrics.

Directories that others need get wider permissions where they are created: volumes and staging belong to their
container's user, local sinks to the last writer.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

UMASK = 0o077
OTHERS = 0o077


class OpenToOthers(SystemExit):
    """The data directory is accessible to other users and cannot be restricted by this process. Ends it with exit code
    1."""


def close(directory: Path) -> list[str]:
    """Restrict the directory, its entries and those of ``keys`` to the owner. Returns the paths that were changed.

    Files that this process creates later are restricted too. Raises OpenToOthers.
    """
    os.umask(UMASK)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = directory.stat()
    if status.st_mode & OTHERS and status.st_uid != os.geteuid():
        raise _refused(directory, status)
    narrowed = [str(directory)] if _narrow(directory) else []
    for parent in (directory, directory / "keys"):
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            for entry in entries:
                if not entry.is_symlink() and _narrow(Path(entry.path)):
                    narrowed.append(entry.path)
    return narrowed


def _narrow(path: Path) -> bool:
    try:
        status = path.stat()
        if not status.st_mode & OTHERS:
            return False
        path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)
    except FileNotFoundError:
        return False  # another process has removed it
    except PermissionError as error:
        raise _refused(path, status) from error
    return True


def _refused(path: Path, status: os.stat_result) -> OpenToOthers:
    return OpenToOthers(
        f"{path} is accessible to other users (mode {stat.S_IMODE(status.st_mode):04o}) and belongs to uid"
        f" {status.st_uid}; this process runs as uid {os.geteuid()}. Run chmod go= {path} as its owner, or set"
        " BOILERHOUSE_DATA_DIR to another directory."
    )

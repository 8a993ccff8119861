"""The data directory and all in it belong to their owner alone: keys, sessions, tenants' state and metrics.

What others must reach is opened where it is made: volumes and staging belong to their container's user, local sinks to
whoever wrote last.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

UMASK = 0o077
OTHERS = 0o077


class OpenToOthers(SystemExit):
    """The data directory is open to others and is not ours to close. Ends the process with exit code 1."""


def close(directory: Path) -> list[str]:
    """Have the directory, and what lies in it and in ``keys``, belong to its owner alone; return what was narrowed.

    Whatever this process makes from now on is closed, too. Raises OpenToOthers.
    """
    os.umask(UMASK)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    seen = directory.stat()
    if seen.st_mode & OTHERS and seen.st_uid != os.geteuid():
        raise _refused(directory, seen)
    narrowed = [str(directory)] if _narrow(directory) else []
    for parent in (directory, directory / "keys"):
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            for entry in entries:
                if not entry.is_symlink() and _narrow(Path(entry.path)):
                    narrowed.append(entry.path)
    return narrowed


def _narrow(path: Path) -> bool:
    try:
        seen = path.stat()
        if not seen.st_mode & OTHERS:
            return False
        path.chmod(stat.S_IMODE(seen.st_mode) & ~OTHERS)
    except FileNotFoundError:
        return False  # another process removed it meanwhile
    except PermissionError as error:
        raise _refused(path, seen) from error
    return True


def _refused(path: Path, seen: os.stat_result) -> OpenToOthers:
    return OpenToOthers(
        f"{path} is open to others ({stat.S_IMODE(seen.st_mode):04o}) and belongs to uid {seen.st_uid}; this process"
        f" has uid {os.geteuid()}. Close it as its owner, chmod go= {path}, or name another data directory"
        " (BOILERHOUSE_DATA_DIR)."
    )

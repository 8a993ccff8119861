"""Removes a container's directories: wipes them, or moves them to the trash for a while."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from uuid import UUID

from boilerhouse.process import stalls
from boilerhouse.process.steps import each
from pools import quota
from pools.volumes.paths import home, secrets_dir, trash_dir


def wipe(container_id: UUID) -> None:
    """Remove everything of the container from this host. The rename comes first, so that late access by path fails."""
    trash_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    trashed = trash_dir() / str(container_id)
    if home(container_id).exists():
        quota.release(home(container_id))
        home(container_id).rename(trashed)
    destroy(trashed)
    destroy(secrets_dir(container_id).parent)


def discard(container_id: UUID) -> None:
    """Move the container's unsaved state to the trash, where it can be recovered until ``empty_trash`` deletes it."""
    if home(container_id).exists():
        quota.release(home(container_id))
        home(container_id).rename(trash_dir() / f"{container_id}.discarded-{int(time.time())}")
    destroy(secrets_dir(container_id).parent)


def erase_discarded(tenant_id: str, before: int | None = None) -> int:
    """Delete this tenant's discarded state from the trash, up to a time in seconds since 1970 if given.

    Returns the number of directories.
    """
    paths = []
    for path in trash_dir().glob("*.discarded-*"):
        if before is not None and int(path.name.partition(".discarded-")[2]) > before:
            continue
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads((path / "claimed").read_text()).get("tenantId") == tenant_id:
                paths.append(path)
    for path in paths:
        destroy(path)
    return len(paths)


def empty_trash(retention_s: int) -> int:
    """Finish interrupted wipes and delete discarded state older than ``retention_s``; return how many."""
    oldest = time.time() - retention_s

    def remove(path: Path) -> int:
        _, discarded, stamp = path.name.partition(".discarded-")
        if discarded and int(stamp) >= oldest:
            return 0
        destroy(path)
        return 1

    return each(trash_dir().glob("*"), remove)


def destroy(path: Path) -> None:
    """``rm -rf``: deep trees break Python's own; never across a mount."""
    if path.is_symlink() or path.exists():
        stalls.run(["rm", "-rf", "--one-file-system", "--", str(path)])

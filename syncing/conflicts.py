"""Type conflicts: a file where the sink has a folder, or the other way round (hazards.md#b8).

Object stores hold both; directories, WebDAV and many that imitate S3 hold one, and there the save would fail for ever.
"""

from __future__ import annotations

from pools.names import folders, plain
from pools.volumes import Census
from syncing.attempts import Attempt


class Shape:
    """Which paths of a census are files or links, and which are folders."""

    def __init__(self, census: Census) -> None:
        self._links = {plain(path) for path in census.links}
        self._leaves = self._links | {plain(path) for path in census.seen}
        self._folders = folders(self._leaves)
        self._folders |= {plain(path) for path in census.empty_dirs}

    def holds(self, path: str) -> bool:
        """Whether the census has something of that path."""
        return plain(path) in self._leaves or plain(path) in self._folders

    def is_folder(self, path: str) -> bool:
        """Whether something lies in it, or it is an empty folder."""
        return plain(path) in self._folders

    def is_leaf(self, path: str) -> bool:
        """Whether it is a file or a link there."""
        return plain(path) in self._leaves

    def excludes(self, path: str) -> bool:
        """Whether a file of that path cannot be beside what the census has."""
        spelled = plain(path)
        leaves = any(one in self._leaves for one in _parents(spelled))
        return leaves or spelled in self._folders or spelled in self._links


def clear(attempt: Attempt, local: Census) -> None:
    """Move what stands in the way of a save at the far end into the backup of its attempt. Raises SyncFailed."""
    shape = Shape(local)
    in_the_way = [name for name in attempt.present() if shape.excludes(name)]
    if not in_the_way:
        return
    attempt.put_aside(in_the_way)
    for folder in {parent for name in in_the_way for parent in _parents(name) if shape.is_leaf(parent)}:
        attempt.sink.delete_all(f"{attempt.location}/{folder}")  # some keep an empty folder


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]

"""Type conflicts: a file where the sink has a folder, or vice versa (hazards.md#b8).

Object stores can hold both; directories, WebDAV and many S3 implementations hold only one, and a save there would fail
forever.
"""

from __future__ import annotations

from pools.file_names import folders, plain
from pools.volumes import Census
from syncing.attempts import Attempt


class Shape:
    """The paths of a census that are files or links, and those that are folders."""

    def __init__(self, census: Census) -> None:
        self._links = {plain(path) for path in census.links}
        self._leaves = self._links | {plain(path) for path in census.stamps}
        self._folders = folders(self._leaves)
        self._folders |= {plain(path) for path in census.empty_dirs}

    def holds(self, path: str) -> bool:
        """Whether the census has an entry at that path."""
        return plain(path) in self._leaves or plain(path) in self._folders

    def is_folder(self, path: str) -> bool:
        """Whether it contains anything, or is an empty folder."""
        return plain(path) in self._folders

    def is_leaf(self, path: str) -> bool:
        """Whether it is a file or a link."""
        return plain(path) in self._leaves

    def excludes(self, path: str) -> bool:
        """Whether a file at that path conflicts with an entry of the census."""
        spelled = plain(path)
        leaves = any(parent in self._leaves for parent in _parents(spelled))
        return leaves or spelled in self._folders or spelled in self._links


def clear(attempt: Attempt, local: Census) -> None:
    """Move conflicting objects at the sink to the backup of the attempt. Raises SyncFailed."""
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

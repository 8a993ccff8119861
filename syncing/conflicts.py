"""Type conflicts: a file where the sink has a folder, or the other way round (hazards.md#b8).

Object stores hold both; directories, WebDAV and many that imitate S3 hold one, and there the save would fail for ever.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from boilerhouse.core import stalling
from pools.names import folders, plain
from pools.volumes import Census
from syncing import errors, listings
from syncing.markers import Marker
from syncing.sinks import Sink

AT_ONCE = 16


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


def clear(sink: Sink, location: str, marker: Marker, local: Census, backup: str) -> None:
    """Move what stands in the way of a save at the far end into the backup of its attempt. Raises SyncFailed."""
    names = present(sink, location, marker)
    shape = Shape(local)
    in_the_way = [name for name in names if shape.excludes(name)]
    if not in_the_way:
        return

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(lambda name: sink.move(f"{location}/{name}", f"{backup}/{name}"), in_the_way):
            stalling.step()
    for folder in {parent for name in in_the_way for parent in _parents(name) if shape.is_leaf(parent)}:
        sink.delete_all(f"{location}/{folder}")  # some keep an empty folder


def present(sink: Sink, location: str, marker: Marker) -> dict[str, int]:
    """What lies there now, by name and size."""
    if len(marker.undo) == 1:  # nothing was begun since the last save
        try:
            return listings.read(sink, marker)
        except errors.Incomplete:
            pass  # lost at the sink: this save writes a new one
    return dict(sink.names(location))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]

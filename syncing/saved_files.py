"""Reads the last complete save of a mapping at its sink, without a container and without changing anything there.

What is shown is what a restore would produce: the names and sizes of the listing, the attributes of the manifest. After
an interrupted save, a file that was overwritten or deleted is read from the backup that the open marker names, as the
undo would copy it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pools.file_errors import FileBusy, FileDenied, FileMissing, IsDirectory
from pools.file_names import folders, plain, show
from pools.guest.file_frames import FileInfo
from syncing import errors, listings, patterns
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.models import SyncMapping
from syncing.sinks import RUN_DEADLINE_S, Sink, deadlines, sizes

MAX_CONTENT_BYTES = 32 << 20
"""Longer files are not read this way: a content is in memory as a whole."""
DEADLINE_S = 60.0
"""How long all questions of one request may take."""
FILE_MODE, DIRECTORY_MODE, LINK_MODE = 0o644, 0o755, 0o777


@dataclass(frozen=True, slots=True)
class SavedFile:
    """One name of a save. ``key`` is its name at the sink, relative to the location; empty for what has no object."""

    info: FileInfo
    key: str = ""
    is_alike: bool = False
    """Whether the sink's spelling does not tell it from another file of the save."""


@dataclass(frozen=True, slots=True)
class SavedTree:
    """All names of a save by their paths relative to the mapping; ``""`` is the mapping's directory itself."""

    sink: Sink
    location: str
    marker: Marker
    files: Mapping[str, SavedFile]

    def info(self, path: str) -> FileInfo:
        """Raises FileMissing."""
        return self._file(path).info

    def check_readable(self, path: str) -> None:
        """Raises FileMissing, IsDirectory, FileDenied for a link, Oversized, and Incomplete for a name that the sink
        spells like another."""
        file = self._file(path)
        if file.info.type == "directory":
            raise IsDirectory
        if file.info.type == "symlink":
            raise FileDenied("It is a link, and links are not followed in saved state.")
        if file.is_alike:
            raise errors.Incomplete(f"This sink spells {show(path)} and another file alike. Claim to read it.")
        if file.info.size > MAX_CONTENT_BYTES:
            raise errors.Oversized(f"{show(path)} has {file.info.size} bytes; the limit is {MAX_CONTENT_BYTES}.")

    def read(self, path: str) -> bytes:
        """The whole content. Raises what ``check_readable`` raises, FileBusy if the save is not the last one any more,
        Incomplete if the sink lacks the file, and other SyncFailed."""
        self.check_readable(path)
        file = self._file(path)
        with deadlines.within(DEADLINE_S), sizes.at_most(MAX_CONTENT_BYTES):
            content = self._content(file.key)
        if _marker(self.sink, self.location) != self.marker:
            raise FileBusy("Another save or an undo began meanwhile. Try again.")
        if content is None or len(content) != file.info.size:
            length = "is missing" if content is None else f"has {len(content)} bytes"
            raise errors.Incomplete(f"{show(path)} {length} at the sink; the last save had {file.info.size} bytes.")
        return content

    def _file(self, path: str) -> SavedFile:
        if path not in self.files:
            raise FileMissing
        return self.files[path]

    def _content(self, key: str) -> bytes | None:
        """The oldest attempt to undo has what the complete save stored, because it was the first to replace it."""
        for attempt in self.marker.undo:
            content = self.sink.get(f"{attempt['backup']}/{key}", RUN_DEADLINE_S)
            if content is not None:
                return content
        return self.sink.get(f"{self.location}/{key}", RUN_DEADLINE_S)


def tree(mapping: SyncMapping, sink: Sink, location: str) -> SavedTree:
    """The last complete save of the mapping. Raises StateMissing if the sink has no marker, and other SyncFailed."""
    with deadlines.within(DEADLINE_S):
        marker = _marker(sink, location)
        if marker is None:
            raise errors.StateMissing(f"No record says what was last saved at {location}.")
        if marker.manifest.is_empty:
            return SavedTree(sink, location, marker, {"": SavedFile(_info(marker, "", "directory", 0, DIRECTORY_MODE))})
        names = listings.read(sink, marker)
    matches = patterns.matcher(mapping.pattern)
    chosen = {name: size for name, size in names.items() if matches is None or matches(name)}
    return SavedTree(sink, location, marker, _files(marker, chosen))


def _marker(sink: Sink, location: str) -> Marker | None:
    with deadlines.within(DEADLINE_S):
        content = sink.get(marker_key(location), RUN_DEADLINE_S)
    if content is None:
        return None
    try:
        return Marker.load(content)
    except ValueError as error:
        raise errors.Incomplete(f"The record of the last save of {location} cannot be read: {error}.") from error


def _files(marker: Marker, names: Mapping[str, int]) -> dict[str, SavedFile]:
    manifest = marker.manifest
    keys, alike = _keys({*manifest.mtimes, *manifest.names}, names)
    directories = {"", *manifest.empty_dirs, *folders([*keys, *manifest.links, *manifest.empty_dirs])}
    files = {path: SavedFile(_info(marker, path, "directory", 0, DIRECTORY_MODE)) for path in directories}
    for path, key in keys.items():
        files[path] = SavedFile(_info(marker, path, "file", names[key], FILE_MODE), key, is_alike=path in alike)
    for path, target in manifest.links.items():
        files[path] = SavedFile(_info(marker, path, "symlink", len(target), LINK_MODE, target))
    return files


def _keys(paths: Collection[str], names: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """The key of each path, and the paths whose canonical spelling is another's too.

    Those keep the sink's spelling, which tells nobody which of the files it is.
    """
    names, own = list(names), {plain(path): path for path in paths}
    counts, there = Counter(map(plain, paths)), Counter(map(plain, names))
    keys: dict[str, str] = {}
    alike: set[str] = set()
    for name in names:
        spelled = plain(name)
        if max(counts[spelled], there[spelled]) > 1:
            alike.add(name)
            keys[name] = name
        else:
            keys[own.get(spelled, name)] = name
    return keys, alike


def _info(marker: Marker, path: str, kind: str, size: int, mode: int, target: str = "") -> FileInfo:
    """The inode stands for the save and the path, so that an ETag differs after each save."""
    about = f"{marker.saved_at}\0{marker.location}\0{path}".encode("utf-8", "surrogateescape")
    return FileInfo(
        type=kind,
        size=size,
        mode=marker.manifest.modes.get(path, mode) & 0o7777,
        mtime_ns=marker.manifest.mtimes.get(path, 0),
        ctime_ns=0,
        inode=int.from_bytes(hashlib.sha256(about).digest()[:8]),
        target=target.encode("utf-8", "surrogateescape"),
    )

"""Files in a container, by its guest agent, with the rights of the container's user.

Paths are bytes and absolute. The agent follows links as that user's own programs would: there is nothing that it may
reach and they may not. Mounts named as hidden (secrets) are refused, by whichever path they are reached.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID

from pools import file_errors
from pools.guest import file_frames, frames
from pools.guest.file_frames import Change, Entry, FileInfo
from pools.guest.file_sessions import FileSession
from pools.guest.frames import Malformed

SMALL_BYTES = 256 << 10
"""Up to this length a file is read and written at once, in the thread that asks."""
MAX_ENTRIES = 1000
MAX_DEPTH = 32
MAX_BEFORE = 16
"""Changes that a watch reports before it is ready: an overflow, if it has more directories than it can watch."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a container."""

    container_id: UUID
    path: bytes
    hidden: tuple[str, ...] = ()

    def at(self, path: bytes) -> Place:
        return Place(self.container_id, path, self.hidden)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold when an upload gets its name."""

    is_new: bool = False
    """Nothing has the name."""
    must_exist: bool = False
    etags: tuple[str, ...] = ()
    """The file is one of these."""

    @property
    def flags(self) -> int:
        return file_frames.NO_REPLACE * self.is_new | file_frames.MUST_EXIST * (self.must_exist or bool(self.etags))

    def matches(self) -> tuple[bytes, ...]:
        """Raises FileChanged if no file can have one of these ETags."""
        known = tuple(one for one in map(file_frames.identity_of, self.etags) if one is not None)
        if self.etags and not known:
            raise file_errors.FileChanged
        return known[: file_frames.MAX_MATCHES]


def _session(place: Place, operation: bytes, **more: object) -> FileSession:
    if len(place.path) > file_frames.MAX_PATH:
        raise file_errors.BadPath("it has more than 4095 bytes.")
    return FileSession(place.container_id, file_frames.request(operation, place.path, place.hidden, **more))  # type: ignore[arg-type]


def _lost(session: FileSession, error: Malformed) -> file_errors.FilesLost:
    session.close()
    lost = file_errors.FilesLost()
    lost.__cause__ = error
    return lost


def _info(session: FileSession) -> FileInfo:
    payload = session.receive(file_frames.META)[1]
    try:
        return file_frames.info_of(payload)
    except Malformed as error:
        raise _lost(session, error) from error


def stat(place: Place) -> FileInfo:
    """What the path names; a link itself, not where it leads."""
    with _session(place, file_frames.STAT) as session:
        return _info(session)


def list_directory(place: Place, depth: int, limit: int, cursor: bytes) -> tuple[list[Entry], bool]:
    """Entries after ``cursor`` (a relative path), parents before their content, and whether there are more."""
    entries: list[Entry] = []
    with _session(place, file_frames.LIST, depth=depth, limit=limit, to=cursor) as session:
        while True:
            kind, payload = session.receive(file_frames.ENTRIES, file_frames.DONE)
            if kind == file_frames.DONE:
                return entries, bool(entries) and payload == b"\1"
            if not payload:
                raise _lost(session, Malformed("a page without entries"))
            try:
                entries += file_frames.entries_of(payload)
            except Malformed as error:
                raise _lost(session, error) from error
            if len(entries) > limit:
                raise _lost(session, Malformed("more entries than asked for"))


def make_directory(place: Place, mode: int, *, parents: bool) -> tuple[FileInfo, bool]:
    """Create a directory; with ``parents`` an existing one is as good. Also whether it is new."""
    with _session(place, file_frames.MAKE, mode=mode, flags=file_frames.WITH_PARENTS * parents) as session:
        info = _info(session)
        return FileInfo(info.type, info.size, info.mode, info.mtime_ns, info.ctime_ns, info.inode), info.target == b"+"


def move(place: Place, to: bytes, *, overwrite: bool, parents: bool = False) -> FileInfo:
    flags = file_frames.NO_REPLACE * (not overwrite) | file_frames.WITH_PARENTS * parents
    with _session(place, file_frames.MOVE, to=to, flags=flags) as session:
        return _info(session)


def remove(place: Place, *, recursive: bool) -> int:
    """Remove a file or link; with ``recursive`` a directory with all its content. Returns how many names."""
    with _session(place, file_frames.REMOVE, flags=file_frames.RECURSIVE * recursive) as session:
        return _count(session, session.receive(file_frames.DONE)[1])


def _count(session: FileSession, payload: bytes) -> int:
    try:
        return file_frames.count_of(payload)
    except Malformed as error:
        raise _lost(session, error) from error


class OpenFile:
    """A regular file that is open in the container: what has its path later does not matter."""

    def __init__(self, place: Place) -> None:
        self._session = _session(place, file_frames.GET)
        try:
            self.info = _info(self._session)
        except BaseException:
            self._session.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Raises FilesLost if the file has become shorter."""
        data = bytearray()
        self._session.send(file_frames.part(offset, length))
        while True:
            kind, payload = self._session.receive(file_frames.DATA, file_frames.DONE)
            if kind == file_frames.DONE and len(data) == length:
                return bytes(data)
            data += payload
            if kind == file_frames.DONE or not payload or len(data) > length:
                raise _lost(self._session, Malformed("another number of bytes"))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The whole file, so many bytes at a time."""
        for offset in range(0, self.info.size, size):
            yield self.read(offset, min(size, self.info.size - offset))

    async def chunks(self, offset: int, length: int) -> AsyncIterator[bytes]:
        await self._session.asend(file_frames.part(offset, length))
        left = length
        while got := await self._session.areceive(file_frames.DATA, file_frames.DONE):
            kind, payload = got
            if kind == file_frames.DONE and not left:
                return
            left -= len(payload)
            if kind == file_frames.DONE or not payload or left < 0:
                raise _lost(self._session, Malformed("another number of bytes"))
            yield payload

    def close(self) -> None:
        self._session.close()


class OpenArchive:
    """A directory, or one file, as a tar archive that is on its way."""

    def __init__(self, place: Place) -> None:
        self._session = _session(place, file_frames.ARCHIVE)
        try:
            self._session.receive(file_frames.READY)
        except BaseException:
            self._session.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        while True:
            kind, payload = self._session.receive(file_frames.DATA, file_frames.DONE)
            if kind == file_frames.DONE:
                return
            yield payload

    async def chunks(self) -> AsyncIterator[bytes]:
        while got := await self._session.areceive(file_frames.DATA, file_frames.DONE):
            if got[0] == file_frames.DONE:
                return
            yield got[1]

    def close(self) -> None:
        self._session.close()


class Upload:
    """Content on its way into a container: a file that gets its name at the end, or an archive that is unpacked.

    Until ``finish``, closing it leaves no file. An archive's entries stay as far as they came.
    """

    def __init__(self, session: FileSession, *, is_archive: bool) -> None:
        self._session, self._is_archive = session, is_archive
        try:
            session.receive(file_frames.READY)
        except BaseException:
            session.close()
            raise

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), file_frames.PIECE):
            self._session.send(frames.frame(frames.INPUT, data[start : start + file_frames.PIECE]))

    async def awrite(self, data: bytes) -> None:
        for start in range(0, len(data), file_frames.PIECE):
            await self._session.asend(frames.frame(frames.INPUT, data[start : start + file_frames.PIECE]))

    def finish(self) -> FileInfo | int:
        """The file, which now has its name; of an archive the number of entries."""
        self._session.send(frames.frame(frames.INPUT_END))
        with self._session:
            if self._is_archive:
                return _count(self._session, self._session.receive(file_frames.DONE)[1])
            return _info(self._session)

    def close(self) -> None:
        self._session.close()


def begin_put(place: Place, mode: int | None, size: int, conditions: Conditions, *, parents: bool = False) -> Upload:
    """Begin to write a file; ``size`` is reserved, 0 if it is unknown. Without ``mode``, a file keeps its own, and a
    new one has 0644."""
    flags = conditions.flags | file_frames.WITH_PARENTS * parents | file_frames.KEEPS_MODE * (mode is None)
    matches = conditions.matches()
    given = 0o644 if mode is None else mode
    session = _session(place, file_frames.PUT, mode=given, flags=flags, size=size, matches=matches)
    return Upload(session, is_archive=False)


def begin_unpack(place: Place, *, parents: bool = False) -> Upload:
    """Begin to unpack a tar archive below a directory."""
    flags = file_frames.WITH_PARENTS * parents
    return Upload(_session(place, file_frames.UNPACK, flags=flags), is_archive=True)


class Watch:
    """Changes below a directory, from now on."""

    def __init__(self, place: Place, *, recursive: bool) -> None:
        self._session = _session(place, file_frames.WATCH, flags=file_frames.RECURSIVE * recursive)
        self._before: list[Change] = []
        try:
            while (got := self._session.receive(file_frames.READY, file_frames.EVENT))[0] != file_frames.READY:
                self._before.append(file_frames.change_of(got[1]))
                if len(self._before) > MAX_BEFORE:
                    raise Malformed("changes without end before the watch is ready")
        except Malformed as error:
            raise _lost(self._session, error) from error
        except BaseException:
            self._session.close()
            raise

    async def changes(self, idle_s: float) -> AsyncIterator[Change | None]:
        """Each change; None after so long without one. It ends when the directory itself is gone."""
        for change in self._before:
            yield change
        while True:
            got = await self._session.areceive(file_frames.EVENT, file_frames.DONE, idle_s=idle_s)
            if got is None:
                yield None
            elif got[0] == file_frames.DONE:
                return
            else:
                try:
                    change = file_frames.change_of(got[1])
                except Malformed as error:
                    raise _lost(self._session, error) from error
                yield change

    def close(self) -> None:
        self._session.close()


def read(place: Place, limit: int) -> tuple[FileInfo, bytes]:
    """A whole file of at most so many bytes. Raises FileDenied if it is longer."""
    file = OpenFile(place)
    try:
        if file.info.size > limit:
            raise file_errors.FileDenied(f"It has {file.info.size} bytes; at most {limit} are read here.")
        return file.info, file.read(0, file.info.size)
    finally:
        file.close()


def write(place: Place, data: bytes, mode: int | None, conditions: Conditions, *, parents: bool = False) -> FileInfo:
    """Write a whole file."""
    upload = begin_put(place, mode, len(data), conditions, parents=parents)
    try:
        upload.write(data)
        done = upload.finish()
    finally:
        upload.close()
    assert isinstance(done, FileInfo)
    return done

"""Copy files and directories between this machine and a tenant's container."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.process import commands
from pools import file_errors
from pools.guest.files import Conditions, Upload
from tenants import files
from tenants.files import HeldFiles

PIECE = 1 << 20


class Command(commands.Command):
    help = "Copy to or from the container that a tenant holds: manage.py cp ./report.pdf alice:reports/ (- is a stream)"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_output(parser)
        parser.add_argument("source", help="PATH, TENANT:PATH, or - for stdin")
        parser.add_argument("target", help="PATH, TENANT:PATH, or - for stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        source, target = _tenant_of(options["source"]), _tenant_of(options["target"])
        if (source is None) == (target is None):
            raise CommandError("Give TENANT:PATH once, as source or as target.", returncode=commands.USAGE)
        try:
            if source is not None:
                done = _fetch(files.of_tenant(source[0]), os.fsencode(source[1]), options["target"])
            else:
                assert target is not None
                done = _send(options["source"], files.of_tenant(target[0]), os.fsencode(target[1]))
        except OSError as error:
            raise CommandError(f"{error.filename or options['source']}: {error.strerror}") from error
        if options["target"] != "-":
            self.result(options, done, f"{done['bytes']} bytes in {done['files']} files")


def _tenant_of(word: str) -> tuple[str, str] | None:
    """A path on this machine that has a colon is written with a slash before it, as for scp."""
    tenant, colon, path = word.partition(":")
    return (tenant, path) if colon and "/" not in tenant else None


def _send(source: str, held: HeldFiles, path: bytes) -> dict[str, int]:
    if source == "-":
        return _send_file(sys.stdin.buffer, 0, held, path, None)
    local = Path(source)
    if _is_directory(held, path):
        path = b"/".join([*([path.rstrip(b"/")] if path else []), os.fsencode(local.resolve().name)])
    if local.is_dir():
        return _send_directory(local, held, path)
    with local.open("rb") as file:
        about = os.fstat(file.fileno())
        return _send_file(file, about.st_size, held, path, about.st_mode & 0o777)


def _is_directory(held: HeldFiles, path: bytes) -> bool:
    try:
        return not path or path.endswith(b"/") or held.access.stat(held.place(path)).type == "directory"
    except file_errors.FileMissing:
        return False


def _send_file(file: IO[bytes], size: int, held: HeldFiles, path: bytes, mode: int | None) -> dict[str, int]:
    held.note("file_write", path)
    upload = held.access.begin_put(held.place(path), mode, size, Conditions())
    total = 0
    try:
        while data := file.read(PIECE):
            upload.write(data)
            total += len(data)
        upload.finish()
    finally:
        upload.close()
    return {"files": 1, "bytes": total}


class _Pipe:
    """What ``tarfile`` writes goes into an upload."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def write(self, data: bytes) -> int:
        self._upload.write(data)
        return len(data)


def _send_directory(local: Path, held: HeldFiles, path: bytes) -> dict[str, int]:
    held.note("file_unpack", path)
    upload = held.access.begin_unpack(held.place(path), parents=True)
    pipe: Any = _Pipe(upload)
    done = {"files": 0, "bytes": 0}

    def count(member: tarfile.TarInfo) -> tarfile.TarInfo:
        done["files"] += member.isfile()
        done["bytes"] += member.size
        return member

    try:
        with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
            tar.add(local, arcname=".", filter=count)
        upload.finish()
    finally:
        upload.close()
    return done


def _fetch(held: HeldFiles, path: bytes, target: str) -> dict[str, int]:
    held.note("file_read", path)
    try:
        file = held.access.open(held.place(path))
    except file_errors.IsDirectory:
        return _fetch_directory(held, path, target)
    try:
        if target == "-":
            for data in file.pieces(PIECE):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            _store(file.pieces(PIECE), _inside(Path(target), path))
        return {"files": 1, "bytes": file.info.size}
    finally:
        file.close()


def _inside(target: Path, path: bytes) -> Path:
    return target / os.fsdecode(path.rstrip(b"/").rpartition(b"/")[2]) if target.is_dir() else target


def _store(pieces: Iterator[bytes], target: Path) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            for data in pieces:
                file.write(data)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class _Source:
    """What ``tarfile`` reads comes from an archive on its way."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (more := next(self._pieces, b"")):
            self._left += more
        data, self._left = self._left[:size], self._left[size:]
        return data


def _fetch_directory(held: HeldFiles, path: bytes, target: str) -> dict[str, int]:
    archive = held.access.open_archive(held.place(path))
    try:
        if target == "-":
            for data in archive.pieces():
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return {"files": 0, "bytes": 0}
        return _unpack(archive.pieces(), _inside(Path(target), path))
    finally:
        archive.close()


def _unpack(pieces: Iterator[bytes], target: Path) -> dict[str, int]:
    """The archive is the tenant's: no entry leaves the directory, and none is a device or has set-id bits."""
    target.mkdir(exist_ok=True)
    done = {"files": 0, "bytes": 0}
    source: Any = _Source(pieces)
    with tarfile.open(fileobj=source, mode="r|", errors="surrogateescape") as tar:
        for member in tar:
            try:
                tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                raise CommandError(f"Refused: {error}") from error
            done["files"] += member.isfile()
            done["bytes"] += member.size
    return done

"""Proves that a backup is complete, unchanged, and of this deployment.

The manifest contains the size and SHA-256 of every other part, and is signed (HMAC-SHA256) with a key derived from the
newest encryption key. Restoring needs that key anyway, for the secrets in the backup.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

from boilerhouse.core.errors import Failed

MANIFEST, SIGNATURE = "manifest.json", "signature"
MAX_MANIFEST = 4 << 20
CHUNK = 1 << 20
_TABLE_FILE = re.compile(r"[a-z][a-z0-9_]*\.[A-Za-z][A-Za-z0-9]*\.ndjson")


class NotABackup(Failed):
    """The file is not a Boilerhouse backup, or is truncated, damaged or altered."""

    code = "not_a_backup"


class Hashed:
    """A part that is being written or read, with its digest so far."""

    def __init__(self, file: Any) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._add(data)
        self._file.write(data)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self._add(line)
            yield line

    def _add(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    @property
    def seal(self) -> list[Any]:
        """Its size in bytes and SHA-256, as in the manifest."""
        return [self.size, self._hash.hexdigest()]


def signature(manifest: bytes, key: str) -> str:
    """The signature with the deployment's encryption key ``key``."""
    own = hmac.digest(key.encode(), b"boilerhouse: signs backups", "sha256")
    return hmac.digest(own, manifest, "sha256").hex()


def is_signed(manifest: bytes, digest: bytes, keys: Iterable[str]) -> bool:
    """Whether ``found`` is a signature by one of these keys."""
    return any(hmac.compare_digest(signature(manifest, key).encode(), digest) for key in keys)


def check_parts(parts: Iterable[zipfile.ZipInfo]) -> None:
    """Raise NotABackup for a part that no backup has: an unknown name or path, a link, a device, a duplicate."""
    names = set()
    for part in parts:
        name = part.filename
        kind = stat.S_IFMT(part.external_attr >> 16)
        if not _TABLE_FILE.fullmatch(name) and name not in (MANIFEST, SIGNATURE):
            raise NotABackup(
                detail=f"The file contains {name[:100]!r}, which is not part of a Boilerhouse backup. Nothing was read."
            )
        if kind not in (0, stat.S_IFREG) or part.is_dir():
            raise NotABackup(
                detail=f"{name} in the file is not a regular file, as it is in every backup. Nothing was read."
            )
        if name in names:
            raise NotABackup(detail=f"The file contains {name} twice. Nothing was read.")
        names.add(name)


def read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    """A part, read into memory. Raises KeyError, NotABackup."""
    if archive.getinfo(name).file_size > MAX_MANIFEST:
        raise NotABackup(detail=f"{name} in the file is larger than in any backup.")
    return archive.read(name)


def check_contents(archive: zipfile.ZipFile, seals: dict[str, list[Any]]) -> None:
    """Raise NotABackup unless the parts are exactly those sealed by the manifest."""
    there = {part.filename: part for part in archive.infolist() if part.filename not in (MANIFEST, SIGNATURE)}
    for name in sorted(seals.keys() ^ there.keys()):
        what = "lacks" if name in seals else "contains, in addition to what was signed,"
        raise NotABackup(detail=f"The backup {what} {name[:100]}.")
    for name, part in there.items():
        if part.file_size != seals[name][0]:
            raise altered(name)
        with archive.open(part) as file:
            if digest_of(file) != seals[name]:
                raise altered(name)


def digest_of(file: Any) -> list[Any]:
    """The seal of the rest of a file."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return [size, digest.hexdigest()]


def altered(name: str) -> NotABackup:
    return NotABackup(detail=f"{name} in the backup does not match its signature: it was altered or damaged.")

"""A probe's requests to S3: all requests of claims and saves by the in-process client.

On a refusal, the server's message is kept and a remedy added; a change of the spec is named only after it was tested.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from syncing.errors import SinkDenied, SinkMissing, SinkRefused, SinkUnreachable, SinkUnreliable, SyncFailed
from syncing.locations import BACKUP_ROOT, MARKER_ROOT
from syncing.sinks.base import RUN_DEADLINE_S
from syncing.sinks.flags import KMS

if TYPE_CHECKING:
    from syncing.sinks.s3 import S3Sink

_CONTENT = b"probe"
_PATH_FLAG = "--s3-force-path-style"
_ADDS = {
    "--s3-server-side-encryption=AES256": "The sink accepts only encrypted objects",
    "--s3-server-side-encryption=aws:kms": "The sink accepts only objects encrypted with KMS",
    f"{_PATH_FLAG}=false": "The sink requires the bucket in the host name",
}


def check(sink: S3Sink) -> None:
    """Test every request of claims and saves. Raises SyncFailed with the refused one."""
    name = f"probe-{uuid.uuid4().hex}"
    folder, aside = f"{MARKER_ROOT}/{name}", f"{BACKUP_ROOT}/{name}"
    try:
        _check_writes(sink, f"{folder}/one")
        _check_tags(sink)
        if sink.get(f"{folder}/one", RUN_DEADLINE_S) != _CONTENT:
            raise SinkUnreliable("The sink did not return what was written.")
        _check_missing(sink, f"{folder}/none")
        _check_listing(sink, folder)
        with _saying("A save needs copies within the bucket to keep what it overwrites, and to undo it."):
            sink.copy(f"{folder}/one", f"{aside}/one")
            if sink.get(f"{aside}/one", RUN_DEADLINE_S) != _CONTENT:
                raise SinkUnreliable("A copy within the bucket differs from the original.")
        for location in (folder, aside):
            sink.delete_all(location)
            if sink.has_objects(location, RUN_DEADLINE_S):
                raise SinkUnreliable("The sink still lists what was deleted.")
    finally:
        for location in (folder, aside):
            with contextlib.suppress(SyncFailed):
                sink.delete(f"{location}/one")


def _check_writes(sink: S3Sink, key: str) -> None:
    try:
        sink.put(key, _CONTENT)
    except SinkUnreachable as error:  # by this name of its host, perhaps
        raise SinkUnreachable(f"{error.detail}{_remedy(key, _in_path(sink))}") from error
    except (SinkDenied, SinkMissing, SinkRefused) as error:
        helps = _remedy(key, chain(_in_path(sink), _with_more(sink)))
        raise type(error)(f"{error.detail}{helps or _guess(sink, error)}") from error


Remedies = Iterator[tuple["S3Sink", str]]


def _remedy(key: str, remedies: Remedies) -> str:
    """The first change of the sink with which the write succeeds, as text."""
    for other, words in remedies:
        with contextlib.suppress(SyncFailed):
            other.put(key, _CONTENT)
            other.delete(key)
            return f" {words}"
    return ""


def _in_path(sink: S3Sink) -> Remedies:
    if sink.endpoint and not sink.carried.has_path_style:
        flags = tuple(flag for flag in sink.rclone_flags if not flag.startswith(f"{_PATH_FLAG}="))
        for other, what in (
            (replace(sink, rclone_flags=flags), f'leave "{_PATH_FLAG}=false" out of rcloneFlags.'),
            (replace(sink, rclone_flags=flags, provider="Other"), 'set provider to "Other".'),
        ):
            if other.carried.has_path_style:
                yield other, f"The sink requires the bucket in the path: {what}"


def _with_more(sink: S3Sink) -> Remedies:
    flags = {flag.partition("=")[0] for flag in sink.rclone_flags}
    for flag, why in _ADDS.items():
        other = replace(sink, rclone_flags=(*sink.rclone_flags, flag))
        if flag.partition("=")[0] not in flags and other.carried != sink.carried:
            yield other, f'{why}: add "{flag}" to rcloneFlags.'


def _guess(sink: S3Sink, error: SyncFailed) -> str:
    """A change that is not tested, because it would cost the owner of the keys money."""
    flag = "--s3-requester-pays=true"
    if "AccessDenied" not in error.detail or flag in sink.rclone_flags:
        return ""
    return f' If the requester pays, add "{flag}" to rcloneFlags.'


def _check_tags(sink: S3Sink) -> None:
    last = sink.last_object
    if last is None or last.has_md5_tag or f"--s3-server-side-encryption={KMS}" in sink.rclone_flags:
        return
    if last.encryption == KMS and not sink.names_encryption:
        return  # the sink tells rclone so by itself
    by = f" (encrypted by {last.encryption})" if last.encryption else ""
    raise SinkUnreliable(
        f"The ETag {last.tag} is not the MD5 of what was written{by}, so no transfer could be verified."
        ' If the bucket encrypts with KMS, add "--s3-server-side-encryption=aws:kms" to rcloneFlags.'
    )


def _check_missing(sink: S3Sink, key: str) -> None:
    words = f"A first claim cannot be recognised: allow listing of {MARKER_ROOT}/ there."
    with _saying(words):
        if sink.get(key, RUN_DEADLINE_S) is not None:
            raise SinkUnreliable("The sink returns an object that does not exist.")


def _check_listing(sink: S3Sink, folder: str) -> None:
    with _saying(f"Allow listing of {MARKER_ROOT}/ there."):
        if dict(sink.names(folder)) != {"one": len(_CONTENT)}:
            raise SinkUnreliable("The sink does not list what was written.")


@contextlib.contextmanager
def _saying(words: str) -> Iterator[None]:
    try:
        yield
    except (SinkDenied, SinkRefused) as error:
        raise type(error)(f"{error.detail} {words}") from error

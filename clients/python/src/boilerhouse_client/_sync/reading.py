# Made of _async/reading.py by scripts/python-client.sh: change that one.
"""How files of a container or of a save are read and listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boilerhouse_client._sync import platform
from boilerhouse_client._sync.transport import Transport
from boilerhouse_client.answers import FileInfo
from boilerhouse_client.errors import ApiError, PreconditionFailed, Unreachable
from boilerhouse_client.wire import Path, Patience, may_pass, paths


def stream_file(client: Transport, route: str, path: Path, offset: int, length: int | None) -> Iterator[bytes]:
    """The bytes of the route's file from ``offset`` on. A broken connection is made again where it broke.

    Raises ApiError, and PreconditionFailed (``file_changed``) if another file has the name when it is opened again.
    """
    if length == 0:
        return
    position, last = offset, "" if length is None else str(offset + length - 1)
    etag, patience = "", Patience(client.patience_s)
    while True:
        is_part = bool(position or last)
        headers = {"Range": f"bytes={position}-{last}"} if is_part else {}
        if etag and is_part:
            headers["If-Range"] = etag
        broken: Exception
        try:
            with client.stream(
                "GET", route, params=paths(path=path), headers=headers, silence_s=client.timeout_s
            ) as answer:
                if etag and is_part and answer.status_code == 200:
                    detail = "The file was replaced while it was read."
                    raise PreconditionFailed(412, {"code": "file_changed", "detail": detail})
                etag = answer.headers["ETag"]
                with platform.closing(answer.iter_raw()) as pieces:
                    for piece in pieces:
                        position += len(piece)
                        patience.reset()
                        yield piece
                return
        except Unreachable as error:
            broken = error
        except ApiError as error:
            if not etag or not may_pass(error):
                raise
            broken = error
        platform.sleep(patience.pause_s(broken))


def joined(pieces: Iterator[bytes]) -> bytes:
    found = bytearray()
    with platform.closing(pieces) as opened:
        for piece in opened:
            found += piece
    return bytes(found)


def list_files(client: Transport, route: str, path: Path, **query: Any) -> Iterator[FileInfo]:
    """The entries of a directory, page by page."""
    cursor: str | None = None
    while True:
        page = client.call("GET", route, params={**paths(path=path), **query, "cursor": cursor})
        for item in page["items"]:
            yield FileInfo.of(item)
        cursor = page["nextCursor"]
        if cursor is None:
            return

"""Answers that carry files, archives and changes, and uploads of them: bytes pass through and are not kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.http import HttpResponse
from rest_framework.exceptions import UnsupportedMediaType

from boilerhouse.core import api_keys
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.process import budgets
from boilerhouse.web.receiving import Receiving, receive
from boilerhouse.web.streaming import Stream, Writer
from pools.file_errors import FilesLost
from pools.guest.file_frames import FileInfo
from pools.guest.files import SMALL_BYTES, Conditions, OpenArchive, OpenFile, Upload, Watch
from tenants import activity, files
from tenants.api.file_fields import part_of
from tenants.files import HeldFiles
from tenants.saved_state import OpenSaved

LOOK_EVERY_S = 1.0
IDLE_S = 15.0
BINARY = "application/octet-stream"
MUST_END = "The key was revoked, or the tenant does not hold the container any more."


def owners_of(key: Any, held: HeldFiles) -> tuple[budgets.Owner, ...]:
    return budgets.owners(key, budgets.tenant(held.tenant_id))


def conditions_of(request: Any) -> Conditions:
    """If-Match and If-None-Match of an upload."""
    none, match = request.headers.get("If-None-Match", ""), request.headers.get("If-Match", "")
    etags = tuple(tag.strip() for tag in match.split(",") if tag.strip())
    is_any = etags == ("*",)
    return Conditions(is_new=none.strip() == "*", must_exist=is_any, etags=() if is_any else etags)


def refuse_encoding(request: Any) -> None:
    """A compressed body would be stored as it is, which nobody means."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType(request.headers["Content-Encoding"])


def _headers(info: FileInfo, path: bytes) -> dict[str, str]:
    name = quote(path.rpartition(b"/")[2])
    return {
        "ETag": info.etag, "Accept-Ranges": "bytes", "Cache-Control": "no-store",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}", "X-Content-Type-Options": "nosniff",
    }  # fmt: skip


def download(
    request: Any, held: HeldFiles, path: bytes, key_id: str, owners: tuple[budgets.Owner, ...]
) -> HttpResponse:
    """A file, or the part of it that ``Range`` names."""
    file = held.access.open(held.place(path))
    try:
        return _answer_file(request, file, path, held, key_id, owners)
    except BaseException:
        file.close()
        raise


def _answer_file(
    request: Any, file: OpenFile, path: bytes, held: HeldFiles, key_id: str, owners: tuple[budgets.Owner, ...]
) -> HttpResponse:
    part = _part(request, file.info, path)
    if isinstance(part, HttpResponse):
        file.close()
        return part
    headers, status, offset, length = part
    headers["Content-Length"] = str(length)
    if request.method == "HEAD" or length <= SMALL_BYTES:
        data = b"" if request.method == "HEAD" else file.read(offset, length)
        file.close()
        return HttpResponse(data, status=status, headers=headers, content_type=BINARY)
    return _streamed(file.chunks(offset, length), file.close, headers, status, BINARY, held, key_id, owners)


def _part(request: Any, info: FileInfo, path: bytes) -> HttpResponse | tuple[dict[str, str], int, int, int]:
    """Headers, status, offset and length of what the request's conditions and ``Range`` ask for; or the answer, if it
    has no content."""
    headers = _headers(info, path)
    if info.etag in [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]:
        return HttpResponse(status=304, headers=headers)
    wanted = request.headers.get("Range") if request.headers.get("If-Range", info.etag) == info.etag else None
    try:
        part = part_of(wanted, info.size)
    except ValueError:
        return HttpResponse(status=416, headers={**headers, "Content-Range": f"bytes */{info.size}"})
    if part is None:
        return headers, 200, 0, info.size
    offset, length = part
    return {**headers, "Content-Range": f"bytes {offset}-{offset + length - 1}/{info.size}"}, 206, offset, length


def saved(request: Any, file: OpenSaved, path: bytes, key_id: str, owners: tuple[budgets.Owner, ...]) -> HttpResponse:
    """A file of the saved state, or the part of it that ``Range`` names. It is in memory until the client has it."""
    part = _part(request, file.info, path)
    if isinstance(part, HttpResponse):
        return part
    headers, status, offset, length = part
    if request.method == "HEAD":
        return HttpResponse(status=status, headers={**headers, "Content-Length": str(length)}, content_type=BINARY)
    hold = budgets.saved_files.enter(*owners, amount=file.info.size)
    with hold.kept():
        content = memoryview(file.read())[offset : offset + length]
    if length <= SMALL_BYTES:
        hold.release()
        headers["Content-Length"] = str(length)
        return HttpResponse(bytes(content), status=status, headers=headers, content_type=BINARY)

    async def run(writer: Writer) -> None:
        for start in range(0, length, SMALL_BYTES):
            if start and not await _key_lives(key_id):
                raise FilesLost("The key was revoked.")
            await writer.write(bytes(content[start : start + SMALL_BYTES]))

    return _stream(run, BINARY, headers, status, length, hold.release)


def archive(held: HeldFiles, path: bytes, key_id: str, owners: tuple[budgets.Owner, ...]) -> HttpResponse:
    """A directory, or a file, as a tar archive."""
    opened: OpenArchive = held.access.open_archive(held.place(path))
    name = quote((path.rstrip(b"/").rpartition(b"/")[2] or b"files") + b".tar")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}", "X-Content-Type-Options": "nosniff"}
    return _streamed(opened.chunks(), opened.close, headers, 200, "application/x-tar", held, key_id, owners)


def _streamed(
    chunks: AsyncIterator[bytes],
    close: Callable[[], None],
    headers: dict[str, str],
    status: int,
    kind: str,
    held: HeldFiles,
    key_id: str,
    owners: tuple[budgets.Owner, ...],
) -> Stream:
    try:
        hold = budgets.transfers.enter(*owners)
    except BaseException:
        close()
        raise

    async def run(writer: Writer) -> None:
        looked = time.monotonic()
        async for chunk in chunks:
            await writer.write(chunk)
            if time.monotonic() - looked >= LOOK_EVERY_S:
                looked = time.monotonic()
                await _look(key_id, held)

    length = headers.pop("Content-Length", None)
    return _stream(run, kind, headers, status, None if length is None else int(length), close, hold.release)


def _stream(
    run: Callable[[Writer], Coroutine[Any, Any, None]],
    kind: str,
    headers: dict[str, str],
    status: int,
    length: int | None,
    *at_end: Callable[[], None],
) -> Stream:
    stream = Stream(run, kind, is_whole=True, length=length, headers=headers)
    stream.status_code = status
    for work in at_end:
        stream.when_closed(work)
    return stream


def _may(key_id: str, held: HeldFiles) -> bool:
    return api_keys.lives(key_id) and activity.is_held(held.tenant_id, held.generation)


_may_go_on = sync_to_async(_may, thread_sensitive=False)
_key_lives = sync_to_async(api_keys.lives, thread_sensitive=False)


async def _look(key_id: str, held: HeldFiles) -> None:
    """Raises FilesLost."""
    if not await _may_go_on(key_id, held):
        raise FilesLost(MUST_END)


def watch(
    held: HeldFiles, path: bytes, key_id: str, owners: tuple[budgets.Owner, ...], *, recursive: bool, is_percent: bool
) -> Stream:
    """Changes as server-sent events."""
    hold = budgets.transfers.enter(*owners)
    with hold.kept():
        watched: Watch = held.access.watch(held.place(path), recursive=recursive)

    async def run(writer: Writer) -> None:
        await writer.write(b"event: ready\ndata: {}\n\n")
        spoke = looked = time.monotonic()
        try:
            async with aclosing(watched.changes(LOOK_EVERY_S)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    if change is not None:
                        text, is_encoded = files.encode(change.path, is_percent=is_percent)
                        about = {"path": text, "pathEncoding": "percent" if is_encoded else "utf-8"}
                        data = json.dumps({**about, "isDirectory": change.is_directory})
                        await writer.write(f"event: {change.kind}\ndata: {data}\n\n".encode())
                        spoke = time.monotonic()
                    elif time.monotonic() - spoke >= IDLE_S:
                        spoke = time.monotonic()
                        await writer.write(b": still here\n\n")
                    if time.monotonic() - looked >= LOOK_EVERY_S:
                        looked = time.monotonic()
                        if not await _may_go_on(key_id, held):
                            break
        except BoilerhouseError:
            await asyncio.sleep(0)  # the container has ended, which is the end of the stream too
        await writer.write(b"event: end\ndata: {}\n\n")

    stream = Stream(run, "text/event-stream")
    stream.when_closed(watched.close)
    stream.when_closed(hold.release)
    return stream


def upload(request: Any, begin: Callable[[int], Upload], held: HeldFiles, key_id: str) -> FileInfo | int | Receiving:
    """``receive``, for as long as the key lives and the tenant holds the container."""
    return receive(request._request, begin, partial(_look, key_id, held))

"""Files on their way between a browser and a container: bytes pass through, and are not kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from boilerhouse.core.models import Role
from boilerhouse.dashboard import file_paths
from boilerhouse.dashboard.access import signed_in
from boilerhouse.process import budgets
from boilerhouse.web import receiving
from boilerhouse.web.receiving import Receiving
from boilerhouse.web.streaming import Stream, Writer
from pools.file_errors import FilesLost
from pools.guest.file_frames import FileInfo
from pools.guest.files import SMALL_BYTES, Conditions, Upload
from tenants import activity
from tenants.files import HeldFiles
from tenants.saved_state import OpenSaved

LOOK_EVERY_S = 1.0
BINARY, TAR = "application/octet-stream", "application/x-tar"
MUST_END = "The user may not do this any more, or the tenant does not hold the container any more."


@dataclass(frozen=True, slots=True)
class _Person:
    """Who reads or writes, and in which claim. Checked again during a long transfer."""

    user: Any
    session_key: str | None
    tenant_id: str
    generation: int | None
    """None: nothing is held, and saved files are read."""

    @staticmethod
    def of(request: HttpRequest, held: HeldFiles) -> _Person:
        return _Person(request.user, request.session.session_key, held.tenant_id, held.generation)

    def may_go_on(self) -> bool:
        is_held = self.generation is None or activity.is_held(self.tenant_id, self.generation)
        return is_held and signed_in(self.user, self.session_key, Role.OPERATOR)


async def _look(person: _Person) -> None:
    """Raises FilesLost."""
    if not await sync_to_async(person.may_go_on, thread_sensitive=False)():
        raise FilesLost(MUST_END)


def _owners(request: HttpRequest, tenant_id: str) -> tuple[budgets.Owner, ...]:
    return budgets.user(request.user.get_username()), budgets.tenant(tenant_id)


def send_file(request: HttpRequest, held: HeldFiles, path: bytes) -> HttpResponse:
    """The content of a regular file, as a download. Raises what opening raises, and TooMany, TooManyTransfers."""
    file = held.access.open(held.place(path))
    try:
        headers = _headers(file_paths.name_of(path))
        if request.method == "HEAD" or file.info.size <= SMALL_BYTES:
            data = b"" if request.method == "HEAD" else file.read(0, file.info.size)
            file.close()
            return HttpResponse(data, content_type=BINARY, headers={**headers, "Content-Length": str(file.info.size)})
        chunks = file.chunks(0, file.info.size)
        return _stream(request, held, chunks, file.close, BINARY, headers, file.info.size)
    except BaseException:
        file.close()
        raise


def send_archive(request: HttpRequest, held: HeldFiles, path: bytes) -> HttpResponse:
    """A directory as a tar archive. Raises the same."""
    headers = _headers((file_paths.name_of(path).strip(b"/") or b"files") + b".tar")
    if request.method == "HEAD":
        return HttpResponse(content_type=TAR, headers=headers)
    opened = held.access.open_archive(held.place(path))
    try:
        return _stream(request, held, opened.chunks(), opened.close, TAR, headers, None)
    except BaseException:
        opened.close()
        raise


def read_saved(request: HttpRequest, file: OpenSaved, limit: int) -> tuple[FileInfo, bytes]:
    """A file of the saved state; without its content if that is longer. Raises what reading it raises, and TooMany."""
    if file.info.size > limit:
        return file.info, b""
    with budgets.saved_files.enter(*_owners(request, file.tenant_id), amount=file.info.size):
        return file.info, file.read()


def send_saved(request: HttpRequest, file: OpenSaved, path: bytes) -> HttpResponse:
    """A file of the saved state as a download; it is in memory until the browser has it. Raises the same."""
    headers, length = _headers(file_paths.name_of(path)), file.info.size
    if request.method == "HEAD":
        return HttpResponse(content_type=BINARY, headers={**headers, "Content-Length": str(length)})
    hold = budgets.saved_files.enter(*_owners(request, file.tenant_id), amount=length)
    with hold.kept():
        content = file.read()
    person = _Person(request.user, request.session.session_key, file.tenant_id, None)

    async def run(writer: Writer) -> None:
        for start in range(0, length, SMALL_BYTES):
            if start:
                await _look(person)
            await writer.write(content[start : start + SMALL_BYTES])

    stream = Stream(run, BINARY, is_whole=True, length=length, headers=headers)
    stream.when_closed(hold.release)
    return stream


def _headers(name: bytes) -> dict[str, str]:
    """Headers that keep a browser from showing a tenant's content as a page."""
    return {
        "Content-Disposition": file_paths.disposition(name), "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }  # fmt: skip


def _stream(
    request: HttpRequest,
    held: HeldFiles,
    chunks: AsyncIterator[bytes],
    close: Callable[[], None],
    kind: str,
    headers: dict[str, str],
    length: int | None,
) -> Stream:
    hold = budgets.transfers.enter(*_owners(request, held.tenant_id))
    look = partial(_look, _Person.of(request, held))

    async def run(writer: Writer) -> None:
        looked = time.monotonic()
        async for chunk in chunks:
            await writer.write(chunk)
            if time.monotonic() - looked >= LOOK_EVERY_S:
                looked = time.monotonic()
                await look()

    stream = Stream(run, kind, is_whole=True, length=length, headers=headers)
    stream.when_closed(close)
    stream.when_closed(hold.release)
    return stream


def begin(held: HeldFiles, path: bytes, size: int, conditions: Conditions) -> Upload:
    """An upload that is in the audit log. Raises what beginning it raises."""
    upload = held.access.begin_put(held.place(path), None, size, conditions)
    try:
        held.note("file_write", path)
    except BaseException:
        upload.close()
        raise
    return upload


def write(held: HeldFiles, path: bytes, data: bytes, conditions: Conditions) -> None:
    """Write a whole file. Raises FileChanged if the conditions do not hold, and other errors of files."""
    upload = begin(held, path, len(data), conditions)
    try:
        upload.write(data)
        upload.finish()
    finally:
        upload.close()


def receive(request: HttpRequest, held: HeldFiles, start: Callable[[int], Upload]) -> FileInfo | Receiving:
    """``receiving.receive`` of one file, for as long as the user may and the tenant holds the container."""
    done = receiving.receive(request, start, partial(_look, _Person.of(request, held)))
    assert isinstance(done, FileInfo | Receiving)
    return done

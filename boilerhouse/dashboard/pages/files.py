"""A tenant's files: directories, files as text, and downloads. What changes them is in ``file_changes``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Role
from boilerhouse.dashboard import file_listing, file_paths, file_sources, file_texts, file_transfers
from boilerhouse.dashboard.access import page, slow
from boilerhouse.dashboard.file_sources import FilesOff, Source
from boilerhouse.web.problems import naming_node, status_of
from pools import errors as pool_errors
from pools.file_errors import FileDenied, FileMissing, FilesStalled, IsDirectory, NoGuestAgent, NotDirectory
from pools.guest.file_frames import FileInfo
from tenants import errors


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is nothing to show."""

    title: str
    detail: str
    icon: str
    code: str
    can_retry: bool = False


_TITLES: dict[type[BoilerhouseError], tuple[str, str]] = {
    FilesOff: ("Files are off", "i-lock"),
    errors.NotAssigned: ("The tenant holds no container", "i-square"),
    pool_errors.NotClaimed: ("The tenant holds no container", "i-square"),
    errors.Releasing: ("The container is being released", "i-undo-2"),
    NoGuestAgent: ("This container has no guest agent", "i-container"),
    FileMissing: ("No such file or directory", "i-search"),
    FileDenied: ("Permission denied", "i-lock"),
    FilesStalled: ("The container did not answer in time", "i-clock"),
}
_OF_THE_CLAIM = (FilesOff, errors.NotAssigned, pool_errors.NotClaimed, errors.Releasing, NoGuestAgent)
"""States of the tenant, not failures: their page is answered with 200."""


def trouble_of(error: BoilerhouseError) -> Trouble:
    known = next((_TITLES[family] for family in type(error).__mro__ if family in _TITLES), None)
    title, icon = known or ("The files cannot be read now", "i-info")
    return Trouble(title, error.detail, icon, error.code, can_retry=known is None or isinstance(error, FilesStalled))


def refuse(request: HttpRequest, tenant_id: str, path: bytes, error: BoilerhouseError) -> HttpResponse:
    """The page that says why a file or directory is not shown, with links to the directories above."""
    status = 200 if isinstance(error, _OF_THE_CLAIM) else status_of(error)
    context = {
        "tenant_id": tenant_id, "trouble": trouble_of(error), "path": file_paths.shown(path),
        "crumbs": file_paths.crumbs(tenant_id, path),
    }  # fmt: skip
    answer = render(request, "pages/files_trouble.html", context, status=status)
    if error.retry_after is not None:
        answer["Retry-After"] = str(error.retry_after)
    return naming_node(answer, error)


View = Callable[..., HttpResponse]


def file_page(view: View) -> View:
    """A page of a file, for operators. What prevents it from being shown is on the page; an unknown tenant is 404."""

    @page(Role.OPERATOR)
    @wraps(view)
    def shows(request: HttpRequest, tenant_id: str) -> HttpResponse:
        file_sources.check_tenant(tenant_id)
        try:
            return view(request, tenant_id)
        except BoilerhouseError as error:
            return refuse(request, tenant_id, file_paths.of_request(request), error)

    return shows


def _no_store(answer: HttpResponse) -> HttpResponse:
    answer["Cache-Control"] = "no-store"
    return answer


@slow
@file_page
def browse(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """A directory. The address of a file, or of a link to one, leads to its page."""
    source = file_sources.of_tenant(tenant_id)
    path = source.whole(file_paths.of_request(request))
    source.note("file_list", path)
    try:
        directory = file_listing.read(request, source, path)
    except NotDirectory:
        return HttpResponseRedirect(file_paths.url("tenant-file", tenant_id, path))
    context: dict[str, Any] = {
        "tenant_id": tenant_id, "source": source, "directory": directory, "path": file_paths.shown(path),
        "spelled": file_paths.spelled(path), "crumbs": file_paths.crumbs(tenant_id, path),
        "archive_url": file_paths.url("tenant-file-archive", tenant_id, path),
        "name": file_paths.shown_name(file_paths.name_of(path)),
    }  # fmt: skip
    return _no_store(render(request, "pages/files.html", context))


@slow
@file_page
def view(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """A file: its beginning as text, or that it is binary."""
    source, path = file_sources.to_read(request, tenant_id)
    try:
        link, info, data = _begin(request, source, path)
    except IsDirectory:
        return HttpResponseRedirect(file_paths.url("tenant-files", tenant_id, path))
    is_whole = len(data) == info.size
    row = file_listing.FileRow(tenant_id, path, info, source.is_saved)
    context = {
        "tenant_id": tenant_id, "source": source, "row": row, "path": file_paths.shown(path),
        "crumbs": file_paths.crumbs(tenant_id, path), "is_whole": is_whole, "is_left_out": bool(info.size and not data),
        "target": file_paths.shown(link.target) if link is not None else "",
        "text": file_texts.read(data, is_whole=is_whole), "viewed": file_texts.VIEWED,
        "edit_url": file_paths.url("tenant-file-edit", tenant_id, path),
    }  # fmt: skip
    return _no_store(render(request, "pages/file.html", context))


def _begin(request: HttpRequest, source: Source, path: bytes) -> tuple[FileInfo | None, FileInfo, bytes]:
    """The link that the path names, if it is one; what the file is; its first bytes, of a saved file all or none."""
    source.note("file_read", path)
    if source.held is None:
        assert source.saved is not None
        return None, *file_transfers.read_saved(request, source.saved.open(path), file_texts.VIEWED)
    place = source.held.place(path)
    named = source.held.access.stat(place)
    file = source.held.access.open(place)
    try:
        data = file.read(0, min(file.info.size, file_texts.VIEWED)) if file.info.size else b""
        return (named if named.type == "symlink" else None), file.info, data
    finally:
        file.close()


@slow
@file_page
def download(request: HttpRequest, tenant_id: str) -> HttpResponse:
    source, path = file_sources.to_read(request, tenant_id)
    source.note("file_read", path)
    if source.held is not None:
        return file_transfers.send_file(request, source.held, path)
    assert source.saved is not None
    return file_transfers.send_saved(request, source.saved.open(path), path)


@slow
@file_page
def archive(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """A directory with all that is in it, as a tar archive."""
    source, path = file_sources.to_read(request, tenant_id)
    if source.held is None:
        raise FileDenied("Saved files are downloaded one by one.")
    source.note("file_read", path)
    return file_transfers.send_archive(request, source.held, path)

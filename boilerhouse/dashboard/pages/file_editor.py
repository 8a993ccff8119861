"""The editor of a small text file: it shows the changes before it saves them, and detects conflicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render

from boilerhouse.core.errors import BoilerhouseError, NotFound
from boilerhouse.dashboard import file_paths, file_texts, file_transfers
from boilerhouse.dashboard.access import action, form_page, slow
from boilerhouse.dashboard.file_sources import to_change
from boilerhouse.dashboard.file_texts import Text
from boilerhouse.dashboard.pages.file_changes import ACTS
from boilerhouse.dashboard.pages.files import file_page
from boilerhouse.web import node_calls
from boilerhouse.web.problems import status_of
from pools.file_errors import FileChanged, FileDenied, FileExists, FileMissing
from pools.guest.files import Conditions
from tenants.files import HeldFiles


@dataclass(frozen=True, slots=True)
class Version:
    """A file as it is now. An empty ``etag``: there is none, and saving makes it."""

    etag: str
    text: Text


def _now(held: HeldFiles, path: bytes) -> Version:
    """Raises FileDenied if it cannot be edited, and what opening raises."""
    held.note("file_read", path)
    try:
        file = held.access.open(held.place(path))
    except FileMissing:
        return Version("", Text(""))
    try:
        if file.info.size > file_texts.VIEWED:
            raise FileDenied(file_texts.TOO_LONG)
        data = file.read(0, file.info.size) if file.info.size else b""
    finally:
        file.close()
    text = file_texts.read(data, is_whole=True)
    if text is None:
        raise FileDenied("It is a binary file, which cannot be edited here.")
    if text.why_not:
        raise FileDenied(text.why_not)
    return Version(file.info.etag, text)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the form carries."""

    etag: str
    newlines: str
    text: str

    @staticmethod
    def of(request: HttpRequest) -> Draft:
        is_crlf = request.POST.get("newlines") == file_texts.CRLF
        text = file_texts.plain(request.POST.get("text", ""))
        return Draft(request.POST.get("etag", ""), file_texts.CRLF if is_crlf else file_texts.LF, text)

    @property
    def content(self) -> bytes:
        return file_texts.encode(self.text, self.newlines)

    @property
    def conditions(self) -> Conditions:
        return Conditions(etags=(self.etag,)) if self.etag else Conditions(is_new=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Which file the form edits, and in which claim of the tenant. Known even after the claim has ended, so that no
    typed text is lost."""

    tenant_id: str
    generation: str
    path: bytes

    @staticmethod
    def of(held: HeldFiles, path: bytes) -> Place:
        return Place(held.tenant_id, str(held.generation), path)


def _page(
    request: HttpRequest,
    place: Place,
    draft: Draft,
    *,
    step: str = "write",
    now: Version | None = None,
    error: BoilerhouseError | None = None,
) -> HttpResponse:
    """``step``: ``write``, ``check`` what changes, or ``conflict``. ``now`` is what the draft is compared with."""
    status = status_of(error) if error else 409 if step == "conflict" else 200
    path = place.path
    context: dict[str, Any] = {
        "tenant_id": place.tenant_id, "generation": place.generation, "path": file_paths.shown(path),
        "spelled": file_paths.spelled(path), "name": file_paths.shown_name(file_paths.name_of(path)),
        "crumbs": file_paths.crumbs(place.tenant_id, path), "draft": draft, "step": step, "error": error,
        "is_gone": step == "conflict" and now is not None and not now.etag,
        "diff": file_texts.diff(now.text.text, draft.text) if now else [],
        "edit_url": file_paths.url("tenant-file-edit", place.tenant_id, path),
        "back": file_paths.url(*_back(place, is_new=not draft.etag)),
    }  # fmt: skip
    answer = render(request, "pages/file_edit.html", context, status=status)
    answer["Cache-Control"] = "no-store"
    return answer


def _back(place: Place, *, is_new: bool) -> tuple[str, str, bytes]:
    if is_new:
        return "tenant-files", place.tenant_id, file_paths.parent_of(place.path)
    return "tenant-file", place.tenant_id, place.path


@file_page
def _show(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """A file that is there, or one that will be: ``path`` and, for a new one in this directory, ``name``."""
    held, path = to_change(request, tenant_id)
    if name := request.GET.get("name", ""):
        path = file_paths.inside(path, name.encode(errors="replace"))
        return HttpResponseRedirect(file_paths.url("tenant-file-edit", tenant_id, path))
    now = _now(held, path)
    draft = Draft(now.etag, now.text.newlines, file_texts.plain(now.text.text))
    return _page(request, Place.of(held, path), draft)


@action(acts=ACTS)
def _submit(request: HttpRequest, tenant_id: str) -> HttpResponse:
    draft, do = Draft.of(request), request.POST.get("do", "check")
    place = Place(tenant_id, request.POST.get("generation", ""), file_paths.of_request(request))
    try:
        held, path = to_change(request, tenant_id)
        if why_not := file_texts.why_not_sent(draft.text, len(draft.content)):
            raise FileDenied(why_not)
        if do == "save":
            return _save(request, held, path, draft)
        return _page(request, place, draft) if do == "back" else _check(request, held, path, draft)
    except NotFound:
        raise
    except BoilerhouseError as error:
        if node_calls.can_pass(error):
            raise
        return _page(request, place, draft, error=error)


def _check(request: HttpRequest, held: HeldFiles, path: bytes, draft: Draft) -> HttpResponse:
    now = _now(held, path)
    if now.etag != draft.etag:
        return _conflict(request, held, path, draft, now)
    return _page(request, Place.of(held, path), draft, step="check", now=now)


def _save(request: HttpRequest, held: HeldFiles, path: bytes, draft: Draft) -> HttpResponse:
    """The agent compares the ETag when the file gets its name: the second of two saves is a conflict."""
    try:
        file_transfers.write(held, path, draft.content, draft.conditions)
    except (FileChanged, FileExists):
        return _conflict(request, held, path, draft, _now(held, path))
    messages.success(request, f"Saved {file_paths.shown(path)}.")
    return HttpResponseRedirect(file_paths.url("tenant-file", held.tenant_id, path), status=303)


def _conflict(request: HttpRequest, held: HeldFiles, path: bytes, draft: Draft, now: Version) -> HttpResponse:
    """The draft beside the file as it is now, on which the next save is based. The editor decides."""
    mine = Draft(now.etag, now.text.newlines if now.etag else draft.newlines, draft.text)
    return _page(request, Place.of(held, path), mine, step="conflict", now=now)


edit = slow(form_page(_show, _submit))

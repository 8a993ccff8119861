"""An operator's changes to a tenant's files: new directories, uploads, moves and deletions."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render

from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.models import Role
from boilerhouse.dashboard import file_paths, file_questions, file_transfers
from boilerhouse.dashboard.access import action, form_page, script, slow
from boilerhouse.dashboard.file_sources import to_change
from boilerhouse.dashboard.pages.files import file_page
from boilerhouse.web.problems import status_of
from boilerhouse.web.receiving import Receiving
from pools.file_errors import FileChanged, FileExists
from pools.guest.files import Conditions
from tenants.files import HeldFiles, shown

ACTS = "The container's file system has changed, which no transaction takes back."
MODE = 0o755


def _to_directory(tenant_id: str, path: bytes) -> HttpResponseRedirect:
    return HttpResponseRedirect(file_paths.url("tenant-files", tenant_id, path), status=303)


def _name_of(request: HttpRequest) -> bytes:
    """Raises BadPath."""
    return request.POST.get("name", "").encode(errors="replace")


@slow
@action(acts=ACTS)
def make_directory(request: HttpRequest, tenant_id: str) -> HttpResponse:
    held, directory = to_change(request, tenant_id)
    path = file_paths.inside(directory, _name_of(request))
    held.note("file_directory", path)
    held.access.make_directory(held.place(path), MODE, parents=False)
    messages.success(request, f"Created {file_paths.shown(path)}.")
    return _to_directory(tenant_id, path)


@slow
@action(acts=ACTS, asks=file_questions.remove)
def remove(request: HttpRequest, tenant_id: str) -> HttpResponse:
    held, path = to_change(request, tenant_id)
    is_directory = held.access.stat(held.place(path)).type == "directory"
    held.note("file_remove", path)
    count = held.access.remove(held.place(path), recursive=is_directory)
    more = f", with {count - 1} names in it" if count > 1 else ""
    messages.success(request, f"Deleted {file_paths.shown(path)}{more}.")
    return _to_directory(tenant_id, file_paths.parent_of(path))


# Moves ------------------------------------------------------------------------------------------------------


def _move_page(
    request: HttpRequest, held: HeldFiles, path: bytes, to: str, error: BoilerhouseError | None = None
) -> HttpResponse:
    context: dict[str, Any] = {
        "tenant_id": held.tenant_id, "generation": held.generation, "path": file_paths.shown(path),
        "spelled": file_paths.spelled(path), "name": file_paths.shown_name(file_paths.name_of(path)),
        "crumbs": file_paths.crumbs(held.tenant_id, path), "to": to, "error": error,
        "overwrites": request.POST.get("overwrite") == "1",
        "back": file_paths.url("tenant-files", held.tenant_id, file_paths.parent_of(path)),
    }  # fmt: skip
    return render(request, "pages/file_move.html", context, status=status_of(error) if error else 200)


@file_page
def _show_move(request: HttpRequest, tenant_id: str) -> HttpResponse:
    held, path = to_change(request, tenant_id)
    held.access.stat(held.place(path))
    return _move_page(request, held, path, _typed(path))


@action(acts=ACTS)
def _move(request: HttpRequest, tenant_id: str) -> HttpResponse:
    held, path = to_change(request, tenant_id)
    typed = request.POST.get("to", "")
    try:
        to = _target(held, path, typed)
        held.note("file_move", path, to=shown(to))
        held.access.move(held.place(path), to, overwrite=request.POST.get("overwrite") == "1")
    except BoilerhouseError as error:
        return _move_page(request, held, path, typed, error)
    messages.success(request, f"Moved {file_paths.shown(path)} to {file_paths.shown(to)}.")
    return _to_directory(tenant_id, file_paths.parent_of(to))


def _typed(path: bytes) -> str:
    """The path as a person edits it; one that is no UTF-8 is percent-encoded, as ``_target`` reads it."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return file_paths.spelled(path)


def _target(held: HeldFiles, path: bytes, typed: str) -> bytes:
    """The new path: absolute, or beside the old one. Raises BadPath, Invalid."""
    if not typed.strip("/"):
        raise Invalid(FieldError("/to", "Enter the new name or path.", "required"))
    to = typed.encode(errors="replace")
    if not to.startswith(b"/"):
        to = file_paths.parent_of(path).rstrip(b"/") + b"/" + to
    return held.place(to).path


move = slow(form_page(_show_move, _move))


# Uploads -----------------------------------------------------------------------------------------------------


def _conditions(replace: str | None) -> Conditions:
    return Conditions(is_new=replace != "1")


@action(acts=ACTS)
def _upload_form(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """Files of a form, for browsers without scripts: together as long as a body may be."""
    held, directory = to_change(request, tenant_id)
    files = request.FILES.getlist("file")
    if not files:
        raise Invalid(FieldError("/file", "Choose a file first.", "required"))
    conditions = _conditions(request.POST.get("replace"))
    done: list[str] = []
    for one in files:
        path = file_paths.inside(directory, (one.name or "").encode(errors="replace"))
        try:
            file_transfers.write(held, path, one.read(), conditions)
        except BoilerhouseError as error:
            before = f" Uploaded before: {', '.join(done)}." if done else ""
            messages.error(request, f"{file_paths.shown(path)}: {_why(error)}{before}")
            return _to_directory(tenant_id, directory)
        done.append(file_paths.shown_name(file_paths.name_of(path)))
    messages.success(request, f"Uploaded {', '.join(done)}.")
    return _to_directory(tenant_id, directory)


def _why(error: BoilerhouseError) -> str:
    return "There is a file of this name already." if isinstance(error, FileChanged | FileExists) else error.detail


@script(Role.OPERATOR)
def _upload_body(request: HttpRequest, tenant_id: str) -> HttpResponse:
    """One file, which is the request's body and goes to the container while it arrives."""
    held, path = to_change(request, tenant_id)
    conditions = _conditions(request.GET.get("replace"))
    done = file_transfers.receive(request, held, partial(file_transfers.begin, held, path, conditions=conditions))
    if isinstance(done, Receiving):
        return done
    return JsonResponse({"name": file_paths.shown_name(file_paths.name_of(path)), "size": done.size})


@slow
def upload(request: HttpRequest, tenant_id: str) -> HttpResponse:
    return (_upload_body if request.method == "PUT" else _upload_form)(request, tenant_id=tenant_id)


upload.streamed_methods = ("PUT",)  # type: ignore[attr-defined]
upload.acts, upload.asks, upload.is_action = ACTS, None, True  # type: ignore[attr-defined]

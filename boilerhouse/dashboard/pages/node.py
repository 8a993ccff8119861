"""Settings: this node. What takes long, or may fail, is loaded by itself and says when it failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.core.deployment import data_dir, node_id
from boilerhouse.core.errors import BoilerhouseError, Conflict, NotFound
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import action, page, slow
from boilerhouse.dashboard.templatetags.ui import size
from boilerhouse.operations import doctor, kept_backups, node_report
from pools.runtime import get_runtime

_checking = threading.Lock()


def _now() -> dict[str, Any]:
    return {"now_of": node_report.now()}


def _engine() -> dict[str, Any]:
    return {"engine": get_runtime().capabilities()}


def _images() -> dict[str, Any]:
    rows = node_report.images()
    return {"images": rows, "images_bytes": sum(row.size_bytes for row in rows)}


def _checks() -> dict[str, Any]:
    """One run at a time: it asks each sink and each registry."""
    if not _checking.acquire(blocking=False):
        raise Conflict("The checks are already running. Try again when they have finished.")
    try:
        findings = doctor.examine()
    finally:
        _checking.release()
    order = {doctor.FAILURE: 0, doctor.WARN: 1, doctor.OK: 2}
    counts = {state: sum(row.state == state for row in findings) for state in order}
    return {"findings": sorted(findings, key=lambda row: order[row.state]), "counts": counts}


PARTS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "now": ("Now", _now), "engine": ("Engine", _engine), "images": ("Images", _images), "checks": ("Checks", _checks),
}  # fmt: skip


def _read(part: str) -> dict[str, Any]:
    """What the part shows, or why it cannot be shown."""
    try:
        return PARTS[part][1]()
    except (BoilerhouseError, DatabaseError, OSError) as error:
        return {"failed": getattr(error, "detail", "") or f"{type(error).__name__}: {error}"}


def _page(request: HttpRequest, **parts: dict[str, Any]) -> HttpResponse:
    backups: dict[str, Any] = {}
    try:
        backups["backups"] = kept_backups.all_backups()
    except OSError as error:
        backups["failed"] = str(error)
    context = {
        "section": "node", "node_id": node_id(), "data_dir": data_dir(), "parts": parts, "backups_of": backups,
        "backups_kept": kept_backups.KEPT, "backups_dir": kept_backups.directory(),
    }  # fmt: skip
    return render(request, "pages/node.html", context)


@page(Role.OPERATOR)
def node(request: HttpRequest) -> HttpResponse:
    return _page(request)


@slow
@page(Role.OPERATOR)
def part(request: HttpRequest, part: str) -> HttpResponse:
    """One part for an open page; without scripts, the page with this part."""
    if part not in PARTS:
        raise NotFound("There is no such part of this page.")
    content = _read(part)
    if not (request.htmx.target or "").startswith("part-"):  # type: ignore[attr-defined]
        return _page(request, **{part: content})
    answer = render(request, "pages/node_part.html", {"part": part, "shown": content})
    answer["Cache-Control"] = "no-store"
    return answer


@slow
@action(
    Role.ADMIN, acts="A backup reads one moment of the database, which an open transaction would not let it choose."
)
def back_up(request: HttpRequest) -> str:
    backup = kept_backups.take()
    return f"Backup {backup.name} taken, {size(backup.size_bytes)}."

"""The question before a tenant's file or directory is deleted. A directory with many names wants its name typed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.http import HttpRequest

from boilerhouse.attention.words import count
from boilerhouse.dashboard import file_paths
from boilerhouse.dashboard.file_sources import to_change
from boilerhouse.dashboard.questions import MANY, Question
from boilerhouse.dashboard.templatetags.ui import size
from pools.guest.files import MAX_DEPTH, MAX_ENTRIES
from tenants.files import HeldFiles

COUNTED = 10_000
"""Names below a directory that are counted; beyond them, the question says ``more than``."""
_CAN_BE_TYPED = re.compile(r"^[A-Za-z0-9._@+=-]{1,60}\Z")


@dataclass(frozen=True, slots=True)
class _Content:
    names: int
    bytes: int
    has_more: bool


def remove(request: HttpRequest, tenant_id: str) -> Question:
    """Raises what finding the file raises."""
    held, path = to_change(request, tenant_id)
    info = held.access.stat(held.place(path))
    name = file_paths.shown_name(file_paths.name_of(path))
    fields = [("path", file_paths.spelled(path)), ("generation", str(held.generation))]
    kind = f"{held.generation} {info.type}"
    if info.type == "directory":
        if request.method != "POST":
            held.note("file_list", path)
        return _directory(held, path, name, kind, fields)
    what = {"file": f"The file has {size(info.size)}.", "symlink": "Only the link goes, not what it leads to."}
    text = f"{file_paths.shown(path)} of {tenant_id} is deleted now. {what.get(info.type, '')} No copy is kept."
    return Question(f"Delete {name}?", " ".join(text.split()), "Delete", kind, fields=fields)


def _directory(held: HeldFiles, path: bytes, name: str, kind: str, fields: list[tuple[str, str]]) -> Question:
    content = _count(held, path)
    where = f"{file_paths.shown(path)} of {held.tenant_id}"
    if not content.names:
        return Question(f"Delete {name}?", f"{where} is empty. It is deleted now.", "Delete", kind, fields=fields)
    amount = f"{count(content.names, 'name')}, {size(content.bytes)} in files"
    amount = f"more than {amount}" if content.has_more else amount
    text = f"{where} is deleted now with everything in it: {amount}. No copy is kept."
    typed = ""
    if content.names > MANY:
        last = file_paths.name_of(path).decode(errors="replace")
        typed = last if _CAN_BE_TYPED.match(last) else "delete"
    return Question(f"Delete {name} and its content?", text, "Delete all", kind, typed, fields)


def _count(held: HeldFiles, path: bytes) -> _Content:
    """Names and bytes below a directory, as far as they are counted. Raises what listing raises."""
    names, amount, cursor, has_more = 0, 0, b"", True
    while has_more and names < COUNTED:
        entries, has_more = held.access.list_directory(held.place(path), MAX_DEPTH, MAX_ENTRIES, cursor)
        if not entries:
            return _Content(names, amount, has_more=False)
        names, cursor = names + len(entries), entries[-1].path
        amount += sum(entry.info.size for entry in entries if entry.info.type == "file")
    return _Content(names, amount, has_more)

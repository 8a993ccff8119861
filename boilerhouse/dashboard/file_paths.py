"""Paths of files on pages. Names are bytes that a tenant chose: each has one spelling for addresses, one for people."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from django.http import HttpRequest
from django.urls import reverse

from boilerhouse.core.errors import NotFound
from boilerhouse.core.text import one_line
from pools.file_errors import BadPath

MAX_SHOWN = 255


@dataclass(frozen=True, slots=True)
class Crumb:
    name: str
    url: str


def spelled(path: bytes) -> str:
    """The path for addresses and form fields: percent-encoded, so that it is the same bytes when it comes back."""
    return quote_from_bytes(path, safe="/")


def of_request(request: HttpRequest, name: str = "path") -> bytes:
    """The path that the form or the address names; empty without one. Raises BadPath."""
    text = request.POST.get(name) or request.GET.get(name, "")
    path = unquote_to_bytes(text)
    if b"\0" in path:
        raise BadPath("must not contain NUL.")
    return path


def named(request: HttpRequest) -> bytes:
    """The same, where there must be one. Raises BadPath, NotFound."""
    if not (path := of_request(request)):
        raise NotFound("The address names no file.")
    return path


def shown(path: bytes) -> str:
    r"""The path for people, in one line: control characters and invalid UTF-8 are escaped, as in ``\x1b``."""
    return one_line(path.decode(errors="backslashreplace"))[:4095]


def shown_name(name: bytes) -> str:
    text = shown(name)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def name_of(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2] or b"/"


def parent_of(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[0] or b"/"


def inside(directory: bytes, name: bytes) -> bytes:
    """The path of a name that a person typed or dropped. Raises BadPath if it would leave the directory."""
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise BadPath("a name must not be empty, . or .., or contain / or NUL.")
    return directory.rstrip(b"/") + b"/" + name


def url(route: str, tenant_id: str, path: bytes = b"") -> str:
    query = f"?path={quote(spelled(path), safe='/')}" if path else ""
    return reverse(route, args=[tenant_id]) + query


def crumbs(tenant_id: str, path: bytes) -> list[Crumb]:
    """The directories above the path, from the root on."""
    parts = [part for part in path.split(b"/") if part][:-1]
    above = [Crumb("/", url("tenant-files", tenant_id, b"/"))] if path.strip(b"/") else []
    at = b""
    for part in parts:
        at += b"/" + part
        above.append(Crumb(shown_name(part), url("tenant-files", tenant_id, at)))
    return above


def disposition(name: bytes) -> str:
    """``Content-Disposition`` of a download: the browser saves the file and never shows it."""
    return f"attachment; filename*=UTF-8''{quote(name)}"

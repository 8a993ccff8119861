"""A mapping's location at the sink, and the rule that no two locations of the deployment may overlap (hazards.md#c4,
#c5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

TENANT = "${tenantId}"
MARKER_ROOT = ".boilerhouse"
BACKUP_ROOT = ".boilerhouse-trash"
PLACE_KEY = f"{MARKER_ROOT}/place.json"
"""The object that identifies a place."""


def join(prefix: str, sink_path: str) -> str:
    """Prefix and sink path as one location template, without slashes at its ends."""
    return "/".join(part for part in (prefix.strip("/"), sink_path.strip("/")) if part)


def resolve(template: str, tenant_id: str) -> str:
    """The location of one tenant; a trailing slash is never part of it."""
    return "/".join(tenant_id if part == TENANT else part for part in template.split("/"))


def marker_key(location: str) -> str:
    """The marker of ``location``; outside all locations."""
    return f"{MARKER_ROOT}/{hashlib.sha256(location.encode()).hexdigest()}.json"


def check_path(text: str) -> str | None:
    """Why a prefix or sink path is invalid; None if it is valid."""
    if text.startswith("/") or "//" in text:
        return "Must not have a leading / or an empty segment."
    segments = text.rstrip("/").split("/") if text else []
    if any(segment in (".", "..") for segment in segments):
        return "Must not have . or .. as a segment."
    if any(ord(char) < 32 or char in "\\\x7f\u201b" for char in text) or len(text.encode()) > 400:
        return "Use at most 400 bytes, without control characters and backslashes."
    if any("${" in segment and segment != TENANT for segment in segments):
        return "Only ${tenantId} is allowed, and only as a whole segment."
    if any(segment in (MARKER_ROOT, BACKUP_ROOT) for segment in segments):
        return f"{MARKER_ROOT} and {BACKUP_ROOT} are reserved."
    return None


def meet(first: str, other: str) -> bool:
    """Whether, for some tenants, one location equals, contains or is inside the other."""
    pairs = zip(_segments(first), _segments(other), strict=False)
    return all(a == b or TENANT in (a, b) for a, b in pairs)


def _segments(template: str) -> list[str]:
    return template.split("/") if template else []


def literal(template: str) -> str:
    """The part of a template that is the same for all tenants."""
    return template.partition(TENANT)[0].strip("/")


def levels(template: str) -> list[str]:
    """The folders down to the last one that is the same for all tenants, without the root (empty)."""
    parts = _segments(literal(template))
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


Spot = tuple[tuple[str, ...], str]
"""A place, by its id or spelling, and a template in it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping's locations, in every place known to contain them."""

    spots: tuple[Spot, ...]
    uploads: bool
    downloads: bool
    label: str
    near: tuple[Spot, ...] = ()
    """The same by the addresses of the sink's server; they count if either place is unknown."""
    is_known: bool = True


def conflict(area: Area, others: Iterable[Area]) -> str | None:
    """The conflict of the area with one of ``others``, as text; None if there is none."""
    for other in others:
        why = _meeting(area, other)
        if why is None:
            continue
        if area.uploads and other.uploads:
            return f"Its location overlaps with the upload location of {other.label}{why}."
        if (area.downloads and other.uploads) or (area.uploads and other.downloads):
            return f"Its location overlaps with that of {other.label}{why}: one would restore what the other saves."
    return None


def _meeting(area: Area, other: Area) -> str | None:
    """None if they do not overlap, otherwise an explanation, which is empty if their sinks are equal."""
    if _share(area.spots[:1], other.spots[:1]):
        return ""
    if _share(area.spots, other.spots):
        return ", because the two sinks are the same place"
    if not (area.is_known and other.is_known) and _share(area.near, other.near):
        return f", as far as the addresses tell: give the keys permission to read and write {PLACE_KEY}"
    return None


def _share(some: Iterable[Spot], others: Iterable[Spot]) -> bool:
    shared = list(others)
    return any(place == there and meet(template, spot) for place, template in some for there, spot in shared)

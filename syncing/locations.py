"""Where a mapping ends up, and the rule that no two of the deployment can meet there (hazards.md#c4, #c5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

TENANT = "${tenantId}"
MARKER_ROOT = ".boilerhouse"
BACKUP_ROOT = ".boilerhouse-trash"
PLACE_KEY = f"{MARKER_ROOT}/place.json"
"""The object by which a place is known."""


def join(prefix: str, sink_path: str) -> str:
    """Prefix and sink path as one location template, without slashes at its ends."""
    return "/".join(part for part in (prefix.strip("/"), sink_path.strip("/")) if part)


def resolve(template: str, tenant_id: str) -> str:
    """The location of one tenant; a trailing slash is never part of it."""
    return "/".join(tenant_id if part == TENANT else part for part in template.split("/"))


def marker_key(location: str) -> str:
    """The object that says what was last saved at ``location``; outside all locations."""
    return f"{MARKER_ROOT}/{hashlib.sha256(location.encode()).hexdigest()}.json"


def check_path(text: str) -> str | None:
    """What is wrong with a prefix or sink path; None if it can be used."""
    if text.startswith("/") or "//" in text:
        return "No leading / and no empty segment."
    segments = text.rstrip("/").split("/") if text else []
    if any(segment in (".", "..") for segment in segments):
        return "No . or .. as a segment."
    if any(ord(char) < 32 or char in "\\\x7f\u201b" for char in text) or len(text.encode()) > 400:
        return "At most 400 bytes, without control characters and backslashes."
    if any("${" in segment and segment != TENANT for segment in segments):
        return "Only ${tenantId} can be used, and only as a whole segment."
    if any(segment in (MARKER_ROOT, BACKUP_ROOT) for segment in segments):
        return f"{MARKER_ROOT} and {BACKUP_ROOT} are reserved."
    return None


def meet(one: str, other: str) -> bool:
    """Whether for any tenants one location equals, contains or lies in the other."""
    pairs = zip(_segments(one), _segments(other), strict=False)
    return all(a == b or TENANT in (a, b) for a, b in pairs)


def _segments(template: str) -> list[str]:
    return template.split("/") if template else []


def literal(template: str) -> str:
    """The part of a template that is the same for all tenants."""
    return template.partition(TENANT)[0].strip("/")


def levels(template: str) -> list[str]:
    """The folders down to the last one that is the same for all tenants, the root (empty) apart."""
    parts = _segments(literal(template))
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


Spot = tuple[tuple[str, ...], str]
"""A place, by its id or its spelling, and a template in it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping's locations, in every place that is known to hold them."""

    spots: tuple[Spot, ...]
    uploads: bool
    downloads: bool
    label: str
    near: tuple[Spot, ...] = ()
    """The same by the addresses of the sink's server; they count where the place of either is not known."""
    is_known: bool = True


def conflict(area: Area, others: Iterable[Area]) -> str | None:
    """Which of ``others`` the area must not meet, in words; None if it meets none."""
    for other in others:
        why = _meeting(area, other)
        if why is None:
            continue
        if area.uploads and other.uploads:
            return f"Its location meets the upload location of {other.label}{why}."
        if (area.downloads and other.uploads) or (area.uploads and other.downloads):
            return f"Its location meets that of {other.label}{why}: one would restore what the other saves."
    return None


def _meeting(area: Area, other: Area) -> str | None:
    """None where they do not meet, else what is to be said about it, which is nothing if their sinks are the same."""
    if _share(area.spots[:1], other.spots[:1]):
        return ""
    if _share(area.spots, other.spots):
        return ", for the two sinks lead to the same place"
    if not (area.is_known and other.is_known) and _share(area.near, other.near):
        return f", as far as addresses tell: give the keys the right to read and write {PLACE_KEY}"
    return None


def _share(some: Iterable[Spot], others: Iterable[Spot]) -> bool:
    found = list(others)
    return any(place == there and meet(template, spot) for place, template in some for there, spot in found)

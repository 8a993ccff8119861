"""Where a mapping ends up, and the rule that no two of the deployment can meet there (hazards C4, C5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

TENANT = "${tenantId}"
MARKER_ROOT = ".boilerhouse"
BACKUP_ROOT = ".boilerhouse-trash"


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
    if segments and segments[0] in (MARKER_ROOT, BACKUP_ROOT):
        return f"{MARKER_ROOT} and {BACKUP_ROOT} are reserved."
    return None


def meet(one: str, other: str) -> bool:
    """Whether for any tenants one location equals, contains or lies in the other."""
    pairs = zip(_segments(one), _segments(other), strict=False)
    return all(a == b or TENANT in (a, b) for a, b in pairs)


def _segments(template: str) -> list[str]:
    return template.split("/") if template else []


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping's location template at one endpoint and bucket."""

    place: tuple[str, str]
    """endpoint, bucket"""
    template: str
    pool_id: str
    uploads: bool
    downloads: bool
    label: str


def conflict(area: Area, others: Iterable[Area]) -> str | None:
    """Which of ``others`` the area must not meet, in words; None if it meets none."""
    for other in others:
        if area.place != other.place or not meet(area.template, other.template):
            continue
        if area.uploads and other.uploads:
            return f"Its location meets the upload location of {other.label}."
        if (area.downloads and other.uploads) or (area.uploads and other.downloads):
            return f"Its location meets that of {other.label}: one would restore what the other saves."
    return None

"""Identifiers: time-ordered UUIDs for rows, slugs for objects that people name."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from boilerhouse.core.errors import FieldError, Invalid

SLUG = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
NODE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
TENANT_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}\Z")


def uuid7() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): ordered by time, never repeated after a database reset."""
    stamp = time.time_ns() // 1_000_000
    value = stamp << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def slugify(name: str) -> str:
    """An id derived from a name; ``item`` if no character of the name is allowed in an id."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-") or "item"


def check_same_id(body: Mapping[str, Any], expected: str) -> None:
    """Check that the submitted id, if any, is the object's id. Raises Invalid."""
    if body.get("id", expected) != expected:
        raise Invalid(FieldError("/id", f"The id cannot change (it is {expected}).", "fixed"))

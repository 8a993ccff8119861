"""Addresses of the pages of alice's files."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

FILES = "/tenants/alice/files/"
ASK = {"HX-Request": "true", "HX-Target": "question"}
"""The headers of a page's script that wants a question as a dialog."""


def address(what: str, path: Any, **query: str) -> str:
    """The page ``what`` of a file, percent-encoded twice: as a path for pages, and as a value for a query."""
    more = "".join(f"&{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{FILES}{what}?path={quote(quote(os.fsencode(path)))}{more}"

"""Every route of the API and every operation of its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.urls import URLResolver

from boilerhouse.urls import api
from tests.access import PUBLIC

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


def views(entries: Any = api, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every (route, method, view class) that the URL table serves, ids as ``*``."""
    for entry in entries:
        if isinstance(entry, URLResolver):
            yield from views(entry.url_patterns, prefix + str(entry.pattern))
            continue
        route = prefix + re.sub(r"<[^>]+>", "*", str(entry.pattern))
        view = getattr(entry.callback, "view_class", None)
        if route and route not in PUBLIC:
            yield from ((route, method, view) for method in METHODS if hasattr(view, method.lower()))


ROUTES = sorted((route, method) for route, method, _ in views())
SCHEMA = json.loads((Path(__file__).parents[1] / "docs/openapi.json").read_text())
PATHS = {
    operation["operationId"]: (method.upper(), path)
    for path, ops in SCHEMA["paths"].items()
    for method, operation in ops.items()
}

"""Values that have caused a failure or might: used for every field of every body, every id and every parameter."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

DEEP: object = {}
for _ in range(200):
    DEEP = {"a": [DEEP]}
NASTY: list[Any] = [
    None, True, -1, 0, 2**63, -(2**70), 1e308, 0.5, "", " ", "\n", "a" * 70_000, "../../etc/passwd", "/../x", "a\u0000b",
    "\ud800", "${POOL_ID}${", "${NOPE}", "%00", "'; DROP TABLE pools;--", "<script>", [], {}, [None], [[]], {"": ""},
    {"$ref": "#/x"}, {"a": None}, [1, "a", {}], DEEP, "2001-02-30T25:00:00Z", "\u202e\u200b", "🛢️" * 50,
]  # fmt: skip
TAKEN: list[Any] = [
    "http://[::1", "http://a\nb", "http://a b", "http://" + "a" * 64, "http://a..b", "//proc", "//", "//run/secrets/x", "x\n",
    "eu\r\ncentral", 9_007_199_254_740_991, {"$ref": "#"}, {"$ref": "#foo"}, {"$dynamicRef": "#x"}, {"$ref": "file:///etc/passwd"},
    {"pattern": "("}, {"type": "nonsense"}, "*_*_*_*_*_*.csv", "[]a]", "\\d", "${" * 1000,
]  # fmt: skip
"""Each was taken once somewhere, or answered 500; ``tests/core/test_bad_input.py`` has them where that was."""
IDS = [
    "..", "%2e%2e", "%2e%2e%2f", "a%2Fb", "%00", "a%00", "%0a", "-", "x" * 2000, "%F0%9F%9B%A2", "%ff%fe", "'", "%20", "a b",
    "0" * 40, "${tenantId}", "..%5c..", "nan", "-1", "99999999999999999999", "%2F", "@", "a;b", "null",
]  # fmt: skip


def cursor(*position: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


QUERY = [
    "", "0", "-1", "9" * 4401, "1e3", "\u0661", "a\u0000b", "x" * 4000, "null", "true", "[]", "%00", "..",
    cursor(None, None), cursor("0001-01-01T00:00:00+23:59", "x"), cursor("9999-12-31T23:59:59-23:59", "x"), cursor(1), cursor(),
    cursor({}, []), cursor(True, True), cursor("2026-01-01T00:00:00", 1), base64.urlsafe_b64encode(b"\xff").decode(), "=", "é",
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a body."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def replaced(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The body with another value at the path."""
    if not at:
        return value
    body = copy.deepcopy(body)
    target = body
    for key in at[:-1]:
        target = target[key]
    target[at[-1]] = value
    return body

"""Strict JSON parsing: no NaN, no NUL, no other encoding than UTF-8."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

MAX_DEPTH = 64
SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check(value: Any) -> None:
    """Raise ParseError for characters and numbers that no database stores, and for excessive nesting."""
    todo = [(value, 1)]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, str):
            if "\0" in node:
                raise ParseError("The body contains a NUL character.")
            if not node.isascii() and SURROGATE.search(node):
                raise ParseError("The body contains half of a surrogate pair, which is not a character.")
        elif isinstance(node, float):
            if not math.isfinite(node):
                raise ParseError("The body contains a number that is too large.")
        elif isinstance(node, dict | list):
            if depth > MAX_DEPTH:
                raise ParseError(f"The body is nested more than {MAX_DEPTH} levels deep.")
            inner = [*node, *node.values()] if isinstance(node, dict) else node
            todo += [(item, depth + 1) for item in inner]


def check_value(value: Any) -> None:
    """The same check for a value from another source. Raises ValueError with a message for people."""
    try:
        _check(value)
    except ParseError as error:
        raise ValueError(str(error.detail)) from error


def check_body(text: str) -> Any:
    """The JSON value of ``text``, parsed as strictly as a request body. Raises ValueError with a message for people."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        _check(value)
    except ParseError as error:
        raise ValueError(str(error.detail)) from error
    except RecursionError as error:
        raise ValueError("The JSON is nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {str(error)[:200]}") from error
    return value


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            value = json.loads(stream.read().decode("utf-8"), parse_constant=_refuse)
        except UnicodeDecodeError as error:
            raise ParseError("The body is not UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise ParseError(f"The body is not valid JSON: {str(error)[:200]}") from error
        _check(value)
        return value

"""The text of a page, independent of the line breaks of its template."""

from __future__ import annotations

from typing import Any


def text_of(answer: Any) -> str:
    """The page with each run of white space as one space, as a browser shows it."""
    return " ".join(answer.content.decode().split())

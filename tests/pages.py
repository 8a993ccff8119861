"""The text of a page, independent of the line breaks of its template."""

from __future__ import annotations

import html
import re
from typing import Any


def text_of(answer: Any) -> str:
    """The page with each run of white space as one space, as a browser shows it."""
    return " ".join(answer.content.decode().split())


def plain(answer: Any) -> str:
    """The text of the page without its tags."""
    return " ".join(re.sub(r"<[^>]+>", "", html.unescape(text_of(answer))).split())

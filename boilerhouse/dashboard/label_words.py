"""Labels as one line of text, such as ``gpu=yes zone='cellar two'``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_NEEDS_QUOTES = re.compile(r"""[\s,'"\\]""")
_BETWEEN = " \t\r\n,"


def spell(labels: Mapping[str, str]) -> str:
    """The text from which ``parse`` makes the same labels."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in labels.items())


def parse(text: str) -> dict[str, str]:
    """The labels of a text: words NAME=VALUE with spaces or commas between them. Raises ValueError with the cure."""
    words = shlex.shlex(text, posix=True)
    words.whitespace, words.whitespace_split, words.commenters = _BETWEEN, True, ""
    try:
        pairs = [word.partition("=") for word in words]
    except ValueError as error:
        raise ValueError("Close the quotation mark.") from error
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError("Enter words of the form NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _quoted(value: str) -> str:
    return shlex.quote(value) if _NEEDS_QUOTES.search(value) else value

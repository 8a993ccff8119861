"""JSON with the kind of each token, for a page that shows it without a script."""

from __future__ import annotations

import re

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|true|false|null)\b')


def coloured(text: str) -> SafeString:
    """The text, escaped, with names, strings and other values in spans of their own."""
    parts: list[SafeString] = []
    at = 0
    for match in _TOKEN.finditer(text):
        parts.append(format_html("{}", text[at : match.start()]))
        kind = "n" if match[3] else "k" if match[2] else "v"
        parts.append(format_html('<span class="{}">{}</span>{}', kind, match[1] or match[3], match[2] or ""))
        at = match.end()
    parts.append(format_html("{}", text[at:]))
    return format_html_join("", "{}", ((part,) for part in parts))

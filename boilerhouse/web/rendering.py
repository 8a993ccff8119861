"""JSON for responses with text of any length and kind."""

from __future__ import annotations

from rest_framework.renderers import JSONRenderer


class AsciiRenderer(JSONRenderer):
    """A single character beyond U+FFFF makes Python use four bytes per character of an unescaped text."""

    ensure_ascii = True

"""JSON for answers with text of any length and kind."""

from __future__ import annotations

from rest_framework.renderers import JSONRenderer


class AsciiRenderer(JSONRenderer):
    """One character beyond U+FFFF makes Python keep four bytes for each of a text that is written as it is."""

    ensure_ascii = True

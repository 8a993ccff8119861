"""The largest numbers that mean anything: beyond them dates, databases and file systems overflow."""

from __future__ import annotations

TEN_YEARS_S = 3650 * 86_400
"""Of every duration."""
TEN_YEARS_MS = TEN_YEARS_S * 1000
MAX_MB = 8 << 20
"""Of every size in MiB: 8 TiB, half of what a file of ext4 can hold."""
MAX_ID = 2**63 - 1
"""Of ids that the database counts."""


def natural(text: str, high: int) -> int | None:
    """A whole number from 0 to ``high`` written in plain digits; None for any other text, however long."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(high)):
        return None
    number = int(text)
    return number if number <= high else None

"""The largest meaningful numbers. Larger ones overflow dates, databases or file systems."""

from __future__ import annotations

TEN_YEARS_S = 3650 * 86_400
"""The maximum of all durations."""
TEN_YEARS_MS = TEN_YEARS_S * 1000
MAX_MB = 8 << 20
"""The maximum of all sizes in MiB: 8 TiB, half of the largest ext4 file."""
MAX_ID = 2**63 - 1
"""The maximum of ids that the database counts."""


def natural(text: str, high: int) -> int | None:
    """A whole number from 0 to ``high`` in decimal digits; None for any other text, however long."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(high)):
        return None
    number = int(text)
    return number if number <= high else None

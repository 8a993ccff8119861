"""What a process does with memory that it has used: large blocks go back to the system at once."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 * 1024


def give_large_blocks_back() -> None:
    """Have each block of LARGE_BYTES mapped alone, and unmapped when it is free.

    glibc raises that limit as soon as such a block is freed; from then on long bodies and answers lie between small
    things that stay, and what they took is kept for good: 66 MB after 140 bodies of 900 kB (measured). Without glibc
    nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)

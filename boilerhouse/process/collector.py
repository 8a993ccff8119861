"""Python's garbage collector, kept from pausing a process in the middle of a transaction.

What is loaded at the start stays for the life of the process: looking through it again and again took 55 to 75 ms each
time (measured), in web processes while clients waited, in workers while they held SQLite's write lock.
"""

from __future__ import annotations

import gc


def calm() -> None:
    """Call it when all is loaded, before children are forked: they share what is then there, and nobody scans it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)

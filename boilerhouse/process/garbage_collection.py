"""Keeps Python's garbage collector from pausing a process in the middle of a transaction.

Objects that are loaded at the start live as long as the process. Scanning them repeatedly took 55 to 75 ms each time
(measured): in web processes while clients waited, in workers while they held SQLite's write lock.
"""

from __future__ import annotations

import gc


def tune() -> None:
    """Freeze the loaded objects. Call it after loading and before forking, so that children share them and do not scan
    them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)

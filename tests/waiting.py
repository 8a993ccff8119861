"""Waits for events in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def eventually(check: Callable[[], Any], seconds: float = 60, every: float = 0.1) -> Any:
    """Return the result of ``check`` once it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {seconds} s: {value!r}"
        time.sleep(every)

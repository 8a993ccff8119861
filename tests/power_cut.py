"""The end of a process, played within one."""

from __future__ import annotations


class PowerCut(BaseException):
    """Nothing catches it."""

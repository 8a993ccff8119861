"""Simulates the death of a process within the test process."""

from __future__ import annotations


class PowerCut(BaseException):
    """Nothing catches it."""

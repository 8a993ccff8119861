"""How a call is refused."""

from __future__ import annotations


class Refused(Exception):
    """The call is not let through; its words say why."""

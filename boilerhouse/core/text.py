"""What texts may hold."""

from __future__ import annotations


def has_control(text: str) -> bool:
    """Whether a control character is in the text: a newline, an escape, a NUL …"""
    return any(ord(one) < 32 or 127 <= ord(one) < 160 for one in text)

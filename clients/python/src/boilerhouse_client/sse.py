"""Server-sent events, from bytes in pieces of any length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerEvent:
    name: str
    data: Any
    """What its JSON says."""


OPEN = ServerEvent("open", None)
"""Ours, before the first event: the connection is open."""


class Parser:
    """Collects lines into events; comments, which only keep a connection alive, are left out."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._name, self._data = "message", list[str]()

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that are complete with this piece."""
        *complete, rest = piece.split(b"\n")
        for end in complete:
            line = bytes(self._line + end)
            self._line.clear()
            yield from self._take(line.rstrip(b"\r").decode())
        self._line += rest

    def _take(self, line: str) -> Iterator[ServerEvent]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif not line:
            if self._data:
                yield ServerEvent(self._name, json.loads("\n".join(self._data)))
            self._name, self._data = "message", []

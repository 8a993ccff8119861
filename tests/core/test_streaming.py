"""Streamed answers read by threads: nothing is lost, buffers are bounded, and large output has few chunks."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from boilerhouse.web import streaming
from boilerhouse.web.rendering import AsciiRenderer
from boilerhouse.web.streaming import AHEAD_BYTES, MAX_BACKLOG_BYTES, Writer, from_thread

pytestmark = pytest.mark.any_database


class Lines:
    """This many lines, as fast as they are read; then ``error``, if there is one."""

    def __init__(self, count: int | None, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.given, self.closed = 0, threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for number in itertools.count() if self.count is None else range(self.count):
            self.given += 1
            yield b"%08d\n" % number
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed.set()


def test_a_flood_of_lines_comes_whole_and_in_few_pieces():
    """Fifty logs followed line by line blocked the web process for seconds (P14)."""
    source = Lines(100_000)

    async def collect() -> list[bytes]:
        async with aclosing(from_thread(source, 10)) as pieces:
            return [piece async for piece in pieces if not await asyncio.sleep(0.001)]

    pieces = asyncio.run(collect())
    assert b"".join(pieces) == b"".join(b"%08d\n" % number for number in range(100_000))
    assert len(pieces) < 1000
    assert source.closed.is_set()


def test_what_nobody_takes_is_not_read():
    source = Lines(None)

    async def look() -> None:
        async with aclosing(from_thread(source, 10)) as pieces:
            await anext(pieces)
            await asyncio.sleep(0.3)

    asyncio.run(look())
    assert source.given * 9 <= 2 * AHEAD_BYTES + 100
    assert source.closed.wait(30)


def test_what_came_before_an_error_comes_before_it():
    source, found = Lines(3, ValueError("it broke")), []

    async def collect() -> None:
        async with aclosing(from_thread(source, 10)) as pieces:
            async for piece in pieces:
                found.append(piece)

    with pytest.raises(ValueError, match="it broke"):
        asyncio.run(collect())
    assert b"".join(found) == b"00000000\n00000001\n00000002\n"


def pauses_of(monkeypatch: pytest.MonkeyPatch, unread: list[int]) -> list[float]:
    """How long a writer pauses before each look at a client that leaves so many bytes unread, look by look."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        unread.pop(0)

    async def send(message: object) -> None: ...

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(Writer(send, lambda: unread[0]).write(b"more"))
    return pauses


def test_a_fast_reader_is_sent_more_at_once_and_a_slow_one_is_seldom_looked_at(monkeypatch):
    """A pause of 50 ms for each 256 KiB held downloads at 12 MB/s, whatever the client could read."""
    much = MAX_BACKLOG_BYTES + 1
    (fast,) = pauses_of(monkeypatch, [much, 0])
    slow = pauses_of(monkeypatch, [much + left for left in range(50, 0, -1)] + [0])
    assert slow[0] == fast < slow[-1]
    assert slow == sorted(slow)
    assert slow[-1] == slow[-2] == streaming.LAST_LOOK_S


def test_text_of_any_kind_takes_little_while_it_becomes_an_answer():
    """A megabyte of control characters with one emoji took 104 MB of the process, sixteen at once 1.6 GB."""
    printed = {"stdout": "\U0001f600" + "\x01" * 1_000_000, "stderr": "\ud7ff" + "\x02" * 1_000_000}
    tracemalloc.start()
    try:
        content = AsciiRenderer().render(printed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert json.loads(content) == printed
    assert peak < 3 * len(content)

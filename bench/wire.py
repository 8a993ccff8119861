"""A proxy on this machine that counts the bytes of its connections, heads and frames included, as they go by."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CHUNK = 64 * 1024


@dataclass
class Wire:
    """``received`` and ``sent`` are bytes as the browser sees them."""

    base: str = ""
    received: int = 0
    sent: int = 0

    def both(self) -> int:
        return self.received + self.sent


@contextmanager
def counting(base: str, count: int) -> Iterator[list[Wire]]:
    """``count`` addresses that lead to ``base`` (``http://host:port``), each with its own figures."""
    host, port = base.removeprefix("http://").split(":")
    wires, loop = [Wire() for _ in range(count)], asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        for wire in wires:
            server = await asyncio.start_server(_between(wire, host, int(port)), "127.0.0.1", 0)
            wire.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, name="wire", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise SystemExit("the counting proxy did not start")
    try:
        yield wires
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def _between(wire: Wire, host: str, port: int):  # type: ignore[no-untyped-def]
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, port)
        await asyncio.gather(_copy(reader, to_server, wire, "sent"), _copy(from_server, writer, wire, "received"))

    return connected


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire, name: str) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(CHUNK):
            setattr(wire, name, getattr(wire, name) + len(piece))
            writer.write(piece)
            await writer.drain()
    with suppress(ConnectionError, OSError):
        writer.close()

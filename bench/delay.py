"""A TCP relay that makes every byte late, as a far network does; it delays, it does not slow down."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit


class DelayedRelay:
    """Passes all bytes on to ``target``, each ``round_trip_s / 2`` after it came, in both directions."""

    def __init__(self, target: str, round_trip_s: float) -> None:
        parts = urlsplit(target)
        self._to, self._late = (parts.hostname or "", parts.port or 80), round_trip_s / 2
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._serve, args=(started,), daemon=True).start()
        started.wait(10)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=256))
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        started.set()
        self._loop.run_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._late)  # the handshake takes a round trip, too
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._relay(reader, far_writer), self._relay(far_reader, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

        async def send() -> None:
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not chunk:
                    writer.close()
                    return
                writer.write(chunk)
                await writer.drain()

        sending = asyncio.ensure_future(send())
        try:
            while chunk := await reader.read(256 * 1024):
                await queue.put((self._loop.time() + self._late, chunk))
        except OSError:
            pass
        await queue.put((self._loop.time() + self._late, b""))
        try:
            await sending
        except OSError:
            writer.close()

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)

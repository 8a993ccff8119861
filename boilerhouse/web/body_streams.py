"""Request bodies that their view reads while they arrive, such as uploads of files.

Nothing of such a body is kept beyond a window: while it is full, the client is not read. Its time limit is one for each
part, not for the whole, and runs only while the view waits for that part: a view that waits for a thread, or for the
container, is no fault of the client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from boilerhouse.core.errors import TooSlow

WINDOW_BYTES = 256 * 1024


class BodyTooSlow(TooSlow):
    """The request body did not arrive in time. Send it again."""

    code = "body_too_slow"


class ClientGone(Exception):
    """Nobody waits for the response."""


class BodyStream:
    """A body on its way; used only in the event loop. ``hold`` and ``go_on`` stop and resume reading the client.

    ``wait`` is called when the view waits for the client. ``invite`` is called when the view begins to read and nothing
    has come: the client may wait for ``100 Continue``.
    """

    def __init__(
        self,
        hold: Callable[[], None],
        go_on: Callable[[], None],
        wait: Callable[[], None],
        invite: Callable[[], None],
    ) -> None:
        self._hold, self._go_on, self._wait, self._invite = hold, go_on, wait, invite
        self._is_invited = False
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._has_come = asyncio.Event()
        self._end: Exception | None = None
        self.is_held = self.is_complete = False

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._has_come.set()
        if self._size >= WINDOW_BYTES and not self.is_held:
            self.is_held = True
            self._hold()

    def finish(self) -> None:
        self.is_complete = True
        self._has_come.set()

    def fail(self, error: Exception) -> None:
        if not self.is_complete and self._end is None:
            self._end = error
            self._has_come.set()

    async def read(self) -> bytes:
        """What has come since; empty at the end. Raises BodyTooSlow, ClientGone."""
        if not self._is_invited and not self._parts and not self.is_complete:
            self._invite()
        self._is_invited = True
        while not self._parts:
            if self.is_complete:
                return b""
            if self._end is not None:
                raise self._end
            self._has_come.clear()
            if self.is_held:
                self.is_held = False
                self._go_on()
            self._wait()
            await self._has_come.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data

"""Views whose request body goes elsewhere before they answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.web.body_streams import BodyStream
from boilerhouse.web.waiting import Waiting

LOOK_EVERY_S = 1.0


class Receiving(Waiting):
    """Not a response: run the view again when the body has gone where ``write`` puts it.

    The view then finds this object as ``request.resumed`` and its ``failure``. Whatever happens, ``give_up`` is called
    at the end. ``look`` is called about each second before more is written, and raises an error if nothing more may be.
    """

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        give_up: Callable[[], None],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__("", _nothing, 0)
        self._write, self.give_up, self._look = write, give_up, look
        self.failure: BoilerhouseError | None = None

    async def receive(self, body: BodyStream) -> None:
        """Raises ClientGone."""
        looked = time.monotonic()
        try:
            while data := await body.read():
                if time.monotonic() - looked >= LOOK_EVERY_S:
                    await self._look()
                    looked = time.monotonic()
                await self._write(data)
        except BoilerhouseError as error:
            self.failure = error


def received(request: Any) -> Receiving | None:
    """Where the body of this request went; None at the view's first run."""
    resumed = getattr(request, "resumed", None)
    return resumed if isinstance(resumed, Receiving) else None


def _nothing(keys: set[Any]) -> set[Any]:
    return set()

"""Views whose request body goes elsewhere before they answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from django.http import HttpRequest

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


Result_co = TypeVar("Result_co", covariant=True)


class Upload(Protocol[Result_co]):
    """Where a body goes."""

    def write(self, data: bytes) -> None: ...

    async def awrite(self, data: bytes) -> None: ...

    def finish(self) -> Result_co: ...

    def close(self) -> None: ...


def receive(
    request: HttpRequest, begin: Callable[[int], Upload[Result_co]], look: Callable[[], Awaitable[None]]
) -> Result_co | Receiving:
    """What came of the upload that ``begin(size)`` begins; a long body goes there first, and then the view runs again.

    The last step, which gives a file its name, happens in a request that was authorised anew; until then ``look`` is
    called about each second. Raises what the upload raises.
    """
    body = received(request)
    if body is not None:
        if body.failure is not None:
            raise body.failure
        finished: Result_co = body.state.finish()
        return finished
    upload = begin(_length(request))
    if getattr(request, "scope", {}).get("boilerhouse.body") is not None:
        receiving = Receiving(upload.awrite, upload.close, look)
        receiving.state = upload
        return receiving
    try:
        upload.write(request.body)
        return upload.finish()
    finally:
        upload.close()


def _length(request: HttpRequest) -> int:
    """The length of the body as the client states it; 0 if it does not."""
    text = request.headers.get("Content-Length") or ""
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def received(request: Any) -> Receiving | None:
    """Where the body of this request went; None at the view's first run."""
    resumed = getattr(request, "resumed", None)
    return resumed if isinstance(resumed, Receiving) else None


def _nothing(keys: set[Any]) -> set[Any]:
    return set()

"""The web server's HTTP: heads are checked before bodies are read, and everything has a deadline.

Twisted, and daphne with it, store a body of any length in a temporary file before the request is looked at. Here a body
is in memory, never longer than ``request_heads.MAX_BODY_BYTES``, and read only if the head shows that it is needed. A
client that is answered earlier has a moment to read the response; what it sends meanwhile is discarded.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from django.conf import settings
from twisted.web.http import HTTPChannel

from boilerhouse.web import connections
from boilerhouse.web.body_streams import BodyStream, BodyTooSlow, ClientGone
from boilerhouse.web.connections import Connection, Phase
from boilerhouse.web.request_heads import MAX_BODY_BYTES, UNKNOWN_BODY_BYTES, Head, Refusal, admit, judge

if TYPE_CHECKING:
    from boilerhouse.process.budgets import Hold

HELD_BYTES = 64 * 1024
"""The part of a body that may arrive while its sender is identified."""
THROWN_AWAY_BYTES = MAX_BODY_BYTES
"""What is still read from a client that has been answered; the rest stays in its socket."""

_lookups = ThreadPoolExecutor(2, thread_name_prefix="heads")


class Request(WebRequest):  # type: ignore[misc]
    refusal: Refusal | None = None
    head: Head | None = None
    """A request that has a body."""
    hold: Hold | None = None
    """The memory of a long body, counted against the limit."""
    stream: BodyStream | None = None
    """The body, if its view reads it while it arrives."""

    def __init__(self, channel: Any, queued: Any = False) -> None:
        super().__init__(channel, queued, parsePOSTFormSubmission=False)  # Django does that, in a thread

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()

    def begin_stream(self, method: bytes, target: bytes, version: bytes) -> None:
        """Start the view now, with what has come of the body."""
        self.channel.known.enter(Phase.ASKED)  # until the view waits for the body
        come, self.content = self.content.getvalue(), io.BytesIO()
        self.stream = self.channel.new_stream(self)
        if come:
            self.stream.feed(come)
        super().requestReceived(method, target, version)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.stream is None:
            super().requestReceived(command, path, version)
        else:
            self.stream.finish()

    def handle_reply(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and self.stream is not None and not self.stream.is_complete:
            self.channel.answered_early(self)
        super().handle_reply(message)

    def handleContentChunk(self, data: bytes) -> None:
        if self.stream is not None:
            self.channel.known.enter(Phase.ASKED)
            self.stream.feed(data)
            return
        size = self.content.tell() + len(data)
        if self.refusal is None and size > MAX_BODY_BYTES:
            self.refuse(Refusal.TOO_LARGE)
        if self.refusal is None:
            self.content.write(data)
            self.channel.body_grew(self, size)

    def refuse(self, refusal: Refusal) -> None:
        """Answer without the body; its received part is dropped."""
        self.refusal = refusal
        self.content = io.BytesIO()
        self._give_back()

    def process(self) -> Any:
        result = super().process()
        self.content = io.BytesIO()  # the application has it now
        if self.application_queue is None:
            self._give_back()  # it has become a WebSocket, or is closed
        return result

    def connectionLost(self, reason: Any) -> None:
        if self.stream is not None:
            self.stream.fail(ClientGone())
        if self.application_queue is None:  # otherwise the application has it and continues
            self._give_back()
        super().connectionLost(reason)

    def finish(self) -> None:
        self._give_back()
        super().finish()

    def _give_back(self) -> None:
        if self.hold is not None:
            self.hold.release()


class Channel(HTTPChannel):  # type: ignore[misc]
    """The connection of a client."""

    known: Connection
    length: int | None

    timeOut = None  # replaced by ``connections.Connection.deadline``

    def __init__(self) -> None:
        super().__init__()
        self._held_pieces: list[bytes] | None = None
        """What arrives meanwhile. Not ``_buffer``, which is twisted's own."""
        self._is_over = False
        """The last response is sent or being sent; nothing more is read."""
        self._thrown_away = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        peer = getattr(self.transport.getPeer(), "host", "") or ""
        self.known = Connection(peer, self.transport.abortConnection, self)
        self.factory.server.open.add(self.transport, self.known)

    def connectionLost(self, reason: Any) -> None:
        self.factory.server.open.remove(self.transport)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> Any:
        if self.known.phase is Phase.HEAD and not self.known.has_begun:
            self.known.enter(Phase.HEAD)
            self.known.has_begun = True
        return super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        self.persistent = self.checkPersistence(request, self._version)
        request.gotLength(self.length)
        if chain := b",".join(request.requestHeaders.getRawHeaders(b"x-forwarded-for", ())).decode("latin-1"):
            self._counts_for(connections.forwarded(self.known.peer, chain))
        if self.length == 0:
            return
        self.known.enter(Phase.BODY)
        request.head = head = _head(request, self._command, self._path)
        refusal = judge(head, self.length)
        if refusal is None and self.factory.server.open.has_too_many_bodies(self.known.address):
            refusal = Refusal.TOO_MANY
        if refusal is not None:
            self._end_with(request, refusal)
            self.length = 0  # the caller continues as for a request without a body
        elif self.length is not None and self.length > UNKNOWN_BODY_BYTES:
            self._look_up(request)
        else:
            self._invite(request)

    def allContentReceived(self) -> None:
        self.known.enter(Phase.ASKED)
        super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if self._is_over:
            self._throw_away(data)
        elif self._held_pieces is not None and not self._handlingRequest:
            self._held_pieces.append(data)
            if sum(map(len, self._held_pieces)) > HELD_BYTES:
                self._networkProducer.pauseProducing()
        else:
            super().rawDataReceived(data)
            request = self.requests[-1] if self.requests else None
            if request is not None and request.refusal is not None and not self._handlingRequest:
                self._answer_now(request, request.refusal)

    def body_grew(self, request: Request, size: int) -> None:
        """Check the received length of a body of unknown length."""
        if size > UNKNOWN_BODY_BYTES and request.hold is None and self._held_pieces is None:
            self._look_up(request)

    def requestDone(self, request: Any) -> None:
        if self._is_over:
            del self.requests[0]
            self._linger()
            return
        self.known.has_answered = True
        self.known.enter(Phase.HEAD)
        if connections.is_trusted(self.known.peer):  # the proxy's next request may be another client's
            self._counts_for("")
            self.known.is_known = False
        super().requestDone(request)

    def overdue(self) -> None:
        """The client has exceeded the time limit."""
        if self.known.phase is Phase.BODY and self.requests and self.requests[-1].stream is not None:
            self.known.enter(Phase.ASKED)
            self.requests[-1].stream.fail(BodyTooSlow())
        elif self.known.phase is Phase.BODY and self.requests:
            self._answer_now(self.requests[-1], Refusal.TOO_SLOW)
        else:
            self.transport.abortConnection()

    def is_idle(self) -> bool:
        """Whether it is open, not a WebSocket, and has no request."""
        return self.transport is not None and self.transport.protocol is self and not self.requests

    def close_when_answered(self) -> None:
        if self.is_idle():
            self.loseConnection()
        else:
            self.persistent = 0

    def new_stream(self, request: Request) -> BodyStream:
        def is_current() -> bool:
            return not self._is_over and self.requests[-1:] == [request]

        def hold() -> None:
            self._networkProducer.pauseProducing()

        def go_on() -> None:
            if is_current():
                self._networkProducer.resumeProducing()

        def wait() -> None:
            if is_current():
                self.known.enter(Phase.BODY)

        return BodyStream(hold, go_on, wait, partial(self._invite, request))

    def answered_early(self, request: Request) -> None:
        """The view answers before it has read the whole body: no further request can follow on this connection."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self.known.enter(Phase.ASKED)
        self._is_over, self.persistent = True, 0

    def _counts_for(self, address: str) -> None:
        self.factory.server.open.now_for(self.transport, address)

    def _look_up(self, request: Request) -> None:
        assert request.head is not None
        self.known.enter(Phase.ASKED)
        self._held_pieces = []
        self._networkProducer.pauseProducing()
        length = self.length or MAX_BODY_BYTES  # if its length is unknown
        looking = asyncio.get_running_loop().run_in_executor(_lookups, admit, request.head, length)
        looking.add_done_callback(lambda future: self._looked_up(request, future.result()))

    def _looked_up(self, request: Request, verdict: Hold | Refusal) -> None:
        is_gone = self.requests[-1:] != [request] or self._is_over  # the client left, or already has its answer
        if (is_gone or self._handlingRequest) and not isinstance(verdict, Refusal):
            verdict.release()
        if is_gone:
            return
        self.known.enter(Phase.BODY)
        self._networkProducer.resumeProducing()
        data, self._held_pieces = b"".join(self._held_pieces or ()), None
        if self._handlingRequest:
            return  # the complete body was here already
        if isinstance(verdict, Refusal):
            self._answer_now(request, verdict)
            return
        request.hold = verdict
        if request.head is None or not request.head.is_streamed:
            self._invite(request)
        else:  # it is invited when its view wants it
            request.begin_stream(self._command, self._path, self._version)
        if data:
            self.rawDataReceived(data)

    def _invite(self, request: Request) -> None:
        expected = request.requestHeaders.getRawHeaders(b"expect", [b""])[0]
        if expected.lower() == b"100-continue" and self._version == b"HTTP/1.1" and not request.content.tell():
            self._send100Continue()

    def _answer_now(self, request: Request, refusal: Refusal) -> None:
        """Answer before the body has arrived."""
        self._end_with(request, refusal)
        self.allContentReceived()

    def _end_with(self, request: Request, refusal: Refusal) -> None:
        request.refuse(refusal)
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._is_over, self.persistent, self._held_pieces = True, 0, None

    def _throw_away(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > THROWN_AWAY_BYTES:
            self._networkProducer.pauseProducing()

    def _linger(self) -> None:
        """Close our side, and wait for the client's: closing immediately could destroy the response."""
        self.known.enter(Phase.LINGER)
        self._networkProducer.unregisterProducer()
        self.transport.loseWriteConnection()
        if self._thrown_away <= THROWN_AWAY_BYTES:
            self._networkProducer.resumeProducing()


def _head(request: Request, method: bytes, target: bytes) -> Head:
    def header(name: bytes) -> str:
        return b"; ".join(request.requestHeaders.getRawHeaders(name, ())).decode("latin-1")

    path = unquote(target.partition(b"?")[0].decode("latin-1"))
    base = settings.BOILERHOUSE_BASE_PATH
    if base and (path == base or path.startswith(f"{base}/")):
        path = path[len(base) :]
    return Head(method.decode("latin-1"), path or "/", header(b"authorization"), header(b"cookie"))


class Channels(HTTPFactory):  # type: ignore[misc]
    def protocol(self) -> Channel:
        return Channel()

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.timeOut = None

    def buildProtocol(self, address: Any) -> Any:
        if not self.server.open.make_room(getattr(address, "host", "") or ""):
            return None
        channel = super().buildProtocol(address)
        channel.requestFactory = Request
        return channel


class Socket(WebSocketProtocol):  # type: ignore[misc]
    def connectionLost(self, reason: Any) -> None:
        self.factory.server_class.open.remove(self.transport)
        super().connectionLost(reason)


class Sockets(WebSocketFactory):  # type: ignore[misc]
    protocol = Socket

"""The web server: daphne with backpressure, a limit of message sizes, and graceful shutdown.

Daphne's ``send`` never waits for the client. Streaming applications find ``boilerhouse.backlog`` in their scope: a
function that returns how many bytes the client's connection has not accepted yet.

On SIGTERM it accepts no new connection, ends streams, finishes running requests, and exits; requests that still wait
after ``BOILERHOUSE_DRAIN_S`` are told to try again. With an inherited listening socket (``--fd``), new connections wait
for the next process, and none is refused.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import daphne.server
from daphne.cli import CommandLineInterface

from boilerhouse.process import memory, priority
from boilerhouse.web.connections import Connections, take_all_files
from boilerhouse.web.http_channel import Channels, Sockets

MAX_MESSAGE_BYTES = 4 << 20
"""The limit in both directions: a page's partial may be long, but a client's message must not use more memory."""
HANDSHAKE_S = 60
"""How long a WebSocket's handshake may wait for our answer. The client's part of it is here when this time begins."""
WHOLE_BODY_BYTES = 2 << 20
"""Longer than any body: daphne passes it on in one piece, not in 128 copies."""
LOOK_EVERY_S = 0.05
LOOK_AFTER_CLIENTS_S = 1.0
LOOK_AFTER_URGENCY_S = 1.0
FIRST_WORDS_S = 1.0
"""Grace time of a new connection, whose first request is on the way."""
LAST_WORDS_S = 1.0
"""Time to write the responses of requests whose wait was cut short."""


def backlog(protocol: Any) -> int:
    """Bytes that wait in this process for the client of a request or socket."""
    channel = getattr(protocol, "channel", protocol)
    transport = getattr(channel, "transport", None)
    if transport is None:
        return 0
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class Server(daphne.server.Server):  # type: ignore[misc]
    at_start: ClassVar[list[Callable[[], object]]] = []
    """Called in the event loop when it runs; ``web.node_server`` listens then."""
    at_drain: ClassVar[list[Callable[[], object]]] = []
    """Called when no new connection is accepted any more."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        patience = {"websocket_connect_timeout": HANDSHAKE_S, "websocket_handshake_timeout": HANDSHAKE_S}
        super().__init__(*arguments, **{"request_buffer_size": WHOLE_BODY_BYTES, **options, **patience})
        self.open = Connections()
        self._ports: list[Any] = []
        self._draining_since: float | None = None
        self._urgency = priority.Watch()

    def run(self) -> None:
        daphne.server.reactor.callWhenRunning(self._take_signals)
        daphne.server.reactor.callLater(LOOK_AFTER_CLIENTS_S, self._end_overdue)
        daphne.server.reactor.callLater(LOOK_AFTER_URGENCY_S, self._look_after_urgency)
        for call in self.at_start:
            daphne.server.reactor.callWhenRunning(call)
        super().run()

    def listen_success(self, port: Any) -> None:
        self._ports.append(port)
        super().listen_success(port)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        more = {
            "boilerhouse.backlog": partial(backlog, protocol),
            "boilerhouse.connection": self.open.of(protocol.transport),
            "boilerhouse.refusal": getattr(protocol, "refusal", None),
            "boilerhouse.head": getattr(protocol, "head", None),
            "boilerhouse.hold": getattr(protocol, "hold", None),
            "boilerhouse.body": getattr(protocol, "stream", None),
        }
        return super().create_application(protocol, {**scope, **more})

    def _end_overdue(self) -> None:
        for connection in self.open.overdue():
            connection.channel.overdue()
        daphne.server.reactor.callLater(LOOK_AFTER_CLIENTS_S, self._end_overdue)

    def _look_after_urgency(self) -> None:
        self._urgency.look()
        daphne.server.reactor.callLater(LOOK_AFTER_URGENCY_S, self._look_after_urgency)

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daphne.server.reactor.callFromThread(self.drain))

    def drain(self) -> None:
        """Stop when running requests have been answered; called twice, stop immediately."""
        from boilerhouse.web import shutdown

        if self._draining_since is not None:
            self.stop()
            return
        self._draining_since = time.monotonic()
        for port in self._ports:
            port.stopListening()
        for call in self.at_drain:
            call()
        shutdown.begun.set()
        self._drained()

    def _drained(self) -> None:
        from django.conf import settings

        from boilerhouse.web import shutdown

        assert self._draining_since is not None
        waited = time.monotonic() - self._draining_since
        fresh = time.monotonic() - FIRST_WORDS_S
        busy = any(item.made_at > fresh for item in self.open if item.channel.is_idle())
        for connection in self.open:
            if connection.made_at <= fresh:
                connection.channel.close_when_answered()
        busy |= any(
            not details["application_instance"].done()
            for details in self.connections.values()
            if "application_instance" in details
        )
        if waited > settings.BOILERHOUSE_DRAIN_S:
            shutdown.cut.set()
        if (not busy and waited > LOOK_EVERY_S) or waited > settings.BOILERHOUSE_DRAIN_S + LAST_WORDS_S:
            asyncio.get_event_loop().call_later(LOOK_EVERY_S, self.stop)  # send what was written first
        else:
            daphne.server.reactor.callLater(LOOK_EVERY_S, self._drained)


class SmallMessages(Sockets):
    def setProtocolOptions(self, **options: Any) -> None:
        limits = {"maxMessagePayloadSize": MAX_MESSAGE_BYTES, "maxFramePayloadSize": MAX_MESSAGE_BYTES}
        super().setProtocolOptions(**{**options, **limits})


class Interface(CommandLineInterface):  # type: ignore[misc]
    server_class = Server


def start(arguments: list[str]) -> None:
    """Serve until SIGTERM, with daphne's arguments."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boilerhouse.settings")
    priority.be_urgent()  # first of all, because threads inherit it
    memory.give_large_blocks_back()
    take_all_files()
    daphne.server.WebSocketFactory = SmallMessages
    daphne.server.HTTPFactory = Channels
    Interface().run(arguments)


if __name__ == "__main__":
    start(sys.argv[1:])

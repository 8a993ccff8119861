"""The web server: daphne that tells applications how far a client is behind, and takes no huge messages.

Daphne's ``send`` never waits for the client. Applications that stream find ``boilerhouse.backlog`` in their scope: a
function that returns how many bytes the client's connection has not taken yet.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import daphne.server
from daphne.cli import CommandLineInterface
from daphne.ws_protocol import WebSocketFactory

MAX_MESSAGE_BYTES = 4 << 20
"""In both directions: a page's partial may be long, and a client's message takes no more than this of our memory."""


def backlog(protocol: Any) -> int:
    """Bytes that wait in this process for the client of a request or a socket."""
    channel = getattr(protocol, "channel", protocol)
    transport = getattr(channel, "transport", None)
    if transport is None:
        return 0
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class Server(daphne.server.Server):  # type: ignore[misc]
    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        return super().create_application(protocol, {**scope, "boilerhouse.backlog": partial(backlog, protocol)})


class SmallMessages(WebSocketFactory):  # type: ignore[misc]
    def setProtocolOptions(self, **options: Any) -> None:
        limits = {"maxMessagePayloadSize": MAX_MESSAGE_BYTES, "maxFramePayloadSize": MAX_MESSAGE_BYTES}
        super().setProtocolOptions(**{**options, **limits})


class Interface(CommandLineInterface):  # type: ignore[misc]
    server_class = Server


def main() -> None:
    daphne.server.WebSocketFactory = SmallMessages
    Interface().run(sys.argv[1:])


if __name__ == "__main__":
    main()

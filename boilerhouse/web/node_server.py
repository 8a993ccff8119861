"""The web server that other nodes reach: ``python -m boilerhouse.web.node_server``, at BOILERHOUSE_NODE_ADDRESS.

It serves the same API and sockets as every web process, on a Unix socket that only root can open. ``NodeListener``
passes on to it what other nodes send.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from boilerhouse.web import server

if TYPE_CHECKING:
    from boilerhouse.web.node_listener import NodeListener

log = structlog.get_logger("boilerhouse.nodes")

ARGUMENTS = ["-v", "0", "--no-server-name", "boilerhouse.asgi:application"]


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, where an IPv6 address is in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65_536:
        raise ValueError(text)
    return host.removeprefix("[").removesuffix("]"), int(port)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boilerhouse.settings")
    from django.conf import settings

    inward = Path(settings.BOILERHOUSE_DATA_DIR) / "node" / "web.sock"
    inward.unlink(missing_ok=True)  # of a process that was killed
    host, port = address_of(settings.BOILERHOUSE_NODE_ADDRESS)
    server.Server.at_start.append(lambda: _listen(host, port, inward))
    server.start(["-u", str(inward), *ARGUMENTS])


def _listen(host: str, port: int, inward: Path) -> None:
    from boilerhouse.web import node_calls  # needs the models, which are loaded with the application
    from boilerhouse.web.node_listener import NodeListener

    node_calls.is_node_server = True
    listener = NodeListener(host, port, inward)
    server.Server.at_drain.append(listener.close)
    asyncio.get_event_loop().create_task(_start(listener))


async def _start(listener: NodeListener) -> None:
    try:
        await listener.start()
    except OSError as error:
        log.error("cannot listen for nodes", error=str(error))
        os._exit(1)  # the supervisor tries again


if __name__ == "__main__":
    main()

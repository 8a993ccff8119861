"""A bare WebSocket server: what comes on ``/say`` goes to all others, what comes on ``/echo`` back.

Run as a process with a port.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main(port: int) -> None:
    listening: set[ServerConnection] = set()

    async def serve_one(connection: ServerConnection) -> None:
        if connection.request and connection.request.path == "/say":
            async for message in connection:
                broadcast(listening, message)
            return
        if connection.request and connection.request.path == "/echo":
            async for message in connection:
                await connection.send(message)
            return
        listening.add(connection)
        try:
            await connection.wait_closed()
        finally:
            listening.discard(connection)

    async with serve(serve_one, "127.0.0.1", port):
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

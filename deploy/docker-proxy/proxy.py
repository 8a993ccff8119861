#!/usr/bin/env python3
"""Between Boilerhouse and the Docker engine: two sockets that let through what is called, and nothing else.

    proxy.py DIRECTORY [ENGINE_SOCKET]

  DIRECTORY/web.sock     looks at containers, runs commands in them, reads logs: nothing is made or removed through it
  DIRECTORY/worker.sock  that, and what makes and removes our containers, our network and images

One request per connection: its head is checked and passed on with ``Connection: close``, so the engine reads no second
one; the rest is relayed byte by byte, half-closed streams of attached commands included. (HAProxy drops the upgrade of
requests that have a body, nginx ends half-closed streams: neither can carry ``docker exec -i``.) Anything else is 403.

A process that may create containers with bind mounts is root on its host, whatever stands in between: the second
socket keeps mistakes away, not a worker that was taken over. docs/deployment.md says who gets which. No dependencies.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence

MAX_HEAD, CHUNK = 64 * 1024, 64 * 1024
HEAD_S = 10
"""A client that does not finish its head in that time is hung up on."""

NAME, OURS = r"[\w.-]+", r"(bh-[\w.-]+|[0-9a-f]{12,64})"
LOOK = [
    ("GET", r"/(version|info|events|containers/json|images/json|networks)"),
    ("GET", rf"/containers/{NAME}/(json|logs|top|stats)"),
    ("GET", r"/images/[\w./:@-]+/json"),
    ("GET", rf"/networks/{NAME}"),
    ("POST", rf"/containers/{NAME}/exec"),
    ("POST", r"/exec/[0-9a-f]+/(start|resize)"),
    ("GET", r"/exec/[0-9a-f]+/json"),
]
MAKE = [
    ("GET", r"/distribution/[\w./:@-]+/json"),
    ("POST", r"/(auth|containers/create|images/create|build|networks/create)"),
    ("POST", rf"/containers/{OURS}/(start|stop|kill|pause|unpause)"),
    ("GET", r"/containers/bh-accounts-[0-9a-f]+/archive"),  # of an image, never of what has run
    ("HEAD", r"/containers/bh-accounts-[0-9a-f]+/archive"),
    ("DELETE", rf"/containers/{OURS}"),
    ("DELETE", r"/networks/boilerhouse-[0-9a-f]+"),
]
Rules = Sequence[tuple[str, str]]
ALLOWED: dict[str, Rules] = {"web": LOOK, "worker": [*LOOK, *MAKE]}


def is_allowed(rules: Rules, method: str, target: str) -> bool:
    path = target.partition("?")[0]
    if ".." in path or "%" in path or "//" in path:
        return False
    if path == "/version" and method == "GET":
        return True  # the one call before both sides know which version they speak
    return any(method == verb and re.fullmatch(rf"/v1\.\d{{2,3}}{pattern}", path) for verb, pattern in rules)


def passed_on(head: bytes, rules: Rules) -> bytes | None:
    """The head as the engine gets it; None where it is not let through."""
    try:
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
    except (UnicodeDecodeError, ValueError):
        return None
    if version != "HTTP/1.1" or not is_allowed(rules, method, target):
        return None
    names = [line.partition(":")[0].strip().lower() for line in lines if line]
    if any(not line.partition(":")[0] or line[0] in " \t" for line in lines if line):
        return None  # a folded or nameless header: somebody tries something
    if names.count("content-length") + names.count("transfer-encoding") > 1:
        return None  # two bodies in one
    kept = [line for line, name in zip((line for line in lines if line), names, strict=True) if name != "connection"]
    kept.append("Connection: " + ("Upgrade" if "upgrade" in names else "close"))
    return "\r\n".join([first, *kept, "", ""]).encode()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def serve(rules: Rules, engine: str):
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            told = passed_on(head[:-4], rules)
            if told is None:
                words = b'{"message":"this call is not let through"}'
                writer.write(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(words), words)
                )
                await writer.drain()
                return
            answers, upstream = await asyncio.open_unix_connection(engine)
            upstream.write(told)
            asking = asyncio.create_task(relay(reader, upstream))
            try:
                await relay(answers, writer)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one of the two has gone; the other is told by its closed connection
        finally:
            for one in (upstream, writer):
                if one is not None:
                    one.close()

    return connected


async def main(directory: str, engine: str) -> None:
    os.umask(0o177)
    servers = []
    for name, rules in ALLOWED.items():
        path = os.path.join(directory, f"{name}.sock")
        if os.path.exists(path):
            os.unlink(path)
        servers.append(await asyncio.start_unix_server(serve(rules, engine), path, limit=MAX_HEAD))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "/var/run/docker.sock"))

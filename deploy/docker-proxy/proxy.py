#!/usr/bin/env python3
"""Between Boilerhouse and the Docker engine: two sockets that let through what is called, and nothing else.

    proxy.py DIRECTORY [ENGINE_SOCKET]

  DIRECTORY/web/web.sock        looks at our containers, runs commands in them, reads logs: nothing is made or removed
  DIRECTORY/worker/worker.sock  that, and what makes and removes our containers, our network and images

Each lies in a directory of its own, so that a process can be given one of them without the other.

One request per connection. Its head and its body are read, compared with ``calls`` and ``bodies``, and written anew;
the engine gets nothing of a client's own bytes but an image's build context and, once the engine has said that the
connection is a command's, what is typed into that. (HAProxy drops the upgrade of requests that have a body, nginx ends
half-closed streams: neither can carry ``docker exec -i``.) Anything else is 403. No dependencies.

What a deployment allows it reads where the other processes do: BOILERHOUSE_DATA_DIR, BOILERHOUSE_RAM_DIR,
BOILERHOUSE_ALLOWED_NETWORKS, _DEVICES, _RUNTIMES, BOILERHOUSE_ALLOW_HOST_NETWORK, BOILERHOUSE_ALLOW_ROOT.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import calls
import heads
from bodies import Allowed
from refusing import Refused

MAX_HEAD, CHUNK = 64 * 1024, 64 * 1024
HEAD_S, BODY_S, CONTEXT_S = 10, 30, 600
"""A client that does not finish its head, its JSON or its build context in that time is hung up on."""

PR_SET_DUMPABLE = 4

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


async def relay(reader: Reader, writer: Writer) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def pass_context(reader: Reader, engine: Writer, length: int) -> None:
    while length:
        chunk = await reader.read(min(CHUNK, length))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(chunk)
        engine.write(chunk)
        await engine.drain()


async def until_gone(reader: Reader, engine: Writer) -> None:
    """Tell the engine when the client has gone. More bytes would be a second request: nobody reads them."""
    if not await reader.read(1) and engine.can_write_eof():
        engine.write_eof()


async def answer(reader: Reader, writer: Writer, answers: Reader, engine: Writer, *, is_stream: bool) -> None:
    """Pass the engine's answer on; once that has made the connection a stream, what the client sends as well."""
    asking = None
    try:
        if is_stream:
            head = await answers.readuntil(b"\r\n\r\n")
            writer.write(head)
            await writer.drain()
            if not re.match(rb"HTTP/1\.1 101 ", head):
                is_stream = False  # refused: the engine would read what follows as another request
        asking = asyncio.create_task(relay(reader, engine) if is_stream else until_gone(reader, engine))
        await relay(answers, writer)
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def refuse(writer: Writer, why: Refused) -> None:
    words = json.dumps({"message": f"this call is not let through: {why}"}).encode()
    writer.write(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(words), words)
    )
    await writer.drain()


def serve(name: str, let_through: tuple[calls.Call, ...], engine: str) -> Callable[[Reader, Writer], Awaitable[None]]:
    async def connected(reader: Reader, writer: Writer) -> None:
        upstream: Writer | None = None
        try:
            first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            head = heads.parse(first)
            call = calls.of(head, let_through)
            body, length = b"", head.length
            if call.body is not None:
                came = await asyncio.wait_for(reader.readexactly(length), BODY_S)
                body = call.body(head, came)
                length = len(body)
            answers, upstream = await asyncio.open_unix_connection(engine, limit=MAX_HEAD)
            upstream.write(heads.written(head, length, call.kind, upgrade=call.is_stream) + body)
            if call.is_context:
                await asyncio.wait_for(pass_context(reader, upstream, length), CONTEXT_S)
            await upstream.drain()
            await answer(reader, writer, answers, upstream, is_stream=call.is_stream)
        except Refused as why:
            sys.stderr.write(f"{name}.sock: {first[:200].splitlines()[0]!r} is refused: {why}\n")
            await _quietly(refuse(writer, why))
        except asyncio.LimitOverrunError:
            await _quietly(refuse(writer, Refused(f"its head has more than {MAX_HEAD} bytes")))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one of the two has gone; the other is told by its closed connection
        finally:
            for one in (upstream, writer):
                if one is not None:
                    one.close()

    return connected


async def _quietly(telling: Awaitable[None]) -> None:
    with contextlib.suppress(OSError):  # it has gone
        await telling


def allowed_by(environment: Mapping[str, str]) -> Allowed:
    """What the deployment's settings allow."""

    def words(name: str, default: str = "") -> tuple[str, ...]:
        found = environment.get(f"BOILERHOUSE_{name}", default).split(",")
        return tuple(one.strip() for one in found if one.strip())

    def is_on(name: str) -> bool:
        return environment.get(f"BOILERHOUSE_{name}", "").strip().lower() in ("true", "on", "ok", "y", "yes", "1")

    directories = (
        environment.get("BOILERHOUSE_DATA_DIR") or "/var/lib/boilerhouse",
        environment.get("BOILERHOUSE_RAM_DIR") or "/run/boilerhouse",
    )
    return Allowed(
        directories, words("ALLOWED_NETWORKS"), words("ALLOWED_DEVICES"), words("ALLOWED_RUNTIMES", "runc"),
        is_on("ALLOW_HOST_NETWORK"), is_on("ALLOW_ROOT"),
    )  # fmt: skip


def close_itself() -> None:
    """Keep /proc from leading other processes of root to this one's files, the engine's socket among them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel does not close this process to others")


async def main(directory: str, engine: str) -> None:
    close_itself()
    servers = []
    os.umask(0o077)
    for name, let_through in calls.of_sockets(allowed_by(os.environ)).items():
        path = os.path.join(directory, name, f"{name}.sock")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            os.unlink(path)
        servers.append(await asyncio.start_unix_server(serve(name, let_through, engine), path, limit=MAX_HEAD))
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

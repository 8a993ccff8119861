"""The output of a kept command as server-sent events."""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async

from boilerhouse.core import api_keys
from boilerhouse.web.streaming import Stream, Writer
from pools.guest import kept
from tenants import activity
from tenants.api.command_fields import encoded, name_of

IDLE_S = 1.0
LOOK_EVERY_S = 2.0
COMMENT_EVERY_S = 15.0
RELEASED, REVOKED, LOST = "released", "revoked", "lost"
WORDS = {
    RELEASED: "The tenant no longer holds this container.",
    REVOKED: "This key was revoked or has expired.",
    LOST: "The connection to the command ended. Ask for its state, and for the output after the last offset.",
}


def why_ended(container_id: UUID, key_id: str) -> str | None:
    """Why a stream that is open must end; None: it may go on."""
    if not activity.is_claimed(container_id):
        return RELEASED
    return None if api_keys.lives(key_id) else REVOKED


def output_stream(command: kept.Kept, container_id: UUID, key_id: str, encoding: str) -> Stream:
    """Follows the command until it ends, the claim ends, or the key is revoked. It closes the connection."""
    ask = database_sync_to_async(why_ended, thread_sensitive=False)

    async def run(writer: Writer) -> None:
        events, looked, spoke = Events(encoding), time.monotonic(), time.monotonic()
        await writer.write(b": hello\n\n")
        async with aclosing(command.stream(IDLE_S)) as messages:  # type: ignore[type-var]
            async for message in messages:
                for event in events.of(message):
                    await writer.write(event)
                    spoke = time.monotonic()
                now = time.monotonic()
                if now - looked >= LOOK_EVERY_S:
                    looked = now
                    if (reason := await ask(container_id, key_id)) is not None:
                        await writer.write(end_event(reason))
                        return
                if now - spoke >= COMMENT_EVERY_S:
                    spoke = now
                    await writer.write(b": still here\n\n")
        if not events.has_exit:
            for event in events.rest():
                await writer.write(event)
            await asyncio.sleep(0)
            await writer.write(end_event(await ask(container_id, key_id) or LOST))

    stream = Stream(run, "text/event-stream")
    stream.when_closed(command.close)
    return stream


def end_event(reason: str) -> bytes:
    """The last event of a stream that ends without its command's exit."""
    return _event("end", {"reason": reason, "detail": WORDS[reason]})


class Events:
    """Messages of a command as events. With utf-8, no character is torn: its first bytes wait for the others."""

    def __init__(self, encoding: str) -> None:
        self.has_exit = False
        self._encoding = encoding
        self._waiting, self._is_error, self._offset = b"", False, 0

    def of(self, message: kept.Output | kept.Gap | kept.End | None) -> Iterator[bytes]:
        if isinstance(message, kept.Output):
            if message.is_error != self._is_error:
                yield from self.rest()
            self._is_error, self._offset = message.is_error, message.offset
            data = self._waiting + message.data
            whole = data if self._encoding == "base64" else data[: _whole(data)]
            self._waiting = data[len(whole) :]
            if whole:
                yield self._shown(whole)
        elif isinstance(message, kept.Gap):
            yield from self.rest()
            yield _event("gap", {"offset": message.offset}, message.offset)
        elif isinstance(message, kept.End):
            yield from self.rest()
            self.has_exit = True
            ended = {"exitCode": message.exit_code, "signal": name_of(message.signal), "timedOut": message.timed_out}
            yield _event("exit", ended)

    def rest(self) -> Iterator[bytes]:
        """What waited for bytes that do not come."""
        if self._waiting:
            whole, self._waiting = self._waiting, b""
            yield self._shown(whole)

    def _shown(self, whole: bytes) -> bytes:
        offset = self._offset - len(self._waiting)
        name = "stderr" if self._is_error else "stdout"
        return _event(name, {"offset": offset, "data": encoded(whole, self._encoding)}, offset)


def _whole(data: bytes) -> int:
    """How many of these bytes are not the beginning of a character whose end is missing."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(data) - len(decoder.getstate()[0])


def _event(kind: str, data: dict[str, Any], offset: int | None = None) -> bytes:
    head = "" if offset is None else f"id: {offset}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()

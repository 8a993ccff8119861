"""Where other nodes reach this one: TLS with certificates of the deployment's authority on both sides.

Each connection whose peer shows the certificate of a living row is passed on, byte by byte, to a Unix socket of this
process's web server, which only root can open. So requests and WebSockets of other nodes are served like all others,
and whatever has come by that socket is from a node (ADR 98).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from contextlib import suppress
from pathlib import Path

import structlog
from django.db import close_old_connections

from boilerhouse.core.deployment import certificate_file
from boilerhouse.core.models import Node
from boilerhouse.core.node_identity import authority_file
from boilerhouse.core.states import NodeState

log = structlog.get_logger("boilerhouse.nodes")

HANDSHAKE_S = 5.0
PIECE_BYTES = 64 * 1024
LOOK_AT_CERTIFICATE_S = 60.0
KNOWN_TRIES, KNOWN_PAUSE_S = 3, 0.1
"""A node uses its renewed certificate a moment before its row names it."""


class NodeListener:
    """Listens at ``host``:``port`` for other nodes, for the web server at the Unix socket ``inward``."""

    def __init__(self, host: str, port: int, inward: Path) -> None:
        self._host, self._port, self._inward = host, port, inward
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(authority_file())
        self._loaded = 0.0
        self._server: asyncio.Server | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises OSError if the address cannot be used."""
        self._load()
        self._server = await asyncio.start_server(
            self._serve, self._host, self._port, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S, backlog=256
        )
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        log.info("listening for nodes", host=self._host, port=self._port)

    def close(self) -> None:
        """Accept no more connections; those that are there go on."""
        if self._server is not None:
            self._server.close()
        if self._renewing is not None:
            self._renewing.cancel()

    def _load(self) -> None:
        changed = certificate_file().stat().st_mtime
        if changed != self._loaded:
            self._context.load_cert_chain(certificate_file())
            self._loaded = changed

    async def _renew(self) -> None:
        """New connections get the renewed certificate."""
        while True:
            await asyncio.sleep(LOOK_AT_CERTIFICATE_S)
            with suppress(OSError):
                self._load()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            if not await _is_known(hashlib.sha256(certificate).hexdigest()):
                log.warning("node refused", peer=str(writer.get_extra_info("peername")))
                return
            inward_reader, inward_writer = await asyncio.open_unix_connection(self._inward)
            await _join(reader, writer, inward_reader, inward_writer)
        except (OSError, ssl.SSLError) as error:
            log.debug("connection of a node ended", error=type(error).__name__)
        finally:
            writer.transport.abort()


async def _is_known(fingerprint: str) -> bool:
    for attempt in range(KNOWN_TRIES):
        if attempt:
            await asyncio.sleep(KNOWN_PAUSE_S)
        if await asyncio.to_thread(_has_row, fingerprint):
            return True
    return False


def _has_row(fingerprint: str) -> bool:
    close_old_connections()
    return Node.objects.filter(certificate_sha256=fingerprint).exclude(state=NodeState.LOST).exists()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inward_reader: asyncio.StreamReader,
    inward_writer: asyncio.StreamWriter,
) -> None:
    """Until one side ends; the other has got everything that came before."""
    for one in (writer, inward_writer):
        one.transport.set_write_buffer_limits(high=PIECE_BYTES)
    pumps = [asyncio.ensure_future(_pump(reader, inward_writer)), asyncio.ensure_future(_pump(inward_reader, writer))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        with suppress(OSError):
            await asyncio.wait_for(writer.drain(), HANDSHAKE_S)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        writer.close()
        inward_writer.close()
        with suppress(OSError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), HANDSHAKE_S)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(PIECE_BYTES):
        target.write(data)
        await target.drain()

"""Access to SFTP servers: paramiko connections, kept for a while, to servers with a known host key.

Connecting takes several round trips, so a connection serves several queries. Each is used by one thread at a time.
Importing this takes a fifth of a second; most processes never use such a sink.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import paramiko
from paramiko.sftp import CMD_CLOSE, CMD_HANDLE, CMD_NAME, CMD_OPENDIR, CMD_READDIR
from paramiko.sftp_attr import SFTPAttributes

from syncing.errors import HostKeyUnknown, SinkUnreachable
from syncing.sinks import deadlines, outbound

KEPT_S = 20
"""How long an idle connection is kept; servers limit their number."""
KEPT = 4
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what fails is raised, too
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----\s*\Z")
_ATTRIBUTES: Any = SFTPAttributes
_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True, slots=True)
class Server:
    """An account on a server, and the server's known host keys."""

    host: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    """As in ``known_hosts``: the algorithm and the key in base64."""
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)

    @property
    def algorithms(self) -> list[str]:
        """The host key algorithms to offer, so that the server presents a known key if it has one."""
        names = dict.fromkeys(key.partition(" ")[0] for key in self.host_keys)
        return [one for name in names for one in (("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,))]


def private_key(text: str) -> str:
    """The key with its usual line breaks, even if a form changed them. Raises ValueError for anything else."""
    match = _PEM.match(text.strip())
    if not match:
        raise ValueError("not a private key in PEM")
    lines = textwrap.wrap("".join(match[2].split()), 64)
    pem = "\n".join([f"-----BEGIN {match[1]}-----", *lines, f"-----END {match[1]}-----", ""])
    load(pem)
    return pem


def load(pem: str) -> paramiko.PKey:
    """Raises ValueError for a key of no usable kind, or with a passphrase."""
    for kind in _KINDS:
        with contextlib.suppress(paramiko.SSHException, ValueError, IndexError):
            return kind.from_private_key(io.StringIO(pem))
    raise ValueError("not a private key that can be used: Ed25519, ECDSA or RSA, without a passphrase")


class Client(paramiko.SFTPClient):
    """With listings that allow any bytes in names."""

    _request: Any

    @property
    def _channel(self) -> paramiko.Channel:
        channel = self.get_channel()
        assert channel is not None
        return channel

    def limit(self, seconds: float) -> None:
        """The timeout of one answer."""
        self._channel.settimeout(seconds)

    def entries(self, path: bytes) -> Iterator[tuple[str, SFTPAttributes]]:
        """Names in a directory, without ``.`` and ``..``; invalid UTF-8 is escaped as in Python's file names."""
        kind, message = self._request(CMD_OPENDIR, path)
        if kind != CMD_HANDLE:
            raise paramiko.SFTPError("expected a handle")
        handle = message.get_binary()
        try:
            while True:
                try:
                    kind, message = self._request(CMD_READDIR, handle)
                except EOFError:
                    if not self._channel.active:
                        raise  # the connection's end, not the directory's
                    return
                if kind != CMD_NAME:
                    raise paramiko.SFTPError("expected names")
                for _ in range(message.get_int()):
                    name, _long = message.get_string(), message.get_string()
                    attributes: SFTPAttributes = _ATTRIBUTES._from_msg(message)
                    if name not in (b".", b".."):
                        yield os.fsdecode(name), attributes
        finally:
            with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
                self._request(CMD_CLOSE, handle)


@dataclass(slots=True)
class _Kept:
    client: Client
    transport: paramiko.Transport
    connection: socket.socket
    idle_since: float = 0.0

    def close(self) -> None:
        self.transport.close()

    @property
    def is_usable(self) -> bool:
        return self.transport.is_active() and time.monotonic() - self.idle_since < KEPT_S


_idle: dict[Server, list[_Kept]] = {}
_lock = threading.Lock()


def _forget() -> None:
    """A forked process lacks the threads of the connections."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def connected(server: Server, deadline_s: float) -> Iterator[Client]:
    """A client for one query, closed at the deadline of this thread's query.

    Raises SinkClosed, SinkUnreachable, HostKeyUnknown, and paramiko's errors.
    """
    connection = _take(server) or _open(server, deadline_s)
    try:
        deadlines.use(connection.connection)
        connection.client.limit(deadlines.left_of(deadline_s))
        yield connection.client
    except FileNotFoundError:
        _give_back(server, connection)
        raise
    except BaseException:
        connection.close()
        raise
    else:
        _give_back(server, connection)


def _take(server: Server) -> _Kept | None:
    while True:
        with _lock:
            connection = _idle[server].pop() if _idle.get(server) else None
        if connection is None or connection.is_usable:
            return connection
        connection.close()


def _give_back(server: Server, connection: _Kept) -> None:
    connection.idle_since = time.monotonic()
    with _lock:
        _idle.setdefault(server, []).append(connection)
        idle = [other for others in _idle.values() for other in others]
        for key, others in list(_idle.items()):
            _idle[key] = [other for other in others if other.is_usable][-KEPT:]
            if not _idle[key]:
                del _idle[key]
        still = {id(other) for others in _idle.values() for other in others}
    for other in idle:
        if id(other) not in still:
            other.close()


def _open(server: Server, deadline_s: float) -> _Kept:
    connection = _connect(server, deadline_s)
    remaining_s = deadlines.left_of(deadline_s)
    transport = paramiko.Transport(connection)
    try:
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = remaining_s
        transport.get_security_options().key_types = server.algorithms
        try:
            transport.start_client(timeout=remaining_s)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise HostKeyUnknown(f"{server.host}:{server.port} has no host key of a kind that is known.") from error
        _check_host_key(server, transport.get_remote_server_key())
        if server.private_key:
            transport.auth_publickey(server.user, load(server.private_key))
        else:
            transport.auth_password(server.user, server.password)
        client = Client.from_transport(transport)
        assert isinstance(client, Client)
    except BaseException:
        transport.close()
        raise
    return _Kept(client, transport, connection)


def _check_host_key(server: Server, host_key: paramiko.PKey) -> None:
    key = f"{host_key.get_name()} {host_key.get_base64()}"
    if key not in server.host_keys:
        raise HostKeyUnknown(
            f"{server.host}:{server.port} shows the host key {host_key.fingerprint}, which is not known."
        )


def _connect(server: Server, deadline_s: float) -> socket.socket:
    try:
        addresses = outbound.open_addresses(server.host, server.port)
    except socket.gaierror as error:
        raise SinkUnreachable(f"{server.host} cannot be resolved ({error.strerror}).") from error
    failure: OSError | None = None
    for address in addresses:
        try:
            connection = socket.create_connection((address, server.port), timeout=deadlines.left_of(deadline_s))
        except OSError as error:
            failure = failure or error
        else:
            deadlines.use(connection)
            return connection
    raise failure or OSError(f"{server.host} has no address")

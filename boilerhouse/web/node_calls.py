"""Calls of other nodes: where they listen, and connections to them that stay open, with certificates on both sides.

Whoever listens is the node if its certificate is one that the deployment's authority has made for that node's id, so
an address that leads to another machine is noticed before anything is sent.
"""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.db import close_old_connections

from boilerhouse.core import context
from boilerhouse.core.deployment import certificate_file, has_joined
from boilerhouse.core.errors import Elsewhere
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("boilerhouse.nodes")

CONNECT_S = 0.5
"""Nodes are near each other; who waits for one that is gone is a person or a claim."""
IDLE_CONNECTIONS, MOST_CONNECTIONS, IDLE_S = 20, 1000, 50.0
"""The web server there closes connections that are idle for a minute."""

GONE_S = 20
"""A machine that acknowledges nothing for so long is gone."""

is_node_server = False
"""Whether this process serves other nodes. It passes nothing on, so that a request cannot go in circles."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, and where it listens."""

    node: str
    host: str
    port: int

    @property
    def host_name(self) -> str:
        """The name in its certificate."""
        from boilerhouse.core import certificates  # eight megabytes, which one machine does not need

        return certificates.host_name(self.node)


def peer_of(node_id: str) -> Peer | None:
    """None if the node has no address, or is lost, or this process may not call others."""
    if is_node_server or not node_id:
        return None
    row = (
        Node.objects.filter(pk=node_id).exclude(address="").exclude(state=NodeState.LOST).values_list("address").first()
    )
    if row is None:
        return None
    if not has_joined():  # the first machine, which needs a certificate from now on
        from boilerhouse.core import node_identity

        node_identity.renew()
    host, _, port = row[0].rpartition(":")
    return Peer(node_id, host.removeprefix("[").removesuffix("]"), int(port))


def peer_of_in_thread(node_id: str) -> Peer | None:
    """``peer_of`` in a thread that serves no request, so that nothing else closes its old database connection."""
    close_old_connections()
    return peer_of(node_id)


def can_pass(error: Exception) -> bool:
    """Whether the error means that the request is about another node, which can be asked instead."""
    return isinstance(error, Elsewhere) and peer_of(error.node) is not None


_lock = threading.Lock()
_context: tuple[float, ssl.SSLContext] | None = None


def tls() -> ssl.SSLContext:
    """For calls of other nodes, with this node's present certificate. Raises OSError, ssl.SSLError."""
    global _context
    from boilerhouse.core.node_identity import authority_file

    with _lock:
        changed = certificate_file().stat().st_mtime
        if _context is None:
            made = ssl.create_default_context(cafile=str(authority_file()))
            made.minimum_version = ssl.TLSVersion.TLSv1_3
            made.load_cert_chain(certificate_file())
            _context = changed, made
        elif _context[0] != changed:
            _context[1].load_cert_chain(certificate_file())
            _context = changed, _context[1]
        return _context[1]


def options() -> dict[str, Any]:
    """Of connections to nodes. One of a machine that is gone ends by itself."""
    import httpx

    tcp = socket.IPPROTO_TCP
    return {
        "limits": httpx.Limits(
            max_connections=MOST_CONNECTIONS, max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=IDLE_S
        ),
        "socket_options": [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (tcp, socket.TCP_KEEPIDLE, GONE_S // 4),
            (tcp, socket.TCP_KEEPINTVL, GONE_S // 4), (tcp, socket.TCP_KEEPCNT, 3),
            (tcp, socket.TCP_USER_TIMEOUT, GONE_S * 1000),
        ],
    }  # fmt: skip


def extensions(peer: Peer, read_s: float | None) -> dict[str, Any]:
    """How a request to the peer is sent: whose certificate is expected, and for how long it waits."""
    return {
        "sni_hostname": peer.host_name,
        "timeout": {"connect": CONNECT_S, "read": read_s, "write": read_s, "pool": CONNECT_S},
    }


def _a_name_of_ours() -> str:
    """A host name that BOILERHOUSE_ALLOWED_HOSTS there contains as here."""
    names = (name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*")
    return next(names, "localhost")


_sync: httpx.HTTPTransport | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes


def post(peer: Peer, path: str, body: dict[str, Any], timeout_s: float) -> Answer | None:
    """The answer to an order; None if there is none, which does not mean that nothing was done."""
    import httpx

    global _sync
    try:
        certificates = tls()
        with _lock:
            transport = _sync = _sync or httpx.HTTPTransport(verify=certificates, **options())
        url = httpx.URL(scheme="https", host=peer.host, port=peer.port, path=path)
        headers = {"Host": _a_name_of_ours(), "X-Forwarded-Proto": "https", "X-Request-ID": context.request_id()}
        request = httpx.Request("POST", url, json=body, headers=headers, extensions=extensions(peer, timeout_s))
        answer = transport.handle_request(request)
        try:
            return Answer(answer.status_code, answer.read())
        finally:
            answer.close()
    except (httpx.HTTPError, OSError) as error:
        log.warning("node not reached", node=peer.node, error=type(error).__name__)
        return None

"""Canonical spellings of endpoints.

Two spellings with the same canonical form are the same server. Two different ones may still be: only an object at the
server can tell (``syncing.places``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import posixpath
import re
import socket
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
_PORTS = {"http": 80, "https": 443}
_AWS = re.compile(r"(^|\.)s3([.-][a-z0-9.-]+)?\.amazonaws\.com(\.cn)?\Z")
"""Of all servers under this domain, this pattern matches only S3 itself: a load balancer may stand before anything."""


def is_aws(endpoint: str) -> bool:
    """Whether it is AWS's own S3, where the bucket's name is enough: no endpoint, global and regional ones are
    equal."""
    return not endpoint or bool(_AWS.search(_host(endpoint)))


def server(endpoint: str) -> str:
    """``host:port`` in canonical form: lower case, the scheme's default port, an IPv4 address in four numbers."""
    parts = urlsplit(endpoint)
    return f"{_host(endpoint)}:{parts.port or _PORTS.get(parts.scheme, 0)}"


def path(endpoint: str) -> str:
    """The path of an endpoint without slashes at its ends, ``.`` and ``..``; empty for the root."""
    return posixpath.normpath(f"/{unquote(urlsplit(endpoint).path)}").strip("/")


def resolved(endpoint: str) -> list[str]:
    """The addresses of an endpoint's host, from the resolver; the name itself if it has none.

    Any address of this machine becomes the loopback address.
    """
    if is_aws(endpoint):
        return ["aws"]
    host = _host(endpoint)
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return [host]
    return sorted({LOOPBACK if _is_own(address) else _plain(address) for address in addresses})


def _host(endpoint: str) -> str:
    host = (urlsplit(endpoint).hostname or "").rstrip(".").lower()
    return LOOPBACK if host == "localhost" else _plain(host)


def _plain(host: str) -> str:
    """An address in canonical form; a name unchanged. ``127.1``, ``0x7f000001`` and ``0`` are addresses too."""
    with contextlib.suppress(OSError, UnicodeEncodeError):
        host = socket.inet_ntoa(socket.inet_aton(host))
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return LOOPBACK if address.is_unspecified else str(address)
    return host


def _is_own(address: str) -> bool:
    """Whether it is an address of this machine."""
    plain = _plain(address)
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    if ipaddress.ip_address(plain).is_loopback:
        return True
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((plain, 0))
        return True
    return False

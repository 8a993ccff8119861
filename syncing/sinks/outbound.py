"""Where clients of sinks may connect: not to this machine's loopback address, nor to a cloud's metadata service.

An operator configures a sink's endpoint, and its server may redirect a client. So the address at the time of the
connection decides, whatever name led there. Private networks are allowed, because many sinks are there. The deployment
can name further addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from boilerhouse.core.deployment import data_dir
from syncing.errors import SinkClosed, SinkUnreachable
from syncing.sinks import network_settings
from syncing.sinks.base import Sink

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLOSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "::1/128", "fe80::/10", "ff00::/8",
            "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::a9fe:a9fe/128",
        ),
    )
)  # fmt: skip
"""This machine, link-local, multicast and broadcast addresses; the second line is cloud metadata outside the link-local
range."""
_NAT64, _6TO4 = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("2002::/16")
_LOOPBACKS: dict[int, Address] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}
EMBEDDED_PORT = "s3-port"
"""The file in the data directory with the port of the embedded S3."""
DNS_PORT, SORTING_PORT = 53, 9
"""To sort addresses, Go checks the route to this port; no packet is sent."""


def is_closed(host: str, port: int, address: str) -> bool:
    """Whether no sink may be at ``address``, the resolved address of ``host``."""
    return is_no_sink(plain(address)) and not any(_allowed(name, port) for name in (host, str(plain(address))))


def is_no_sink(address: Address) -> bool:
    """Whether the address is this machine's, a link's, a group's or a cloud's metadata service's."""
    return any(address in network for network in _CLOSED)


def plain(text: str) -> Address:
    """The actual destination: an IPv4 address written as IPv6 is IPv4, and the unspecified address is this machine."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.is_unspecified:
        return _LOOPBACKS[address.version]
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4:
            return ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
        return plain(str(address.ipv4_mapped)) if address.ipv4_mapped else address
    return address


def _allowed(host: str, port: int) -> bool:
    parts = urlsplit(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    return any(network_settings.names(entry, parts) for entry in (*settings.BOILERHOUSE_ALLOWED_SINK_HOSTS, *_own()))


def _own() -> Iterator[str]:
    """The deployment's embedded S3, and its proxies."""
    with contextlib.suppress(FileNotFoundError):
        yield f"127.0.0.1:{(data_dir() / EMBEDDED_PORT).read_text().strip()}"
    yield from own_proxies()


def own_proxies() -> Iterator[str]:
    """``host:port`` of each proxy of the deployment."""
    for proxy in (settings.HTTP_PROXY, settings.HTTPS_PROXY):
        if proxy:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            yield f"{parts.hostname}:{_port(parts)}"


def open_addresses(host: str, port: int) -> list[str]:
    """The addresses of ``host`` at which a sink may be, from the resolver.

    Raises SinkClosed if all of them are closed, socket.gaierror if there are none.
    """
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    good = [address for address in addresses if not is_closed(host, port, address)]
    if addresses and not good:
        raise SinkClosed(host, port, addresses[0])
    return good


# rclone: its jail's names and connections -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """The destinations and host names of one run of rclone."""

    ends: frozenset[tuple[str, int]] = frozenset()
    """Addresses and ports of the sink, or of its proxy."""
    hosts: str = ""
    """The hosts file with these addresses; without it, names are resolved."""
    port: int = 0
    """Any address that is not closed: AWS has too many, and they change."""

    @property
    def asks_resolver(self) -> bool:
        return self.port > 0

    def words(self, refused: str) -> str:
        """The error for ``refused``, a destination that rclone was redirected to."""
        return "to another name" if refused.endswith(f":{DNS_PORT}") and not self.asks_resolver else f"to {refused}"

    def allows(self, address: str, port: int) -> bool:
        target = str(plain(address))
        if (target, port) in self.ends:
            return True
        if port == SORTING_PORT:
            return any(target == end for end, _ in self.ends)
        if not self.asks_resolver:
            return False
        return target in _resolvers() if port == DNS_PORT else port == self.port and not is_closed("", port, address)


def reach(sink: Sink) -> Reach:
    """What rclone must reach for this sink, and nothing else, so a redirect can only lead back to it.

    Raises SinkClosed, SinkUnreachable.
    """
    if not sink.address:
        return Reach()
    proxy = network_settings.proxy_for(sink.address)
    parts = urlsplit(proxy or sink.address)
    port = _port(parts)
    if not proxy and sink.has_changing_addresses:
        return Reach(port=port)
    names = [parts.hostname or ""] if proxy else list(sink.hosts())
    lines, ends = ["127.0.0.1 localhost"], set()
    for name in names:
        try:
            targets = open_addresses(name, port)
        except socket.gaierror as error:
            if name == names[0]:
                raise SinkUnreachable(f"{name} cannot be resolved ({error.strerror}).") from error
            continue
        ends |= {(str(plain(address)), port) for address in targets}
        lines += [f"{address} {name}" for address in targets if not _is_address(name)]
    return Reach(frozenset(ends), "\n".join([*lines, ""]))


def _port(parts: SplitResult) -> int:
    return parts.port or {"http": 80, "https": 443, "sftp": 22}.get(parts.scheme, 0)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _resolvers() -> set[str]:
    text = Path("/etc/resolv.conf").read_text(errors="replace")
    return {str(plain(address)) for address in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)}

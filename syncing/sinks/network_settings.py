"""How all clients reach a sink: trusted certificates and proxies.

This is decided here for all of them, because rclone and the in-process clients have different rules of their own; a
sink that only one of them reaches would be healthy but could not be saved to.
"""

from __future__ import annotations

import ipaddress
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import certifi
from django.conf import settings

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)
_PORTS = {"http": 80, "https": 443}
PROXY_DENIES = 407
"""The status of a proxy that requires other credentials."""


def ca_bundle() -> str:
    """The file of certificates that verify sinks: the deployment's, the system's, otherwise Mozilla's."""
    return settings.BOILERHOUSE_CA_BUNDLE or _system_bundle()


@cache
def _system_bundle() -> str:
    return next((path for path in _SYSTEM_BUNDLES if Path(path).is_file()), certifi.where())


def is_untrusted(error: Exception) -> bool:
    """Whether botocore or requests failed because of the sink's certificate."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def proxy_for(address: str) -> str:
    """The URL of the proxy for ``address``; empty for none. It may contain a password.

    A loopback or link-local address never uses a proxy, nor does any entry of NO_PROXY: hosts with everything below
    them, ``.suffixes``, addresses, networks, each with or without a port, or ``*`` for all.
    """
    parts = urlsplit(address)
    proxy: str = {"http": settings.HTTP_PROXY, "https": settings.HTTPS_PROXY}.get(parts.scheme, "")
    if not proxy or _is_own(parts.hostname or "") or any(names(entry, parts) for entry in settings.NO_PROXY):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def proxies_for(address: str) -> dict[str, str]:
    """``proxy_for`` for botocore and requests."""
    proxy = proxy_for(address)
    return {urlsplit(address).scheme: proxy} if proxy else {}


def rclone_environment(address: str) -> dict[str, str]:
    """``proxy_for`` for rclone: the one variable that applies to this address."""
    return {f"{scheme.upper()}_PROXY": proxy for scheme, proxy in proxies_for(address).items()}


def _is_own(host: str) -> bool:
    """Whether it is this machine or link-local, for which no proxy is used."""
    address = _address(host)
    return host == "localhost" or (address is not None and (address.is_loopback or address.is_link_local))


def names(entry: str, parts: SplitResult) -> bool:
    """Whether one entry of NO_PROXY, or of a similar list, matches the host of a URL."""
    entry, host = entry.strip().lower(), parts.hostname or ""
    if entry == "*":
        return True
    if _network(entry) is None:
        entry, _, port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if port and port != str(parts.port or _PORTS.get(parts.scheme)):
            return False
    network, address = _network(entry), _address(host)
    if network is not None:
        return address is not None and address in network
    entry = entry.removeprefix("*")
    return host.endswith(f".{entry.removeprefix('.')}") or host == entry


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None

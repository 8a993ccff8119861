"""How every client reaches a sink: which certificates it trusts, and through which proxy it goes.

Decided here for all of them. rclone and the in-process clients have rules of their own, which differ; a sink that one
of them reaches and the other does not is one that is healthy and cannot be saved to.
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
"""What a proxy answers that wants other credentials."""


def ca_bundle() -> str:
    """The file of certificates that sinks are verified with: the deployment's, the system's, else Mozilla's."""
    return settings.BOILERHOUSE_CA_BUNDLE or _system_bundle()


@cache
def _system_bundle() -> str:
    return next((path for path in _SYSTEM_BUNDLES if Path(path).is_file()), certifi.where())


def is_untrusted(error: Exception) -> bool:
    """Whether botocore or requests failed for the certificate that the sink showed."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def proxy_for(address: str) -> str:
    """The URL of the proxy through which ``address`` is asked; empty for none. It may hold a password.

    A loopback or link-local address is never asked by a proxy, nor is what NO_PROXY names: hosts with all below them,
    ``.suffixes``, addresses, networks, each with or without a port, or ``*`` for all.
    """
    parts = urlsplit(address)
    proxy: str = {"http": settings.HTTP_PROXY, "https": settings.HTTPS_PROXY}.get(parts.scheme, "")
    if not proxy or _is_own(parts.hostname or "") or any(names(entry, parts) for entry in settings.NO_PROXY):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def proxies_for(address: str) -> dict[str, str]:
    """``proxy_for`` as botocore and requests take it."""
    proxy = proxy_for(address)
    return {urlsplit(address).scheme: proxy} if proxy else {}


def rclone_environment(address: str) -> dict[str, str]:
    """``proxy_for`` as rclone takes it: the one variable that counts for this address."""
    return {f"{scheme.upper()}_PROXY": proxy for scheme, proxy in proxies_for(address).items()}


def _is_own(host: str) -> bool:
    """Whether it is this machine, or on its link alone: no proxy is asked for that."""
    address = _address(host)
    return host == "localhost" or (address is not None and (address.is_loopback or address.is_link_local))


def names(entry: str, parts: SplitResult) -> bool:
    """Whether one entry of NO_PROXY, or of a list like it, names the host of a URL."""
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

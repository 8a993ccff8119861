"""The address at which people open the dashboard."""

from __future__ import annotations

from contextlib import suppress

from django.conf import settings

from boilerhouse.core.deployment import data_dir

EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_FILE = "web-address"


def origin_of(host: str, port: int) -> str:
    """``http://host:port`` of a web process on this machine; a loopback address if it listens on every address."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def remember(origin: str) -> None:
    """Store where ``up`` listens, for commands that print links."""
    (data_dir() / _FILE).write_text(origin)


def public_origin() -> str:
    """Where people open the dashboard, without the base path: the proxy's origin if one is configured, otherwise where
    ``up`` listens or listened last. Empty if neither is known.
    """
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        if "*" not in origin:
            return str(origin).rstrip("/")
    if settings.BOILERHOUSE_HTTPS:
        hosts = [host for host in settings.ALLOWED_HOSTS if host and "*" not in host and not host.startswith(".")]
        return f"https://{hosts[0]}" if hosts else ""
    with suppress(OSError):
        return (data_dir() / _FILE).read_text().strip()
    return ""

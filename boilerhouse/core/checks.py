"""System checks for wrong or dangerous settings, each with an id and a hint."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import ssl
import stat
from collections.abc import Iterable, Iterator
from email.utils import parseaddr
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import get_resolver

from boilerhouse.core import bounds, encryption


@register()
def environment(**_: Any) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    for index, key in enumerate(encryption.in_force()):
        try:
            Fernet(key)
        except ValueError:
            problems.append(
                Error(
                    f"Encryption key number {index + 1} is not a Fernet key.",
                    hint="BOILERHOUSE_ENCRYPTION_KEYS takes keys of 32 bytes in URL-safe base64, newest first.",
                    id="boilerhouse.E001",
                )
            )
    for program, package, number in (("bwrap", "bubblewrap", 2), ("setpriv", "util-linux", 3)):
        if not shutil.which(program):
            hint = f"apt-get install {package}"
            problems.append(
                Error(
                    f"{program} is missing, so rclone cannot run in its sandbox.",
                    hint=hint,
                    id=f"boilerhouse.E00{number}",
                )
            )
    if settings.Q_CLUSTER["retry"] <= settings.Q_CLUSTER["timeout"]:
        problems.append(Error("The queue's retry must exceed its timeout.", id="boilerhouse.E004"))
    if settings.BOILERHOUSE_TRANSFER_STALL_S < 1:
        problems.append(
            Error(
                "BOILERHOUSE_TRANSFER_STALL_S must be 1 or more.",
                hint="It is the time in seconds after which a transfer that does not move is ended; default 120.",
                id="boilerhouse.E005",
            )
        )
    if settings.BOILERHOUSE_PARALLEL_PULLS < 1:
        problems.append(
            Error(
                "BOILERHOUSE_PARALLEL_PULLS must be 1 or more.",
                hint="It is the number of images that a node pulls at once; default 8, half of them from one registry.",
                id="boilerhouse.E015",
            )
        )
    for name in ("BOILERHOUSE_TRANSFER_TIMEOUT_S", "BOILERHOUSE_TRANSFER_TIMEOUT_S_FILE"):
        if name in os.environ:
            problems.append(
                Warning(
                    f"{name} is set but has no effect: a transfer may take as long as it makes progress.",
                    hint="Remove it. BOILERHOUSE_TRANSFER_STALL_S limits the time without progress.",
                    id="boilerhouse.W003",
                )
            )
    if settings.BOILERHOUSE_TRACING and find_spec("opentelemetry") is None:
        hint = "Install the extra: uv sync --extra tracing, or pip install 'boilerhouse[tracing]'."
        problems.append(
            Error("BOILERHOUSE_TRACING is on, but OpenTelemetry is not installed.", hint=hint, id="boilerhouse.E006")
        )
    problems += _reaching_of_sinks()
    problems += _notifying()
    problems += _being_reached()
    if os.geteuid() != 0:
        problems.append(
            Warning(
                "Not running as root: container directories cannot be given to their users.",
                hint="Run worker and controller as root on the Docker node.",
                id="boilerhouse.W001",
            )
        )
    problems += _numbers() + _limits_of_exec()
    if settings.DEBUG:
        problems.append(Warning("BOILERHOUSE_DEBUG is on.", hint="Do not use it in production.", id="boilerhouse.W002"))
    return problems


_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\*|\.?[\w.-]+|\[[0-9a-fA-F:.]+\])\Z")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+\Z")
_ORIGIN = re.compile(r"https?://(\*\.)?([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?\Z")
RANGES: dict[str, tuple[int, int]] = {
    "_HEAD_TIMEOUT_S": (1, 3600),
    "_BODY_TIMEOUT_S": (1, 3600),
    "_MAX_CONNECTIONS": (16, 1_000_000),
    "_MAX_CONNECTIONS_PER_ADDRESS": (1, 1_000_000),
    "_DISABLE_AFTER_S": (60, bounds.TEN_YEARS_S),
    "_NOTIFICATION_DEADLINE_S": (1, 30 * 86_400),
    "_BYTES_PER_S": (1, bounds.MAX_MB << 20),
    "_BODIES_MAX_BYTES": (2 << 20, bounds.MAX_MB << 20),
    "_BODIES_MAX_BYTES_PER_TENANT": (1 << 20, bounds.MAX_MB << 20),
    "_BODIES_MAX_BYTES_PER_KEY": (1 << 20, bounds.MAX_MB << 20),
    "_SAVED_FILES_MAX_BYTES": (64 << 20, bounds.MAX_MB << 20),
    "_SAVED_FILES_MAX_BYTES_PER_TENANT": (32 << 20, bounds.MAX_MB << 20),
    "_SAVED_FILES_MAX_BYTES_PER_KEY": (32 << 20, bounds.MAX_MB << 20),
    "_S": (0, bounds.TEN_YEARS_S),
    "_MS": (0, bounds.TEN_YEARS_MS),
    "_MB": (0, bounds.MAX_MB),
    "_BYTES": (0, bounds.MAX_MB << 20),
    "_FILES": (0, 10**9),
    "_THREADS": (1, 1000),
    "_PARALLEL": (1, 1000),
    "_PARALLEL_CREATES": (1, 1000),
    "_PARALLEL_PULLS": (1, 1000),
    "_PARALLEL_TRANSFERS": (1, 1000),
    "_MAX_STREAMS": (0, 100_000),
    "_MAX_TRANSFERS": (0, 100_000),
    "_FOLLOWED_LOGS": (0, 10_000),
    "_KEPT_BYTES_PER_TENANT": (0, bounds.MAX_MB << 20),
    "_KEPT_BYTES_PER_KEY": (0, bounds.MAX_MB << 20),
    "_RATE_PER_TENANT": (0, 1_000_000),
    "_PER_TENANT": (1, 100_000),
    "_PER_KEY": (1, 100_000),
    "_PER_POOL": (1, 100_000),
    "_MAX_WAITERS": (0, 100_000),
    "_LOGIN_FAILURES": (1, 1_000_000),
    "_GATEWAY_PORT": (0, 65_535),
    "_THROTTLE_RATE": (0, 1_000_000),
    "_THROTTLE_BURST": (0, 1_000_000),
}
"""Ranges by the suffix of a setting's name, which is its unit or what it counts."""


def numbers_set() -> dict[str, float]:
    """All numeric settings of Boilerhouse."""
    named = {name: getattr(settings, name) for name in dir(settings) if name.startswith("BOILERHOUSE_")}
    return {
        name: value for name, value in named.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def range_of(name: str) -> tuple[int, int] | None:
    """The lowest and highest allowed value of a setting."""
    return next((bounds for end, bounds in RANGES.items() if name.endswith(end)), None)


def _numbers() -> list[CheckMessage]:
    """Check that all numeric settings can be added to a date, stored in a database and handled by the node."""
    problems: list[CheckMessage] = []
    for name, value in sorted(numbers_set().items()):
        low, high = range_of(name) or (0, 2**53)
        if not low <= value <= high:
            problems.append(Error(f"{name} must be a number from {low} to {high}.", id="boilerhouse.E009"))
    return problems


EXEC_LIMITS = {
    "BOILERHOUSE_EXEC_TIMEOUT_MAX_MS": (100, 3_600_000),
    "BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES": (1024, 16 << 20),
    "BOILERHOUSE_EXEC_STDIN_MAX_BYTES": (0, 1 << 20),
    "BOILERHOUSE_EXEC_COMMAND_MAX_BYTES": (1024, 1 << 20),
    "BOILERHOUSE_EXEC_PARALLEL": (1, 1000),
}
"""Check that a command's limits suit a web process: a request waits for the command in a thread, and its output is held
in memory."""


def _limits_of_exec() -> list[CheckMessage]:
    return [
        Error(f"{name} must be a number from {low} to {high}.", id="boilerhouse.E012")
        for name, (low, high) in EXEC_LIMITS.items()
        if not low <= getattr(settings, name) <= high
    ]


def _being_reached() -> list[CheckMessage]:
    """Refuse host names and origins that no browser can match, because the page that explains this would appear only
    after the proxy is set up."""
    problems: list[CheckMessage] = []
    for name in settings.ALLOWED_HOSTS:
        if not _HOST.match(name):
            hint = "Give host names without scheme, port or path, separated by commas: boilerhouse.example.com"
            problems.append(
                Error(f"BOILERHOUSE_ALLOWED_HOSTS: {name!r} is not a host name.", hint=hint, id="boilerhouse.E010")
            )
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        if not _ORIGIN.match(origin):
            hint = "Give scheme and host, and the port if it is not the default: https://boilerhouse.example.com:8443"
            words = f"BOILERHOUSE_TRUSTED_ORIGINS: {origin!r} is not an origin."
            problems.append(Error(words, hint=hint, id="boilerhouse.E011"))
    for network in settings.BOILERHOUSE_TRUSTED_PROXIES:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            hint = "Give addresses or networks, separated by commas: 127.0.0.0/8,::1,192.0.2.10"
            words = f"BOILERHOUSE_TRUSTED_PROXIES: {network!r} is neither an address nor a network."
            problems.append(Error(words, hint=hint, id="boilerhouse.E045"))
    problems += _publishing() + _node_address()
    problems += _base_path()
    is_local = all(name in _LOCAL for name in settings.ALLOWED_HOSTS)
    if settings.BOILERHOUSE_HTTPS and is_local and not settings.CSRF_TRUSTED_ORIGINS:
        hint = "Set BOILERHOUSE_ALLOWED_HOSTS to the host name that browsers use for the proxy."
        words = "BOILERHOUSE_HTTPS is on, but BOILERHOUSE_ALLOWED_HOSTS has only local names."
        problems.append(Warning(words, hint=hint, id="boilerhouse.W004"))
    return problems


def _publishing() -> list[CheckMessage]:
    """Check that tenants' ports are never on the dashboard's host, because browsers send the session cookie to all
    ports of a host."""
    host = settings.BOILERHOUSE_PUBLISH_HOST
    hint = "Use another loopback address, such as 127.0.0.2; it needs no setup."
    try:
        is_loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        words = f"BOILERHOUSE_PUBLISH_HOST: {host!r} is not a loopback address."
        return [Error(words, hint=hint, id="boilerhouse.E046")]
    names = {*settings.ALLOWED_HOSTS, *(urlsplit(origin).hostname for origin in settings.CSRF_TRUSTED_ORIGINS)}
    if host in names or (host == "127.0.0.1" and "localhost" in names):
        words = (
            f"BOILERHOUSE_PUBLISH_HOST: browsers also open the dashboard at {host}, so tenants would receive its"
            " cookies."
        )
        return [Error(words, hint=hint, id="boilerhouse.E047")]
    if "*" in names:
        words = (
            f"BOILERHOUSE_ALLOWED_HOSTS is *, so browsers may open the dashboard at {host}, where tenants' ports are"
            " published."
        )
        return [Warning(words, hint="Name the hosts that browsers use for the dashboard.", id="boilerhouse.W045")]
    return []


def _node_address() -> list[CheckMessage]:
    address = settings.BOILERHOUSE_NODE_ADDRESS
    host, _, port = address.rpartition(":")
    is_host = bool(_HOST.match(host)) and not host.startswith((".", "*"))
    if not address or (is_host and port.isdecimal() and 0 < int(port) < 65_536):
        return []
    hint = "Give an address of this machine that other nodes reach, and a port: 10.0.0.12:8443"
    words = f"BOILERHOUSE_NODE_ADDRESS: {address!r} is not a host and a port."
    return [Error(words, hint=hint, id="boilerhouse.E050")]


def _base_path() -> list[CheckMessage]:
    base = settings.BOILERHOUSE_BASE_PATH
    if not base:
        return []
    number, words = "boilerhouse.E013", f"BOILERHOUSE_BASE_PATH: {base!r}"
    if not _BASE_PATH.match(base) or {".", ".."} & set(base.split("/")):
        hint = "Give the path as in the address, with a leading slash: /boilerhouse"
        return [Error(f"{words} is not a path.", hint=hint, id=number)]
    first = base.split("/")[1]
    if first in {"static", "ws", *_first_of_each(get_resolver().url_patterns)}:
        hint = (
            "Use another path, such as /boilerhouse: behind a proxy that removes it, some addresses would be ambiguous."
        )
        return [Error(f"{words} begins like one of Boilerhouse's own addresses.", hint=hint, id=number)]
    return []


def _first_of_each(patterns: Iterable[Any]) -> Iterator[str]:
    """The first path segments of all pages and of the API."""
    for pattern in patterns:
        route = str(pattern.pattern).lstrip("^")
        if not route:
            yield from _first_of_each(getattr(pattern, "url_patterns", ()))
        else:
            yield route.split("/")[0]


def _reaching_of_sinks() -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    if (bundle := settings.BOILERHOUSE_CA_BUNDLE) and (problem := _problem_of_bundle(bundle)):
        hint = "Name a PEM file that every user can read, with the certificates of all authorities that sinks need."
        problems.append(Error(f"BOILERHOUSE_CA_BUNDLE: {bundle} {problem}.", hint=hint, id="boilerhouse.E007"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        proxy = getattr(settings, name)
        if "://" in proxy and (urlsplit(proxy).scheme not in ("http", "https") or not urlsplit(proxy).hostname):
            # The value is not shown, because it may contain a password.
            hint = "Give http://host:port or https://host:port; not every client supports other kinds of proxy."
            problems.append(Error(f"{name} is not the URL of an HTTP proxy.", hint=hint, id="boilerhouse.E008"))
    return problems


def _notifying() -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    if settings.BOILERHOUSE_SMTP_TLS not in ("starttls", "tls", "none"):
        hint = "Use starttls (port 587), tls (port 465), or none for a server on a trusted network."
        problems.append(Error("BOILERHOUSE_SMTP_TLS must be starttls, tls or none.", hint=hint, id="boilerhouse.E048"))
    if not 1 <= settings.EMAIL_PORT <= 65535:
        problems.append(Error("BOILERHOUSE_SMTP_PORT must be a port, from 1 to 65535.", id="boilerhouse.E049"))
    sender = parseaddr(settings.DEFAULT_FROM_EMAIL)[1]
    if settings.EMAIL_HOST and ("@" not in sender or sender.endswith("@localhost")):
        hint = "Most mail servers refuse other senders than their own: boilerhouse@example.com"
        problems.append(
            Warning(
                "BOILERHOUSE_SMTP_HOST is set, but BOILERHOUSE_MAIL_FROM names no sender.",
                hint=hint,
                id="boilerhouse.W046",
            )
        )
    return problems


def _problem_of_bundle(path: str) -> str:
    try:
        ssl.create_default_context(cafile=path)
        may_all_read = os.stat(path).st_mode & stat.S_IROTH
    except OSError as error:
        return f"contains no certificates ({error.strerror})"
    return "" if may_all_read else "is not readable by the uids of the containers, under which rclone runs"

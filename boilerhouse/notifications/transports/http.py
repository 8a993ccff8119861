"""One POST: to a public address, with a deadline for all of it; no redirect is followed, and no answer is read."""

from __future__ import annotations

import contextlib
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar
from urllib.parse import urlsplit

import requests
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError

from boilerhouse.notifications import addresses
from boilerhouse.notifications.errors import Undelivered
from syncing.errors import SinkStumbled
from syncing.sinks import deadlines, guarded_connections, network_settings, refusals

SEND_S = 10.0
GONE = 410


class _Http(guarded_connections.Guarded, HTTPConnection):
    open_addresses = staticmethod(addresses.open_addresses)


class _Https(guarded_connections.Guarded, HTTPSConnection):
    open_addresses = staticmethod(addresses.open_addresses)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(guarded_connections.Adapter):
    pools: ClassVar[dict[str, Any]] = {"http": _HttpPool, "https": _HttpsPool}


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer, which is a success.

    Raises Undelivered for any other answer and without one. Its detail tells nothing of what answered but the status.
    """
    try:
        with deadlines.within(SEND_S):
            return _post(url, body, headers)
    except SinkStumbled as error:
        raise Undelivered(f"There was no answer within {SEND_S:g} s.") from error
    except (requests.RequestException, OSError, ValueError) as error:
        raise Undelivered(_words(error, urlsplit(url).hostname or "")) from error


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    parts = urlsplit(url)
    proxies = network_settings.proxies_for(url)
    if proxies:
        addresses.check_behind_proxy(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    named = {"Content-Type": "application/json", "User-Agent": f"Boilerhouse/{settings.VERSION}", **headers}
    options: dict[str, Any] = {"timeout": SEND_S, "allow_redirects": False, "stream": True, "proxies": proxies}
    options["verify"] = network_settings.ca_bundle()
    with _session() as session, contextlib.closing(session.post(url, body, headers=named, **options)) as answer:
        if answer.ok and not answer.is_redirect and answer.status_code < 300:
            return answer.status_code
        raise _refusal(answer)


def _session() -> requests.Session:
    """It keeps no cookies and reads no environment."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in _Adapter.pools:
        session.mount(f"{scheme}://", _Adapter())
    return session


def _refusal(answer: requests.Response) -> Undelivered:
    status = answer.status_code
    if status == GONE:
        return Undelivered("The target answered 410: it wants no more notifications.", status=status, is_gone=True)
    if status < 400:
        return Undelivered(f"The target answered {status}. Redirects are not followed.", status=status)
    after_s = refusals.after_s(answer.headers.get("Retry-After"))
    return Undelivered(f"The target answered {status}.", status=status, after_s=after_s)


def _words(error: Exception, host: str) -> str:
    """Without the error's own text, which may contain the URL."""
    if network_settings.is_untrusted(error):
        return f"The certificate of {host} cannot be verified."
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(cause, NameResolutionError):
        return f"{host} cannot be resolved."
    return f"{host} cannot be reached ({type(cause or error).__name__})."

"""Requests over HTTP to sinks, by ``requests``.

Connections are guarded, certificates and proxies are this deployment's, and answers have a bounded length.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from urllib3.exceptions import ProtocolError

from syncing.errors import SinkStumbled, SinkUnreachable, SinkUntrusted
from syncing.sinks import guarded_connections, network_settings, sizes

CONNECTIONS = 32
"""How many connections to one server are kept open."""
_session: requests.Session | None = None


def new_session() -> requests.Session:
    """A session with connections of its own. It keeps no cookies and reads no environment: proxies and certificates are
    decided here, and the content of a ``.netrc`` is nobody's business."""
    opened = requests.Session()
    opened.trust_env = False
    opened.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in guarded_connections.POOLS:
        opened.mount(f"{scheme}://", guarded_connections.Adapter(pool_maxsize=CONNECTIONS))
    return opened


def session() -> requests.Session:
    """The session of this process, whose connections serve several requests."""
    global _session
    if _session is None:
        _session = new_session()
    return _session


def forget() -> None:
    """Afterwards the next request opens a connection."""
    global _session
    _session = None


os.register_at_fork(after_in_child=forget)


def send(
    session: requests.Session, method: str, url: str, deadline_s: int, *, where: str, **more: Any
) -> requests.Response:
    """The answer with its complete content; no redirect is followed. ``where`` names the server in errors.

    Raises SinkUnreachable, SinkStumbled, SinkUntrusted, and Oversized if the content exceeds the limit.
    """
    with _translated(where), contextlib.closing(_send(session, method, url, deadline_s, **more)) as answer:
        if answer.status_code == network_settings.PROXY_DENIES:
            raise SinkUnreachable(f"The proxy before {where} demands other credentials.")
        what = f"The answer to {method} {url.partition('?')[0]}"
        sizes.check(int(answer.headers.get("Content-Length") or 0), what)
        answer._content = sizes.joined(answer.iter_content(sizes.CHUNK), what)
        return answer


def _send(session: requests.Session, method: str, url: str, deadline_s: int, **more: Any) -> requests.Response:
    """Once more where a kept connection was closed by its server in the meantime."""
    options: Mapping[str, Any] = {
        "timeout": deadline_s,
        "allow_redirects": False,
        "stream": True,
        "verify": network_settings.ca_bundle(),
        "proxies": network_settings.proxies_for(url),
        **more,
    }
    try:
        return session.request(method, url, **options)
    except requests.ConnectionError as error:
        if session is not _session or not isinstance(error.args[0] if error.args else None, ProtocolError):
            raise
    return session.request(method, url, **options)


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except (requests.RequestException, OSError) as error:
        if network_settings.is_untrusted(error):
            raise SinkUntrusted(f"The certificate of {where} cannot be verified.") from error
        kind = SinkStumbled if isinstance(error, requests.Timeout) else SinkUnreachable
        raise kind(f"{where} cannot be reached ({type(error).__name__}).") from error

# Made of _async/transport.py by scripts/python-client.sh: change that one.
"""Requests: what is sent again after which failure, and streams."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from boilerhouse_client._sync import platform
from boilerhouse_client.errors import ApiError, Throttled, Unavailable, Unreachable
from boilerhouse_client.payloads import Payload
from boilerhouse_client.sockets import Address
from boilerhouse_client.sse import OPEN, Parser, ServerEvent
from boilerhouse_client.wire import CONNECT_S, IN_FLIGHT, LONGEST_PAUSE_S, SILENCE_S, error_of, no_cookies, parameters

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
OUR_FAULT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=20)


class Transport:
    """Talks to one Boilerhouse with one key."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float,
        retries: int,
        patience_s: float,
        verify: ssl.SSLContext | bool,
        transport: platform.HttpTransport | None,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout_s, self.retries, self.patience_s = timeout_s, retries, patience_s
        self._headers = {"Authorization": f"Bearer {key}"}
        self._tls = verify if isinstance(verify, ssl.SSLContext) else httpx.create_ssl_context(verify=verify)
        self._http = platform.HttpClient(
            headers=self._headers, verify=self._tls, limits=NO_LIMIT, cookies=no_cookies(), transport=transport
        )
        self._elsewhere = platform.HttpClient(verify=self._tls, limits=NO_LIMIT, cookies=no_cookies())
        """For requests to containers, which must get neither the key nor each other's cookies."""

    def close(self) -> None:
        """Close the connections that are kept for later requests."""
        self._http.close()
        self._elsewhere.close()

    # Requests ---------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Ask the API below ``/api/v1/`` and return what it answers, None for an empty answer. Raises ApiError."""
        answer = self.raw(method, path, json=body, **options)
        return answer.json() if answer.content else None

    def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The same, as a response.

        ``json``, ``params``, ``headers``; ``payload`` for a body of bytes; ``wait_s`` for how long the request itself
        asks to wait; ``retries`` in place of the client's. It is sent again where that is safe: a POST carries an
        ``Idempotency-Key``, and what is conditional is not repeated once it may have arrived. Raises ApiError, and
        Unreachable, also for a redirect: the key is for this address alone.
        """
        return self._send(method, path, **options)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """The same, with the body still to be read. Raises Unreachable also in the block, if the connection breaks.

        ``silence_s``: how long nothing may come; None for any time.
        """
        answer = self._send(method, path, is_stream=True, **options)
        try:
            yield answer
        except httpx.TransportError as broken:
            raise Unreachable(f"The connection to {self.url} broke: {broken!r}") from broken
        finally:
            answer.close()

    def events_of(
        self, path: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[ServerEvent]:
        """``OPEN``, and the events of one connection. Raises as ``stream``."""
        with self.stream("GET", path, params=params, headers=headers, silence_s=SILENCE_S) as answer:
            yield OPEN
            parser = Parser()
            with platform.closing(answer.iter_raw()) as pieces:
                for piece in pieces:
                    yield from parser.feed(piece)

    def address(self, path: str) -> Address:
        """Of a WebSocket below ``/ws/``."""
        url = f"ws{self.url.removeprefix('http')}/ws/{path}"
        return Address(url, self._headers, self._tls if url.startswith("wss:") else None)

    # How they are sent ------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        payload: Payload | None = None,
        wait_s: float = 0,
        is_stream: bool = False,
        silence_s: float | None = None,
        retries: int | None = None,
        **options: Any,
    ) -> httpx.Response:
        named, most = dict(headers or {}), self.retries if retries is None else retries
        if method == "POST":
            named.setdefault("Idempotency-Key", uuid.uuid4().hex)
        reads_s = silence_s if is_stream else self.timeout_s + wait_s
        timeout = httpx.Timeout(self.timeout_s, connect=CONNECT_S, read=reads_s)
        until, attempt = time.monotonic() + self.timeout_s + wait_s, 0
        while True:
            try:
                answer = self._once(method, path, named, payload, timeout, is_stream=is_stream, **options)
            except httpx.TransportError as broken:
                if attempt == most or not _may_repeat(broken, named, payload):
                    raise Unreachable(f"{self.url} does not answer: {broken!r}") from broken
                pause = 0.2 * 2**attempt
                attempt += 1
            else:
                if answer.is_success:
                    return answer
                error = error_of(answer)
                if error.code == IN_FLIGHT and time.monotonic() < until:  # ours, whose answer was lost
                    pause = error.retry_after or 1
                elif attempt < most and _may_come(error) and _is_repeatable(payload):
                    pause = error.retry_after or 0
                    attempt += 1
                else:
                    raise error
            platform.sleep(min(pause, LONGEST_PAUSE_S))

    def _once(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: Payload | None,
        timeout: httpx.Timeout,
        *,
        is_stream: bool,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> httpx.Response:
        """One attempt; its answer is read unless it is a stream that succeeds."""
        named = dict(headers)
        if is_stream:
            named["Accept-Encoding"] = "identity"
        if payload is not None and payload.length is not None:
            named["Content-Length"] = str(payload.length)
        request = self._http.build_request(
            method,
            f"{self.url}/api/v1/{path}",
            headers=named,
            params=parameters(params) or None,
            json=json,
            content=None if payload is None else platform.content(payload),
            timeout=timeout,
        )
        answer = self._http.send(request, stream=True, follow_redirects=False)
        if is_stream and answer.is_success:
            return answer
        try:
            if answer.has_redirect_location:
                where = answer.headers["Location"]
                raise Unreachable(f"{self.url} redirects to {where}. If that is Boilerhouse, make it the client's url.")
            answer.read()
        finally:
            answer.close()
        return answer

    def ask_elsewhere(self, method: str, url: str, **options: Any) -> httpx.Response:
        """A request to a container, without the key. A redirect is returned as it is, unless ``follow_redirects``.

        Raises Unreachable.
        """
        options.setdefault("timeout", self.timeout_s)
        try:
            return self._elsewhere.request(method, url, **options)
        except httpx.TransportError as broken:
            raise Unreachable(f"{url} does not answer: {broken!r}") from broken


def _is_repeatable(payload: Payload | None) -> bool:
    return payload is None or payload.is_repeatable


def _may_repeat(broken: httpx.TransportError, headers: Mapping[str, str], payload: Payload | None) -> bool:
    if isinstance(broken, OUR_FAULT) or not _is_repeatable(payload):
        return False
    is_conditional = "If-Match" in headers or "If-None-Match" in headers
    return not is_conditional or isinstance(broken, NEVER_SENT)


def _may_come(error: ApiError) -> bool:
    return isinstance(error, Throttled | Unavailable) and error.retry_after is not None

"""A company proxy: it alone resolves a host's name, requires a password, and records its requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HIDDEN_NAME = "s3.corp.test"
"""A host that no resolver knows; the proxy finds it at 127.0.0.1."""
_HOP_BY_HOP = {"proxy-authorization", "proxy-connection", "connection", "keep-alive", "te", "transfer-encoding"}


@dataclass
class Asked:
    """One request as the proxy saw it; of a tunnel only where it leads."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class Proxy:
    """HTTP's two kinds of proxy, CONNECT and forward, on a port of its own."""

    user: str = "corp"
    password: str = "proxy-pass-word"
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.user}:{self.password}@127.0.0.1:{self._server.server_port}"

    @property
    def agents(self) -> set[str]:
        """The first word of each client's name."""
        return {one.headers.get("user-agent", "").split("/")[0] for one in self.asked}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        if not self._may():
            return
        host, _, port = self.path.rpartition(":")
        with contextlib.closing(socket.create_connection((_found(host), int(port)), timeout=10)) as far:
            self.send_response(200)
            self.end_headers()
            self._tunnel(far)
        self.close_connection = True

    def _forward(self) -> None:
        if not self._may():
            return
        parts = urlsplit(self.path)
        body = self._body()
        connection = http.client.HTTPConnection(_found(parts.hostname or ""), parts.port or 80, timeout=30)
        try:
            connection.putrequest(self.command, self.path[len(f"{parts.scheme}://{parts.netloc}") :] or "/", True, True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                    connection.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward
    do_PROPFIND = do_MKCOL = do_COPY = do_MOVE = do_OPTIONS = _forward

    def _may(self) -> bool:
        seen = {name.lower(): value for name, value in self.headers.items()}
        self.proxy.asked.append(Asked(self.command, self.path, seen))
        given = f"{self.proxy.user}:{self.proxy.password}"
        if seen.get("proxy-authorization") == f"Basic {base64.b64encode(given.encode()).decode()}":
            return True
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _tunnel(self, far: socket.socket) -> None:
        pair = {self.connection: far, far: self.connection}
        while True:
            for end in select.select(list(pair), [], [], 60)[0]:
                chunk = end.recv(65536)
                if not chunk:
                    return
                pair[end].sendall(chunk)

    def log_message(self, *_: object) -> None:
        pass


def _found(host: str) -> str:
    return "127.0.0.1" if host == HIDDEN_NAME else host

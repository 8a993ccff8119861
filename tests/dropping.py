"""A socket before the real engine that changes what is asked of it: an engine that drops what it does not know.

It may also change what the engine says of a container: an engine that does not say what it dropped.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENGINE = "/var/run/docker.sock"
INSPECT = re.compile(rb"GET (/v[\d.]+)?/containers/[^/]+/json")


class Filter:
    """``change`` gets the body of each create request, ``pretend`` each answer to inspect; both change it in place."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.change: Callable[[dict[str, Any]], None] = lambda body: None
        self.pretend: Callable[[dict[str, Any]], None] | None = None
        handler = type("Handler", (_Handler,), {"filter": self})
        self._server = _Server(str(path), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Handler(socketserver.StreamRequestHandler):
    """One request in each connection, then bytes both ways until one side ends."""

    filter: Filter

    def handle(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return
        headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(b":") for one in lines[1:])}
        body = self.rfile.read(int(headers.get(b"content-length", 0)))
        if lines[0].startswith(b"POST") and b"/containers/create" in lines[0]:
            asked = json.loads(body)
            self.filter.change(asked)
            body = json.dumps(asked).encode()
        kept = [one for one in lines[1:] if not one.lower().startswith((b"content-length", b"connection:"))]
        is_hijacked = headers.get(b"connection", b"").lower() == b"upgrade"
        kept.append(b"Connection: Upgrade\r\n" if is_hijacked else b"Connection: close\r\n")
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(ENGINE)
            length = f"Content-Length: {len(body)}\r\n\r\n".encode()
            engine.sendall(lines[0] + b"".join(kept) + length + body)
            if self.filter.pretend and INSPECT.match(lines[0]):
                self._pretend(engine, self.filter.pretend)
            else:
                self._pass(engine)

    def _pretend(self, engine: socket.socket, change: Callable[[dict[str, Any]], None]) -> None:
        answer = http.client.HTTPResponse(engine)
        answer.begin()
        found = json.loads(answer.read())
        if answer.status == 200:
            change(found)
        body = json.dumps(found).encode()
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.wfile.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _pass(self, engine: socket.socket) -> None:
        pair = {self.connection: engine, engine: self.connection}
        while True:
            for end in select.select(list(pair), [], [], 60)[0]:
                chunk = end.recv(65536)
                if not chunk:
                    if end is engine:
                        return
                    engine.shutdown(socket.SHUT_WR)
                    del pair[end]
                else:
                    pair.get(end, self.connection).sendall(chunk)

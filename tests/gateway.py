"""A real nginx with the gateway's template, the route server that it asks, and small servers in the place of containers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from boilerhouse.operations.gateway import Gateway
from boilerhouse.operations.supervisor import free_port
from tenants.gateway import route_server


class Echo(BaseHTTPRequestHandler):
    """Answers with its own name and what it received."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        heard = {"name": self.server.name, "path": self.path, "headers": list(self.headers.items())}  # type: ignore[attr-defined]
        heard["length"] = len(self.rfile.read(length))
        body = json.dumps(heard).encode()
        self.send_response(int(self.headers.get("X-Answer-Status") or 200))
        for header in self.headers.get_all("X-Answer-Header") or ():
            name, _, value = header.partition("=")
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def echo(address: str, name: str, port: int = 8080) -> ThreadingHTTPServer:
    """A server at this address of the loopback network, until it is shut down."""
    server = ThreadingHTTPServer((address, port), Echo)
    server.daemon_threads, server.name = True, name  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def heard(self) -> dict[str, str]:
        """The headers that the container received, by name in lower case."""
        return {name.lower(): value for name, value in self.json["headers"]}


class RunningGateway:
    """nginx on a free port of 127.0.0.1, and the route server in threads of this process."""

    def __init__(self, directory: Path, domain: str = "localhost") -> None:
        self.directory, self.port, self.domain = directory, free_port(), domain
        path = directory / "route.sock"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen(64)
        route_server.serve(self.listening)
        user = "root" if os.getuid() == 0 else ""
        made = Gateway(directory, f"127.0.0.1:{self.port}", domain, path, route_server.cookie_name(), user)
        self.process = made.prepare().start()
        self._wait()

    def ask(self, host: str, path: str = "/", method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """With the names of headers in Python's spelling."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {"Host": f"{host}:{self.port}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, *pieces: bytes) -> bytes:
        """What nginx answers to these bytes until it closes or is silent for a second."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"".join(pieces))
            answer = b""
            try:
                while piece := connection.recv(65_536):
                    answer += piece
            except TimeoutError:
                pass
            return answer

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

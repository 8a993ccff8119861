"""A socket in front of a real engine that answers as another one would: with other API versions, or another
``info``.

It stands in for engines that this machine does not have or cannot run, and for those that drop some of what they are
asked. What it does not change is the real engine's, so it shows which version is agreed, what is refused and what is
noticed, not how another engine starts containers.

    python -m tests.engine_filter SOCKET OLDEST NEWEST     serves until it is ended; the engine is DOCKER_HOST
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENGINE = "/var/run/docker.sock"
CREATE, INSPECT = "/containers/create", re.compile(r"/containers/[^/]+/json\Z")


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@dataclass
class EngineFilter:
    """Accepts API versions ``oldest`` to ``newest``, refuses others as an engine does. All may change while it
    serves."""

    path: Path
    oldest: str = ""
    newest: str = ""
    version: str = ""
    """As the two before it: empty is the engine's own."""
    engine: str = field(default_factory=lambda: os.environ.get("DOCKER_HOST", ENGINE).removeprefix("unix://"))
    info: dict[str, Any] = field(default_factory=dict)
    """What ``info`` says differently."""
    change: Callable[[dict[str, Any]], None] | None = None
    """Changes in place what is asked for each new container, as an engine that drops what it does not know."""
    pretend: Callable[[dict[str, Any]], None] | None = None
    """Changes in place what is said of each container, as an engine that does not say what it dropped."""
    asked: list[str] = field(default_factory=list)
    """The versions of the calls that came; empty for those without."""
    refused: list[str] = field(default_factory=list)

    def start(self) -> None:
        # The real one gets every call in what it speaks itself.
        self.real = json.loads(self._ask(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").read())
        self.oldest = self.oldest or self.real["MinAPIVersion"]
        self.newest = self.newest or self.real["ApiVersion"]
        self.version = self.version or self.real["Version"]
        handler = type("Handler", (_Handler,), {"filter": self})
        self._server = socketserver.ThreadingUnixStreamServer(str(self.path), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def refusal(self, spoken: str) -> str:
        """Why a call in this version is refused; empty where it is not."""
        if _number(spoken) < _number(self.oldest):
            return (
                f"client version {spoken} is too old. Minimum supported API version is {self.oldest}, please upgrade"
                " your client to a newer version"
            )
        if _number(spoken) > _number(self.newest):
            return f"client version {spoken} is too new. Maximum supported API version is {self.newest}"
        return ""

    def _ask(self, head: bytes) -> http.client.HTTPResponse:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.engine)
        connection.sendall(head)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer

    def changed(self, head: bytes, path: str) -> bytes | None:
        """The whole answer to a call that this one answers differently; None where it passes the engine's on."""
        if path == "/version":
            body = {**self.real, "Version": self.version, "ApiVersion": self.newest, "MinAPIVersion": self.oldest}
        elif path == "/info" and self.info:
            body = {**json.loads(self._ask(head).read()), **self.info}
        elif self.pretend and INSPECT.match(path):
            said = self._ask(head)
            body = json.loads(said.read())
            if said.status != 200:
                return _answer(f"{said.status} {said.reason}", body, self.newest)
            self.pretend(body)
        else:
            return None
        return _answer("200 OK", body, self.newest)


class _Handler(socketserver.BaseRequestHandler):
    filter: EngineFilter

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (chunk := self.request.recv(65536)):
                    return
                data += chunk
            self._answer(*data.split(b"\r\n\r\n", 1))

    def _answer(self, head: bytes, body: bytes) -> None:
        """Send one request per connection, and ask the engine to close it."""
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        found = re.match(r"/v([\d.]+)(/.*)", target)
        spoken, path = (found[1], found[2]) if found else ("", target)
        self.filter.asked.append(spoken)
        if spoken and (words := self.filter.refusal(spoken)):
            self.filter.refused.append(spoken)
            self._finish(_answer("400 Bad Request", {"message": words}, self.filter.newest))
            return
        real = f"/v{self.filter.real['ApiVersion']}{path}" if spoken else path
        is_upgrade = any(line.lower().startswith("upgrade:") for line in lines)
        kept = [line for line in lines if not line.lower().startswith("connection:")]
        kept.append("Connection: " + ("Upgrade" if is_upgrade else "close"))
        passed = "\r\n".join([f"{method} {real} HTTP/1.1", *kept, "", ""]).encode()
        path = path.partition("?")[0]
        answer = self.filter.changed(passed, path)
        if answer is not None:
            self._finish(answer)
        elif self.filter.change and path == CREATE:
            self._relay(self._changed_create(passed, body, self.filter.change))
        else:
            self._relay(passed + body)

    def _changed_create(self, passed: bytes, body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
        """The whole request with another body."""
        length = re.compile(rb"(?im)^Content-Length: *(\d+)")
        named = length.search(passed)
        assert named, "docker-py says how long its body is"
        while len(body) < int(named[1]) and (chunk := self.request.recv(65536)):
            body += chunk
        asked = json.loads(body)
        change(asked)
        body = json.dumps(asked).encode()
        return length.sub(f"Content-Length: {len(body)}".encode(), passed) + body

    def _finish(self, answer: bytes) -> None:
        self.request.sendall(answer)
        self.request.shutdown(socket.SHUT_WR)
        while self.request.recv(65536):  # a body that is still coming
            pass

    def _relay(self, begun: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.filter.engine)
            engine.sendall(begun)
            ways = {self.request: engine, engine: self.request}
            has_head = False
            while engine in ways:
                for source in select.select(list(ways), [], [])[0]:
                    chunk = source.recv(65536)
                    if source is engine and not has_head:
                        has_head = True
                        named = f"Api-Version: {self.filter.newest}".encode()
                        chunk = re.sub(rb"(?i)^Api-Version: [\d.]+", named, chunk, count=1, flags=re.MULTILINE)
                    if chunk:
                        ways[source].sendall(chunk)
                    else:
                        with contextlib.suppress(OSError):
                            ways.pop(source).shutdown(socket.SHUT_WR)


def _answer(status: str, body: dict[str, Any], version: str) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status}\r\nApi-Version: {version}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


if __name__ == "__main__":
    one = EngineFilter(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    one.start()
    threading.Event().wait()

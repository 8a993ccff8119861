"""P12: what a command printed is all there, however the engine's packets fall."""

from __future__ import annotations

import json
import socketserver
import threading

import pytest

from pools.runtime.docker import DockerRuntime


def frame(channel: int, text: bytes) -> bytes:
    return bytes([channel, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


class Engine(socketserver.StreamRequestHandler):
    """Answers an exec as the engine does under load: its head and its output at once."""

    def handle(self) -> None:
        while line := self.rfile.readline().decode():
            length = 0
            while (header := self.rfile.readline().strip()) != b"":
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            path = line.split()[1]
            if path.endswith("/start"):
                head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
                head += b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                self.wfile.write(head + frame(1, b"first ") + frame(2, b"warned") + frame(1, b"x" * 100_000))
                return
            body = json.dumps({"Id": "e1", "ExitCode": 0, "ApiVersion": "1.41"}).encode()
            status = b"201 Created" if line.startswith("POST") else b"200 OK"
            head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: "
            self.wfile.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)


@pytest.fixture
def engine(tmp_path, data_dir):
    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    server = Server(str(tmp_path / "e.sock"), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield DockerRuntime(f"unix://{tmp_path}/e.sock")
    server.shutdown()
    server.server_close()


def test_output_that_comes_with_the_answers_head_is_not_lost(engine):
    done = engine.exec("c", ("true",), 5000)

    assert (done.exit_code, done.stderr) == (0, b"warned")
    assert done.stdout == b"first " + b"x" * 100_000

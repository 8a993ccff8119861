"""The output of a command is complete, however the engine splits it into packets (P12)."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time

import pytest

from pools.runtime.base import Executed
from pools.runtime.docker import DockerRuntime, refusals
from pools.runtime.docker.attached import Attached


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
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield DockerRuntime(f"unix://{tmp_path}/e.sock")
    server.shutdown()
    server.server_close()


def test_output_that_comes_with_the_answers_head_is_not_lost(engine):
    done = engine.exec("c", ("true",), 5000)

    assert (done.exit_code, done.stderr) == (0, b"warned")
    assert done.stdout == b"first " + b"x" * 100_000


@pytest.mark.parametrize(
    ("said", "name", "code", "words"),
    [
        ('exec: "nope": executable file not found in $PATH: unknown', "nope", 127, "nope: command not found"),
        ('exec: "/x": stat /x: no such file or directory: unknown', "/x", 127, "/x: no such file, or its interpreter"),
        ("exec /x.sh: no such file or directory: unknown", "/x.sh", 127, "/x.sh: no such file, or its interpreter"),
        ('exec: "/etc": is a directory: unknown', "/etc", 126, "/etc: is a directory"),
        ('exec: "/x": permission denied: unknown', "/x", 126, "/x: permission denied"),
        ("exec /x: exec format error: unknown", "/x", 126, "/x: is not a program"),
        (
            'chdir to cwd ("/w") set in config.json failed: permission denied: unknown',
            "ls",
            126,
            "ls: the container's user cannot enter",
        ),
        ("something else: unknown", "ls", 126, "ls: could not be started: something else"),
        (
            'exec: "permission denied": executable file not found in $PATH',
            "permission denied",
            127,
            "permission denied: c",
        ),
        ('exec: "a\\nb": executable file not found in $PATH', "a\nb", 127, "a?b: command not found"),
    ],
)
def test_what_an_engine_says_of_a_command_that_never_began_is_said_as_by_a_shell(said, name, code, words):
    """With the error texts of old and new engines."""
    for prefix in ("unable to start container process", "container_linux.go:380: starting container process caused"):
        done = refusals.executed(f"OCI runtime exec failed: exec failed: {prefix}: {said}\r\n", (name, "-l"), 3)
        assert done
        assert (done.exit_code, done.stdout) == (code, b"")
        assert done.stderr.decode().startswith(words)
        assert done.stderr.decode() == f"{done.refusal}\n"
    assert refusals.executed("cannot exec in a paused container", (name,), 3) is None


def test_what_the_kernel_says_of_a_script_is_said_so_too_and_a_programs_own_words_stay():
    """The engine's helper has begun by then."""
    said = b"exec /w/run.sh: no such file or directory\n"
    done = refusals.at_execve(Executed(1, b"", said, 3), ("/w/run.sh",))
    assert done
    assert (done.exit_code, done.stderr) == (127, b"/w/run.sh: no such file, or its interpreter does not exist\n")
    for other in (Executed(1, b"x", said, 3), Executed(2, b"", said, 3), Executed(1, b"", b"a\n" + said, 3)):
        assert refusals.at_execve(other, ("/w/run.sh",)) is None
    assert refusals.at_execve(Executed(1, b"", said, 3), ("sh", "-c", "exec /w/run.sh")) is None


def test_a_command_ends_though_what_it_left_behind_goes_on_printing():
    """``sh -c 'yes &'`` has ended; the exit was not noticed before the timeout, because there was always more to
    read."""
    ours, engines = socket.socketpair()
    done = threading.Event()

    def print_on() -> None:
        with contextlib.suppress(OSError):
            while not done.is_set():
                engines.sendall(frame(1, b"y\n" * 1000))

    threading.Thread(target=print_on, daemon=True).start()
    attached = Attached(ours.makefile("rb"), ours, lambda: False)
    try:
        attached.run(None, time.monotonic() + 60, limit_bytes=4096)
    finally:
        done.set()
        ours.close()
        engines.close()
    assert (len(attached.stdout), attached.stdout_truncated) == (4096, True)

"""A line to a far end that breaks as lines do: it is cut again and again, falls silent, or nearly so. It counts what
crosses it."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from urllib.parse import urlsplit

from tests.listeners import stop_listener


class Line:
    """A TCP relay before ``target``. What it carries it neither reads nor changes."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._name = f"{parts.scheme}://{parts.hostname}"
        self.up = self.down = 0
        """Bytes that crossed it towards the far end, and from it."""
        self.cuts, self.dead_s = 0, 1.0
        """How often it was cut; after each it takes no connection for so many seconds."""
        self._cut_every = self._cuts_left = 0
        self.silent = threading.Event()
        self.drips_from = math.inf
        """After so many bytes from the far end each connection carries ``drip_bytes`` ten times a second, either way."""
        self.drip_bytes = 1
        self.spares = 0
        """What each connection carries in either way before that, as it does else."""
        self._since_cut, self._dead_until = 0, 0.0
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """By the server's host name, for which its certificate is valid."""
        return f"{self._name}:{self._server.getsockname()[1]}"

    def stop(self) -> None:
        stop_listener(self._server)
        self.cut()

    def breaks(self, times: int, every: int) -> None:
        """From now on it is cut after every so many bytes, so many times; counts begin at zero."""
        with self._lock:
            self.up = self.down = self.cuts = self._since_cut = 0
            self._cut_every, self._cuts_left = every, times

    def cut(self) -> None:
        """Cut all connections there are."""
        with self._lock:
            self._cut()

    def die(self, seconds: float) -> None:
        """Cut all connections, and take none for so long."""
        with self._lock:
            self._cut()
            self._dead_until = time.monotonic() + seconds

    def _cut(self) -> None:
        self.cuts += 1
        self._since_cut, self._dead_until = 0, time.monotonic() + self.dead_s
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if time.monotonic() < self._dead_until:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:  # the far end is away
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, target, is_up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._relay, args=(source, target, is_up), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(16384):
                while self.silent.is_set():
                    time.sleep(0.05)
                self._count(len(chunk), is_up)
                carried += len(chunk)
                while chunk and carried > self.spares and self.down > self.drips_from:
                    target.sendall(chunk[: self.drip_bytes])
                    chunk = chunk[self.drip_bytes :]
                    time.sleep(0.1)
                target.sendall(chunk)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _count(self, size: int, is_up: bool) -> None:
        with self._lock:
            if is_up:
                self.up += size
            else:
                self.down += size
            self._since_cut += size
            if self._cuts_left and self._since_cut >= self._cut_every:
                self._cuts_left -= 1
                self._cut()

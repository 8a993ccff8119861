"""A server that never finishes an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.listeners import stop_listener


class EndlessServer:
    """A server that takes each request and sends one byte of an answer every tenth of a second, for ever."""

    def __init__(self, at_once: bytes) -> None:
        self._at_once = at_once
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.requests = self.open = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._drip, args=(self._listening.accept()[0],), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if not connection.recv(65536):
                return  # given up at its deadline before it has asked
            self.requests += 1
            self.open += 1
            try:
                connection.sendall(self._at_once)
                while True:
                    connection.sendall(b"H" if not self._at_once else b" ")
                    time.sleep(0.1)
            finally:
                self.open -= 1

    def close(self) -> None:
        stop_listener(self._listening)

"""A cable to a server that can be cut: nothing passes any more, and neither end is told."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Passes connections on to a port while it is whole. What is sent while it is cut is lost."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._whole = threading.Event()
        self._whole.set()
        self._open = list[socket.socket]()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        """Connections of before end, as they do when their ends find out."""
        self._whole.set()
        for opened in self._open:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.mend()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._whole.wait()
        with contextlib.suppress(OSError):
            server = socket.create_connection(self._to)
            self._open.append(server)
            for source, to in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, to), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._whole.is_set():
                    to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)

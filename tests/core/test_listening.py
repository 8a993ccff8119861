"""The test helpers leave no thread that accepts the connections of another test."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.listeners import stop_listener


def test_whoever_waits_for_connections_is_let_go_when_the_socket_is_closed():
    listener = socket.create_server(("127.0.0.1", 0))

    def wait() -> None:
        with contextlib.suppress(OSError):
            listener.accept()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.05)  # until it waits; where it does not yet, it finds a closed socket
    stop_listener(listener)
    waiting.join(10)
    assert not waiting.is_alive()
    stop_listener(listener)

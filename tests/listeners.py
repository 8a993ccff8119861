"""Listening sockets of test helpers, with a thread that waits in ``accept``."""

from __future__ import annotations

import socket


def stop_listener(listener: socket.socket) -> None:
    """Close the socket, and have the thread that waits in its ``accept`` raise OSError.

    ``close`` alone leaves the thread there. The next signal, such as the end of a child, makes the kernel begin the call
    again by the descriptor's number. That may be another listener's by then, and the thread takes its connections.
    """
    if listener.fileno() < 0:
        return  # it is closed
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()

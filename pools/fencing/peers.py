"""The word of other nodes' fences: whether they reach the database. Datagrams with an authentication code.

Each answer is bound to a question by a number that is used once, so nobody can replay one.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.utils.crypto import salted_hmac

log = structlog.get_logger(__name__)

WITHIN_S = 1.0
LARGEST = 1024
CODE_BYTES = 32


def _packed(message: Mapping[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _code(body) + body


def _code(body: bytes) -> bytes:
    return salted_hmac("boilerhouse.fence", body, secret=settings.SECRET_KEY, algorithm="sha256").digest()


def _unpacked(packet: bytes) -> dict[str, Any] | None:
    """None if a fence of this deployment has not sent it."""
    code, body = packet[:CODE_BYTES], packet[CODE_BYTES:]
    if not hmac.compare_digest(code, _code(body)):
        return None
    try:
        message = json.loads(body)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Answering:
    """Answers other fences on ``address`` until it is closed: how long ago the database answered this one."""

    def __init__(self, address: str, node_id: str, age_s: Callable[[], float]) -> None:
        host, port = address_of(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self._node_id, self._age_s = node_id, age_s
        threading.Thread(target=self._answer, name="fence answers", daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                packet, sender = self._socket.recvfrom(LARGEST)
            except OSError:
                return
            question = _unpacked(packet)
            if question is None or "ask" not in question:
                continue
            answer = {"answer": question["ask"], "node": self._node_id, "age": self._age_s()}
            with contextlib.suppress(OSError):
                self._socket.sendto(_packed(answer), sender)

    def close(self) -> None:
        self._socket.close()


def ask(peers: Mapping[str, str], within_s: float = WITHIN_S) -> dict[str, float]:
    """Of each node that answers in time: how many seconds ago the database answered it."""
    asked: dict[str, str] = {}
    ages: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        sockets = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                sockets[family] = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        for node, address in peers.items():
            nonce = secrets.token_hex(16)
            with contextlib.suppress(OSError, ValueError, KeyError):
                host, port = address_of(address)
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sockets[family].sendto(_packed({"ask": nonce}), (host, port))
                asked[nonce] = node
        until = time.monotonic() + within_s
        while len(ages) < len(asked) and (left := until - time.monotonic()) > 0:
            for one in select.select(list(sockets.values()), [], [], left)[0]:
                with contextlib.suppress(OSError):  # nobody listens there
                    answer = _unpacked(one.recv(LARGEST))
                    if answer and asked.get(str(answer.get("answer"))) == answer.get("node"):
                        ages[str(answer["node"])] = float(answer["age"])
    return ages

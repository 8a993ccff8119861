"""Requests to sinks on connections that are kept."""

from __future__ import annotations

import socket
import threading

import pytest

from syncing import errors
from syncing.sinks import http_requests
from tests.listeners import stop_listener

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: who=you\r\n\r\nok"


class Forgetful:
    """A server that answers ``most`` requests of each connection, and closes it when it gets the next one."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, list[bytes]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/x"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            with connection:
                for number in range(self.most + 1):
                    if not (asked := connection.recv(65536)):
                        break
                    self.asked.append(asked)
                    if number < self.most:
                        connection.sendall(ANSWER)

    def stop(self) -> None:
        stop_listener(self._listening)


@pytest.fixture
def forgetful(request):
    server = Forgetful(request.param)
    http_requests.forget()
    yield server
    http_requests.forget()
    server.stop()


def ask(server):
    return http_requests.send(http_requests.session(), "GET", server.url, 5, where="the sink").content


@pytest.mark.parametrize("forgetful", [1], indirect=True)
def test_a_request_is_sent_again_if_its_kept_connection_was_closed(forgetful):
    assert [ask(forgetful) for _ in range(3)] == [b"ok"] * 3
    assert len(forgetful.asked) == 5, "the second and third arrive twice"
    assert not any(b"who=you" in asked for asked in forgetful.asked), "and cookies are not kept"


@pytest.mark.parametrize("forgetful", [0], indirect=True)
def test_a_request_that_a_new_connection_does_not_answer_fails(forgetful):
    with pytest.raises(errors.SinkUnreachable, match="the sink cannot be reached"):
        ask(forgetful)
    assert len(forgetful.asked) == 2

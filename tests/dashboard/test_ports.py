"""Ports of the servers that listen on this machine."""

from __future__ import annotations

import socket

import pytest

from boilerhouse.operations import supervisor

pytestmark = pytest.mark.any_database


def test_a_free_port_is_given_to_no_connection_before_it_is_listened_on():
    """No server can listen on a port that a connection uses: the embedded S3 did not restart, and tests failed."""
    first_ephemeral = int(supervisor.EPHEMERAL.read_text().split()[0])
    for _ in range(20):
        port = supervisor.free_port()
        assert port < first_ephemeral
        socket.create_server(("127.0.0.1", port)).close()


def test_a_taken_port_is_passed_over(monkeypatch):
    with socket.create_server(("127.0.0.1", supervisor.free_port())) as taken:
        number = taken.getsockname()[1] - supervisor.FIRST_PORT
        numbers = iter([number, number, 17])
        monkeypatch.setattr(supervisor.secrets, "randbelow", lambda _: next(numbers, 18))
        assert supervisor.free_port() != taken.getsockname()[1]


def test_where_connections_may_have_any_port_the_kernel_chooses(tmp_path, monkeypatch):
    everything = tmp_path / "range"
    everything.write_text("1024\t60999\n")
    monkeypatch.setattr(supervisor, "EPHEMERAL", everything)
    socket.create_server(("127.0.0.1", supervisor.free_port())).close()

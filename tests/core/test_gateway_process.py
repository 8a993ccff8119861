"""How ``up`` runs the gateway's nginx: it ends with its supervisor, comes back, and says why it cannot run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from boilerhouse.core.errors import Failed
from boilerhouse.operations import gateway, supervise
from boilerhouse.operations.gateway import Gateway
from boilerhouse.operations.management.commands import up
from boilerhouse.operations.supervisor import free_port
from boilerhouse.process import pids
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
SUPERVISE = """
import json, sys
from threading import Event
from boilerhouse.operations.supervise import Program, Supervisor
Supervisor([Program(**json.loads(sys.argv[1]))]).run(Event())
"""


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 404 " in connection.recv(100)
    except OSError:
        return False


def group(leader: int) -> set[int]:
    """The living processes of a process group."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            state, _, number = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if entry.isdigit() and int(number) == leader and state != "Z":
            found.add(int(entry))
    return found


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The gateway's directory, which its workers' account can enter."""
    directory = Path(f"/run/boilerhouse-gateway/test-{os.getpid()}") if os.geteuid() == 0 else tmp_path
    monkeypatch.setattr(gateway, "gateway_dir", lambda: directory)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def running(where: Path) -> Iterator[tuple[Any, int]]:
    """A supervisor with nginx alone, and nginx's port."""
    port = free_port()
    program, asked = gateway.start("127.0.0.1", port)
    text = json.dumps(asdict(program))
    process = subprocess.Popen([sys.executable, "-c", SUPERVISE, text], cwd=supervise.ROOT)
    eventually(lambda: answers(port))
    yield process, port
    process.kill()
    process.wait()
    asked.close()


def leader_of(supervisor: Any) -> int:
    (leader,) = pids.children(supervisor.pid)
    return leader


def test_nothing_outlives_a_supervisor_that_is_killed(running: tuple[Any, int]) -> None:
    """nginx's workers outlived their master and kept the port, and the next start had none."""
    supervisor, port = running
    leader = leader_of(supervisor)
    assert len(group(leader)) >= 4, "a shell, a master and two workers"
    supervisor.kill()
    eventually(lambda: not group(leader))
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("victim", ["shell", "master", "worker"])
def test_it_comes_back(running: tuple[Any, int], victim: str) -> None:
    supervisor, port = running
    leader = leader_of(supervisor)
    (master,) = pids.children(leader)
    worker = pids.children(master)[0]
    before = group(leader)
    killed = {"shell": leader, "master": master, "worker": worker}[victim]
    os.kill(killed, signal.SIGKILL)
    if victim != "worker":
        eventually(lambda: not before & group(leader))
    eventually(lambda: answers(port) and len(group(leader_of(supervisor))) >= 4)


def test_workers_are_nobody_special_and_alone_may_ask(running: tuple[Any, int], where: Path) -> None:
    supervisor, _ = running
    (master,) = pids.children(leader_of(supervisor))
    asked = (where / "route.sock").stat()

    def uids() -> set[int]:
        return {os.stat(f"/proc/{worker}").st_uid for worker in pids.children(master)}

    eventually(lambda: uids() == {asked.st_uid})  # a new worker is the master's account for a moment
    assert asked.st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        assert asked.st_uid != 0


def test_a_port_that_is_in_use(where: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Failed, match="in use"):
        gateway.start("127.0.0.1", taken.getsockname()[1])


def test_without_nginx(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.shutil, "which", lambda *_, **__: None)
    with pytest.raises(Failed, match="apt-get install nginx-light"):
        gateway.start("127.0.0.1", free_port())


def test_a_certificate_that_cannot_be_read(where: Path, settings: Any) -> None:
    settings.BOILERHOUSE_GATEWAY_CERTIFICATE = settings.BOILERHOUSE_GATEWAY_CERTIFICATE_KEY = "/nowhere.pem"
    with pytest.raises(Failed, match=r"nowhere\.pem"):
        gateway.start("127.0.0.1", free_port())


def test_up_runs_without_a_gateway_and_says_so(settings: Any, monkeypatch: pytest.MonkeyPatch, where: Path) -> None:
    monkeypatch.setenv("BOILERHOUSE_GATEWAY_PORT", "1")
    said: list[str] = []
    command = up.Command()
    monkeypatch.setattr(command, "say", said.append)
    programs: list[supervise.Program] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.BOILERHOUSE_GATEWAY_PORT = taken.getsockname()[1]
        assert command._gateway("127.0.0.1", programs) is None
    (line,) = said
    assert line.startswith("No gateway: ")
    assert programs == []
    assert os.environ["BOILERHOUSE_GATEWAY_PORT"] == "0", "no answer names a gateway that is not there"
    said.clear()
    settings.BOILERHOUSE_GATEWAY_PORT = 0
    assert command._gateway("127.0.0.1", programs) is None
    assert said == []


def test_tls(where: Path) -> None:
    made = Gateway(
        where, "443", "apps.example.com", where / "s", "c", certificate="/a.pem", certificate_key="/b.pem", is_https=True
    )  # fmt: skip
    text = made.configuration()
    assert text.count("listen 443 ssl") == 2
    assert "ssl_certificate_key /b.pem;" in text
    assert "X-Forwarded-Proto https;" in text

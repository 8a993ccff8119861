"""Commands in a held container beside bare ``docker exec``, in alternating pairs."""

from __future__ import annotations

import http.client
import json
import os
import pty
import subprocess
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect

from bench import figures
from bench.load import Act, Connection, Tenants, at_once
from bench.pairs import alternating
from bench.server import EXAMPLE, Server

ROUNDS, AT_ONCE, TIMES = 2, 4, 12
"""As many at once as the default settings allow one container."""


def measure(server: Server, *, quick: bool = False) -> dict[str, Any]:
    """One tenant, and a container with room for the processes of its commands."""
    tenants = Tenants(server, "commands")
    server.api.call("PUT", "workloads/commands", {**_workload(), "id": "commands", "name": "commands"})
    tenants.size(1, 1)
    held = tenants.claim("commands-tenant")
    from pools import lifecycle

    name = lifecycle.runtime_name(held["containerId"])
    rounds, own = 1 if quick else ROUNDS, "tenants/commands-tenant/commands"
    connection = Connection(server.api.base, server.api.key)

    def run() -> None:
        connection.ask("POST", f"/api/v1/{own}", {"command": ["true"]})

    found = {
        "command": _beside(rounds, run, lambda: _bare_run(name)),
        "firstByte": _beside(rounds, lambda: _first_byte(server, own), lambda: _bare_first_byte(name)),
        "keyEcho": _echo(server, connection, own, name, rounds),
        "fourAtOnce": _at_once(server, own, name, rounds),
    }
    tenants.release_all()
    tenants.end()
    return found


def _workload() -> dict[str, Any]:
    return {**EXAMPLE, "resources": {"memoryMb": 256, "tmpfsMb": 8, "pidsLimit": 512}}


def _beside(rounds: int, ours: Callable[[], object], bare: Callable[[], object]) -> dict[str, Any]:
    return figures.beside(*alternating(rounds, ours, bare))


def _bare_run(name: str) -> None:
    subprocess.run(["docker", "exec", name, "true"], check=True, capture_output=True)


def _first_byte(server: Server, own: str) -> None:
    """Of a command that goes on: one request starts it, another follows it."""
    parts = urlsplit(server.api.base)
    headers = {"Authorization": f"Bearer {server.api.key}", "Content-Type": "application/json"}
    stream = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    body = {"script": "echo first; sleep 1", "wait": False}
    stream.request("POST", f"/api/v1/{own}", json.dumps(body), headers)
    command = json.loads(stream.getresponse().read())["commandId"]
    stream.request("GET", f"/api/v1/{own}/{command}/output", None, headers)
    answer = stream.getresponse()
    while b"event: stdout" not in answer.readline():
        pass
    stream.close()


def _bare_first_byte(name: str) -> None:
    command = ["docker", "exec", name, "sh", "-c", "echo first; sleep 1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        process.kill()


def _echo(server: Server, connection: Connection, own: str, name: str, rounds: int) -> dict[str, Any]:
    """From a key to its echo, in a terminal that is open."""
    body = {"command": ["cat"], "tty": {"cols": 80, "rows": 24}, "wait": False}
    command = connection.ask("POST", f"/api/v1/{own}", body, 201)["commandId"]
    address = f"{server.api.base.replace('http', 'ws', 1)}/ws/{own}/{command}"
    headers = {"Authorization": f"Bearer {server.api.key}"}
    ours, theirs = pty.openpty()
    with (
        connect(address, additional_headers=headers) as socket,
        subprocess.Popen(["docker", "exec", "-it", name, "cat"], stdin=theirs, stdout=theirs, stderr=theirs) as bare,
    ):
        socket.recv()
        time.sleep(1)

        def press() -> None:
            socket.send(b"x")
            socket.recv()

        def press_bare() -> None:
            os.write(ours, b"x")
            os.read(ours, 100)

        found = _beside(rounds, press, press_bare)
        bare.kill()
    connection.ask("DELETE", f"/api/v1/{own}/{command}", expect=204)
    return found


def _at_once(server: Server, own: str, name: str, rounds: int) -> dict[str, Any]:
    """Clients that each run a command at the same moment."""

    def prepare() -> Act:
        connection = Connection(server.api.base, server.api.key)
        connection.ask("GET", "/api/v1/health")
        return lambda: connection.ask("POST", f"/api/v1/{own}", {"command": ["true"]})

    times: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(rounds):
        both: tuple[list[float], list[float]] = ([], [])
        for _ in range(TIMES):
            both[0].extend(at_once(AT_ONCE, prepare))
            both[1].extend(at_once(AT_ONCE, lambda: lambda: _bare_run(name)))
        times[0].append(both[0])
        times[1].append(both[1])
    return figures.beside(figures.of(times[0]), figures.of(times[1]))

"""Two nodes as two real workers: a data directory each, one PostgreSQL, and one engine that both use.

What one has the other neither runs nor judges nor removes, also while its worker is dead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
from websockets.sync.client import connect

from boilerhouse.core import certificates
from tests.s3 import S3Server
from tests.stack.conftest import Stack
from tests.stack.machines import Machine
from tests.stack.other_machine import Engine
from tests.stack.two_nodes import Both, SecondNode, engine, of_node
from tests.waiting import eventually

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif("DATABASE_URL" not in os.environ, reason="nodes share a database server"),
]
DATABASE_DIR = str(Path(os.environ.get("BOILERHOUSE_TEST_RESTART_DATABASE", "/")).parent)
"""Where the server's Unix socket is, which is reached from every network of this machine."""
A_PASS_S = 7.0
"""The controller reconciles and resumes at least once within that."""


SIGN_IN = """
from django.contrib.auth import get_user_model
from django.test import Client
browser = Client()
browser.force_login(get_user_model().objects.create_superuser("op"), "django.contrib.auth.backends.ModelBackend")
print(browser.cookies["sessionid"].value)
"""


@pytest.fixture
def apart(machine: Machine, tmp_path: Path) -> Iterator[tuple[Both, Engine]]:
    """Two nodes that share only PostgreSQL, each with an engine and a network of its own."""
    by_file = re.sub(r"@[^:/]+:", f"@{quote(DATABASE_DIR, safe='')}:", machine.environment["DATABASE_URL"])
    directory = Path(tempfile.mkdtemp(prefix="bh-two-"))
    stack, its_engine = machine.start(), Engine(directory)
    second = SecondNode(
        machine, tmp_path / "second", inside=its_engine.inside, DATABASE_URL=by_file, DOCKER_HOST=its_engine.url,
        BOILERHOUSE_SUBNET="10.77.0.0/16", BOILERHOUSE_NODE_ADDRESS=f"{its_engine.address}:8443",
    )  # fmt: skip
    try:
        its_engine.start()
        second.inside = ()  # the deployment's address is that of this network
        second.manage("join", stack.base, "--token", machine.manage("nodes", "token").strip())
        second.inside = its_engine.inside
        yield Both(machine, stack, second), its_engine
    finally:
        machine.kill()
        second.stop()
        if (second.data / "deployment-id").exists():
            second.manage("purge", "--yes")
        its_engine.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def both(machine: Machine, tmp_path: Path) -> Iterator[Both]:
    machine.environment["BOILERHOUSE_TERMINAL"] = "true"
    stack = machine.start()
    second = SecondNode(machine, tmp_path / "second")
    try:
        second.manage("join", stack.base, "--token", machine.manage("nodes", "token").strip())
        yield Both(machine, stack, second)
    finally:
        machine.kill()
        second.stop()
        if (second.data / "deployment-id").exists():
            second.manage("purge", "--yes")


def test_a_machine_joins_and_its_processes_are_started_again(machine, tmp_path, both):
    """A refused machine has nothing of the deployment. One that has joined gets containers, whatever of it dies."""
    stack, second = both.stack, both.second
    stranger = SecondNode(machine, tmp_path / "stranger")
    for token, words in (("bhn_12345678_none", "unknown"), (machine.manage("nodes", "token").strip(), "SQLite")):
        if words == "SQLite":
            del stranger.environment["DATABASE_URL"]
        assert words in stranger.manage("join", stack.base, "--token", token, code=5)
    assert not (stranger.data / "deployment-id").exists()
    assert not (stranger.data / "node").exists()
    second.manage("join", stack.base, "--token", "bhn_12345678_none", code=5)

    second.start("node")
    stack.make_pool(warm=2, maxSize=8, placement={"maxPerNode": 1})
    assert both.idle_at(second.id)
    assert both.idle_at(both.first)
    workers = (
        "SELECT pid FROM core_process WHERE kind = 'worker' AND node_id = %s AND heartbeat_at > now() - interval '8 s'"
    )
    [(pid,)] = both.rows(workers, second.id)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: {one for (one,) in both.rows(workers, second.id)} - {pid}, 40)
    [(watched,)] = both.rows("SELECT watched_until > now() FROM core_node WHERE id = %s", second.id)
    assert watched, "its controller compares it with its engine"
    [container] = both.idle_at(second.id)
    stack.ok("DELETE", f"containers/{container}", status=204)
    eventually(lambda: set(both.idle_at(second.id)) - {container}, 40)
    before = time.monotonic()
    second.stop()
    assert time.monotonic() - before < 12
    assert of_node(second.id), "containers go on without their node's processes"


def test_requests_about_a_container_reach_its_node(machine, tmp_path, both):
    """Of any length, in both directions, and open streams too; nobody without a node's certificate gets through."""
    stack, second = both.stack, both.second
    second.start("node")
    pool = stack.make_pool(warm=2, maxSize=8, placement={"maxPerNode": 1})
    _, there, held = both.claim_one_of_each(pool)
    eventually(lambda: listens(second), 30)
    path, header = f"tenants/{there}", {"Authorization": f"Bearer {stack.key}"}

    done = stack.ok("POST", f"{path}/exec", {"command": ["cat", "/state/who"]})
    assert (done["exitCode"], done["stdout"].strip()) == (0, there)
    assert stack.problem("POST", f"{path}/exec", {"command": 7}, 422, "invalid")
    again = stack.call(
        "POST", f"{path}/exec", {"command": ["sh", "-c", "echo x >> /state/n"]}, headers={"Idempotency-Key": "1"}
    )
    assert again.status_code == 200
    replayed = stack.call(
        "POST", f"{path}/exec", {"command": ["sh", "-c", "echo x >> /state/n"]}, headers={"Idempotency-Key": "1"}
    )
    assert replayed.content == again.content
    assert stack.exec(held[there], "cat /state/n") == "x\n"
    assert stack.call("GET", f"containers/{held[there]}/logs").status_code == 200

    files = f"{stack.base}/api/v1/{path}/files"
    content = os.urandom(9_000_001)
    put = requests.put(
        f"{files}?path=/state/big", data=iter([content[:5_000_000], content[5_000_000:]]), headers=header, timeout=60
    )
    assert put.status_code == 200, put.text
    with requests.get(f"{files}?path=/state/big", headers=header, timeout=60, stream=True) as got:
        assert got.headers["Content-Length"] == str(len(content))
        assert got.raw.read() == content
    part = requests.get(f"{files}?path=/state/big", headers={**header, "Range": "bytes=10-19"}, timeout=60)
    assert (part.status_code, part.content) == (206, content[10:20])
    assert requests.head(f"{files}?path=/state/big", headers=header, timeout=60).headers["Content-Length"] == "9000001"
    missing = requests.get(f"{files}?path=/state/none", headers=header, timeout=60)
    assert (missing.status_code, missing.json()["code"]) == (404, "file_not_found")
    names = stack.ok("GET", f"{path}/files/list?path=/state")["items"]
    assert {"big", "who"} <= {one["name"] for one in names}

    body = {"script": "read word; echo got $word; sleep 3600", "wait": False, "stdin": ""}
    command = stack.ok("POST", f"{path}/commands", body, 201)["commandId"]
    url = f"{stack.base.replace('http', 'ws')}/ws/{path}/commands/{command}"
    with connect(url, additional_headers=header) as shell:
        assert json.loads(shell.recv(30))["type"] == "state"
        shell.send(b"hello\n")
        assert shell.recv(30) == b"got hello\n"
        stack.ok("POST", f"{path}/commands/{command}/signal", {"signal": "SIGKILL"}, 204)
        assert json.loads(shell.recv(30))["type"] == "exit"

    cookie = machine.manage("shell", "-v", "0", "-c", SIGN_IN).strip()
    own = {"Cookie": f"sessionid={cookie}", "Origin": stack.base}
    with connect(f"{stack.base.replace('http', 'ws')}/ws/terminal/{held[there]}", additional_headers=own) as shell:
        shell.send(json.dumps({"reason": "a test of nodes", "columns": 80, "rows": 24}))
        shell.send(b"echo $((40 + 2))\n")
        seen = b""
        while b"42" not in seen:
            message = shell.recv(30)
            assert isinstance(message, bytes), message
            seen += message
        shell.send(b"exit 3\n")
        while isinstance(message := shell.recv(30), bytes):
            pass
        assert json.loads(message)["exitCode"] == 3

    with requests.get(f"{files}/watch?path=/state", headers=header, timeout=30, stream=True) as watching:
        changes = watching.iter_lines()
        stack.exec(held[there], "touch /state/new")
        assert next(line for line in changes if b'"new"' in line)
        statement = (
            "SELECT pid FROM core_process WHERE kind = 'web' AND node_id = %s AND heartbeat_at > now() - interval '8 s'"
        )
        [(server,)] = both.rows(statement, second.id)
        os.kill(server, signal.SIGKILL)
        with pytest.raises(requests.RequestException):  # and not as if there were no more changes
            list(changes)
    eventually(lambda: listens(second), 60)

    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    other = certificates.new_authority("other")
    key = certificates.new_key()
    chain = tmp_path / "other.pem"
    chain.write_text(key + certificates.sign(other, certificates.request_for(second.id, key), second.id))
    for with_certificate in (False, True):
        if with_certificate:
            stranger.load_cert_chain(chain)
        assert not answers(second, stranger)
    own = ssl.create_default_context(cafile=str(machine.data / "node" / "authority.pem"))
    own.load_cert_chain(machine.data / "node" / "node.pem")
    own.check_hostname = False
    assert answers(second, own)
    with psycopg.connect(machine.environment["DATABASE_URL"]) as connection:
        connection.execute("UPDATE core_node SET certificate_sha256 = 'none' WHERE id = %s", [both.first])
    assert not answers(second, own), "a certificate that no row names"

    second.stop()
    failed = stack.problem("POST", f"{path}/exec", {"command": ["true"]}, 503, "node_unreachable")
    assert second.id in failed["detail"]


def test_a_claim_of_another_nodes_container_is_finished_there_at_once(both):
    """By its web server, without its worker; and by its worker if that server is not reached."""
    stack, second = both.stack, both.second
    second.start("node")
    eventually(lambda: listens(second), 60)
    stack.ok("PUT", f"nodes/{second.id}", {"labels": {"which": "second"}})
    pool = stack.make_pool(warm=2, maxSize=8, placement={"nodeSelector": {"which": "second"}})
    [(worker,)] = both.rows("SELECT pid FROM core_process WHERE kind = 'worker' AND node_id = %s", second.id)
    os.kill(worker, signal.SIGSTOP)
    try:
        claimed = stack.claim("ann", pool, 6000)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert both.node_of(claimed["containerId"]) == second.id
    assert stack.exec(claimed["containerId"], "ls /run/secrets | wc -l").strip() != ""
    both.is_all_there(claimed["containerId"])

    stack.wait_warm(pool, 1)
    done = stack.claim("cem", pool, script="echo $((40 + 2)); exit 3")["command"]
    assert (done["exitCode"], done["stdout"], done["error"]) == (3, "42\n", None)

    stack.wait_warm(pool, 1)
    with psycopg.connect(both.machine.environment["DATABASE_URL"]) as connection:
        connection.execute("UPDATE core_node SET address = '127.0.0.1:1' WHERE id = %s", [second.id])
    assert both.node_of(stack.claim("ben", pool)["containerId"]) == second.id


@pytest.mark.long
def test_two_machines_with_an_engine_each_serve_each_others_containers(apart):
    """Neither engine has the other's containers, and only the node's address leads from one network to the other."""
    both, its_engine = apart
    stack, second = both.stack, both.second
    second.start("node")
    pool = stack.make_pool(warm=2, maxSize=8, placement={"maxPerNode": 1})
    [there], [here] = both.idle_at(second.id), both.idle_at(both.first)
    assert not its_engine.docker("inspect", f"bh-{there}").returncode
    assert its_engine.docker("inspect", f"bh-{here}").returncode
    eventually(lambda: listens(second), 60)
    held = {tenant: stack.claim(tenant, pool)["containerId"] for tenant in ("ann", "ben")}
    assert set(held.values()) == {here, there}
    for tenant, container in held.items():
        assert stack.exec(container, f"echo {tenant} > /state/who && cat /state/who").strip() == tenant
        url = f"{stack.base}/api/v1/tenants/{tenant}/files?path=/state/who"
        assert requests.get(url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=30).text.strip() == tenant
    [tenant] = [one for one, container in held.items() if container == there]
    assert stack.call("POST", f"tenants/{tenant}/release", {}).status_code == 200
    second.stop()
    assert stack.exec(here, "true") == "", "the other machine goes on"


def listens(node: SecondNode) -> bool:
    host, _, port = node.environment["BOILERHOUSE_NODE_ADDRESS"].rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 2):
        return True
    return False


def answers(node: SecondNode, context: ssl.SSLContext) -> bool:
    """Whether a request with these certificates is answered."""
    host, _, port = node.environment["BOILERHOUSE_NODE_ADDRESS"].rpartition(":")
    with (
        suppress(OSError),
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return secure.recv(1000).startswith(b"HTTP/1.1 200")
    return False


@pytest.fixture
def pool(both: Both, sink_server: S3Server) -> str:
    """It has a warm container on each node."""
    pool = both.stack.make_pool(sink=sink_server.json("two/${tenantId}/"), warm=1, maxSize=8)
    both.second.place_one(pool)
    both.second.start("worker")
    eventually(lambda: both.idle_at(both.second.id) and both.idle_at(both.first), 40)
    return pool


def begin_release(stack: Stack, tenant: str) -> None:
    """Request it, and wait for a moment only: its node's worker is not there."""
    answer = stack.call("POST", f"tenants/{tenant}/release?timeoutMs=1000", {})
    assert answer.status_code == 202, "it is no success before the state is saved"


def test_a_nodes_work_waits_for_it_while_only_the_other_lives(both, pool):
    """B.2: claims are exclusive; the second's worker and controller, which leads, touch nothing of the first's."""
    stack, second = both.stack, both.second
    here, there, held = both.claim_one_of_each(pool)
    assert both.have_verdicts(*held.values())

    # Nobody starts the first's worker and controller again.
    up = both.machine.up
    os.kill(up.pid, signal.SIGSTOP)
    try:
        for kind in ("worker", "controller"):
            os.kill(both.pid_at_the_first(kind), signal.SIGKILL)
        second.start("controller")
        eventually(lambda: both.leading_node() == second.id, 40)
        assert stack.call("POST", f"tenants/{here}/sync", {"direction": "outward"}).status_code == 202
        time.sleep(A_PASS_S)
        assert both.saves(here) == [("manual", "queued")]
        begin_release(stack, here)
        second.manage("reconcile")
        assert stack.call("POST", f"tenants/{there}/release", {}).status_code == 200, "its own work goes on"
        time.sleep(A_PASS_S)
        both.is_untouched(held[here], here)
        assert {state for _, state in both.saves(here)} <= {"queued", "cancelled"}
        assert both.have_verdicts(held[here])
        second.stop("controller")
    finally:
        os.kill(up.pid, signal.SIGCONT)
    eventually(lambda: both.last(here) == ("ended", "released"), 40)
    assert not both.rows("SELECT 1 FROM core_event WHERE type IN ('container.release_failed', 'container.unhealthy')")
    for tenant in held:
        both.comes_back(tenant, pool)


@pytest.mark.long
def test_neither_kill_nor_purge_of_one_harms_the_other(both, pool):
    """B.2: a worker that dies in the middle of a release, and a purge while the other has tenants with unsaved state."""
    stack, second = both.stack, both.second
    here, there, held = both.claim_one_of_each(pool)

    (second.points / "release.stopped").touch()
    begin_release(stack, there)
    eventually(lambda: second.running["worker"].poll() == -signal.SIGKILL, 20)
    time.sleep(A_PASS_S)
    both.is_untouched(held[there], there)
    both.machine.manage("reconcile")
    both.is_untouched(held[there], there)
    second.start("worker")
    eventually(lambda: both.last(there) == ("ended", "released"), 40)
    both.comes_back(there, pool)
    assert stack.call("POST", f"tenants/{there}/release", {}).status_code == 200

    # The second is purged while the first, without power, has a tenant whose state is not saved.
    second.place_one(pool)
    eventually(lambda: both.idle_at(second.id), 40)
    both.machine.kill()
    second.stop()
    eventually(lambda: not living(both), 20)
    kept = of_node(both.first)
    second.manage("purge", "--yes")
    assert not of_node(second.id)
    assert not any((second.data / "containers").iterdir())
    assert of_node(both.first) == kept
    both.is_all_there(held[here])
    assert both.have_verdicts(held[here])
    stack = both.stack = both.machine.start(stack.key)
    assert both.last(here) == ("assigned", "")
    assert engine("exec", f"bh-{held[here]}", "cat", "/state/who") == [here]
    assert stack.call("POST", f"tenants/{here}/release", {}).status_code == 200
    both.comes_back(here, pool)


def living(both: Both) -> list[tuple[object, ...]]:
    """Processes whose heartbeat is recent: a purge is refused."""
    return both.rows("SELECT pid FROM core_process WHERE kind <> 'command' AND heartbeat_at > now() - interval '9 s'")

"""A hostile tenant: planted links, secrets, and rows changed by hand (P1, P3, P10, P11)."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from django.db import connection

from boilerhouse.core import deployment
from pools import firewall, host, lifecycle, volumes
from pools.models import Container, HostLease
from pools.runtime import get_runtime, seccomp
from pools.states import ContainerState
from tenants.models import Assignment
from tests.argv import command_lines
from tests.stack.conftest import eventually, manage

STATE = "t/${tenantId}/"

DIRTY = r"""
cd /state; echo LEAK > plain; mkdir -p dir/.hidden; echo LEAK > dir/.hidden/x; ln -s /etc etc; ln -s / root
ln -s /run/secrets/TOKEN tok; ln plain hard; mkfifo fifo; echo LEAK > "$(printf 'odd\nname')"; echo LEAK > -rf
echo LEAK > ' '; echo LEAK > 'ünï'; mkdir locked; echo LEAK > locked/in; chmod 000 locked; chmod 4755 plain
d=.; i=0; while [ $i -lt 60 ]; do d=$d/deep; i=$((i+1)); done; mkdir -p "$d"; echo LEAK > "$d/end"
for w in /extra /comm /tmp /dev/shm; do echo LEAK > $w/LEAK; done; mkfifo /comm/pipe
(nc -l -p 9999 -e cat & ) ; (sleep 100000 &) ; (while :; do echo LEAK > /state/again; sleep 1; done &)
echo LEAK; echo LEAK >&2
"""
SEARCH = r"""
find /state /extra /comm /tmp /dev/shm -mindepth 1; ls -A /run/secrets; ps -o args | grep -c '^nc\|^sleep'; env | grep LEAK
netstat -ltn | grep -c 9999; true
"""


@pytest.mark.any_database
def test_the_tenant_after_a_hostile_one_finds_nothing(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=2)
    hostile = stack.claim("mallory", pool, secrets={"TOKEN": "LEAK-secret"}, config={"note": "LEAK-config"})
    stack.exec(hostile["containerId"], DIRTY, check=False)
    runtime_name = lifecycle.runtime_name(Container.objects.get(pk=hostile["containerId"]).pk)
    address = hostile["endpoints"][0]["host"]
    uid = Container.objects.get(pk=hostile["containerId"]).uid
    peer = socket.create_connection((address, 8080), timeout=5)
    stack.release("mallory")

    assert get_runtime().inspect(runtime_name) is None
    assert not volumes.home(Assignment.objects.get(tenant_id="mallory").container_ref).exists()
    assert peer.recv(10) == b""  # whoever talked to mallory does not go on talking to the next
    assert HostLease.objects.get(resource=address).released_at is not None
    stack.wait_warm(pool, 2)
    for tenant in ("victim-1", "victim-2"):
        claimed = stack.claim(tenant, pool)
        found = stack.exec(claimed["containerId"], SEARCH)
        assert found == "claim.json\n0\n0\n", found
        assert claimed["endpoints"][0]["host"] != address
        assert Container.objects.get(pk=claimed["containerId"]).uid != uid
        logs = subprocess.run(["docker", "logs", lifecycle.runtime_name(Container.objects.get(pk=claimed["containerId"]).pk)],
                              capture_output=True, check=True)  # fmt: skip
        assert b"LEAK" not in logs.stdout + logs.stderr


@pytest.mark.any_database
def test_a_hostile_tenants_own_files_come_back_exactly(stack, pools, sink_server):
    """Odd names, locked directories and FIFOs are saved or named, never silently left out (P4)."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=2)
    claimed = stack.claim("odd", pool)
    stack.exec(claimed["containerId"], DIRTY + "kill %1 2>/dev/null; pkill -f again; rm -f again", check=False)
    stack.release("odd")
    (run,) = stack.ok("GET", "sync-runs?tenantId=odd&direction=upload")["items"]
    assert run["skipped"] == ["/state/fifo"]

    again = stack.claim("odd", pool)
    look = "cd /state; for l in etc root tok; do readlink $l; done; cat plain -- -rf ' ' 'ünï' \"$(printf 'odd\\nname')\"; stat -c %a locked plain"
    assert stack.exec(again["containerId"], look) == "/etc\n/\n/run/secrets/TOKEN\n" + "LEAK\n" * 5 + "0\n755\n"
    assert stack.exec(again["containerId"], "chmod 700 /state/locked; cat /state/locked/in") == "LEAK\n"


@pytest.mark.any_database
def test_planted_links_let_no_byte_out(stack, pools, sink_server, tmp_path):
    """A link where a mapping's directory should be, and links within it, are never followed by a save (P11)."""
    canary = tmp_path / "host-secret"
    canary.write_text("HOST-CANARY")
    canary.chmod(0o644)
    mapping = {"containerPath": "/state/data", "sinkPath": "data/", "direction": "bidirectional", "mode": "sync"}
    pool = pools(sink=sink_server.json(STATE), mappings=[mapping], warm=2, maxSize=3)
    claimed = stack.claim("link-1", pool)
    stack.exec(claimed["containerId"], f"ln -s {tmp_path} /state/data")
    found = stack.problem("POST", "tenants/link-1/release", {}, 502, "save_failed")
    assert "path_planted" in found["detail"]
    assert not sink_server.keys("t/link-1/data")
    stack.release("link-1", discard=True)

    claimed = stack.claim("link-2", pool)
    stack.exec(
        claimed["containerId"],
        f"mkdir /state/data; cd /state/data; ln -s {tmp_path} dir; ln -s {canary} file; echo ok > mine",
    )
    stack.release("link-2")
    assert set(sink_server.keys("t/link-2/data")) == {"mine"}


@pytest.mark.any_database
def test_planted_links_and_partial_names_let_no_byte_in(stack, pools, sink_server, tmp_path):
    """A sync inward onto a live container writes through no link, whatever its name (P11)."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    (outside / "victim").write_text("untouched")
    (outside / "victim").chmod(0o666)
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("inward", pool)
    stack.exec(claimed["containerId"], "cd /state; mkdir sub; echo a > sub/f; echo b > g; echo c > h")
    stack.release("inward")
    claimed = stack.claim("inward", pool)
    stack.exec(
        claimed["containerId"],
        f"""cd /state; rm -rf sub g; ln -s {outside} sub; ln -s {outside}/victim g
        for s in partial 2fd68068.partial; do ln -s {outside}/victim h.$s; done""",
    )
    (run,) = stack.ok("POST", "tenants/inward/sync", {"direction": "inward"}, 202)["runs"]
    ended = eventually(lambda: [r for r in stack.ok("GET", "sync-runs?tenantId=inward")["items"]
                                if r["id"] == run["id"] and r["finishedAt"]])  # fmt: skip

    assert ended[0]["state"] == "failed"
    assert ended[0]["error"]["code"] == "path_planted"
    assert (outside / "victim").read_text() == "untouched"
    assert [path.name for path in outside.iterdir()] == ["victim"]


@pytest.mark.any_database
def test_containers_reach_neither_each_other_nor_the_host_nor_the_metadata_address(stack, pools):
    pool = pools(warm=2, maxSize=2)
    one, two = stack.claim("net-1", pool), stack.claim("net-2", pool)
    gateway = one["endpoints"][0]["host"].rsplit(".", 2)[0] + ".0.1"
    host_port = int(stack.base.rsplit(":", 1)[1])
    listener = socket.create_server(("0.0.0.0", 0))
    targets = {
        "neighbour": (two["endpoints"][0]["host"], 8080),
        "host service": (gateway, listener.getsockname()[1]),
        "our web process": (gateway, host_port),
        "metadata": ("169.254.169.254", 80),
    }
    for name, (address, port) in targets.items():
        script = f"echo x | nc -w 2 {address} {port}; echo code=$?"
        assert "code=0" not in stack.exec(one["containerId"], script), name
    assert requests.get(one["endpoints"][0]["url"], timeout=5).text == "ok\n"  # the host reaches the container
    listener.close()
    assert not firewall.differences(host.ensure_network())


@pytest.mark.any_database
def test_a_firewall_rule_that_vanished_is_back_before_the_next_start(stack, pools):
    """A firewall reload deletes our rules while Docker's network stays."""
    pool = pools(warm=1, maxSize=3)
    firewall.remove(host.bridge_name())
    assert firewall.differences(host.ensure_network())
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    stack.wait_warm(pool, 2)

    assert not firewall.differences(host.ensure_network())


@pytest.mark.any_database
def test_rules_that_vanished_are_back_without_any_start(stack, pools):
    """A reload of the host's firewall, while nothing is claimed or started."""
    pools(warm=1, maxSize=1)
    network = host.ensure_network()
    firewall.remove(network.bridge)
    assert firewall.differences(network)

    eventually(lambda: not firewall.differences(network), 40)


@pytest.mark.any_database
def test_containers_are_hardened_and_run_under_uids_of_their_own(stack, pools):
    pool = pools(warm=2, maxSize=2)
    found = []
    for container in Container.objects.filter(pool_id=pool):
        inspect = json.loads(subprocess.run(["docker", "inspect", lifecycle.runtime_name(container.pk)],
                                            capture_output=True, check=True).stdout)[0]  # fmt: skip
        host_config = inspect["HostConfig"]
        found.append(inspect["Config"]["User"])
        assert host_config["ReadonlyRootfs"] is True
        assert host_config["CapDrop"] == ["ALL"]
        assert host_config["SecurityOpt"] == ["no-new-privileges=true", seccomp.option()]
        assert host_config["MemorySwap"] == host_config["Memory"] == 64 * 1024**2
        assert host_config["PidsLimit"] == 64
        assert host_config["RestartPolicy"]["Name"] == "no"
        assert host_config["Binds"] is None
        assert inspect["Config"]["Labels"]["boilerhouse.deployment"] == deployment.deployment_id()
        directory = volumes.home(container.pk)
        assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (0, 0o700)
        assert (directory / "state").stat().st_uid == container.uid

    assert len(set(found)) == 2


CANARY = "CANARY-7f3a9c2e51"


def test_a_secret_is_found_nowhere_but_in_its_file(stack, pools, sink_server):
    """Argv, container environment, inspect, logs, database, events, API; and the database while pending (P10)."""
    pool = pools(sink=sink_server.json(STATE), warm=1, maxSize=2, workload={"command": ["sh", "-c", "sleep 1000000"]})
    seen: list[str] = []
    stop = threading.Event()

    def watch_argv() -> None:
        while not stop.is_set():
            seen.extend(one.decode(errors="replace") for one in command_lines())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch_argv)
    watcher.start()
    claimed = stack.claim("canary", pool, secrets={"TOKEN": CANARY}, config={"visible": True})
    assert stack.exec(claimed["containerId"], "cat /run/secrets/TOKEN; ls -l /run/secrets/TOKEN | cut -c1-10") == (
        CANARY + "-r--------\n"
    )
    stack.exec(claimed["containerId"], "seq 1 1000 > /state/x")
    container_id = Assignment.objects.get(tenant_id="canary").container_ref
    path = volumes.secrets_dir(container_id)
    assert host.ram._file_system(path) == "tmpfs"
    assert stack.exec(claimed["containerId"], "touch /run/secrets/new; echo $?", check=False) == "1\n"
    inspect = subprocess.run(
        ["docker", "inspect", lifecycle.runtime_name(container_id)], capture_output=True, check=True
    )
    stack.release("canary")
    sink_server.stop()  # and a claim that fails: its secrets must not stay either
    stack.call("POST", "tenants/canary/claim", {"poolId": pool, "secrets": {"TOKEN": CANARY}})
    stop.set()
    watcher.join()

    sink_secret = sink_server.secret_key
    for secret in (CANARY, sink_secret):
        assert not any(secret in argv for argv in seen)
        assert secret.encode() not in inspect.stdout
        assert secret not in stack.log.read_text()
        shown = ("events?limit=200", "sync-runs?limit=200", "sync-specs", "tenants", "containers", "audit", "metrics")
        for table in shown:
            assert secret not in stack.call("GET", table).text
        assert secret.encode() not in database_dump()
    assert not path.exists()
    assert not Assignment.objects.filter(secrets__isnull=False).exists()


def database_dump() -> bytes:
    """Every byte of the database: the SQLite files, or all tables of PostgreSQL."""
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        return b"".join(Path(name + suffix).read_bytes() for suffix in ("", "-wal") if Path(name + suffix).exists())
    with connection.cursor() as cursor:
        dumped = []
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            dumped += [row[0].encode() for row in cursor.fetchall()]
    return b"\n".join(dumped)


def test_a_held_row_set_back_to_idle_by_hand_is_not_handed_out(stack, pools):
    """The database says idle, but alice uses the container."""
    pool = pools(warm=1, maxSize=1)
    held = stack.claim("latch-1", pool)
    stack.exec(held["containerId"], "echo hers > /state/x")
    Container.objects.filter(pk=held["containerId"]).update(state=ContainerState.IDLE)
    answer = stack.call("POST", "tenants/latch-2/claim?timeoutMs=2000", {"poolId": pool})

    assert answer.status_code == 503
    assert stack.exec(held["containerId"], "cat /state/x") == "hers\n"


def test_a_used_container_whose_assignment_was_lost_is_quarantined_by_its_latch(stack, pools):
    """The database is from before the claim; only the latch on the node records it."""
    pool = pools(warm=1, maxSize=2)
    held = stack.claim("lost-1", pool)
    stack.exec(held["containerId"], "echo hers > /state/x")
    stack.wait_warm(pool, 1) if stack.ok("GET", f"pools/{pool}")["status"]["starting"] else None
    Assignment.objects.filter(tenant_id="lost-1").delete()
    Container.objects.filter(pk=held["containerId"]).update(
        state=ContainerState.IDLE, state_changed_at="2000-01-01T00:00:00Z"
    )
    other = stack.claim("lost-2", pool)

    assert other["containerId"] != held["containerId"]
    assert stack.exec(other["containerId"], "ls /state") == ""
    kept = volumes.containers_dir() / held["containerId"]
    assert (kept / "state" / "x").read_text() == "hers\n"  # a person decides about it

    def warned() -> bool:
        warnings = stack.ok("GET", f"events?type=pool.warning&poolId={pool}")["items"]
        return any("quarantined" in event["payload"]["detail"] for event in warnings)

    eventually(warned, 40)  # at once when it was handed out, else when it was to be removed


def storm(stack, pool, tenants, threads):
    """Claim, check and release for each tenant; watch the pool's size during that."""
    populations, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            populations.append(Container.objects.filter(pool_id=pool).count())
            time.sleep(0.05)
        connection.close()

    def one(number: int) -> tuple[str, str]:
        tenant = f"storm-{number}"
        claimed = stack.claim(tenant, pool, timeout_ms=300_000)
        found = stack.exec(
            claimed["containerId"], f"ls -A /state; echo {tenant} > /state/me; cat /run/secrets/claim.json"
        )
        assert json.loads(found)["tenantId"] == tenant  # and nothing of anybody else was listed before it
        stack.release(tenant)
        return tenant, claimed["containerId"]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(threads) as many:
            served = list(many.map(one, range(tenants)))
    finally:
        stop.set()
        watcher.join()
    return served, populations


def check_storm(stack, pool, tenants, threads, max_size, sink_server):
    served, populations = storm(stack, pool, tenants, threads)

    assert len({container for _, container in served}) == tenants  # no container served twice in its life
    assert max(populations) <= max_size
    for number in range(tenants):
        assert sink_server.keys(f"t/storm-{number}/state") == {"me": len(f"storm-{number}\n")}
    assert not Assignment.objects.live().filter(pool_id=pool).exists()


@pytest.mark.postgresql
def test_sixty_claims_and_releases_at_once_share_nothing(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=6, maxSize=8, minIdle=4)

    check_storm(stack, pool, 60, 12, 8, sink_server)


@pytest.mark.long
def test_three_hundred_claims_and_releases_at_once_share_nothing(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=8, maxSize=12, minIdle=6)

    check_storm(stack, pool, 300, 24, 12, sink_server)


def run_beside(*options: str) -> str:
    """A container that no deployment has made; its id."""
    command = ["docker", "run", "-d", "--network=none", *options, "boilerhouse/example-workload:1", "sleep", "1000"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def running() -> set[str]:
    command = ["docker", "ps", "-q", "--no-trunc"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.any_database
def test_another_deployments_containers_are_not_touched(stack, pools, machine):
    """A container with another deployment's label and one without an owner survive reconcile and purge (P9)."""
    held = stack.claim("p9", pools())
    theirs = run_beside(f"--label={host.DEPLOYMENT_LABEL}=someoneelse")
    container_id = uuid.uuid4()  # named as ours are
    nobodys = run_beside(
        f"--name={lifecycle.runtime_name(container_id)}", f"--label={lifecycle.CONTAINER_LABEL}={container_id}"
    )
    made = {theirs, nobodys}
    try:
        made.add(orphan := run_beside(f"--label={host.DEPLOYMENT_LABEL}={deployment.deployment_id()}"))
        eventually(lambda: orphan not in running(), 60)  # the controller has compared engine and rows, and healed
        assert manage("reconcile").returncode == 0
        assert {theirs, nobodys} <= running()

        machine.manage("migrate", "-v", "0")
        machine.manage("reconcile")
        its_id = (machine.data / "deployment-id").read_text().strip()
        made.add(own := run_beside(f"--label={host.DEPLOYMENT_LABEL}={its_id}"))
        assert machine.manage_json("purge", "--yes")["containers"] == 1
        assert own not in running()
        assert {theirs, nobodys} <= running()
        stack.exec(held["containerId"], "true")
        stack.release("p9")
    finally:
        subprocess.run(["docker", "rm", "-f", *made], capture_output=True, check=False)

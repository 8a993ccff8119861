"""``backup`` under load, total loss, ``restore``: tenants find their last save (P3, P5, P13)."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from tests.stack.conftest import eventually
from tests.stack.machines import Machine

STATE = "t/${tenantId}/"


@pytest.mark.long
@pytest.mark.any_database
def test_a_new_machine_takes_over_from_a_backup(machine, sink_server, tmp_path):
    old = machine.start()
    pool = old.make_pool(sink=sink_server.json(STATE), warm=3, maxSize=6)
    for name in ("ana", "ben"):
        claimed = old.claim(name, pool)
        old.exec(claimed["containerId"], f"seq 1 400 > /state/numbers; echo {name} > /state/who; ln -s who /state/link")
        old.release(name)
    held = old.claim("carol", pool, config={"a": 1}, secrets={"TOKEN": "t0k3n"})
    old.exec(held["containerId"], "echo saved > /state/x")
    run = old.ok("POST", "tenants/carol/sync", {"direction": "outward"}, 202)["runs"][0]
    eventually(lambda: old.ok("GET", f"sync-runs/{run['id']}")["state"] == "succeeded")
    old.exec(held["containerId"], "echo unsaved > /state/x")
    stop, turns = threading.Event(), []

    def goes_on() -> None:
        while not stop.is_set():
            claimed = old.claim("busy", pool)
            turns.append(int(old.exec(claimed["containerId"], "cat /state/n 2>/dev/null || echo 0")))
            old.exec(claimed["containerId"], f"echo {len(turns)} > /state/n")
            old.release("busy")

    busy = threading.Thread(target=goes_on)
    busy.start()
    eventually(lambda: len(turns) >= 2)
    rotated = machine.manage_json("rotate_secrets")  # whoever runs reads the new key, and nobody notices
    assert rotated["reencrypted"]["syncing.SyncSpec"] == 1
    assert machine.manage_json("rotate_secrets", "--forget-old")["keys"] == 1
    file, keys = tmp_path / "backup.zip", tmp_path / "keys.json"
    taken = machine.manage_json("backup", str(file), "--keys", str(keys))
    eventually(lambda: len(turns) >= 4)
    stop.set()
    busy.join()
    assert turns == list(range(len(turns)))
    late = old.claim("late", pool)  # of whom the backup knows nothing
    old.exec(late["containerId"], "echo after > /state/x")
    old.release("late")
    machine.lose()

    fresh = Machine(tmp_path / "fresh")
    try:
        assert "not a backup" not in fresh.manage("restore", str(file), code=5), "it wants the keys"
        done = fresh.manage_json("restore", str(file), "--keys", str(keys))
        assert done["deploymentId"] == taken["deploymentId"]
        assert done["containers"]["found"] == 0
        assert "carol" in done["tenantsBackToTheirLastSave"]
        new = fresh.start(old.key)  # the old key opens the new machine
        new.wait_warm(pool, 3)
        assert new.status("carol")["assigned"] is False
        for name in ("ana", "ben"):
            claimed = new.claim(name, pool)
            script = "cat /state/link; wc -l < /state/numbers"
            assert new.exec(claimed["containerId"], script) == f"{name}\n400\n"
            new.release(name)
        for name, script, expected in (
            ("carol", "cat /state/x", "saved\n"),
            ("late", "cat /state/x", "after\n"),
            ("busy", "cat /state/n", f"{len(turns)}\n"),
        ):
            claimed = new.claim(name, pool)
            assert new.exec(claimed["containerId"], script) == expected, name
            new.release(name)
    finally:
        fresh.lose()


@pytest.mark.long
def test_a_database_set_back_while_containers_run_on(machine, sink_server, tmp_path):
    """Hazard A1: rows of the past, containers of the present."""
    old = machine.start()
    pool = old.make_pool(sink=sink_server.json(STATE), warm=3, maxSize=6)
    holder = old.claim("holder", pool)
    old.exec(holder["containerId"], "echo precious > /state/x")
    gone = old.claim("gone", pool)
    old.exec(gone["containerId"], "echo once > /state/x")
    old.wait_warm(pool, 3)
    file = tmp_path / "backup.zip"
    machine.manage("backup", str(file))

    old.release("gone")
    newcomer = old.claim("newcomer", pool)
    old.exec(newcomer["containerId"], "echo saved > /state/x")
    run = old.ok("POST", "tenants/newcomer/sync", {"direction": "outward"}, 202)["runs"][0]
    eventually(lambda: old.ok("GET", f"sync-runs/{run['id']}")["state"] == "succeeded")
    old.exec(newcomer["containerId"], "echo unsaved > /state/x")
    machine.kill()
    machine.new_database()

    done = machine.manage_json("restore", str(file))
    assert done["tenantsBackToTheirLastSave"] == ["gone"]
    assert done["containers"]["found"] >= 1
    new = machine.start(old.key)

    assert new.status("holder")["containerId"] == holder["containerId"]
    assert new.exec(holder["containerId"], "cat /state/x") == "precious\n"
    eventually(lambda: not is_running(newcomer["containerId"]), 60)
    kept = machine.data / "containers" / newcomer["containerId"] / "state" / "x"
    assert kept.read_text() == "unsaved\n", "its directory waits for a person"
    new.wait_warm(pool, 1)
    for name, expected in (("gone", "once\n"), ("newcomer", "saved\n")):
        claimed = new.claim(name, pool)
        assert claimed["containerId"] not in (newcomer["containerId"], gone["containerId"], holder["containerId"])
        assert new.exec(claimed["containerId"], "cat /state/x") == expected
        new.release(name)
    new.release("holder")
    again = new.claim("holder", pool)
    assert new.exec(again["containerId"], "cat /state/x") == "precious\n"
    new.release("holder")
    first = new.ok("GET", "events?after=1")
    assert first["reset"] is True, "clients begin anew"


def is_running(container_id: str) -> bool:
    shown = subprocess.run(
        ["docker", "--log-level", "error", "inspect", f"bh-{container_id}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return shown.returncode == 0 and json.loads(shown.stdout)[0]["State"]["Running"]

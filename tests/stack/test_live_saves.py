"""Saves of running containers, on real parts: a busy database, concurrent commands and health checks, kill -9,
hooks, limits."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pools import freezer, quota, volumes
from pools.models import Container
from pools.runtime import get_runtime
from tests import sqlite
from tests.stack.conftest import UPLOAD, eventually

STATE = "t/${tenantId}/"
FAILPOINTS = Path(os.environ["BOILERHOUSE_FAILPOINTS"])


@pytest.fixture(scope="module")
def sqlite_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sqlite.built_image(tmp_path_factory.mktemp("image")) as image:
        yield image


def live_pool(stack, pools, sink_server, interval_ms: int | None = None, workload: dict | None = None, **policy) -> str:
    pool = pools(workload=workload or {}, warm=2, maxSize=4)
    policy = {"onClaim": True, "onRelease": True, "intervalMs": interval_ms, **policy}
    body = {"id": pool, "poolId": pool, "mappings": [UPLOAD], "sink": sink_server.json(STATE), "policy": policy}
    stack.ok("POST", "sync-specs", body, 201)
    return pool


def save(stack, tenant: str) -> dict:
    """A save by hand, completed; what its step says."""
    (run,) = stack.ok("POST", f"tenants/{tenant}/sync", {"direction": "outward"}, 202)["runs"]
    done = eventually(lambda: ended(stack, run["id"]), 60)
    assert done["state"] == "succeeded", done
    return done["steps"][0]


def ended(stack, run_id: str) -> dict | None:
    run = stack.ok("GET", f"sync-runs/{run_id}")
    return run if run["state"] not in ("queued", "running") else None


# A busy database ------------------------------------------------------------------------------------


def content_at(sink_server, tenant: str, directory: Path) -> str:
    """What the database at the sink holds."""
    directory.mkdir()
    sink = sink_server.sink()
    for name, _ in sink.names(f"t/{tenant}/state"):
        (directory / name).write_bytes(sink.get(f"t/{tenant}/state/{name}", 15))
    return sqlite.content(directory / "app.db")


def content_in(stack, container_id: str) -> str:
    script = "sqlite3 /state/app.db 'PRAGMA integrity_check' 'SELECT max(tx) FROM t' .sha3sum"
    checked, newest, said = stack.exec(container_id, script).split("\n")[:3]
    assert checked == "ok"
    return f"{newest} {said.strip()}"


def follow(stack, sink_server, tenant: str, count: int, directory: Path) -> tuple[dict[str, str], list[dict]]:
    """Wait for so many periodic saves; by their ids what the sink then held, and what their steps say."""
    contents: dict[str, str] = {}
    steps: list[dict] = []
    deadline = time.monotonic() + 60 + 20 * count
    while len(contents) < count:
        assert time.monotonic() < deadline
        for run in stack.runs(tenant, direction="upload"):
            assert run["state"] in ("queued", "running", "succeeded"), run
            if run["state"] == "succeeded" and run["id"] not in contents:
                steps += run["steps"]
                contents[run["id"]] = content_at(sink_server, tenant, directory / run["id"])
        time.sleep(0.1)
    return contents, steps


@pytest.mark.parametrize("saves", [3, pytest.param(20, marks=pytest.mark.long)])  # 20 take two minutes
@pytest.mark.any_database
def test_a_busy_database_is_saved_each_time_and_comes_back_as_it_was(
    stack, pools, sink_server, sqlite_image, tmp_path, saves, capsys
):
    """Each periodic save of a SQLite in WAL mode under constant commits completes; the host lost, it is the last."""
    workload = {"image": sqlite_image, "resources": {"memoryMb": 128, "pidsLimit": 64}}
    pool = live_pool(stack, pools, sink_server, 5000, workload)
    held = stack.claim("dora", pool)
    stack.exec(held["containerId"], "(sh /writer.sh > /dev/null 2>&1) &")
    script = "sqlite3 /state/app.db 'SELECT count(*) > 100 FROM t' 2>/dev/null || true"
    eventually(lambda: stack.exec(held["containerId"], script) == "1\n", 60)
    contents, steps = follow(stack, sink_server, "dora", saves, tmp_path)
    told = [step["snapshot"] for step in steps]
    assert all(one["pointInTime"] for one in told), told
    newest = [int(content.split()[0]) for content in contents.values()]
    assert newest == sorted(newest)
    assert newest[-1] > newest[0]
    time.sleep(random.uniform(0, 6))
    stack.release("dora", discard=True)
    done = [run["id"] for run in stack.runs("dora", direction="upload") if run["state"] == "succeeded"]
    held = stack.claim("dora", pool)
    expected = contents.get(done[0]) or content_at(sink_server, "dora", tmp_path / "last")
    assert content_in(stack, held["containerId"]) == expected
    frozen = sorted(one["freezeMs"] for one in told)
    with capsys.disabled():
        p50, p95 = frozen[len(frozen) // 2], frozen[int(0.95 * (len(frozen) - 1))]
        print(f"\nbusy database, freeze ms, n={len(frozen)}: min {frozen[0]} p50 {p50} p95 {p95} max {frozen[-1]}")


# Meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saves", "files"), [(4, 1000), pytest.param(12, 3000, marks=pytest.mark.long)]
)  # 12 take a minute where it is busy
@pytest.mark.any_database
def test_commands_and_health_checks_never_fail_of_a_freeze(stack, pools, sink_server, saves, files):
    """Commands during saves wait briefly; a single failed health check would make the container unhealthy, and none
    fails."""
    check = {"command": ["true"], "intervalMs": 500, "retries": 1, "startPeriodMs": 500}
    pool = live_pool(stack, pools, sink_server, workload={"healthCheck": check})
    held = stack.claim("eve", pool)["containerId"]
    stack.exec(held, f"for i in $(seq {files}); do echo $i > /state/f$i; done")
    failures: list[str] = []
    is_done = threading.Event()

    def ask() -> None:
        while not is_done.is_set():
            done = stack.ok("POST", f"containers/{held}/exec", {"command": ["echo", "fine"]})
            if (done["exitCode"], done["stdout"]) != (0, "fine\n"):
                failures.append(str(done))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(saves):
            stack.exec(held, f"echo {number} > /state/now")
            told = save(stack, "eve")["snapshot"]
            assert told["pointInTime"], json.dumps(told)
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert not stack.events("container.unhealthy", poolId=pool)


@pytest.mark.any_database
def test_a_worker_killed_while_it_holds_a_container_still(stack, pools, sink_server):
    """The container goes on at once, and the next save completes (P8)."""
    pool = live_pool(stack, pools, sink_server, 5000)
    held = stack.claim("fay", pool)["containerId"]
    stack.exec(held, "echo 1 > /state/one")
    armed = FAILPOINTS / "save.frozen"
    armed.touch()
    eventually(lambda: not armed.exists(), 60, 0.02)
    runtime_id = Container.objects.get(pk=held).runtime_id
    eventually(lambda: not freezer.is_frozen(runtime_id), 10, 0.02)
    assert stack.exec(held, "cat /state/one") == "1\n"
    eventually(lambda: set(sink_server.keys("t/fay/state")) == {"one"}, 60)
    eventually(lambda: not volumes.snapshot_dir(volumes.home(Container.objects.get(pk=held).pk)).exists(), 30)


@pytest.mark.any_database
def test_a_container_found_frozen_goes_on_within_thirty_seconds(stack, pools, sink_server):
    """Frozen through the kernel's file or by the engine's pause; its release still works (P8)."""
    pool = live_pool(stack, pools, sink_server)
    held = stack.claim("gil", pool)["containerId"]
    stack.exec(held, "echo 1 > /state/one")
    runtime_id = Container.objects.get(pk=held).runtime_id
    group = freezer.group_of(runtime_id)
    assert group
    group.freeze()
    eventually(lambda: not freezer.is_frozen(runtime_id), 30)
    subprocess.run(["docker", "pause", runtime_id], check=True, capture_output=True)
    eventually(lambda: not freezer.is_frozen(runtime_id), 30)
    assert stack.exec(held, "cat /state/one") == "1\n"
    group.freeze()
    stack.release("gil")
    assert set(sink_server.keys("t/gil/state")) == {"one"}


@pytest.mark.any_database
def test_the_engines_pause_does_where_the_kernels_freezer_cannot_be_reached(stack, pools, sink_server):
    """The other way of holding still; killed while it does so, its guard unpauses."""
    pool = live_pool(stack, pools, sink_server)
    held = stack.claim("hal", pool)["containerId"]
    runtime_id = Container.objects.get(pk=held).runtime_id
    pause = freezer.EnginePause(get_runtime(), f"bh-{held}")
    with freezer.frozen(pause, 5.0) as freeze:
        assert freezer.is_frozen(runtime_id)
        assert pause.is_frozen()
    assert freeze.seconds > 0
    assert not freezer.is_frozen(runtime_id)
    assert stack.exec(held, "echo on") == "on\n"
    pause.freeze()
    guard = subprocess.Popen(pause.guard(60), stdin=subprocess.PIPE)
    assert guard.stdin
    guard.stdin.close()
    guard.wait(timeout=30)
    assert not pause.is_frozen()


# Hooks, limits --------------------------------------------------------------------------------------


@pytest.mark.any_database
def test_pre_save_runs_before_each_live_save_and_its_failure_is_said(stack, pools, sink_server):
    """What the hook writes is in the save; when it fails the save goes on; a release runs preRelease only."""
    script = "test ! -e /state/fail && date +%s%N > /state/dump"
    hooks = {"preSave": {"command": ["sh", "-c", script]}, "preRelease": {"command": ["touch", "/state/released"]}}
    pool = live_pool(stack, pools, sink_server, workload={"hooks": hooks})
    held = stack.claim("ida", pool)["containerId"]
    save(stack, "ida")
    first = sink_server.sink().get("t/ida/state/dump", 15)
    assert first == stack.exec(held, "cat /state/dump").encode()
    stack.exec(held, "touch /state/fail")
    save(stack, "ida")
    assert set(sink_server.keys("t/ida/state")) == {"dump", "fail"}
    (warning,) = [e for e in stack.events("pool.warning", poolId=pool) if "preSave" in e["payload"]["detail"]]
    assert warning["payload"]["detail"] == "preSave failed (exit code 1); the save continues."
    stack.exec(held, "rm /state/fail")
    stack.release("ida")
    assert sink_server.sink().get("t/ida/state/dump", 15) == first
    assert "released" in sink_server.keys("t/ida/state")


@pytest.mark.any_database
def test_copies_do_not_take_from_a_tenants_disk(stack, pools, sink_server):
    """A tenant that has used nearly all of its diskMb is saved like any other."""
    limits = {"memoryMb": 64, "pidsLimit": 64, "diskMb": 20}
    pool = live_pool(stack, pools, sink_server, workload={"resources": limits})
    held = stack.claim("wim", pool)["containerId"]
    stack.exec(held, "head -c 18000000 /dev/urandom > /state/big")
    assert (volumes.home(Container.objects.get(pk=held).pk) / quota.IMAGE).exists() or not quota.is_enforced()
    step = save(stack, "wim")
    assert (step["snapshot"]["copiedBytes"], step["snapshot"]["copiedBy"]) == (18_000_000, "copy")
    assert sink_server.keys("t/wim/state") == {"big": 18_000_000}
    stack.release("wim", sync=False)
    held = stack.claim("wim", pool)["containerId"]
    assert stack.exec(held, "wc -c < /state/big") == "18000000\n"


@pytest.mark.any_database
def test_quiesce_is_kept_and_checked(stack, pools, sink_server):
    """``policy.quiesce`` by API: kept, shown, refused where it means nothing."""
    pool = live_pool(stack, pools, sink_server, quiesce="none")
    found = stack.ok("GET", f"sync-specs/{pool}")
    assert found["policy"]["quiesce"] == "none"
    bad = {**found, "policy": {**found["policy"], "quiesce": "later"}}
    bad["sink"]["secretAccessKey"] = sink_server.secret_key
    refused = stack.problem("PUT", f"sync-specs/{pool}", bad, 422, "invalid")
    assert refused["errors"][0]["pointer"] == "/policy/quiesce"
    held = stack.claim("kim", pool)["containerId"]
    stack.exec(held, "echo 1 > /state/one")
    assert save(stack, "kim")["snapshot"]["pointInTime"] is False

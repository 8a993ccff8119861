"""The engine is killed, stopped and frozen with tenants in it: nothing is lost, and nothing hangs (P8,
hazards.md#d6)."""

from __future__ import annotations

import signal
import subprocess
import threading
import time

import pytest

from tenants.models import Assignment
from tests.stack.conftest import eventually
from tests.stack.convergence import wait_until_converged

STATE = "t/${tenantId}/"
BACK_S = 30


@pytest.fixture(autouse=True)
def _runs_again(engine):
    yield
    assert engine.process
    engine.kill(signal.SIGCONT)
    if not engine.live_restore and engine.process.poll() is None:
        engine.kill(signal.SIGTERM)
    if engine.process.poll() is not None:
        engine.live_restore = True
        engine.start()


def timed_claim(stack, tenant: str, pool: str, timeout_ms: int):
    began = time.monotonic()
    answer = stack.call("POST", f"tenants/{tenant}/claim?timeoutMs={timeout_ms}", {"poolId": pool}, timeout=60)
    return answer, time.monotonic() - began


def test_killed_with_tenants_inside_they_work_on_and_pools_go_on(stack, engine, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=4)
    held = stack.claim("ada", pool)
    stack.exec(held["containerId"], "echo 1 > /state/x")
    engine.kill()
    eventually(lambda: stack.pool_status(pool)["trouble"] == "engine_down")
    assert "systemctl start docker" in stack.pool_status(pool)["lastError"]
    assert stack.call("GET", "health/ready").json()["checks"]["engine"] != "ok"
    answer, took = timed_claim(stack, "bea", pool, 5000)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")
    assert answer.headers["Retry-After"]
    assert took < 5 * 5
    assert stack.status("ada")["state"] == "assigned", "nobody is released because the engine is away"

    engine.start()
    wait_until_converged(pool)
    assert stack.pool_status(pool)["lastError"] is None
    assert stack.exec(held["containerId"], "cat /state/x") == "1\n", "live-restore: the same container runs on"
    assert stack.claim("bea", pool)["source"] in ("warm", "cold")
    stack.release("ada")
    assert set(sink_server.keys("t/ada/state")) == {"x"}


def test_a_release_that_the_engines_death_interrupts_is_finished_when_it_is_back(stack, engine, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=1, maxSize=2, workload={"stopTimeoutMs": 3000})
    held = stack.claim("cho", pool)
    stack.exec(held["containerId"], "head -c 3000000 /dev/urandom > /state/f; cd /state; sha256sum f > sum")
    thread = threading.Thread(target=lambda: stack.call("POST", "tenants/cho/release?timeoutMs=500", {}))
    thread.start()
    time.sleep(0.3)
    engine.kill()
    thread.join()
    time.sleep(3)
    engine.start()
    eventually(lambda: not stack.status("cho")["assigned"], BACK_S + 10, 0.3)
    wait_until_converged(pool)
    again = stack.claim("cho", pool)
    assert "f: OK" in stack.exec(again["containerId"], "cd /state; sha256sum -c sum")


def test_frozen_claims_end_in_time_and_nothing_is_doubled(stack, engine, pools):
    pool = pools(warm=3, maxSize=6, workload={"init": "image"})  # no guest agent says that a container lives
    with_agent = pools(warm=1, maxSize=2)
    engine.kill(signal.SIGSTOP)
    began = time.monotonic()
    answer, took = timed_claim(stack, "fae", with_agent, 3000)
    assert (answer.status_code, took < 5) == (201, True), "its agent says so, and nobody has to ask the engine"
    assert stack.exec(answer.json()["containerId"], "echo here") == "here\n"
    outcomes = [timed_claim(stack, f"eve-{n}", pool, 3000) for n in range(3)]
    for answer, took in outcomes:
        assert answer.status_code in (503, 504), answer.text
        assert answer.headers["Retry-After"]
        assert took < 5 * 3
    eventually(lambda: stack.pool_status(pool)["trouble"] == "engine_down")
    answer, took = timed_claim(stack, "eve-9", pool, 30_000)
    assert (answer.status_code, took < 10) == (503, True), "once it is known, it is said at once"
    assert stack.call("GET", "pools").status_code == 200
    time.sleep(max(0, 12 - (time.monotonic() - began)))

    engine.kill(signal.SIGCONT)
    wait_until_converged(pool)
    assert stack.pool_status(pool)["idle"] == 3
    assert not Assignment.objects.live().filter(pool_id=pool).exists(), "a claim that answered an error holds nothing"
    stack.claim("eve-0", pool)
    stack.release("fae")
    wait_until_converged(with_agent)


def test_without_live_restore_every_container_dies_and_no_state_is_lost(stack, engine, pools, sink_server):
    engine.kill(signal.SIGTERM)
    engine.live_restore = False
    engine.start()
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=4)
    held = [stack.claim(name, pool) for name in ("fay", "gus")]
    for claimed in held:
        stack.exec(claimed["containerId"], "echo $HOSTNAME > /state/x")
    engine.kill()
    eventually(lambda: stack.pool_status(pool)["trouble"] == "engine_down")
    engine.start()
    eventually(lambda: not any(stack.status(name)["assigned"] for name in ("fay", "gus")), BACK_S, 0.3)
    wait_until_converged(pool)
    for name, claimed in zip(("fay", "gus"), held, strict=True):
        assert Assignment.objects.filter(tenant_id=name).latest("created_at").reason == "container_died"
        again = stack.claim(name, pool)
        assert claimed["containerId"] in stack.exec(again["containerId"], "cat /state/x")


def running() -> set[str]:
    done = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_stopped_and_started_as_an_upgrade_does(stack, engine, pools):
    pool = pools(warm=2, maxSize=3)
    rows, alive = {c["id"] for c in stack.containers(pool)}, running()
    engine.kill(signal.SIGTERM)
    eventually(lambda: stack.pool_status(pool)["trouble"] == "engine_down")
    engine.start()
    eventually(lambda: stack.pool_status(pool)["trouble"] is None, BACK_S)
    wait_until_converged(pool)
    assert {c["id"] for c in stack.containers(pool)} == rows
    assert running() == alive, "with live-restore an upgrade of the engine costs no container"

"""Syncs of an assigned container, on demand and periodic, on real parts (P13), and the effects of a cancellation."""

from __future__ import annotations

import os
import signal
import time

import pytest

from boilerhouse.core.models import Process
from boilerhouse.process import processes
from syncing.models import SyncRun
from tests.stack.conftest import UPLOAD, eventually

STATE = "t/${tenantId}/"


def periodic(stack, sink_server, interval_ms: int = 5000, **policy) -> str:
    pool = stack.make_pool(warm=2, maxSize=4)
    policy = {"onClaim": True, "onRelease": True, "intervalMs": interval_ms, **policy}
    body = {"id": pool, "poolId": pool, "mappings": [UPLOAD], "sink": sink_server.json(STATE), "policy": policy}
    stack.ok("POST", "sync-specs", body, 201)
    return pool


@pytest.mark.postgresql
def test_periodic_saves_go_on_over_a_killed_worker_and_lose_to_the_release(stack, sink_server):
    pool = periodic(stack, sink_server)
    try:
        held = stack.claim("pia", pool)
        stack.exec(held["containerId"], "echo 1 > /state/one")
        eventually(lambda: set(sink_server.keys("t/pia/state")) == {"one"}, 30)
        status = stack.ok("GET", f"sync-specs/{pool}/status")
        assert status["tenants"] == {"covered": 1, "stale": 0}
        assert status["lastRun"]["trigger"] == "interval"
        # The files are at the sink before the save has ended.
        age_ms = eventually(lambda: stack.status("pia")["syncStatus"]["ageMs"], 30)
        assert age_ms < 30_000

        workers = Process.objects.filter(kind="worker", pk__in=processes.living())
        assert workers
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        stack.exec(held["containerId"], "rm /state/one; echo 2 > /state/two")
        eventually(lambda: set(sink_server.keys("t/pia/state")) == {"two"}, 60)

        stack.exec(held["containerId"], "echo 3 > /state/three")
        stack.release("pia")
        assert set(sink_server.keys("t/pia/state")) == {"two", "three"}
        assert not SyncRun.objects.filter(tenant_id="pia", state__in=["queued", "running"]).exists()
    finally:
        stack.drop_pool(pool)


@pytest.mark.any_database
def test_a_cancelled_save_is_taken_back_and_the_tenant_goes_on(stack, sink_server):
    pool = periodic(stack, sink_server, 3_600_000)
    try:
        held = stack.claim("rex", pool)
        stack.exec(held["containerId"], "echo kept > /state/x")
        (run,) = stack.ok("POST", f"sync-specs/{pool}/trigger", {"tenantId": "rex"}, 202)["runs"]
        eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["state"] == "succeeded", 30)
        stack.problem("POST", f"sync-runs/{run['id']}/cancel", {}, 409, "not_cancellable")
        bad = stack.problem("POST", f"sync-specs/{pool}/trigger", {"tenantId": "no spaces"}, 422, "invalid")
        assert bad["errors"][0]["pointer"] == "/tenantId"

        stack.exec(held["containerId"], "head -c 400000000 /dev/urandom > /state/big")
        (run,) = stack.ok("POST", "tenants/rex/sync", {"direction": "outward"}, 202)["runs"]
        eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["state"] == "running", 30, 0.05)
        stack.ok("POST", f"sync-runs/{run['id']}/cancel", {}, 202)
        eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["state"] == "cancelled", 30)
        assert stack.status("rex")["state"] == "assigned"
        stack.release("rex", sync=False)
        again = stack.claim("rex", pool)
        assert stack.exec(again["containerId"], "cat /state/*") == "kept\n"
    finally:
        stack.drop_pool(pool)


def test_triggers_say_what_is_wrong(stack, sink_server):
    pool = periodic(stack, sink_server, 3_600_000, allowManualTrigger=False)
    try:
        stack.claim("sue", pool)
        stack.problem("POST", f"sync-specs/{pool}/trigger", {}, 422, "manual_sync_off")
        stack.problem("POST", "tenants/sue/sync", {"direction": "outward"}, 422, "manual_sync_off")
        stack.problem("POST", "sync-specs/no-such/trigger", {}, 404, "sync_spec_not_found")
        stack.problem("GET", "sync-runs/nonsense", None, 404, "sync_run_not_found")
        assert stack.ok("POST", f"sync-specs/{pool}/probe")["state"] == "healthy"
        sink_server.stop()
        began = time.monotonic()
        found = stack.ok("POST", f"sync-specs/{pool}/probe")
        assert (found["state"], found["code"]) == ("unhealthy", "unreachable")
        assert time.monotonic() - began < 30
        sink_server.start()
        assert stack.ok("POST", f"sync-specs/{pool}/probe")["state"] == "healthy"
    finally:
        stack.drop_pool(pool)


@pytest.mark.any_database
def test_many_sync_requests_of_one_tenant_delay_neither_saves_nor_releases_of_another(stack, sink_server):
    """300 requests of mallory; bob, whose save is due every five seconds, is saved all the time and released."""
    pool = periodic(stack, sink_server)
    try:
        held = {tenant: stack.claim(tenant, pool)["containerId"] for tenant in ("mallory", "bob")}
        for container in held.values():
            stack.exec(container, "echo 1 > /state/one")
        eventually(lambda: stack.status("bob")["syncStatus"]["ageMs"] is not None, 60)
        answered, oldest_ms = set(), 0
        for number in range(300):
            told = stack.ok("POST", "tenants/mallory/sync", {"direction": "both"}, 202)["runs"]
            answered |= {run["id"] for run in told}
            unfinished = SyncRun.objects.filter(tenant_id="mallory", state__in=["queued", "running"])
            assert unfinished.filter(trigger="manual").count() <= 4, "one under way and one behind it per direction"
            if number % 10 == 0:
                oldest_ms = max(oldest_ms, stack.status("bob")["syncStatus"]["ageMs"])
        assert len(answered) < 300
        assert oldest_ms < 5 * 5000, "a few intervals, on a busy machine"
        assert SyncRun.objects.filter(tenant_id="mallory", state="succeeded", trigger="manual").exists()
        stack.exec(held["bob"], "echo 2 > /state/two")
        stack.release("bob")
        assert set(sink_server.keys("t/bob/state")) == {"one", "two"}
    finally:
        stack.drop_pool(pool)

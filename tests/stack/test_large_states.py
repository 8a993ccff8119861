"""States whose restore over a slow connection outlasts a request, a worker, or a claim."""

from __future__ import annotations

import os
import signal
import time

import pytest

from boilerhouse.core.models import Process
from pools.volumes import staged_restores
from tenants.models import Assignment
from tests.lines import Line
from tests.stack.conftest import eventually

STATE = "t/${tenantId}/"
PIECES, SIZE = 16, 400_000


@pytest.fixture
def line(sink_server):
    made = Line(sink_server.endpoint)
    yield made
    made.stop()


def saved_tenant(stack, pools, sink_server, line, tenant: str) -> tuple[str, str]:
    """A pool whose sink has a slow connection, and the state that a tenant has saved there."""
    slow = {"endpoint": line.endpoint, "rcloneFlags": ["--bwlimit=1M", "--transfers=2"]}
    pool = pools(sink={**sink_server.json(STATE), **slow}, warm=2, maxSize=3)
    claimed = stack.claim(tenant, pool)
    write = f"for n in $(seq {PIECES}); do head -c {SIZE} /dev/urandom > /state/$n; done; {SUM}"
    told = stack.exec(claimed["containerId"], write)
    stack.release(tenant)
    line.down = 0
    return pool, told


SUM = "cd /state && md5sum *"
AT_MOST = PIECES * SIZE + 3 * SIZE
"""All of it once, and what was under way when it was broken off."""


def test_a_claim_that_nobody_waits_for_shows_its_restore_and_survives_its_worker(stack, pools, sink_server, line):
    """With its ETA in the status; the next worker continues where the killed one stopped."""
    pool, wrote = saved_tenant(stack, pools, sink_server, line, "lara")
    told = stack.ok("POST", "tenants/lara/claim?timeoutMs=2000", {"poolId": pool, "wait": False}, 202)
    assert (told["state"], told["tenantId"], told["poolId"]) == ("pending", "lara", pool)

    def some() -> dict | None:
        restore = stack.status("lara")["restore"]
        return restore if restore and restore["files"] >= 4 and restore["etaMs"] is not None else None

    seen = eventually(some, 40)
    assert (seen["totalFiles"], seen["totalBytes"]) == (PIECES, PIECES * SIZE)
    assert 0 < seen["percent"] < 100
    owner = eventually(lambda: Assignment.objects.live().get(tenant_id="lara").owner)
    os.kill(Process.objects.get(pk=owner).pid, signal.SIGKILL)

    eventually(lambda: stack.status("lara")["state"] == "assigned", 60, 0.3)
    assert line.down <= AT_MOST
    again = stack.ok("POST", "tenants/lara/claim", {"poolId": pool})
    assert stack.exec(again["containerId"], SUM) == wrote
    events = stack.events("sync.progress", tenantId="lara")
    assert {one["payload"]["totalBytes"] for one in events if one["payload"]["direction"] == "download"} == {
        PIECES * SIZE
    }
    assert stack.status("lara")["claimError"] is None
    assert stack.events("container.claimed", tenantId="lara")


@pytest.mark.long  # several claims that each time out
def test_claims_that_time_out_bring_a_large_state_in_the_end(stack, pools, sink_server, line):
    """Each holds nothing when it answers, and leaves what it had to the next one (P7)."""
    pool, wrote = saved_tenant(stack, pools, sink_server, line, "mona")
    until, codes = time.monotonic() + 120, []
    while time.monotonic() < until:
        answer = stack.call("POST", "tenants/mona/claim?timeoutMs=4000", {"poolId": pool})
        if answer.status_code == 201:
            break
        codes.append(answer.json()["code"])
        time.sleep(0.3)
    assert answer.status_code == 201, codes
    assert codes.count("claim_timeout") >= 1
    assert set(codes) <= {"claim_timeout", "releasing", "pool_exhausted"}
    assert stack.exec(answer.json()["containerId"], SUM) == wrote
    assert line.down <= PIECES * SIZE + (1 + codes.count("claim_timeout")) * 3 * SIZE
    assert stack.status("mona")["claimError"] is None
    assert not list(staged_restores.directory().glob("*/*"))
    told = stack.events("container.claim_failed", tenantId="mona")
    assert {one["payload"]["code"] for one in told} <= {"claim_timeout", "pool_exhausted"}

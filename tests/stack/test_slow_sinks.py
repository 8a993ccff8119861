"""D10, P14: a sink that is always just alive, beside another pool, on the whole product: real rclone, real S3, a line
that drips both ways."""

from __future__ import annotations

import math
import threading

import pytest

from tests.lines import Line
from tests.stack.conftest import eventually

TENANTS = [f"drip-{number}" for number in range(5)]
"""More than there are workers of a queue."""


def pool_at(pools, sink_server, endpoint: str, name: str, warm: int) -> str:
    sink = {**sink_server.json(f"{name}/${{tenantId}}/"), "endpoint": endpoint}
    return pools(sink=sink, warm=warm, maxSize=warm + 1)


@pytest.mark.long  # ten containers, and a transfer that drips while others are looked at
def test_a_sink_that_drips_holds_no_claim_and_no_release_of_another_pool(stack, pools, sink_server):
    """Five restores at 600 bytes a second and a connection, then five saves; without a bound they hold every worker
    for two minutes at least, and the other pool's claim gives up before."""
    line = Line(sink_server.endpoint)
    dripping = pool_at(pools, sink_server, line.endpoint, "drip", len(TENANTS))
    quick = pool_at(pools, sink_server, sink_server.endpoint, "quick", 2)
    fill = "head -c 3000000 /dev/urandom > /state/big"
    try:
        for tenant in TENANTS:
            stack.exec(stack.claim(tenant, dripping)["containerId"], fill)
            stack.release(tenant)
        stack.exec(stack.claim("bystander", quick)["containerId"], "echo mine > /state/mine")
        stack.release("bystander")
        stack.wait_warm(dripping, len(TENANTS))

        line.spares, line.drip_bytes, line.drips_from = 100_000, 60, 0
        for tenant in TENANTS:
            stack.ok("POST", f"tenants/{tenant}/claim?timeoutMs=60000", {"poolId": dripping, "wait": False}, 202)
        eventually(lambda: len(running(stack, "download")) >= 3, 30)
        come_and_go(stack, quick)
        assert len(running(stack, "download")) >= 3, "the sink still drips"

        line.drips_from = math.inf
        for tenant in TENANTS:
            eventually(lambda one=tenant: stack.status(one)["state"] == "assigned", 90)
            stack.exec(stack.status(tenant)["containerId"], fill)
        line.drips_from = 0
        releases = [threading.Thread(target=stack.call, args=("POST", f"tenants/{one}/release", {})) for one in TENANTS]
        for one in releases:
            one.start()
        eventually(lambda: len(running(stack, "upload")) >= 3, 30)
        come_and_go(stack, quick)
        assert len(running(stack, "upload")) >= 3, "the sink still drips"
        line.drips_from = math.inf
        for one in releases:
            one.join(120)
    finally:
        line.drips_from = math.inf
        line.stop()


def come_and_go(stack, pool: str) -> None:
    """A claim that finds what was saved, a save on demand, and a release."""
    claimed = stack.claim("bystander", pool)
    assert stack.exec(claimed["containerId"], "cat /state/mine") == "mine\n"
    (run,) = stack.ok("POST", "tenants/bystander/sync", {"direction": "outward"}, 202)["runs"]
    eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["state"] == "succeeded", 60)
    stack.release("bystander")


def running(stack, direction: str) -> list[dict]:
    found = stack.ok("GET", "sync-runs?state=running&limit=200")["items"]
    return [run for run in found if run["direction"] == direction and run["tenantId"] in TENANTS]

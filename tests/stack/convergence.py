"""The stack settles after a crash: nothing is left over, and pools have their size."""

from __future__ import annotations

import subprocess
import time

import requests

from pools import lifecycle, reconcile
from pools.models import Container
from pools.states import Trouble
from tenants import upkeep
from tenants.models import Assignment

CONVERGED_S = 30


def disagreement(pool: str) -> str:
    """Empty when the pool has its size, rows and engine and disk agree, and nothing is under way."""
    from pools.models import Pool

    status = Pool.objects.with_counts().get(pk=pool).status()
    if status.trouble == Trouble.ENGINE_DOWN:
        return status.last_error or status.trouble  # claims are refused until this is gone
    if status.idle + status.claimed != status.desired_size or status.starting or status.removing:
        return str(status)
    under_way = Assignment.objects.filter(pool_id=pool, state__in=["pending", "releasing", "release_failed"])
    if row := under_way.first():
        return f"{row.tenant_id} {row.state} {row.step} {row.outcome} {row.outcome_detail} {row.next_attempt_at}"
    listed = subprocess.run(
        ["docker", "ps", "-a", "--filter", f"label=boilerhouse.pool={pool}", "--format", "{{.Names}}"],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout.split()  # fmt: skip
    rows = {lifecycle.runtime_name(pk) for pk in Container.objects.filter(pool_id=pool).values_list("pk", flat=True)}
    if set(listed) != rows:
        return f"engine has {listed}, rows are {rows}"
    # What is quarantined, by other tests, is shown and left alone.
    drift = [d for d in reconcile.find_drift(upkeep.held_containers()) if d.heal and d.kind != "health"]
    return "; ".join(f"{d.kind} {d.subject} {d.detail}" for d in drift)


def wait_until_converged(pool: str, seconds: float = CONVERGED_S) -> None:
    deadline = time.monotonic() + seconds
    while wrong := disagreement(pool):
        assert time.monotonic() < deadline, wrong
        time.sleep(0.3)


def claim_until_held(stack, tenant: str, pool: str) -> dict:
    """As a client does: a claim whose answer is lost, or that says so, is made again."""
    deadline = time.monotonic() + CONVERGED_S
    while True:
        try:
            answer = stack.call("POST", f"tenants/{tenant}/claim", {"poolId": pool}, timeout=40)
            if answer.status_code in (200, 201):
                return answer.json()
            assert answer.status_code in (409, 502, 503, 504), answer.text
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, "not held in time"
        time.sleep(0.3)

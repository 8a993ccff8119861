"""Updates the database after a purge: no assignment is left on this node, and the pools reflect that."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now

from boilerhouse.core.events import emit, recording
from pools import lifecycle
from pools.models import Container, HostLease, Pool
from pools.nodes import node_of
from tenants import releases, syncs, upkeep, wait_queue
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep

OUTCOME = "purged"


def end_all() -> int:
    """End assignments and delete containers that no longer exist at the engine or on disk. Returns how many assignments
    ended.

    Each claim, container and sync run gets its last event. Failed saves are discarded. Assignments on other nodes stay,
    because their engines and disks still have the containers.
    """
    with recording():
        # Lock pools before their rows, as everywhere.
        pools = list(Pool.objects.select_for_update(no_key=True).order_by("pk"))
        live = Assignment.objects.live().select_related("container").order_by("created_at")
        ended = sum(_end(row) for row in live if node_of(row).is_here)
        for pool in pools:
            wait_queue.recount(pool.pk)
            releases.recount(pool.pk)
        for pk in Container.objects.here().values_list("pk", flat=True):
            lifecycle.forget(pk)
        HostLease.objects.here().delete()
    upkeep.bury_dead_runs()
    syncs.cancel_left_behind()
    return ended


def _end(row: Assignment) -> int:
    """Like a release whose steps have nothing left to do."""
    mine = Assignment.objects.filter(pk=row.pk)
    for state in (AssignmentState.ASSIGNED, AssignmentState.RELEASE_FAILED):
        mine.transition(state, AssignmentState.RELEASING, step=ReleaseStep.WIPING)
    over: dict[str, Any] = {"outcome": OUTCOME, "step": "", "owner": None, "next_attempt_at": None, "ended_at": Now()}
    if mine.transition(AssignmentState.PENDING, AssignmentState.ENDED, **over):
        emit(
            "container.claim_failed", pool_id=row.pool_id, tenant_id=row.tenant_id, container_id=row.container_ref,
            generation=row.generation, code=OUTCOME, detail="The deployment was purged.",
        )  # fmt: skip
        return 1
    ended = mine.transition(AssignmentState.RELEASING, AssignmentState.ENDED, **over)
    if ended:
        emit(
            "container.released", pool_id=row.pool_id, tenant_id=row.tenant_id, container_id=row.container_ref,
            outcome=OUTCOME, reason=row.reason,
        )  # fmt: skip
    return ended

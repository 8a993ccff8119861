"""Tasks of claims, releases and syncs."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from boilerhouse.queues import slow_work
from boilerhouse.queues.tasks import enqueue, task
from pools import nodes
from tenants import backups, idle, node_returns, preparation, releases, state_erasure, syncs, upkeep

PROBE_AGAIN_S = 0.5
"""A probe without a free slot is retried after this time."""


@task
def prepare(assignment_id: str, generation: str, attempts: str = "0") -> None:
    preparation.prepare(UUID(assignment_id), int(generation), int(attempts))


@task
def finish_release(assignment_id: str) -> None:
    releases.finish(UUID(assignment_id))


@task
def run_syncs() -> None:
    syncs.run_next()


@task
def check_idle(assignment_id: str, generation: str) -> None:
    idle.check(UUID(assignment_id), int(generation))


@task
@nodes.on_its_node("pool")
def put_away(container_id: str) -> None:
    upkeep.put_away(UUID(container_id))


@task
def clean_returned_node(node: str, epoch: str) -> None:
    if nodes.NodeAccess(node).is_here:
        node_returns.clean(int(epoch))


@task
def probe_sink(spec_id: str, why: str = "") -> None:
    with slow_work.entered_slow(is_slow=True) as may_begin:  # each sink that does not answer takes half a minute
        if may_begin:
            upkeep.probe_sink(spec_id, why)
            return
    with transaction.atomic():
        enqueue("sync", "tenants.tasks.probe_sink", spec_id, why, after_s=PROBE_AGAIN_S)


@task
def retry_saves(spec_id: str) -> None:
    upkeep.retry_saves(spec_id)


@task
def put_back(run_id: str) -> None:
    backups.put_back(UUID(run_id))


@task
def erase(run_id: str) -> None:
    state_erasure.erase(UUID(run_id))


@task
def erase_discarded(tenant_id: str, before: str) -> None:
    state_erasure.erase_here(tenant_id, int(before))


@task
def forget_old() -> None:
    upkeep.forget_old()

"""Level-triggered steps over assignments: each looks at rows, enqueues or decides, and says what it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from boilerhouse.core import clock, deployment_settings, processes
from boilerhouse.core.events import emit, recording
from boilerhouse.core.recently import Recently
from boilerhouse.core.steps import each
from boilerhouse.core.tasks import enqueue
from pools import freezer, lifecycle, nodes, volumes
from pools.models import Container, Pool
from pools.states import DEADLY, ContainerState
from syncing import services as syncing
from syncing.models import MappingRestore, SinkProbe, SyncRun, SyncSpec
from tenants import deadlines, deaths, errors, giving_up, idle, line, releases
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason

ORPHANED_AFTER = timedelta(seconds=3)
"""A row without an owner may have its message still on the way."""
GRACE_S = 2
"""Whoever waits for a claim gives it up itself at its deadline; this is for those who no longer wait."""
QUARANTINE_AFTER = timedelta(seconds=10)


def thaw_forgotten() -> int:
    """Have containers let go on that a save, killed in the middle, has left standing still."""
    return sum(_send("pool", "pools.tasks.thaw", pk) for pk in freezer.left_frozen())


def _send(queue: str, function: str, pk: UUID) -> bool:
    with transaction.atomic():
        enqueue(queue, function, pk)
    return True


def serve_waiters() -> int:
    """The net under the waiters' own matching: idle containers go to claims that wait."""
    waiting = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref=None)
    return each(set(waiting.values_list("pool_id", flat=True)), _serve)


def _serve(pool_id: str) -> int:
    return line.match_waiters(pool_id) if Container.objects.idle().filter(pool_id=pool_id).exists() else 0


def abort_overdue_claims() -> int:
    """Give up pending claims that nobody waits for any more."""
    overdue = clock.now() - timedelta(seconds=GRACE_S)
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, deadline__lt=overdue)
    return each(rows.select_related("pool"), lambda row: giving_up.give_up(row.pk, *giving_up.overdue_outcome(row)))


def resume_claims() -> int:
    """Hand on claims whose process is dead."""
    rows = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref__isnull=False)
    return each(_ownerless(rows), _hand_on)


def _hand_on(row: Assignment) -> int:
    handed_on = _enqueue(row, "claim", "tenants.tasks.prepare", row.pk, row.generation)
    if handed_on:
        deadlines.stand_in_line(Assignment.objects.filter(pk=row.pk))
    return handed_on


def resume_releases() -> int:
    """Carry on releases whose process is dead."""
    now = clock.now()
    rows = Assignment.objects.filter(state=AssignmentState.RELEASING)
    rows = rows.exclude(next_attempt_at__gt=now)
    return each(_ownerless(rows), lambda row: _enqueue(row, "save", "tenants.tasks.finish_release", row.pk))


def _ownerless(rows: QuerySet[Assignment]) -> list[Assignment]:
    living = processes.living()
    old = clock.now() - ORPHANED_AFTER
    return [row for row in rows.filter(state_changed_at__lt=old) if row.owner not in living]


_tried = Recently(10)


def _enqueue(row: Assignment, queue: str, function: str, *arguments: object) -> int:
    """Once per orphan and owner."""
    if not _tried.is_new((row.pk, row.owner, row.attempt, row.next_attempt_at)):
        return 0
    with transaction.atomic():
        enqueue(queue, function, *arguments)
    return 1


def retry_failed_saves() -> int:
    """Try failed saves again when their back-off has passed."""
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, next_attempt_at__lt=clock.now())
    return each(rows, releases.retry)


def find_lost() -> int:
    """Have containers of this node put away that are to be removed, have seen a tenant, and are nobody's."""
    old = clock.now() - QUARANTINE_AFTER
    rows = Container.objects.here().filter(state=ContainerState.REMOVING, state_changed_at__lt=old)
    return each(rows.values_list("pk", flat=True), _have_put_away)


def _have_put_away(pk: UUID) -> int:
    if not is_lost(pk) or not _tried.is_new(("lost", pk)):
        return 0
    with transaction.atomic():
        enqueue("pool", "tenants.tasks.put_away", pk)
    return 1


def is_lost(container_id: UUID) -> bool:
    """Whether it saw a tenant whose assignment is gone: its state may be unsaved."""
    held = Assignment.objects.live().filter(container_ref=container_id).exists()
    return not held and volumes.read_latch(container_id) is not None


def put_away(container_id: UUID) -> None:
    """Stop a lost container, free its slot, and keep its directory for a person to look into."""
    container = Container.objects.filter(pk=container_id, state=ContainerState.REMOVING).first()
    if container is None or not nodes.is_here(container.node) or not is_lost(container_id):
        return
    lifecycle.quarantine(container_id)
    with recording():
        detail = "A container that had seen a tenant whose assignment is gone was to be removed; it is quarantined."
        emit("pool.warning", pool_id=container.pool_id, container_id=container_id, detail=detail)
        lifecycle.forget(container_id, keepsDirectory=True)


def release_of_deleted_pools() -> int:
    """Release, with save, whoever holds a container of a pool that is being deleted; who waits there is told."""
    deleting = Pool.objects.filter(is_deleting=True).values_list("pk", flat=True)
    draining = Pool.objects.filter(is_draining=True, waiting__gt=0).values_list("pk", flat=True)
    waiting = Assignment.objects.filter(pool_id__in=list(draining), state=AssignmentState.PENDING, container_ref=None)
    each(waiting.values_list("pk", flat=True), lambda pk: giving_up.give_up(pk, errors.Draining.code))
    held = Assignment.objects.filter(pool_id__in=list(deleting), state=AssignmentState.ASSIGNED)
    return _release_each(held, ReleaseReason.POOL_DELETED)


def _release_each(rows: QuerySet[Assignment], reason: ReleaseReason) -> int:
    """Fence each of these assignments for ``reason``, by a statement of its own; return how many it was first at."""
    pks = list(rows.values_list("pk", flat=True))
    return each(pks, lambda pk: releases.fence(Assignment.objects.filter(pk=pk), reason=reason))


def release_dead() -> int:
    """End, with a save from their directories, assignments whose container runs no more (contract: health)."""
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, container__fault__in=DEADLY)
    return _release_each(rows, ReleaseReason.CONTAINER_DIED)


def release_unhealthy() -> int:
    """Release, with save, containers that run but are unhealthy, where their pool says so."""
    rows = Assignment.objects.filter(
        state=AssignmentState.ASSIGNED, pool__on_unhealthy=Pool.OnUnhealthy.RELEASE, container__fault__gt=""
    )
    return _release_each(rows.exclude(container__fault__in=DEADLY), ReleaseReason.UNHEALTHY)


def retire_unheld() -> int:
    """Take away containers that are claimed by nobody: a database that was set back may show such."""
    held = Assignment.objects.live().exclude(container_ref=None).values("container_ref")
    old = clock.now() - QUARANTINE_AFTER
    rows = Container.objects.filter(state=ContainerState.CLAIMED, state_changed_at__lt=old).exclude(pk__in=held)
    return each(list(rows.values_list("pk", flat=True)), _retire)


def _retire(pk: UUID) -> int:
    with recording():
        lifecycle.retire(pk)
        enqueue("pool", "pools.tasks.destroy_container", pk)
    return 1


def held_containers() -> set[UUID]:
    """Containers whose directories live assignments still need."""
    rows = Assignment.objects.live().exclude(container_ref=None)
    return {ref for ref in rows.values_list("container_ref", flat=True) if ref}


def find_idle() -> int:
    """Look closer at assignments without activity for their pool's idleTimeoutMs; a task walks their files."""
    rows = Assignment.objects.filter(state=AssignmentState.ASSIGNED, pool__idle_timeout_ms__gt=0)
    return each(rows.select_related("pool"), _have_checked)


def _have_checked(row: Assignment) -> int:
    due = idle.due_at(row)
    if due is None or due >= clock.now() - idle.SLACK:
        return 0
    if not _tried.is_new(("idle", row.pk, row.last_activity_at)):
        return 0
    with transaction.atomic():
        enqueue("sync", "tenants.tasks.check_idle", row.pk, row.generation)
    return 1


def probe_sink(spec_id: str, why: str = "") -> None:
    """Probe a spec's sink: after a change, periodically, or for somebody who waits for the answer."""
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is not None:
        syncing.probe(spec, is_changed=why == syncing.CHANGED, is_periodic=why == syncing.PERIODIC)


def retry_saves(spec_id: str) -> int:
    """Try failed saves again at once in every pool that saves where this spec does, or by its credential."""
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is None:
        return 0
    pools = {one.pool_id for one in syncing.sharing(spec)}
    rows = Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED, pool_id__in=pools)
    return each(rows, releases.retry)


def bury_dead_runs() -> int:
    """Say of runs whose process is dead that they were interrupted; what they belong to decides anew."""
    living = processes.living()
    dead = [run.pk for run in SyncRun.objects.running() if run.owner not in living]
    return SyncRun.objects.filter(pk__in=dead).bury()


FORGET_AT_ONCE = 1000


def forget_old() -> int:
    """Delete finished runs, probes and ended assignments past their retention, but the newest run per tenant and spec
    and the newest assignment per tenant and pool, and proofs of restores by generations that are over.

    An assignment is kept as long as a run. Returns how many rows went.
    """
    now, retention_s = clock.now(), deployment_settings.current().retention_s
    newer = SyncRun.objects.filter(
        spec=OuterRef("spec"), tenant_id=OuterRef("tenant_id"), direction=OuterRef("direction"), pk__gt=OuterRef("pk")
    )
    runs = SyncRun.objects.filter(finished_at__lt=now - timedelta(seconds=retention_s["runs"]))
    probes = SinkProbe.objects.filter(at__lt=now - timedelta(seconds=retention_s["probes"]))
    current = Assignment.objects.live().filter(tenant_id=OuterRef("tenant_id"), generation=OuterRef("generation"))
    proofs = MappingRestore.objects.filter(~Exists(current))
    later = Assignment.objects.filter(
        tenant=OuterRef("tenant"), pool=OuterRef("pool"), created_at__gt=OuterRef("created_at")
    )
    ended = Assignment.objects.filter(
        Exists(later),
        state=AssignmentState.ENDED,
        death=None,
        ended_at__lt=now - timedelta(seconds=retention_s["runs"]),
    )
    old = (runs.filter(Exists(newer)), probes, proofs, ended)
    return deaths.forget_old() + sum(_delete_in_parts(rows) for rows in old)


def _delete_in_parts(rows: QuerySet[Any]) -> int:
    """Delete them some at a time, so that no transaction is long."""
    gone = 0
    while pks := list(rows.order_by("pk").values_list("pk", flat=True)[:FORGET_AT_ONCE]):
        gone += rows.model._default_manager.filter(pk__in=pks).delete()[0]
    return gone

"""Compares the engine and the disk with the rows, and repairs differences on both sides.

It reads the rows, then the engine's list, then the rows again (hazards.md#d5): a listed container without a row in the
second reading is an orphan; one that is unchanged in both readings and not listed has vanished. Only objects with this
deployment's label are considered (P9). A container with a latch is never removed here, because its state may be unsaved
(hazards.md#d3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.conf import settings

from boilerhouse.core import clock, nodes
from boilerhouse.core.events import emit, recording
from boilerhouse.process.steps import each
from boilerhouse.queues.tasks import enqueue
from pools import conditions, freezer, health_reports, host, last_output, lifecycle
from pools.instruments import DRIFT
from pools.models import Container, HostLease, Pool
from pools.nodes import at_home, here, node_of
from pools.runtime import seccomp
from pools.runtime.base import Observed
from pools.states import DEADLY, ContainerState, Fault, Trouble

VANISHED_AFTER = timedelta(seconds=5)
"""A younger row may be ahead of the engine."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference, and its repair."""

    kind: str
    subject: str
    """The id of the container or other object."""
    detail: str
    heal: Callable[[], object] | None
    """The repair; None: it is only reported."""


def find_drift(in_use: set[UUID]) -> list[Drift]:
    """All current differences. ``held`` are containers whose directories other apps still need.

    Raises EngineUnavailable.
    """
    before = {c.pk: c for c in Container.objects.all()}
    listed = host.of_this_node(here().runtime.list(host.labels()))
    rows = {c.pk: c for c in Container.objects.all()}
    differences: list[Drift] = []
    by_container: dict[UUID, Observed] = {}
    for observed in listed:
        container_id = _id_of(observed)
        row = rows.get(container_id) if container_id else None
        if row is not None and observed.labels.get(lifecycle.NONCE_LABEL) == row.nonce:
            by_container[row.pk] = observed
        else:
            differences += _orphan(container_id, observed, in_use)
    for pk, row in rows.items():
        if pk in before and before[pk].state_changed_at == row.state_changed_at:
            differences += _row(row, by_container.get(pk))
    differences += _old_profiles(rows.values(), by_container)
    return differences + _on_disk(set(rows) | in_use) + _leases(in_use)


def _id_of(observed: Observed) -> UUID | None:
    try:
        return UUID(observed.labels.get(lifecycle.CONTAINER_LABEL, ""))
    except ValueError:
        return None


def _orphan(container_id: UUID | None, observed: Observed, in_use: set[UUID]) -> list[Drift]:
    name = observed.handle.name
    latch = here().volumes.read_latch(container_id) if container_id else None
    if latch is not None and container_id not in in_use:
        heal = (lambda: _quarantine(observed, container_id)) if observed.is_running else None
        return [
            Drift("latched_orphan", name, f"no row, but it has held a tenant's data: {latch}; stopped and kept", heal)
        ]
    if observed.created_at > time.time() - settings.BOILERHOUSE_ORPHAN_GRACE_S:
        return [Drift("young_orphan", name, "no row; removed once it is older", None)]
    if latch is not None:
        detail = "its directory is waiting for a save; only the container is removed"
        return [Drift("leftover", name, detail, lambda: _enqueue("remove_leftover", name))]
    return [Drift("orphan", name, "no row", lambda: _enqueue("remove_orphan", name, container_id or "none"))]


def _row(row: Container, observed: Observed | None) -> list[Drift]:
    if row.state not in (ContainerState.IDLE, ContainerState.CLAIMED) or row.fault in DEADLY:
        return []
    node = node_of(row)
    if not node.is_here:
        return []
    if observed is None:
        if row.state_changed_at > clock.now() - VANISHED_AFTER:
            return []
        detail = "The engine no longer has it."
        return [
            Drift("vanished", str(row.pk), detail, lambda: health_reports.report_fault(row.pk, Fault.VANISHED, detail))
        ]
    if row.state == ContainerState.IDLE and (latch := node.volumes.read_latch(row.pk)):
        detail = f"idle, but it has held a tenant's data: {latch}; removed, its directory kept"
        return [Drift("latched_idle", str(row.pk), detail, lambda: _take_out(row))]
    if not observed.is_running:
        return [Drift("ended", str(row.pk), f"the engine reports {observed.status}", lambda: look_at(row.pk))]
    if observed.health in ("healthy", "unhealthy") and observed.health != row.health and row.fault != Fault.DISK:
        health = observed.health
        return [Drift("health", str(row.pk), health, lambda: health_reports.report_health(row.pk, health))]
    return []


def _old_profiles(rows: Collection[Container], by_container: Mapping[UUID, Observed]) -> Iterator[Drift]:
    """Idle containers that an earlier release created under another profile: one of each pool at a time, while the pool
    is healthy and starts nothing, so that it always has warm ones."""
    busy = {row.pool_id for row in rows if row.state not in (ContainerState.IDLE, ContainerState.CLAIMED)}
    busy |= set(Pool.objects.exclude(trouble="", is_paused=False).values_list("pk", flat=True))
    for row in rows:
        observed = by_container.get(row.pk)
        if row.state != ContainerState.IDLE or row.pool_id in busy or observed is None:
            continue
        if not node_of(row).is_here:
            continue
        if observed.labels.get(lifecycle.PROFILE_LABEL) != seccomp.version():
            busy.add(row.pool_id)
            detail = "it runs under the seccomp profile of another release and is replaced"
            yield Drift("old_profile", str(row.pk), detail, partial(_renew, row.pk))


def _renew(container_id: UUID) -> None:
    with recording():
        if Container.objects.here().filter(pk=container_id).transition(ContainerState.IDLE, ContainerState.REMOVING):
            here().queue.put("pool", "pools.tasks.destroy_container", container_id)


def _take_out(row: Container) -> None:
    """Remove it unless it was claimed meanwhile, which writes the latch. ``tenants`` quarantines containers that have
    held a tenant's data."""
    Container.objects.filter(pk=row.pk, state_changed_at=row.state_changed_at).transition(
        ContainerState.IDLE, ContainerState.REMOVING
    )


def look_at(container_id: UUID, *, is_oom: bool = False) -> bool:
    """Inspect a container of this node that may have ended, and record its state."""
    node = at_home(container_id)
    if node is None:
        return False
    name = lifecycle.runtime_name(container_id)
    observed = node.runtime.inspect(name)
    if observed is None:
        return health_reports.report_fault(container_id, Fault.VANISHED, "The engine no longer has it.")
    if observed.is_running:
        return False
    fault, detail = health_reports.death_words(
        observed, is_oom=is_oom or (observed.is_oom_killed and observed.exit_code == 137)
    )
    words = last_output.of(node.runtime, name)
    return health_reports.report_fault(container_id, fault, detail, exit_code=observed.exit_code, words=words)


def _quarantine(observed: Observed, container_id: UUID | None) -> None:
    freezer.end(observed.handle.runtime_id)
    here().runtime.stop(observed.handle.name, 0)
    detail = f"{observed.handle.name} has held a tenant's data, but has no row; it is stopped and its directory kept."
    with recording():
        emit(
            "pool.warning", pool_id=observed.labels.get(lifecycle.POOL_LABEL, ""), container_id=container_id,
            detail=detail,
        )  # fmt: skip


def _on_disk(containers: set[UUID]) -> list[Drift]:
    ids = []
    old = time.time() - settings.BOILERHOUSE_ORPHAN_GRACE_S
    for container_id, changed in here().volumes.on_disk().items():
        if container_id in containers:
            continue
        if latch := here().volumes.read_latch(container_id):
            ids.append(Drift("quarantined", str(container_id), f"directory kept for {latch}", None))
        elif changed < old:
            ids.append(_stray_directory(container_id))
    return ids


def _stray_directory(container_id: UUID) -> Drift:
    return Drift("stray_directory", str(container_id), "no row", lambda: _enqueue("wipe_stray", container_id))


def _leases(in_use: set[UUID]) -> list[Drift]:
    strays = host.stray_leases(in_use)
    return [_stray_lease(lease) for lease in strays]


def _stray_lease(lease: HostLease) -> Drift:
    def free() -> None:
        if lease.resource.startswith("uid "):
            node_of(lease).host.release_uid(lease.container_id)
        else:
            node_of(lease).host.release_addresses(lease.container_id)

    return Drift("stray_lease", lease.resource, f"its container {lease.container_id} is gone", free)


def _enqueue(name: str, *arguments: object) -> None:
    here().queue.hand_on("pool", f"pools.tasks.{name}", *arguments)


def heal(in_use: set[UUID]) -> int:
    """Find and repair differences; return how many were repaired. Raises EngineUnavailable."""
    return each(find_drift(in_use), _heal)


def _heal(drift: Drift) -> int:
    if drift.heal is None:
        return 0
    DRIFT.labels(drift.kind).inc()
    drift.heal()
    return 1


def engine_is_down(detail: str) -> None:
    """Record that this node's engine does not answer. Unless another node has one that does, no pool can start
    containers, which is reported on each."""
    nodes.record_engine(detail)
    if nodes.others_have_engines():
        return
    with recording():
        untold = Pool.objects.exclude(trouble=Trouble.ENGINE_DOWN, last_error=detail)
        for pool in untold.select_for_update(no_key=True).order_by("pk"):
            conditions.report(pool, Trouble.ENGINE_DOWN, detail)


def engine_is_back() -> int:
    """Record that this node's engine answers. Let pools that waited for an engine or the host start again immediately;
    return how many."""
    nodes.record_engine("")
    waiting = [Trouble.ENGINE_DOWN, Trouble.HOST_NOT_READY]
    with recording():
        pools = list(Pool.objects.select_for_update(no_key=True).filter(trouble__in=waiting).order_by("pk"))
        for pool in pools:
            if pool.trouble == Trouble.ENGINE_DOWN:
                conditions.clear(pool)
            else:
                Pool.objects.filter(pk=pool.pk).update(next_start_at=None)
            enqueue("pool", "pools.tasks.refill", pool.pk)
    return len(pools)

"""Causes of containers that cannot be started or used: the engine, the node, then single pools and containers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from django.db.models import Max, Min

from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.attention.words import count, listed, sentence
from boilerhouse.core.models import Event
from pools.models import Container, Pool, PoolStatus
from pools.states import ContainerHealth, ContainerState, PoolState, Trouble
from tenants.models import Assignment
from tenants.states import AssignmentState

MOST = 20
"""How many unhealthy containers are listed."""
Row = tuple[Pool, PoolStatus]

OF_NODE = {
    Trouble.ENGINE_DOWN: (Kind.ENGINE_GONE, "{} does not answer", "The container engine"),
    Trouble.HOST_NOT_READY: (Kind.HOST_NOT_READY, "{} cannot isolate containers", "This node"),
    Trouble.DISK_LOW: (Kind.DISK_LOW, "{} is nearly full", "The disk of this node"),
}
"""Troubles of pools with one cause for all of them: kind, what, subject."""
OF_POOL = {
    Trouble.START_FAILED: (Kind.POOL_CANNOT_START, Severity.ERROR, "{} cannot start containers"),
    Trouble.NO_NODE: (Kind.POOL_CANNOT_START, Severity.ERROR, "{} has no node for its containers"),
    Trouble.UNSTABLE: (Kind.POOL_UNSTABLE, Severity.ERROR, "Containers of {} fail repeatedly"),
    Trouble.ROLL_HALTED: (Kind.ROLL_HALTED, Severity.WARNING, "{} stopped rolling to the new version"),
}


def rows() -> list[Row]:
    return [(pool, pool.status()) for pool in Pool.objects.with_counts().select_related("failed_pull").order_by("pk")]


def present(pools: Sequence[Row]) -> list[Cause]:
    """The causes in these pools, which come from ``with_counts()``."""
    of_node: dict[Trouble, list[Row]] = defaultdict(list)
    of_pool: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    rest: list[Row] = []
    for pool, status in pools:
        trouble = Trouble(pool.trouble) if pool.trouble else (Trouble.START_FAILED if pool.cannot_start else None)
        if trouble in OF_NODE:
            of_node[trouble].append((pool, status))
        elif trouble is not None:
            of_pool[trouble, pool.workload_id, pool.last_error].append((pool, status))
        else:
            rest.append((pool, status))
    causes = [_of_node(trouble, affected) for trouble, affected in of_node.items()]
    causes += [_of_pool(Trouble(trouble), affected) for (trouble, _, _), affected in of_pool.items()]
    causes += [_stale_image(pool) for pool, _ in rest if pool.stale_image]
    return causes + _waiting(rest) + _unhealthy([pool.pk for pool, status in pools if status.unhealthy])


def _since(pool: Pool) -> datetime:
    return pool.trouble_since or pool.updated_at


def _effect(affected: Sequence[Row]) -> str:
    """What the pools cannot do, and what still works."""
    waiting, idle = (sum(getattr(status, name) for _, status in affected) for name in ("waiting", "idle"))
    claimed = sum(status.claimed for _, status in affected)
    parts = [f"{count(waiting, 'claim')} {'waits' if waiting == 1 else 'wait'}."] if waiting else []
    if idle:
        parts.append(f"{count(idle, 'idle container')} still {'serves' if idle == 1 else 'serve'} claims.")
    elif not waiting:
        parts.append("New claims wait.")
    if claimed:
        parts.append(f"{count(claimed, 'tenant')} {'keeps' if claimed == 1 else 'keep'} working.")
    return " ".join(parts)


def _of_node(trouble: Trouble, affected: Sequence[Row]) -> Cause:
    kind, what, subject = OF_NODE[trouble]
    names = [pool.pk for pool, _ in affected]
    return Cause(
        key=f"node:{trouble.value}", kind=kind, what=what, thing=Thing.NODE, subject=subject,
        why=sentence(affected[0][0].last_error),
        effect=f"{listed(names)} cannot start containers. {_effect(affected)}",
        since=min(_since(pool) for pool, _ in affected), pool_ids=tuple(names),
    )  # fmt: skip


def _of_pool(trouble: Trouble, affected: Sequence[Row]) -> Cause:
    """Pools of one workload that fail in the same way have the same cause."""
    kind, severity, what = OF_POOL[trouble]
    names = [pool.pk for pool, _ in affected]
    others = f" {listed(names[1:])} {'fails' if len(names) == 2 else 'fail'} in the same way." if names[1:] else ""
    pool = affected[0][0]
    effect = "The last good version keeps serving." if trouble == Trouble.ROLL_HALTED else _effect(affected)
    return Cause(
        key=f"pool:{pool.pk}:{trouble.value}", kind=kind, severity=severity, what=what, thing=Thing.POOL,
        subject=pool.pk, why=sentence(pool.last_error) + others, effect=effect,
        since=min(_since(one) for one, _ in affected), pool_ids=tuple(names),
        workload_id="" if trouble == Trouble.NO_NODE else pool.workload_id,
    )  # fmt: skip


def _stale_image(pool: Pool) -> Cause:
    pull = pool.failed_pull
    return Cause(
        key=f"pool:{pool.pk}:image", kind=Kind.IMAGE_STALE, severity=Severity.WARNING, what="{} runs an older image",
        thing=Thing.POOL, subject=pool.pk, why=pool.stale_image,
        since=(pull and pull.finished_at) or pool.updated_at, pool_ids=(pool.pk,), workload_id=pool.workload_id,
    )  # fmt: skip


def _waiting(pools: Sequence[Row]) -> list[Cause]:
    """Claims that wait because of the pool's own settings."""
    stuck = [
        (pool, status)
        for pool, status in pools
        if status.waiting and status.state in (PoolState.EXHAUSTED, PoolState.PAUSED) and not status.idle
    ]
    if not stuck:
        return []
    waiting = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref=None)
    waiting = waiting.filter(pool_id__in=[pool.pk for pool, _ in stuck]).order_by()
    since = dict(waiting.values_list("pool_id").annotate(Min("created_at")))
    return [_stuck(pool, status, since.get(pool.pk, pool.updated_at)) for pool, status in stuck]


def _stuck(pool: Pool, status: PoolStatus, since: datetime) -> Cause:
    is_paused = status.state == PoolState.PAUSED
    waits = f"{count(status.waiting, 'claim')} {'waits' if status.waiting == 1 else 'wait'}."
    why = "It starts no containers while it is paused." if is_paused else f"All {pool.max_size} containers are in use."
    return Cause(
        key=f"pool:{pool.pk}:{'paused' if is_paused else 'exhausted'}",
        kind=Kind.POOL_PAUSED if is_paused else Kind.POOL_EXHAUSTED, severity=Severity.WARNING,
        what="{} is paused while claims wait" if is_paused else "{} has no idle container", thing=Thing.POOL,
        subject=pool.pk, why=why, effect=waits, since=since, pool_ids=(pool.pk,), workload_id=pool.workload_id,
    )  # fmt: skip


def _unhealthy(pool_ids: Sequence[str]) -> list[Cause]:
    if not pool_ids:
        return []
    ill = Container.objects.filter(
        pool_id__in=pool_ids, health=ContainerHealth.UNHEALTHY, state=ContainerState.CLAIMED
    ).order_by("state_changed_at")
    by_error: dict[tuple[str, str], list[Container]] = defaultdict(list)
    for container in ill[:MOST]:
        by_error[container.pool_id, container.error].append(container)
    ids = [str(container.pk) for containers in by_error.values() for container in containers]
    reports = Event.objects.filter(type="container.unhealthy", container_id__in=ids).order_by()
    since = dict(reports.values_list("container_id").annotate(Max("created_at")))
    return [_ill(containers, since) for containers in by_error.values()]


def _ill(containers: Sequence[Container], since: dict[str, datetime]) -> Cause:
    first, one = containers[0], len(containers) == 1
    return Cause(
        key=f"container:{first.pk}", kind=Kind.CONTAINER_UNHEALTHY,
        what="Claimed container {} is unhealthy" if one
        else f"{count(len(containers), 'claimed container')} of {{}} are unhealthy",
        thing=Thing.CONTAINER if one else Thing.POOL, subject=str(first.pk) if one else first.pool_id,
        why=sentence(first.error or "Its health check fails"),
        effect="Release saves the state; the next claim gets a new container.",
        since=min(since.get(str(container.pk), container.state_changed_at) for container in containers),
        pool_ids=(first.pool_id,),
    )  # fmt: skip

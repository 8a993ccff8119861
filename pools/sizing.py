"""How a pool keeps its size and rolls to a new version: one step at a time, decided under the pool's lock.

``decide`` is a pure function of rows; ``refill`` carries out its decision. The process that has started or removed a
container calls it directly, others send a message. The controller sends one for every pool that is off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db.models import Count, OuterRef, Q, Subquery

from boilerhouse.core import clock, compiled, context, failpoints
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.events import emit, recording
from boilerhouse.queues import in_progress
from pools import conditions, host, stability
from pools.errors import HostNotReady
from pools.models import Container, Pool, Template, WorkloadVersion
from pools.nodes import NodeAccess, node_of
from pools.placement import Refused
from pools.placement_round import PlacementRound
from pools.states import ContainerState, Trouble

STARTING, IDLE, CLAIMED = ContainerState.STARTING, ContainerState.IDLE, ContainerState.CLAIMED
DECIDED_BY = ("pool", "state", "version", "network", "pull", "owner")
"""What ``decide`` reads of a container."""
CLAIMS_AT_ONCE = 16
"""Uncommitted claims do not see each other; with this many spare containers it makes no difference."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: start this many containers of each template, remove these idle ones, cancel these starts."""

    start: list[Template] = field(default_factory=list)
    remove: list[UUID] = field(default_factory=list)
    call_off: list[UUID] = field(default_factory=list)


def decide(pool: Pool, template: Template, members: Sequence[Container], parallel: int) -> Step:
    """The next step of a pool whose containers are ``members``, oldest first. Pure: no query, no clock.

    At most ``parallel`` starts run at once, and ``maxSize`` counts every row (P2). Until a container of a new template
    is healthy, only one is started, and the last good template keeps serving (hazards.md#d7). Claimed containers are
    left alone; without spare capacity, idle containers are replaced one at a time.
    """
    idle = [c for c in members if c.state == IDLE]
    starting = [c for c in members if c.state == STARTING]
    claimed = sum(c.state == CLAIMED for c in members)
    room = pool.max_size - len(members)
    is_settled = len(members) == len(idle) + claimed
    in_line = [c for c in starting if c.waits_for_pull]
    if pool.is_draining or pool.is_deleting:
        return Step(remove=[c.pk for c in idle], call_off=[c.pk for c in in_line])
    desired = pool.desired_size(claimed)
    good = pool.good
    is_trial = good is not None and good != template and pool.halted != template
    serving = good if good is not None and (is_trial or pool.halted == template) else template
    if obsolete := [c.pk for c in in_line if c.template not in (serving, template)]:
        return Step(call_off=obsolete)  # a pull may take hours, and nothing else should wait for it

    trials = [c for c in members if is_trial and c.template == template]
    fresh_idle = [c for c in idle if c.template == serving]
    old_idle = [c for c in idle if c.template != serving and c not in trials]
    fresh = len(fresh_idle) + sum(c.template == serving for c in starting)
    missing = max(0, desired - claimed - fresh - sum(c in starting for c in trials))
    remove = [c.pk for c in old_idle[: max(0, len(idle) + claimed - desired)]]
    remove += [c.pk for c in fresh_idle[: max(0, fresh + claimed - desired)]]
    start: list[Template] = []
    can_start = not (pool.is_paused or parallel <= len(starting))
    if is_trial and not trials and can_start and (missing or idle):
        if room > 0:
            start.append(template)
            missing -= 1
            room -= 1
        elif idle and not remove and is_settled:
            return Step(remove=[idle[0].pk])
    elif missing and room <= 0 and old_idle and not remove and is_settled and can_start:
        return Step(remove=[old_idle[0].pk])
    if can_start:
        start += [serving] * max(0, min(missing, room, parallel - len(starting) - len(start)))
    return Step(start, remove)


def _parallel(pool: Pool) -> int:
    """How many starts may run at once: one after a failure, so that a broken image is tried once per back-off."""
    if conditions.rests(pool):
        return 0
    return 1 if pool.failures or pool.good is None else int(settings.BOILERHOUSE_PARALLEL_CREATES)


def is_off(pool: Pool) -> bool:
    """Whether ``refill`` would find something to do; reads only."""
    return _is_off(pool, pool.newest_template, list(pool.containers.order_by("state_changed_at", "id")))


@compiled.cached
def _pools() -> Compiled:
    newest = WorkloadVersion.objects.filter(workload=OuterRef("workload")).order_by("-number").values("pk")
    return compiled.selection(Pool.objects.annotate(newest_id=Subquery(newest[:1])))


@compiled.cached
def _containers() -> Compiled:
    return compiled.selection(Container.objects.order_by("state_changed_at", "id").only(*DECIDED_BY))


def look() -> list[tuple[Pool, Callable[[], bool]]]:
    """All pools, each with what ``is_off`` tells of it. Takes two queries, however many pools there are."""
    members: dict[str, list[Container]] = defaultdict(list)
    pools = _pools().instances(Pool)
    for container in _containers().instances(Container):
        members[container.pool_id].append(container)
    return [
        (pool, partial(_is_off, pool, Template(pool.newest_id, pool.network), members[pool.pk]))  # type: ignore[attr-defined]
        for pool in pools
    ]


def _is_off(pool: Pool, template: Template, members: Sequence[Container]) -> bool:
    if pool.is_deleting and not members:
        return True
    step = decide(pool, template, members, _parallel(pool))
    is_over = (pool.trouble == Trouble.DISK_LOW and not host.disk_is_low()) or _has_settled(pool)
    return bool(step.start or step.remove or step.call_off) or is_over or _needs_no_node(pool, step, members)


def _needs_no_node(pool: Pool, step: Step, members: Sequence[Container]) -> bool:
    """Whether no node was left for its containers, and none is needed any more."""
    return pool.trouble == Trouble.NO_NODE and not step.start and not any(c.state == STARTING for c in members)


def _has_settled(pool: Pool) -> bool:
    """Whether failed warm containers were counted and a later one has proven stable."""
    return stability.counts(pool) and stability.is_steady(pool)


def may_lack(pool: Pool) -> bool:
    """Whether the pool may have to replace a container that was just claimed.

    If not, no message is sent; ``fill_pools`` corrects a wrong guess within a second.
    """
    if not pool.min_idle:
        return False  # one idle less and one claimed more: the number stays the same
    spare = Count("pk", filter=Q(state__in=[IDLE, STARTING]))
    counted = pool.containers.aggregate(size=Count("pk"), spare=spare)
    return bool(counted["size"] < pool.max_size and counted["spare"] < pool.min_idle + CLAIMS_AT_ONCE)


def refill(pool_id: str) -> int:
    """Bring the pool one step closer to its desired state; return how many starts and removals were decided.

    Inserts ``starting`` rows and enqueues their creation; marks idle containers for removal and enqueues that. Call it
    outside transactions, after what it should see is committed. Calls at the same time in one process join.
    """
    return _refill(pool_id) or 0


@in_progress.joined
def _refill(pool_id: str) -> int:
    pool = Pool.objects.filter(pk=pool_id).first()
    if pool is None or not is_off(pool):
        return 0  # every later change enqueues this again; usually another process has done the work
    with recording():
        pool = Pool.objects.select_for_update(no_key=True).filter(pk=pool_id).first()
        if pool is None:
            return 0
        members = list(pool.containers.order_by("state_changed_at", "id"))
        if pool.is_deleting and not members and not pool.release_failed and not pool.waiting:
            emit("pool.scaled", pool_id=pool.pk, actor=context.for_whom(pool.deleted_by), deleted=True)
            pool.delete()
            return 0
        places = {member.pk: node_of(member) for member in members}
        step = decide(pool, pool.newest_template, members, _parallel(pool))
        for container_id in step.remove:
            if Container.objects.filter(pk=container_id).transition(IDLE, ContainerState.REMOVING):
                places[container_id].queue.put("pool", "pools.tasks.destroy_container", container_id)
        for container_id in step.call_off:
            if Container.objects.filter(pk=container_id, owner=None).transition(STARTING, ContainerState.REMOVING):
                places[container_id].queue.put("pool", "pools.tasks.destroy_container", container_id)
        if _has_settled(pool) or _needs_no_node(pool, step, members):
            conditions.clear(pool)
        try:
            started = _start(pool, step.start, members)
        except HostNotReady as error:  # no uid is free
            conditions.report(pool, Trouble.HOST_NOT_READY, error.detail)
            return len(step.remove)
    failpoints.reach("fill.inserted")
    return started + len(step.remove) + len(step.call_off)


def _start(pool: Pool, templates: Sequence[Template], members: Sequence[Container]) -> int:
    """Insert a row for each, on the node that its placement chooses, as long as there is one. Returns how many."""
    if not templates:
        if pool.trouble == Trouble.DISK_LOW and not host.disk_is_low():
            conditions.clear(pool)
        return 0
    nodes = PlacementRound(pool, members)
    for number, template in enumerate(templates):
        version = WorkloadVersion.objects.get(pk=template.version_id)
        place = nodes.place(version)
        if isinstance(place, Refused):
            _refuse(pool, place)
            return number
        _insert(pool, template, version, NodeAccess(place))
    if pool.trouble in (Trouble.DISK_LOW, Trouble.NO_NODE):
        conditions.clear(pool)
    return len(templates)


def _refuse(pool: Pool, refused: Refused) -> None:
    if refused.is_only_disk and host.disk_is_low():
        conditions.report(pool, Trouble.DISK_LOW, host.disk_words())
    else:
        advice = "Uncordon or add one, or change the pool's placement."
        conditions.report(pool, Trouble.NO_NODE, f"{refused.words()} {advice}")


def _insert(pool: Pool, template: Template, version: WorkloadVersion, node: NodeAccess) -> None:
    now = clock.now()
    container = Container(
        pool=pool, version=version, network=template.network, node_id=node.id, created_at=now, state_changed_at=now
    )
    fixed = version.spec.fixed_uid
    container.uid = fixed if fixed is not None else node.lease_uid(container.pk)
    container.save(force_insert=True)
    node.queue.put("pool", "pools.tasks.create_container", container.pk)

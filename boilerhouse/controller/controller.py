"""The controller's steps. Each compares rows with the desired state, acts or enqueues tasks, and returns how much it
did.

The steps span the apps, so they are listed here. Several controllers may run; the one that holds the lease leads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Now

from boilerhouse.controller import retention
from boilerhouse.controller.engine_watch import EngineWatch
from boilerhouse.controller.node_watch import NodeWatch
from boilerhouse.controller.rights import TTL, Right
from boilerhouse.core import clock, compiled, failpoints, node_leases, node_tokens, nodes, tenant_usage
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.cooldown import Cooldown
from boilerhouse.core.deployment import has_joined, node_id
from boilerhouse.core.models import Lease
from boilerhouse.notifications import deliveries, incidents
from boilerhouse.notifications.courier import Courier
from boilerhouse.process import processes
from boilerhouse.process.steps import each, steps
from boilerhouse.queues.service import watch_queues
from boilerhouse.queues.tasks import enqueue
from boilerhouse.telemetry import metering
from pools import image_pulls, lifecycle, policy_names, pull_runs, sizing, tags, tombstones, usage
from pools.models import Container, Pool
from pools.nodes import node_of
from pools.pull_runner import PullRunner
from pools.states import ContainerState
from syncing import places
from syncing.models import SinkProbe, SyncSpec
from syncing.services import PERIODIC
from tenants import node_losses, sink_runs, syncs, upkeep
from tenants import usage as tenants_usage
from tenants.disks import DiskWatch
from tenants.models import Assignment
from tenants.states import AssignmentState

log = structlog.get_logger("boilerhouse.controller")

LEASE, LEASE_TTL = Lease.CONTROLLER, TTL
TICK_S, REST_TICK_S, REST_AFTER_S = 0.5, 2.0, 10.0
"""The interval of two rounds, also while nothing is assigned and no step has had work for ``REST_AFTER_S``."""
REST_FACTOR, REST_PERIOD_S = 2, 10.0
"""At rest, steps run half as often, but at least every ten seconds if they do otherwise."""
STUCK_AFTER = timedelta(seconds=5)
PENDING, ASSIGNED = AssignmentState.PENDING, AssignmentState.ASSIGNED


def lead() -> bool:
    """Take or renew the lease; False while another living controller holds it."""
    me = processes.current()
    if _renewal(me).run():
        return True
    _, is_new = Lease.objects.get_or_create(name=LEASE, defaults=_ours(me))
    return is_new


def _ours(me: UUID) -> dict[str, Any]:
    return {"holder": me, "expires_at": Now() + LEASE_TTL}


@compiled.cached
def _renewal(me: UUID) -> Compiled:
    rows = Lease.objects.filter(name=LEASE).filter(Q(holder=me) | Q(expires_at__lt=Now()) | Q(holder=None))
    return compiled.update(rows, **_ours(me))


@compiled.cached
def _live_states() -> Compiled:
    return compiled.selection(Assignment.objects.live().order_by().values_list("state", flat=True).distinct())


def release_leadership() -> None:
    """Release the lease, so that another controller can lead immediately."""
    Lease.objects.filter(name=LEASE, holder=processes.current()).update(holder=None, expires_at=Now())


def fill_pools() -> int:
    """Queue a step for every pool that differs from its desired state."""

    def fill(found: tuple[Pool, Callable[[], bool]]) -> int:
        pool, is_off = found
        return _enqueue_each("pool", "pools.tasks.refill", [pool.pk]) if is_off() else 0

    return each(sizing.look(), fill)


def _enqueue_each(queue: str, function: str, ids: Collection[str], *more: str) -> int:
    with transaction.atomic():
        for row_id in ids:
            enqueue(queue, function, row_id, *more)
    return len(ids)


def _on_every_node(function: str) -> None:
    """Maintenance that each node does for itself. A node without a worker catches up when it has one."""
    with transaction.atomic():
        for node in nodes.active():
            enqueue("pool", function, node=node)


_sent = Cooldown(10)
PROBE_REST = 4
"""After a failure, a sink is not probed for this multiple of the last probe's duration."""


def resume_containers() -> int:
    """Requeue starts and removals whose process died or whose message was lost."""
    return each(lifecycle.stuck_containers(clock.now() - STUCK_AFTER), _resume_container)


def _resume_container(container: Container) -> int:
    if nodes.is_silent(container.node_id) or not _sent.is_new(container.pk):
        return 0
    verb = "create" if container.state == ContainerState.STARTING else "destroy"
    node_of(container).queue.hand_on("pool", f"pools.tasks.{verb}_container", container.pk)
    return 1


def probe_sinks() -> int:
    """Probe sinks that were unhealthy or that block saves. Once a sink is healthy again, these saves are retried.

    A probe of a sink that hangs takes long and shares its queue with periodic saves, so the interval grows with the
    duration of the last probe.
    """
    waiting = Pool.objects.filter(release_failed__gt=0).values_list("pk", flat=True)
    specs = SyncSpec.objects.filter(Q(pool_id__in=list(waiting)) | Q(sink_health__state="unhealthy"))
    last = SinkProbe.objects.filter(spec=OuterRef("pk")).order_by("-at")
    rows = specs.annotate(probed_at=Subquery(last.values("at")[:1]), took_ms=Subquery(last.values("duration_ms")[:1]))
    now = clock.now()
    due = [
        spec.pk
        for spec in rows
        if spec.probed_at is None or now - spec.probed_at > timedelta(milliseconds=PROBE_REST * spec.took_ms)
        if _sent.is_new((spec.pk, spec.probed_at))
    ]
    return _enqueue_each("sync", "tenants.tasks.probe_sink", due, PERIODIC)


def probe_all_sinks() -> int:
    """Probe every sink, so that a failing one is detected before a tenant needs it."""
    every = list(SyncSpec.objects.values_list("pk", flat=True))
    return _enqueue_each("sync", "tenants.tasks.probe_sink", every, PERIODIC)


def expire_backups() -> int:
    """Delete old backups at every sink, once if several specs share one."""
    places_done: set[object] = set()

    def expire(spec: SyncSpec) -> int:
        place = places.key(spec)
        if place in places_done:
            return 0
        places_done.add(place)
        return _enqueue_each("sync", "syncing.tasks.expire_backups", [spec.pk])

    return each(SyncSpec.objects.exclude(place_state__in=places.REFUSED).order_by("pk"), expire)


def forget_old_runs() -> int:
    """Delete runs and probes past their retention."""
    with transaction.atomic():
        enqueue("sync", "tenants.tasks.forget_old")
    return 0


def look_at_tags() -> int:
    """Refresh image tags that are due."""
    if not tags.due():
        return 0
    with transaction.atomic():
        enqueue("pool", "pools.tasks.look_at_tags")
    return 1


def keep_packet_filter() -> int:
    """Have a worker of each node compare the packet filter with the rows; controllers have no access to it."""
    _on_every_node("pools.tasks.keep_packet_filter")
    return 0


def report_nodes() -> int:
    """Have a worker of each node write into its row what the node has."""
    _on_every_node("pools.tasks.report_node")
    return 0


def refresh_names() -> int:
    """Resolve names in network policies that are due."""
    if not policy_names.is_due():
        return 0
    _on_every_node("pools.tasks.refresh_names")
    return 0


def watch_nodes() -> int:
    """Report nodes that have lost their last living worker or have one again; give up those whose lease is over."""
    return nodes.watch() + _expiry.look()


_expiry = node_leases.Expiry()


def settle_lost_nodes() -> int:
    """Settle the containers and tenants of nodes that were declared lost."""
    return node_losses.settle()


def notify() -> int:
    """Create the messages about causes that began or ended; the courier sends them."""
    return incidents.look()


def tidy() -> int:
    """Delete long-dead processes, their metric files and old samples; finish wipes, and delete expired discarded
    state."""
    _on_every_node("pools.tasks.tidy")
    return each(_FORGETTING, _call)


def forget_samples() -> int:
    """Delete old samples, after what they say of tenants is counted: if that fails, none is deleted."""
    tenants_usage.count()
    return usage.forget_old()


_FORGETTING = (
    processes.forget_dead, nodes.forget_gone, forget_samples, retention.forget_old, pull_runs.forget_old,
    metering.fold, tombstones.forget_old, tenant_usage.forget_old,
    deliveries.forget_old, node_tokens.forget_old,
)  # fmt: skip


def _call(forget: Callable[[], int]) -> int:
    return forget()


def count_usage() -> int:
    """Count what tenants have used since the last count. Returns 0: this is routine while there are tenants."""
    tenants_usage.count()
    return 0


def sample_usage() -> int:
    """Record the containers' resource use, read from the kernel's files: each node's by a worker of its own. Returns 0.

    This node's are read here: a task every few seconds would cost more than the files do.
    """
    with transaction.atomic():
        for node in nodes.active():
            if node != node_id():
                enqueue("pool", "pools.tasks.sample_usage", node=node)
    usage.sample()
    usage.sample_pools()
    return 0


def renew_certificate() -> int:
    """Renew this node's certificate, if it has one and that is due."""
    if not has_joined():
        return 0
    from boilerhouse.core import node_identity  # certificates take memory that one machine does not need

    return int(node_identity.renew())


STEPS: list[tuple[float, Callable[[], int]]] = [
    (0.5, upkeep.serve_waiters),
    (1.0, upkeep.abort_overdue_claims),
    (1.0, upkeep.resume_claims),
    (1.0, upkeep.resume_releases),
    (1.0, upkeep.retry_failed_saves),
    (1.0, upkeep.release_of_deleted_pools),
    (1.0, upkeep.release_dead),
    (1.0, upkeep.release_unhealthy),
    (1.0, upkeep.find_idle),
    (1.0, upkeep.end_overdue),
    (1.0, fill_pools),
    (2.0, resume_containers),
    (2.0, watch_queues),
    (2.0, watch_nodes),
    (2.0, settle_lost_nodes),
    (1.0, syncs.queue_periodic_saves),
    (5.0, upkeep.bury_dead_runs),
    (5.0, syncs.resume),
    (5.0, sink_runs.resume),
    (5.0, probe_sinks),
    (5.0, upkeep.retire_unheld),
    (5.0, notify),
    (5.0, image_pulls.ask_again),
    (5.0, refresh_names),
    (float(settings.BOILERHOUSE_RECONCILE_EVERY_S), keep_packet_filter),
    (15.0, report_nodes),
    (30.0, syncs.warn_of_unsaved),
    (180.0, probe_all_sinks),
    (float(settings.BOILERHOUSE_SAMPLE_EVERY_S), sample_usage),
    (60.0, count_usage),
    (60.0, tidy),
    (60.0, look_at_tags),
    (6 * 3600.0, expire_backups),
    (3600.0, forget_old_runs),
]
"""The leader's steps, with the interval of each in seconds."""
NODE_STEPS: list[tuple[float, Callable[[], int]]] = [
    (5.0, upkeep.thaw_forgotten), (10.0, upkeep.find_lost), (3600.0, renew_certificate),
]  # fmt: skip
"""Steps over what is on one machine: those of the controller that watches its node."""
CONCERNS: dict[Callable[[], int], tuple[AssignmentState, ...]] = {
    upkeep.serve_waiters: (PENDING,),
    upkeep.abort_overdue_claims: (PENDING,),
    upkeep.resume_claims: (PENDING,),
    upkeep.resume_releases: (AssignmentState.RELEASING,),
    upkeep.retry_failed_saves: (AssignmentState.RELEASE_FAILED,),
    upkeep.release_of_deleted_pools: (PENDING, ASSIGNED),
    upkeep.release_dead: (ASSIGNED,),
    upkeep.release_unhealthy: (ASSIGNED,),
    upkeep.find_idle: (ASSIGNED,),
    upkeep.end_overdue: (ASSIGNED,),
    syncs.queue_periodic_saves: (ASSIGNED,),
}
"""Steps that have nothing to do without an assignment in one of these states. One query answers that for all."""


def _nothing() -> None:
    pass


class Controller:
    """Runs the steps that are due, one after another. A failing step does not stop the others (``steps``)."""

    def __init__(self, stop: threading.Event) -> None:
        self._ran = {step: float("-inf") for _, step in [*STEPS, *NODE_STEPS]}
        self._lead = Right(lambda: lead())
        self._states: set[str] = set()
        """The states of all live assignments."""
        self._worked_at = time.monotonic()
        self._watch = NodeWatch()
        EngineWatch(self._watch.is_held, stop).start()
        DiskWatch(self._watch.is_held, stop).start()
        PullRunner(stop).start()
        Courier(stop).start()

    def _look(self) -> None:
        """Renew the lease if it is due, and query what there is to do."""
        close_old_connections()
        if self._lead.renew():
            log.info("leader elected")
        if self.is_leading():
            self._states = {state for (state,) in _live_states().rows()}

    def is_leading(self) -> bool:
        """Whether the lease was renewed recently enough that no other process can hold it."""
        return self._lead.is_held()

    @property
    def interval_s(self) -> float:
        """The seconds until the next round. A controller that does not lead looks often, to take over quickly."""
        return REST_TICK_S if self._is_at_rest and self.is_leading() else TICK_S

    @property
    def _is_at_rest(self) -> bool:
        return not self._states and time.monotonic() - self._worked_at > REST_AFTER_S

    def _run(self, step: Callable[[], int]) -> None:
        if did := step():
            self._worked_at = time.monotonic()
            log.info("step", step=step.__name__, did=did)

    def tick(self) -> None:
        """Renew the leases, of the deployment and of this node, and run the steps that are due. Raises nothing."""
        if not steps.attempt("lead", self._look):
            connection.close()
            return
        if not steps.attempt("watch_node", self._watch.renew):
            connection.close()
            return
        self._run_due(STEPS, self.is_leading)
        self._run_due(NODE_STEPS, self._watch.is_held)

    def _run_due(self, due: list[tuple[float, Callable[[], int]]], may: Callable[[], bool]) -> None:
        for period, step in due:
            if self._is_at_rest and self.is_leading():
                period = max(period, min(REST_FACTOR * period, REST_PERIOD_S))
            if time.monotonic() < self._ran[step] + period:
                continue
            if not may():
                return
            self._ran[step] = time.monotonic()
            failpoints.reach(f"controller.{step.__name__}")
            concerns = CONCERNS.get(step)
            has_work = concerns is None or not self._states.isdisjoint(concerns)
            steps.attempt(step.__name__, partial(self._run, step) if has_work else _nothing)

"""The controller's steps: each compares rows with what should be, decides or enqueues, and says what it did.

They span the apps, so they are put together here. Several controllers may run; one leads by a lease row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import Q
from django.utils import timezone

from boilerhouse.core import processes
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Lease
from boilerhouse.core.tasks import enqueue
from pools import host, volumes
from pools import services as pools
from pools.models import Container, Pool
from pools.runtime import get_runtime
from pools.states import ContainerState
from syncing import services as syncing
from syncing.models import SyncSpec
from tenants import upkeep

log = structlog.get_logger("boilerhouse.controller")

LEASE, LEASE_TTL = "controller", timedelta(seconds=3)
STUCK_AFTER = timedelta(seconds=5)


def lead() -> bool:
    """Take or renew the lease; False while another living controller holds it."""
    me, now = processes.current(), timezone.now()
    with transaction.atomic():
        Lease.objects.get_or_create(name=LEASE, defaults={"expires_at": now})
        rows = Lease.objects.filter(name=LEASE).filter(Q(holder=me) | Q(expires_at__lt=now) | Q(holder=None))
        return bool(rows.update(holder=me, expires_at=now + LEASE_TTL))


def abdicate() -> None:
    """Give the lease back, so that another controller leads at once."""
    Lease.objects.filter(name=LEASE, holder=processes.current()).update(holder=None, expires_at=timezone.now())


def fill_pools() -> int:
    """Bring every pool whose numbers are off one step nearer to its desired size."""
    changed = 0
    for pool in Pool.objects.with_counts():
        status = pool.status()
        if status.starting + status.idle + status.claimed != status.desired_size or pool.is_draining:
            changed += pools.refill(pool.pk)
    return changed


_sent: dict[object, float] = {}


def resume_containers() -> int:
    """Hand on starts and removals whose process is dead or whose message was lost."""
    resumed = 0
    for container in pools.stuck_containers(timezone.now() - STUCK_AFTER):
        starting = container.state == ContainerState.STARTING
        if time.monotonic() - _sent.get(container.pk, -60) < 15:
            continue
        _sent[container.pk] = time.monotonic()
        with transaction.atomic():
            enqueue("pool", f"pools.tasks.{'create' if starting else 'destroy'}_container", container.pk)
        resumed += 1
    return resumed


def replace_vanished() -> int:
    """Remove idle containers that the engine no longer runs; the pool refills itself."""
    idle = {c.pk: c.state_changed_at for c in Container.objects.idle()}
    if not idle:
        return 0
    running = {seen.handle.name for seen in get_runtime().list(host.labels()) if seen.is_running}
    old = timezone.now() - STUCK_AFTER
    gone = [pk for pk, since in idle.items() if since < old and pools.runtime_name(pk) not in running]
    for pk in gone:
        with transaction.atomic():
            if Container.objects.filter(pk=pk).transition(ContainerState.IDLE, ContainerState.REMOVING):
                enqueue("pool", "pools.tasks.destroy_container", pk)
    return len(gone)


def probe_sinks() -> int:
    """Probe sinks that were unhealthy or hold up saves; retry those saves when one is healthy again."""
    retried = 0
    waiting = Pool.objects.filter(release_failed__gt=0).values_list("pk", flat=True)
    for spec in SyncSpec.objects.filter(Q(pool_id__in=list(waiting)) | Q(sink_health__state="unhealthy")):
        was = spec.sink_health.get("state")
        if syncing.probe(spec)["state"] == "healthy" and was == "unhealthy":
            retried += upkeep.retry_when_sink_recovers(spec.pool_id)
    return retried


def tidy() -> int:
    """Finish half-done wipes, age out discarded state, forget long-dead processes."""
    return volumes.empty_trash(settings.BOILERHOUSE_DISCARD_RETENTION_S) + processes.forget_dead()


STEPS: list[tuple[float, Callable[[], int]]] = [
    (0.5, upkeep.serve_waiters),
    (1.0, upkeep.abort_overdue_claims),
    (1.0, upkeep.resume_claims),
    (1.0, upkeep.resume_releases),
    (1.0, upkeep.retry_failed_saves),
    (1.0, upkeep.release_of_deleted_pools),
    (1.0, fill_pools),
    (2.0, resume_containers),
    (5.0, upkeep.bury_dead_runs),
    (5.0, probe_sinks),
    (10.0, replace_vanished),
    (10.0, upkeep.quarantine_lost),
    (60.0, tidy),
]
"""Every how many seconds each step runs."""


class Controller:
    """Runs the steps that are due, one after another; a step that fails is logged and tried again."""

    def __init__(self) -> None:
        self._due = {step: 0.0 for _, step in STEPS}

    def tick(self) -> None:
        try:
            close_old_connections()
            if not lead():
                return
        except DatabaseError as error:
            log.warning("database unavailable", error=type(error).__name__)
            connection.close()
            return
        for period, step in STEPS:
            if time.monotonic() < self._due[step]:
                continue
            self._due[step] = time.monotonic() + period
            try:
                if did := step():
                    log.info("step", step=step.__name__, did=did)
            except (BoilerhouseError, DatabaseError, OSError) as error:
                log.warning("step failed", step=step.__name__, error=type(error).__name__, detail=str(error)[:200])

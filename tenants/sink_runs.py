"""Runs that work at the sinks while their tenant holds no container: restoring a backup, erasing state.

They run one after another, and large work leaves a worker thread to other work. No claim of the tenant starts until the
last has ended. Whether they may start is decided under the tenant's row lock, as for a claim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from boilerhouse.core import clock, context, unexpected_errors
from boilerhouse.core.cooldown import Cooldown
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import recording
from boilerhouse.process import ownership
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues import slow_work
from boilerhouse.queues.tasks import enqueue
from syncing import places
from syncing.models import SyncRun, SyncSpec
from syncing.querysets import SyncRunQuerySet
from syncing.states import Direction, SyncRunState, Trigger
from tenants import errors, standing
from tenants.models import Assignment, Tenant, next_generation
from tenants.syncs import LOST_AFTER

log = structlog.get_logger(__name__)

TASKS = {Trigger.BACKUP: "tenants.tasks.put_back", Trigger.ERASE: "tenants.tasks.erase"}
Work = Callable[[SyncRun, Callable[[], bool]], dict[str, Any]]


def begin(tenant_id: str, trigger: Trigger, steps: list[tuple[SyncSpec, dict[str, Any]]]) -> list[SyncRun]:
    """Queue one run per step, in the caller's transaction; no claim starts until the last has ended.

    Raises Held while the tenant holds a container, RestoringBackup and Erasing while other runs are in progress.
    """
    tenant, busy_with = next_generation(tenant_id)  # locks the tenant's row, as a claim does
    if busy_with is not None:
        raise conflict(busy_with)
    if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        raise errors.Held
    runs = [
        SyncRun.objects.create(
            spec=spec, tenant_id=tenant_id, generation=tenant.generation, direction=Direction.UPLOAD, trigger=trigger,
            steps=[step], asked_by=context.actor(),
        )
        for spec, step in steps
    ]  # fmt: skip
    Tenant.objects.filter(pk=tenant_id).update(busy_run=runs[-1].pk)
    enqueue("sync", TASKS[trigger], runs[0].pk)
    return runs


def conflict(run_id: UUID) -> BoilerhouseError:
    """Why a claim cannot start during this run."""
    erases = SyncRun.objects.filter(pk=run_id, trigger=Trigger.ERASE).exists()
    return errors.Erasing() if erases else errors.RestoringBackup()


def work(run_id: UUID, do: Work) -> None:
    """Execute a run on a worker with ``do``, which gets a function that says whether to continue, and returns changes
    of the row.

    The tenant can claim again after its last run, whatever its outcome. A run's duration is unknown, so it counts as
    large work: without a free slot it stays queued, and ``resume`` sends its message again.
    """
    spec = SyncSpec.objects.filter(runs=run_id).first()
    far_ends = [places.far_end(spec)] if spec else []
    with slow_work.entered_for(far_ends) as may_work, slow_work.entered(settings.BOILERHOUSE_LARGE_BYTES) as may_begin:
        if may_work and may_begin:
            _work(run_id, do)


def _work(run_id: UUID, do: Work) -> None:
    me = ownership.take(SyncRun, run_id)
    rows = SyncRun.objects.filter(pk=run_id)
    if not rows.transition(SyncRunState.QUEUED, SyncRunState.RUNNING, owner=me):
        return
    run = rows.select_related("spec__credential").get()
    ours = rows.running().filter(owner=me)
    structlog.contextvars.bind_contextvars(tenant=run.tenant_id, run=str(run.pk))
    try:
        changes = do(run, ours.exists)
    except DATABASE_LOST:
        raise  # undecided: the run is later marked as interrupted
    except Exception as error:  # whatever failed, the tenant must be able to claim again
        public = unexpected_errors.as_public_error(error)
        log.warning("sink operation failed", trigger=run.trigger, code=public.code, detail=public.detail[:300])
        _end(run, ours, SyncRunState.FAILED, error_code=public.code, error_detail=public.detail)
    else:
        _end(run, ours, SyncRunState.SUCCEEDED, **changes)


def _end(run: SyncRun, ours: SyncRunQuerySet, state: SyncRunState, **changes: Any) -> None:
    with recording():
        ours.transition(SyncRunState.RUNNING, state, **changes)
        _set_free([run.tenant_id])
        standing.refresh({run.tenant_id: None})
        _send(_queued(run.tenant_id).first())


def _queued(tenant_id: str) -> SyncRunQuerySet:
    rows = SyncRun.objects.queued().filter(tenant_id=tenant_id, trigger__in=list(TASKS))
    return rows.order_by("created_at", "id")


def _send(run: SyncRun | None) -> None:
    if run is not None:
        with transaction.atomic():
            enqueue("sync", TASKS[Trigger(run.trigger)], run.pk)


def _set_free(tenant_ids: list[str]) -> int:
    """Let tenants claim again after all their runs have ended."""
    free = 0
    for tenant in Tenant.objects.select_for_update().filter(pk__in=tenant_ids, busy_run__isnull=False):
        unfinished = SyncRun.objects.unfinished().filter(tenant_id=tenant.pk, trigger__in=list(TASKS))
        if not unfinished.exists():
            free += Tenant.objects.filter(pk=tenant.pk, busy_run=tenant.busy_run).update(busy_run=None)
    return free


_resent = Cooldown(30)


def resume() -> int:
    """Send lost messages again, and unlock tenants whose runs have ended with their process."""
    busy = list(Tenant.objects.exclude(busy_run=None).values_list("pk", flat=True))
    if not busy:
        return 0
    with transaction.atomic():
        ended = _set_free(busy)
    old = clock.now() - LOST_AFTER
    next_ones = [run for tenant_id in busy if (run := _queued(tenant_id).filter(created_at__lt=old).first())]
    under_way = set(
        SyncRun.objects.running()
        .filter(trigger__in=list(TASKS), tenant_id__in=busy)
        .values_list("tenant_id", flat=True)
    )  # fmt: skip
    again = [run for run in next_ones if run.tenant_id not in under_way and _resent.is_new(run.pk)]
    for run in again:
        _send(run)
    return ended + len(again)

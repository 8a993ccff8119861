"""Erase a tenant's stored state: at the sinks, including backups, and discarded state on any node.

The tenant cannot hold a container meanwhile, and its next claim starts empty. Runs, events and the audit log keep a
record.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from boilerhouse.core import audit, clock
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import recording
from boilerhouse.core.models import Node
from boilerhouse.queues.tasks import enqueue
from pools import tombstones, volumes
from pools.volumes import staged_restores
from syncing import erasure
from syncing.models import SavedState, SyncRun, SyncSpec
from syncing.states import UNFINISHED, SyncRunState, Trigger
from tenants import deaths, errors, sink_runs, standing, validation
from tenants.models import Assignment, Tenant


@dataclass(frozen=True, slots=True)
class Erasure:
    """An accepted erasure; ``generation`` is None if there was nothing to erase."""

    tenant_id: str
    generation: int | None


def begin(tenant_id: str) -> Erasure:
    """Queue the runs that erase the tenant's state, or join those in progress.

    Raises Invalid, Held while the tenant holds a container, RestoringBackup, and Unerasable if there is state at a sink
    that no sync spec refers to any more: then nothing has been erased.
    """
    validation.check_tenant_id(tenant_id)
    tenant = Tenant.objects.filter(pk=tenant_id).first()
    if tenant is None:
        return Erasure(tenant_id, None)
    if tenant.busy_run is not None:
        run = SyncRun.objects.filter(pk=tenant.busy_run, trigger=Trigger.ERASE).first()
        if run is not None:
            return Erasure(tenant_id, run.generation)
        raise errors.RestoringBackup
    specs = _specs(tenant_id)
    if unreachable := erasure.out_of_reach(tenant_id, specs):
        raise errors.Unerasable(
            f"Saved state is at sinks that no sync spec refers to any more: {'; '.join(unreachable[:5])}. Create a spec"
            " with that sink, or delete the state there yourself and mark it as missing."
        )
    if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        raise errors.Held
    erase_here(tenant_id)
    _have_erased_elsewhere(tenant_id)
    deaths.forget(tenant_id)
    tombstones.forget_tenant(tenant_id)
    if not specs:
        return Erasure(tenant_id, None)
    with recording():
        runs = sink_runs.begin(tenant_id, Trigger.ERASE, [(spec, {"erased": 0}) for spec in specs])
        audit.record("tenant.erase_state", tenant_id, after={"runs": [str(run.pk) for run in runs]})
    return Erasure(tenant_id, runs[0].generation)


def erase_here(tenant_id: str, before: int | None = None) -> None:
    """Delete the tenant's discarded state and remains of its restores from this node.

    With ``before``, seconds since 1970, the tenant may have claimed again meanwhile: later state stays.
    """
    volumes.erase_discarded(tenant_id, before)
    if not Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        staged_restores.forget(tenant_id)


def _have_erased_elsewhere(tenant_id: str) -> None:
    """On each other node, by its worker; an unreachable node does it when it is back."""
    others = Node.objects.exclude(pk=node_id()).order_by("pk").values_list("pk", flat=True)
    with transaction.atomic():
        for node in others:
            enqueue("sync", "tenants.tasks.erase_discarded", tenant_id, int(clock.now().timestamp()), node=node)


def _specs(tenant_id: str) -> list[SyncSpec]:
    """Every spec that may have saved the tenant's state."""
    pools = Assignment.objects.filter(tenant_id=tenant_id).values("pool_id")
    specs = SyncSpec.objects.filter(pool_id__in=pools) | SyncSpec.objects.filter(pk__in=erasure.traces(tenant_id))
    return [spec for spec in specs.distinct() if any(mapping.uploads for mapping in spec.mappings.all())]


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these (tenant, generation) have no unfinished run."""
    rows = SyncRun.objects.unfinished().filter(trigger=Trigger.ERASE)
    return keys - set(rows.values_list("tenant_id", "generation"))


def settle(erasure: Erasure) -> bool:
    """True when everything is erased, False while it is not. Raises EraseFailed; repeating the request continues."""
    if erasure.generation is None:
        return True
    rows = SyncRun.objects.filter(tenant_id=erasure.tenant_id, generation=erasure.generation, trigger=Trigger.ERASE)
    runs = list(rows)
    if any(run.state in UNFINISHED for run in runs):
        return False
    failed = [run for run in runs if run.state != SyncRunState.SUCCEEDED]
    if failed:
        message = "; ".join(f"{run.spec_id}: {run.error_detail}" for run in failed)
        raise errors.EraseFailed(
            f"The state could not be erased completely ({message}). Repeat the request to continue."
        )
    return True


def erase(run_id: UUID) -> None:
    """Execute the run, on a worker."""
    sink_runs.work(run_id, _erase)


def _erase(run: SyncRun, keep_going: Callable[[], bool]) -> dict[str, Any]:
    steps = erasure.erase(run.spec, run.tenant_id, keep_going)
    return {"steps": steps, "deleted": sum(step["erased"] for step in steps)}


def forget_state(tenant_id: str) -> int:
    """Let the next claim start empty although a known save is no longer where it should be.

    The records are kept, marked as forgotten. Returns how many. Raises Invalid, Held, and NotMissing unless the
    tenant's last claim ended with ``state_missing`` or ``state_moved``.
    """
    validation.check_tenant_id(tenant_id)
    last = Assignment.objects.filter(tenant_id=tenant_id).order_by("-created_at").first()
    if last is None or last.outcome not in (errors.StateMissing.code, errors.StateMoved.code):
        raise errors.NotMissing
    with recording():
        Tenant.objects.select_for_update().get(pk=tenant_id)  # as a claim does
        if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
            raise errors.Held
        rows = SavedState.objects.current().filter(tenant_id=tenant_id)
        states = [{"location": row.location, "files": row.files, "savedAt": row.saved_at} for row in rows]
        forgotten = rows.update(forgotten_at=timezone.now())
        standing.refresh({tenant_id: None})
        audit.record("tenant.forget_state", tenant_id, before={"saved": states})
    return forgotten

"""Erase what is kept of a tenant's state: at the sinks, backups included, and what was discarded on any node.

The tenant holds nothing meanwhile, and its next claim starts empty. Runs, events and the audit keep that it was there.
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
from pools import volumes
from pools.volumes import staged
from syncing import erasing
from syncing.models import SavedState, SyncRun, SyncSpec
from syncing.states import UNFINISHED, SyncRunState, Trigger
from tenants import deaths, errors, sink_runs, validation
from tenants.models import Assignment, Tenant


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure that was accepted, to wait for; ``generation`` is None where there was nothing to erase."""

    tenant_id: str
    generation: int | None


def begin(tenant_id: str) -> Erasure:
    """Queue the runs that erase the tenant's state, or join those under way.

    Raises Invalid, Held while the tenant holds something, RestoringBackup, and Unerasable when something lies at a sink
    that no sync spec names any more: then nothing has been erased.
    """
    validation.check_tenant_id(tenant_id)
    tenant = Tenant.objects.filter(pk=tenant_id).first()
    if tenant is None:
        return Erasure(tenant_id, None)
    if tenant.busy_run is not None:
        run = SyncRun.objects.filter(pk=tenant.busy_run, trigger=Trigger.ERASE).first()
        if run is not None:
            return Erasure(tenant_id, run.generation)
    specs = _specs(tenant_id)
    if lost := erasing.out_of_reach(tenant_id, specs):
        raise errors.Unerasable(
            f"Saved state lies where no sync spec leads any more: {'; '.join(lost[:5])}. Make a spec with that sink,"
            " or erase it there by hand and forget it."
        )
    if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        raise errors.Held
    erase_here(tenant_id)
    _have_erased_elsewhere(tenant_id)
    deaths.forget(tenant_id)
    if not specs:
        return Erasure(tenant_id, None)
    with recording():
        runs = sink_runs.begin(tenant_id, Trigger.ERASE, [(spec, {"erased": 0}) for spec in specs])
        audit.record("tenant.erase_state", tenant_id, after={"runs": [str(run.pk) for run in runs]})
    return Erasure(tenant_id, runs[0].generation)


def erase_here(tenant_id: str, before: int | None = None) -> None:
    """Remove what lies on this node of state that the tenant discarded, and what restores have left of it.

    With ``before``, seconds since 1970, the tenant may have claimed again meanwhile: what it has since then stays.
    """
    volumes.erase_discarded(tenant_id, before)
    if not Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        staged.forget(tenant_id)


def _have_erased_elsewhere(tenant_id: str) -> None:
    """By each other node's worker; one that is silent does it when it is back."""
    others = Node.objects.exclude(pk=node_id()).order_by("pk").values_list("pk", flat=True)
    with transaction.atomic():
        for node in others:
            enqueue("sync", "tenants.tasks.erase_discarded", tenant_id, int(clock.now().timestamp()), node=node)


def _specs(tenant_id: str) -> list[SyncSpec]:
    """Every spec by which the tenant's state may have been saved."""
    pools = Assignment.objects.filter(tenant_id=tenant_id).values("pool_id")
    found = SyncSpec.objects.filter(pool_id__in=pools) | SyncSpec.objects.filter(pk__in=erasing.traces(tenant_id))
    return [spec for spec in found.distinct() if any(mapping.uploads for mapping in spec.mappings.all())]


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these (tenant, generation) have no run left to end."""
    rows = SyncRun.objects.unfinished().filter(trigger=Trigger.ERASE)
    return keys - set(rows.values_list("tenant_id", "generation"))


def settle(erasure: Erasure) -> bool:
    """True when nothing is left, False while it is not yet so. Raises EraseFailed; asking again carries it on."""
    if erasure.generation is None:
        return True
    rows = SyncRun.objects.filter(tenant_id=erasure.tenant_id, generation=erasure.generation, trigger=Trigger.ERASE)
    runs = list(rows)
    if any(run.state in UNFINISHED for run in runs):
        return False
    failed = [run for run in runs if run.state != SyncRunState.SUCCEEDED]
    if failed:
        told = "; ".join(f"{run.spec_id}: {run.error_detail}" for run in failed)
        raise errors.EraseFailed(f"Not everything could be erased ({told}). Ask again to carry it on.")
    return True


def erase(run_id: UUID) -> None:
    """On a worker: run it."""
    sink_runs.work(run_id, _erase)


def _erase(run: SyncRun, keep_going: Callable[[], bool]) -> dict[str, Any]:
    steps = erasing.erase(run.spec, run.tenant_id, keep_going)
    return {"steps": steps, "deleted": sum(step["erased"] for step in steps)}


def forget_state(tenant_id: str) -> int:
    """Let the next claim start empty although a save is known that is no longer where it should be.

    The records are kept as forgotten; returns how many. Raises Invalid, Held, and NotMissing unless the tenant's last
    claim ended with ``state_missing`` or ``state_moved``.
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
        known = [{"location": row.location, "files": row.files, "savedAt": row.saved_at} for row in rows]
        forgotten = rows.update(forgotten_at=timezone.now())
        audit.record("tenant.forget_state", tenant_id, before={"saved": known})
    return forgotten

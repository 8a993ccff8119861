"""Fills an empty deployment with the demo data, and removes them."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Model, ProtectedError
from django.db.models.functions import Now

from boilerhouse.core import clock, deployment, tenant_usage
from boilerhouse.core.deployment import demo_data_file
from boilerhouse.core.errors import Conflict
from boilerhouse.core.models import ApiKey, AuditEntry, Event, Node, Process, TenantUsage
from boilerhouse.core.tenant_usage import Amounts, Key
from boilerhouse.notifications.models import Target
from boilerhouse.operations.demo_data import colleagues, samples
from boilerhouse.operations.demo_data.catalogue import POOLS, SPECS, TENANTS, WORKLOADS
from boilerhouse.operations.demo_data.present import ELSEWHERE, Present
from boilerhouse.operations.demo_data.rows import Rows
from boilerhouse.process import processes
from pools.models import Container, ContainerUsage, ImagePull, Pool, RegistryCredential, Workload
from syncing.models import Credential, SavedState, SinkPlace, SyncRun
from syncing.states import Direction
from tenants import usage
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState

OWN: tuple[type[Model], ...] = (Workload, Pool, Tenant, Credential, RegistryCredential, ApiKey, Target)
"""What a deployment that takes demo data has none of."""
LISTED: tuple[type[Model], ...] = (
    Workload, Tenant, Credential, ApiKey, AuditEntry, Process, RegistryCredential, ImagePull, SinkPlace,
    User, Target,
)  # fmt: skip
"""What is deleted by its id."""
DAYS = 7
AT_WORK = (Process.Kind.WORKER, Process.Kind.CONTROLLER)


class NotEmpty(Conflict):
    """The deployment has something of its own; nothing was changed."""

    code = "not_empty"


def is_present() -> bool:
    return demo_data_file().exists()


def fill(seed: int = 1, now: datetime | None = None, days: int = DAYS) -> dict[str, int]:
    """Write the demo data; the same seed and time give the same rows, except their event numbers. Returns counts.

    Raises NotEmpty if there is anything of this deployment's own, if a worker or controller runs, or if they are there.
    """
    deployment.deployment_id()
    rows = Rows(seed, now or clock.now().replace(microsecond=0), days)
    with transaction.atomic():
        _check_empty()
        history = Present(rows).write()
        samples.write(rows, history)
        rows.write()
        _count(rows)
        manifest = {**_manifest(rows, seed), **colleagues.write(rows)}
        demo_data_file().write_text(json.dumps(manifest))
    return {"pools": len(POOLS), "tenants": len(TENANTS), "events": len(rows.of(Event)),
            "claims": len(rows.of(Assignment))}  # fmt: skip


def _count(rows: Rows) -> None:
    """What the tenants used, as the controller and the ends of runs would have counted it."""
    Assignment.objects.filter(state=AssignmentState.ENDED).update(held_until=F("ended_at"))
    Assignment.objects.filter(state=AssignmentState.RELEASE_FAILED).update(held_until=F("state_changed_at"))
    usage.count(rows.now)
    moved: dict[Key, Amounts] = defaultdict(Amounts)
    for run in rows.of(SyncRun):
        if run.finished_at and run.container_id:
            is_upload = run.direction == Direction.UPLOAD
            amounts = Amounts(**{"sent_bytes" if is_upload else "received_bytes": run.sent_bytes})
            moved[run.tenant_id, tenant_usage.day_of(run.finished_at)] += amounts
    tenant_usage.add(moved)


def _check_empty() -> None:
    if is_present():
        raise NotEmpty("This deployment has demo data already. Remove them first: manage.py demo_data --remove.")
    living = Process.objects.filter(pk__in=processes.living(), kind__in=AT_WORK).values_list("kind", flat=True)
    if running := sorted(set(living)):
        raise NotEmpty(f"This deployment is running ({', '.join(running)}). Stop it, or use an empty data directory.")
    for model in OWN:
        if model._base_manager.exists():
            what = model._meta.verbose_name_plural
            raise NotEmpty(f"This deployment has {what} of its own. Set BOILERHOUSE_DATA_DIR to an empty directory.")


def _manifest(rows: Rows, seed: int) -> dict[str, Any]:
    """What ``remove`` deletes."""
    events = [row.pk for row in rows.of(Event)]
    ids = {
        model._meta.label: [str(row.pk) for row in rows.of(model)]
        for model in (Container, ApiKey, AuditEntry, Process, RegistryCredential, ImagePull, SinkPlace)
    }
    return {
        "seed": seed, "filledAt": rows.now.isoformat(), "events": [min(events), max(events)], **ids,
        "pools.Pool": [pool.id for pool in POOLS], "pools.Workload": [one.id for one in WORKLOADS],
        "tenants.Tenant": [one.id for one in TENANTS], "syncing.Credential": sorted({one.credential for one in SPECS}),
    }  # fmt: skip


def remove() -> None:
    """Delete exactly the demo data, and what hangs on their pools. Does nothing if there are none.

    A workload, credential or tenant that something else uses stays.
    """
    if not is_present():
        return
    manifest = json.loads(demo_data_file().read_text())
    pools, tenants = manifest["pools.Pool"], manifest["tenants.Tenant"]
    first, last = manifest["events"]
    with transaction.atomic():
        ContainerUsage.objects.filter(container_id__in=manifest["pools.Container"]).delete()
        Assignment.objects.filter(pool_id__in=pools).delete()
        Container.objects.filter(pool_id__in=pools).delete()
        SavedState.objects.filter(pool_id__in=pools, tenant_id__in=tenants).delete()
        Pool.objects.filter(pk__in=pools).delete()
        TenantUsage.objects.filter(tenant_id__in=tenants).delete()
        Event.objects.filter(pk__range=(first, last)).delete()
        for model in LISTED:
            for pk in manifest.get(model._meta.label, ()):
                _delete(model, pk)
    demo_data_file().unlink()


def _delete(model: type[Model], pk: str) -> None:
    with suppress(ProtectedError), transaction.atomic():
        model._base_manager.filter(pk=pk).delete()


def beat() -> None:
    """Keep the node and the processes of the demo data alive, which pages would otherwise report as lost."""
    Process.objects.filter(boot_id=ELSEWHERE).update(heartbeat_at=Now())
    Node.objects.filter(pk=deployment.node_id()).update(heartbeat_at=Now())

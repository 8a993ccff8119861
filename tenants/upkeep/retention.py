"""Deletes rows past their retention."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from boilerhouse.core import clock, deployment_settings
from syncing.models import MappingRestore, SinkProbe, SyncRun
from tenants import deaths
from tenants.models import Assignment
from tenants.states import AssignmentState

FORGET_AT_ONCE = 1000


def forget_old() -> int:
    """Delete finished runs, probes and ended assignments past their retention, except the newest run per tenant and
    spec, the newest assignment per tenant and pool, and proofs of restores by ended generations.

    An assignment is kept as long as a run, and until its use is counted. Returns how many rows were deleted.
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
        Q(is_counted=True) | Q(assigned_at=None),
        state=AssignmentState.ENDED,
        death=None,
        ended_at__lt=now - timedelta(seconds=retention_s["runs"]),
    )
    old = (runs.filter(Exists(newer)), probes, proofs, ended)
    return deaths.forget_old() + sum(_delete_in_parts(rows) for rows in old)


def _delete_in_parts(rows: QuerySet[Any]) -> int:
    """Delete in batches, so that no transaction is long."""
    deleted = 0
    while pks := list(rows.order_by("pk").values_list("pk", flat=True)[:FORGET_AT_ONCE]):
        deleted += rows.model._default_manager.filter(pk__in=pks).delete()[0]
    return deleted

"""Containers as tables show them, of one pool or of all: with their tenant, and their last sample of use."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import CharField, FilteredRelation, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils import timezone

from boilerhouse.core.models import Node
from boilerhouse.dashboard.keyset_listing import KeysetListing
from boilerhouse.dashboard.listing import Choice
from pools.models import Container, ContainerUsage, Pool
from pools.states import ContainerHealth, ContainerState
from tenants.states import LIVE

SORTS = {
    "id": "pk", "state": "state", "pool": "pool_id", "tenant": "tenant", "age": "created_at", "health": "health",
    "version": "version__number", "disk": "disk_bytes", "cpu": "cores", "memory": "memory",
}  # fmt: skip
OLD_SAMPLES = 4
"""After so many intervals without a sample, the last one says nothing about now."""


def with_tenants(rows: QuerySet[Container]) -> QuerySet[Container]:
    """With the tenant of each."""
    held = FilteredRelation("assignments", condition=Q(assignments__state__in=list(LIVE)))
    return rows.select_related("version").annotate(held=held).annotate(tenant=Cast("held__tenant_id", CharField()))


def with_use(rows: QuerySet[Container]) -> QuerySet[Container]:
    """With ``cores`` and ``memory`` in bytes of the last sample; null without a recent one."""
    recent = timezone.now() - timedelta(seconds=OLD_SAMPLES * max(15, settings.BOILERHOUSE_SAMPLE_EVERY_S))
    last = ContainerUsage.objects.filter(container_id=OuterRef("pk"), at__gte=recent).order_by("-at")
    return rows.annotate(cores=Subquery(last.values("cores")[:1]), memory=Subquery(last.values("memory_bytes")[:1]))


def listing(request: HttpRequest, pool: Pool | None = None, **more: Any) -> KeysetListing:
    """The containers of the pool, or of all pools, as the request filters and sorts them."""
    rows = with_use(with_tenants(Container.objects.all() if pool is None else pool.containers.all()))
    choices = [
        Choice("state", "state", "state", ContainerState.choices),
        Choice("health", "health", "health", ContainerHealth.choices),
    ]
    if pool is None:
        pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)]
        nodes = list(Node.objects.order_by("name").values_list("pk", "name"))
        choices.insert(0, Choice("pool", "pool", "pool_id", pools))
        choices += [Choice("node", "node", "node_id", nodes)] if len(nodes) > 1 else []
    return KeysetListing(
        request, rows, choices=choices, fixed={"tenant": ("tenant", "tenant")},
        search=["tenant", "runtime_id", "id"], sorts=SORTS, default="-health", **more,
    )  # fmt: skip

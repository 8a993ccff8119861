"""Key figures of the deployment in one request."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q, Sum
from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.core import clock
from pools.models import Container, Pool
from syncing.models import SyncRun, SyncSpec, bytes_moved
from tenants import claim_times, syncs
from tenants.models import Assignment
from tenants.states import AssignmentState


class PoolStats(ApiSerializer):
    total = serializers.IntegerField()
    by_state = serializers.DictField(child=serializers.IntegerField())


class ContainerStats(PoolStats):
    max = serializers.IntegerField(help_text="Sum of the pools' maxSize")


class TenantStats(ApiSerializer):
    assigned = serializers.IntegerField()
    release_failed = serializers.IntegerField()


class SyncStats(ApiSerializer):
    ok = serializers.IntegerField(help_text="Specs whose sink is healthy and whose saves are on time")
    warning = serializers.IntegerField(help_text="The other specs")
    running = serializers.IntegerField()
    failed24h = serializers.IntegerField()
    bytes24h = serializers.IntegerField()
    oldest_unsaved_ms = serializers.IntegerField(allow_null=True)


class ClaimStats(ApiSerializer):
    last1h = serializers.IntegerField()
    warm = serializers.IntegerField()
    cold = serializers.IntegerField()
    p50_ms = serializers.IntegerField(allow_null=True)
    p99_ms = serializers.IntegerField(allow_null=True)


class StatsOutput(ApiSerializer):
    pools = PoolStats()
    containers = ContainerStats()
    tenants = TenantStats()
    sync = SyncStats()
    claims = ClaimStats()


def stats() -> dict[str, Any]:
    """The response of ``GET /stats``."""
    pools = list(Pool.objects.with_counts())
    states = Counter(pool.status().state.value for pool in pools)
    by_state = dict(Container.objects.values_list("state").annotate(Count("pk")).order_by("state"))
    counts = Assignment.objects.aggregate(
        assigned=Count("pk", filter=Q(state=AssignmentState.ASSIGNED)),
        release_failed=Count("pk", filter=Q(state=AssignmentState.RELEASE_FAILED)),
    )
    return {
        "pools": {"total": len(pools), "byState": dict(sorted(states.items()))},
        "containers": {
            "total": sum(by_state.values()),
            "max": Pool.objects.aggregate(total=Sum("max_size"))["total"] or 0,
            "byState": by_state,
        },
        "tenants": {"assigned": counts["assigned"], "releaseFailed": counts["release_failed"]},
        "sync": _sync(),
        "claims": _claims(),
    }


def _sync() -> dict[str, Any]:
    now = clock.now()
    day = SyncRun.objects.filter(created_at__gt=now - timedelta(hours=24))
    periodic_saves = list(syncs.periodic_saves())
    late = {beat.spec.pk for beat in periodic_saves if beat.is_overdue(now)}
    specs = dict(SyncSpec.objects.values_list("pk", "sink_health"))
    ok = sum(health.get("state") != "unhealthy" and pk not in late for pk, health in specs.items())
    ages = [(now - beat.unsaved_since).total_seconds() for beat in periodic_saves]
    return {
        "ok": ok,
        "warning": len(specs) - ok,
        "running": SyncRun.objects.running().count(),
        "failed24h": day.failed().count(),
        "bytes24h": bytes_moved(day),
        "oldestUnsavedMs": round(max(ages) * 1000) if ages else None,
    }


def _claims() -> dict[str, Any]:
    times = claim_times.of_last_hour()
    return {
        "last1h": times.count,
        "warm": times.warm,
        "cold": times.cold,
        "p50Ms": times.p50_ms,
        "p99Ms": times.p99_ms,
    }


class StatsView(ApiView):
    @operation(operation_id="getStats", summary="Show figures of the deployment", responses=StatsOutput)
    def get(self, request: Any) -> Response:
        return Response(stats())

"""Gauges for Prometheus, read from the database at each scrape; no tenant or container in a label."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from boilerhouse.core.api.base import ApiView
from boilerhouse.core.api.schema import operation
from boilerhouse.core.models import ApiKey, QueueHealth, Role
from boilerhouse.dashboard.queues import silent_queues
from pools.models import Pool
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import SyncRunState
from tenants import syncs


class DatabaseCollector(Collector):
    """What the rows say now."""

    def collect(self) -> Iterator[Metric]:
        yield from _pools()
        yield from _queues()
        yield from _saves()


def _pools() -> Iterator[Metric]:
    containers = GaugeMetricFamily(
        "boilerhouse_pool_containers", "Containers of a pool by state.", labels=["pool", "state"]
    )
    desired = GaugeMetricFamily("boilerhouse_pool_desired_size", "Containers a pool should have.", labels=["pool"])
    waiting = GaugeMetricFamily("boilerhouse_pool_waiting_claims", "Claims that wait for a container.", labels=["pool"])
    failed = GaugeMetricFamily(
        "boilerhouse_pool_release_failed", "Tenants whose last save failed and is retried.", labels=["pool"]
    )
    trouble = GaugeMetricFamily(
        "boilerhouse_pool_trouble", "1 while a pool cannot start containers or roll out.", labels=["pool", "kind"]
    )
    for pool in Pool.objects.with_counts().select_related("workload"):
        status = pool.status()
        for state in ContainerState:
            containers.add_metric([pool.pk, state.value], getattr(pool, f"{state.value}_count"))
        desired.add_metric([pool.pk], status.desired_size)
        waiting.add_metric([pool.pk], status.waiting)
        failed.add_metric([pool.pk], status.release_failed)
        if pool.trouble:
            trouble.add_metric([pool.pk, pool.trouble], 1)
    yield from (containers, desired, waiting, failed, trouble)


def _queues() -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "boilerhouse_queue_last_served_seconds", "Seconds since a queue last served a task.", labels=["queue"]
    )
    is_silent = GaugeMetricFamily(
        "boilerhouse_queue_silent", "1 while a queue does not serve although a worker is free.", labels=["queue"]
    )
    now, silent = timezone.now(), silent_queues()
    for row in QueueHealth.objects.filter(name__in=list(settings.QUEUES)).order_by("name"):
        age.add_metric([row.name], max(0.0, (now - row.served_at).total_seconds()))
        is_silent.add_metric([row.name], float(row.name in silent))
    yield from (age, is_silent)


def _saves() -> Iterator[Metric]:
    oldest = GaugeMetricFamily(
        "boilerhouse_sync_oldest_unsaved_seconds",
        "Longest time since a complete save among tenants whose state is saved on a timer.",
        labels=["pool"],
    )
    overdue = GaugeMetricFamily(
        "boilerhouse_sync_overdue_tenants", "Tenants whose last save is older than twice the interval.", labels=["pool"]
    )
    now, ages, late = timezone.now(), dict[str, float](), dict[str, set[str]]()
    for beat in syncs.beats():
        pool = beat.assignment.pool_id
        ages[pool] = max(ages.get(pool, 0.0), (now - beat.unsaved_since).total_seconds())
        late.setdefault(pool, set()).update({beat.assignment.tenant_id} if beat.is_overdue(now) else ())
    for pool, age in ages.items():
        oldest.add_metric([pool], age)
        overdue.add_metric([pool], len(late[pool]))
    runs = GaugeMetricFamily("boilerhouse_sync_runs", "Sync runs that wait or run.", labels=["state"])
    for state in (SyncRunState.QUEUED, SyncRunState.RUNNING):
        runs.add_metric([state.value], SyncRun.objects.filter(state=state).count())
    yield from (oldest, overdue, runs)


_registry = CollectorRegistry()
_registry.register(DatabaseCollector())


class MetricsView(ApiView):
    def perform_authentication(self, request: Any) -> None:
        """With a key, or with the token, for scrapers that should hold no key."""
        token = settings.BOILERHOUSE_METRICS_TOKEN
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if token and scheme.lower() == "bearer" and secrets.compare_digest(token.encode(), given.strip().encode()):
            request.user, request.auth = None, ApiKey(id="metrics", name="metrics token", role=Role.VIEWER)
        else:
            super().perform_authentication(request)

    @operation(
        operation_id="getMetrics",
        summary="Show metrics in Prometheus' text format",
        description="With a key, or with the deployment's BOILERHOUSE_METRICS_TOKEN as bearer token.",
        responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR)},
    )
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(generate_latest(_registry), content_type=CONTENT_TYPE_LATEST)

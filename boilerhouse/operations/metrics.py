"""Prometheus metrics: gauges from the database at each scrape, and counters of all processes.

No label contains a tenant or a container.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.db.models import Count, Min
from django.db.models.functions import Now
from django.http import HttpResponse
from django_q.models import OrmQ
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.core import clock, nodes
from boilerhouse.core.models import ApiKey, Lease, Node, Process, QueueHealth, Role
from boilerhouse.notifications.api.serializers import TARGET_STATES, state_of
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DeliveryState
from boilerhouse.process import processes
from boilerhouse.queues.service import unserved_queues
from boilerhouse.telemetry.metering import ProcessesCollector
from boilerhouse.web import response_bytes
from pools import host
from pools.models import Container, ImagePull, Pool
from pools.states import PULLING, ContainerState
from syncing.models import SyncRun
from syncing.states import SyncRunState
from tenants import syncs


class DatabaseCollector(Collector):
    """Gauges computed from rows."""

    def collect(self) -> Iterator[Metric]:
        yield from _pools()
        yield from _queues()
        yield from _saves()
        yield from _processes()
        yield from _notifications()
        stored_answers = GaugeMetricFamily(
            "boilerhouse_kept_answers_bytes", "Bytes of answers stored for Idempotency-Keys."
        )
        stored_answers.add_metric([], float(response_bytes.total()))
        yield stored_answers


def _processes() -> Iterator[Metric]:
    alive = GaugeMetricFamily("boilerhouse_processes", "Processes with a heartbeat.", labels=["kind"])
    living = processes.living()
    kinds = Counter(Process.objects.filter(pk__in=living).values_list("kind", flat=True))
    for kind in (Process.Kind.WEB, Process.Kind.WORKER, Process.Kind.CONTROLLER):
        alive.add_metric([kind.value], kinds[kind.value])
    leading = GaugeMetricFamily("boilerhouse_controller_leading", "1 while a controller holds the lease.")
    leading.add_metric([], float(Lease.objects.filter(holder__in=living, expires_at__gt=Now()).exists()))
    free = GaugeMetricFamily(
        "boilerhouse_disk_free_bytes", "Free bytes on the file system of the containers' directories."
    )
    free.add_metric([], host.free_disk_mb() * 1024.0 * 1024.0)
    is_lost = GaugeMetricFamily("boilerhouse_node_lost", "1 while a node is declared lost.", labels=["node"])
    is_silent = GaugeMetricFamily("boilerhouse_node_silent", "1 while no worker of a node is alive.", labels=["node"])
    is_cordoned = GaugeMetricFamily(
        "boilerhouse_node_cordoned", "1 while a node gets no new containers.", labels=["node"]
    )
    depth = GaugeMetricFamily(
        "boilerhouse_node_queue_depth", "Tasks that wait for a worker of a node.",
        labels=["node"],
    )  # fmt: skip
    fallen, waiting = nodes.silent(), nodes.waiting_tasks()
    for node in Node.objects.order_by("pk"):
        is_silent.add_metric([node.pk], float(node.pk in fallen))
        is_lost.add_metric([node.pk], float(node.is_lost))
        is_cordoned.add_metric([node.pk], float(node.is_cordoned))
        depth.add_metric([node.pk], waiting.get(node.pk, 0))
    yield from (alive, leading, free, is_silent, is_lost, is_cordoned, depth)


def _pools() -> Iterator[Metric]:
    containers = GaugeMetricFamily(
        "boilerhouse_pool_containers", "Containers of a pool by state.", labels=["pool", "state"]
    )
    desired = GaugeMetricFamily("boilerhouse_pool_desired_size", "Containers a pool should have.", labels=["pool"])
    waiting = GaugeMetricFamily("boilerhouse_pool_waiting_claims", "Claims that wait for a container.", labels=["pool"])
    failed = GaugeMetricFamily(
        "boilerhouse_pool_release_failed", "Tenants whose last save failed and is retried.", labels=["pool"]
    )
    missing = GaugeMetricFamily(
        "boilerhouse_pool_missing_containers",
        "Containers that a pool should have and that no process is starting.",
        labels=["pool"],
    )
    oldest = GaugeMetricFamily(
        "boilerhouse_pool_oldest_start_seconds",
        "Age in seconds of the oldest container start in progress.",
        labels=["pool"],
    )
    since = dict(
        Container.objects.filter(state=ContainerState.STARTING, pull=None)  # a pull has its own gauge
        .values_list("pool_id")
        .annotate(oldest=Min("created_at"))
        .order_by()
    )
    trouble = GaugeMetricFamily(
        "boilerhouse_pool_trouble",
        "1 while a pool cannot start containers, cannot keep them healthy, or has halted a roll.",
        labels=["pool", "kind"],
    )
    stale = GaugeMetricFamily(
        "boilerhouse_pool_stale_image",
        "1 while a pool serves an image that may be outdated, because its pull failed.",
        labels=["pool"],
    )
    moved = GaugeMetricFamily(
        "boilerhouse_pool_image_moved", "1 while the tag of a pool's image names another image than it runs.",
        labels=["pool"],
    )  # fmt: skip
    for pool in Pool.objects.with_counts().select_related("workload"):
        status = pool.status()
        for state in ContainerState:
            containers.add_metric([pool.pk, state.value], getattr(pool, f"{state.value}_count"))
        desired.add_metric([pool.pk], status.desired_size)
        waiting.add_metric([pool.pk], status.waiting)
        missing.add_metric([pool.pk], max(0, status.desired_size - status.starting - status.idle - status.claimed))
        age = (clock.now() - since[pool.pk]).total_seconds() if pool.pk in since else 0.0
        oldest.add_metric([pool.pk], max(0.0, age))
        failed.add_metric([pool.pk], status.release_failed)
        if pool.trouble:
            trouble.add_metric([pool.pk, pool.trouble], 1)
        moved.add_metric([pool.pk], float(bool(pool.moved_to)))
        if pool.stale_image:
            stale.add_metric([pool.pk], 1)
    yield from (containers, desired, waiting, missing, oldest, failed, trouble, stale, moved)
    yield _pulls()


def _pulls() -> Metric:
    pulls = GaugeMetricFamily("boilerhouse_image_pulls", "Image pulls that are running or waiting.", labels=["state"])
    counts = Counter(ImagePull.objects.filter(state__in=PULLING).values_list("state", flat=True))
    for state in sorted(PULLING):
        pulls.add_metric([state.value], counts[state.value])
    return pulls


def _queues() -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "boilerhouse_queue_last_served_seconds", "Seconds since a worker last polled a queue.", labels=["queue"]
    )
    is_silent = GaugeMetricFamily(
        "boilerhouse_queue_silent", "1 while no worker serves a queue although one is running.", labels=["queue"]
    )
    now, silent = clock.now(), unserved_queues()
    for row in QueueHealth.objects.filter(name__in=list(settings.QUEUES)).order_by("name"):
        age.add_metric([row.name], max(0.0, (now - row.served_at).total_seconds()))
        is_silent.add_metric([row.name], float(row.name in silent))
    depth = GaugeMetricFamily("boilerhouse_queue_depth", "Tasks that wait for a worker.", labels=["queue"])
    waits = GaugeMetricFamily(
        "boilerhouse_queue_oldest_seconds", "Age in seconds of the oldest waiting task of a queue.", labels=["queue"]
    )
    due = OrmQ.objects.filter(lock__lte=now).values_list("key").annotate(n=Count("id"), oldest=Min("lock")).order_by()
    counts, longest = Counter[str](), dict[str, float]()
    for key, count, oldest in due:
        name = key.partition("@")[0]
        counts[name] += count
        longest[name] = max(longest.get(name, 0.0), (now - oldest).total_seconds())
    for name in settings.QUEUES:
        depth.add_metric([name], counts[name])
        waits.add_metric([name], longest.get(name, 0.0))
    yield from (age, is_silent, depth, waits)


def _notifications() -> Iterator[Metric]:
    waiting = GaugeMetricFamily("boilerhouse_notifications_waiting", "Notifications that are still to be delivered.")
    oldest = GaugeMetricFamily(
        "boilerhouse_notifications_oldest_seconds", "Age in seconds of the oldest notification that is not delivered."
    )
    states = GaugeMetricFamily(
        "boilerhouse_notification_targets", "Targets of notifications by state.", labels=["state"]
    )
    pending = Delivery.objects.filter(state=DeliveryState.PENDING).aggregate(n=Count("pk"), first=Min("created_at"))
    waiting.add_metric([], pending["n"])
    age = (clock.now() - pending["first"]).total_seconds() if pending["first"] else 0.0
    oldest.add_metric([], max(0.0, age))
    counts = Counter(state_of(target) for target in Target.objects.defer("secret"))
    for state in TARGET_STATES:
        states.add_metric([state], counts[state])
    yield from (waiting, oldest, states)


def _saves() -> Iterator[Metric]:
    oldest = GaugeMetricFamily(
        "boilerhouse_sync_oldest_unsaved_seconds",
        "Longest time since a complete save among tenants with periodic saves.",
        labels=["pool"],
    )
    overdue = GaugeMetricFamily(
        "boilerhouse_sync_overdue_tenants", "Tenants whose last save is older than twice the interval.", labels=["pool"]
    )
    now, ages, late = clock.now(), dict[str, float](), dict[str, set[str]]()
    for beat in syncs.periodic_saves():
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
_registry.register(ProcessesCollector())


class MetricsView(ApiView):
    def perform_authentication(self, request: Any) -> None:
        """Allow an API key, or the metrics token for scrapers without a key."""
        token = settings.BOILERHOUSE_METRICS_TOKEN
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if token and scheme.lower() == "bearer" and secrets.compare_digest(token.encode(), bearer.strip().encode()):
            request.user, request.auth = None, ApiKey(id="metrics", name="metrics token", role=Role.VIEWER)
        else:
            super().perform_authentication(request)

    @operation(
        operation_id="getMetrics",
        summary="Show metrics in Prometheus text format",
        description="Needs an API key, or BOILERHOUSE_METRICS_TOKEN as bearer token.",
        responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR)},
    )
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(generate_latest(_registry), content_type=CONTENT_TYPE_LATEST)

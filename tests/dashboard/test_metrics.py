"""``/metrics``: who may read it, and that it contains no tenant's name."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from boilerhouse.queues import tasks
from boilerhouse.telemetry.instruments import TASKS
from pools import reconcile
from pools.instruments import CONTAINER_STARTS
from pools.runtime.docker import client as docker_client
from syncing.instruments import SYNC_RUNS
from tenants import aborts
from tenants.models import Assignment, Tenant
from tests import make

FORBIDDEN = {"tenant", "container", "tenant_id", "container_id"}


def scrape(client: Client, token: str = "t0ken", path: str = "/metrics") -> dict[str, Any]:
    answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.content
    return {family.name: family for family in text_string_to_metric_families(answer.content.decode())}


@pytest.fixture
def scraping(data_dir, settings, client):
    settings.BOILERHOUSE_METRICS_TOKEN = "t0ken"
    return client


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    found = [s.value for f in families.values() for s in f.samples if s.name == name and s.labels == labels]
    assert len(found) <= 1, found
    return found[0] if found else 0.0


def test_it_is_where_scrapers_look_and_in_the_api_and_closed_to_strangers(scraping):
    scrape(scraping)
    assert scrape(scraping).keys() == scrape(scraping, path="/api/v1/metrics").keys()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert scraping.get("/metrics", headers=headers).status_code == 401


def test_rows_are_read_at_each_scrape(scraping):
    pool = make.make_pool("p", min_size=4)
    make.make_container(pool)
    make.make_container(pool, state="starting")
    found = scrape(scraping)

    assert value(found, "boilerhouse_pool_containers", pool="p", state="idle") == 1
    assert value(found, "boilerhouse_pool_desired_size", pool="p") == 4
    assert value(found, "boilerhouse_pool_missing_containers", pool="p") == 2
    assert value(found, "boilerhouse_controller_leading") == 0
    for name in ("boilerhouse_queue_depth", "boilerhouse_queue_oldest_seconds"):
        assert {s.labels["queue"] for s in found[name].samples} == {"claim", "pool", "save", "sync"}


def test_tasks_that_wait_are_counted_and_their_age_is_told(scraping):
    tasks.enqueue("claim", "tenants.tasks.prepare", "x", 1)
    found = scrape(scraping)
    assert value(found, "boilerhouse_queue_depth", queue="claim") == 1
    assert value(found, "boilerhouse_queue_oldest_seconds", queue="claim") >= 0


def test_a_claim_that_fails_is_counted_once_by_its_code(scraping):
    pool = make.make_pool("failing")
    tenant = Tenant.objects.create(id="alice", generation=1)
    from django.utils import timezone

    row = Assignment.objects.create(tenant=tenant, pool=pool, generation=1, deadline=timezone.now())
    assert aborts.give_up(row.pk, "claim_timeout")
    assert not aborts.give_up(row.pk, "claim_timeout")

    found = scrape(scraping)
    assert value(found, "boilerhouse_claims_total", pool="failing", source="warm", result="claim_timeout") == 1


def test_requests_are_counted_by_the_pattern_of_their_path(scraping):
    scraping.get("/api/v1/tenants/alice-of-the-metrics/status")
    scraping.get("/no/such/place-of-the-metrics")
    scraping.generic("BREW", "/api/v1/pools")
    answer = scraping.get("/metrics", headers={"Authorization": "Bearer t0ken"}).content.decode()

    assert "of-the-metrics" not in answer
    assert "BREW" not in answer
    counted = 'boilerhouse_http_requests_total{method="GET",route="/api/v1/tenants/<path:tenant_id>/status"'
    assert re.search(re.escape(counted).replace("<path:", "<.*:"), answer), answer


def test_no_label_names_a_tenant_or_a_container(scraping):
    CONTAINER_STARTS.labels("p", "ready").inc()
    SYNC_RUNS.labels("p", "upload", "release", "succeeded").inc()
    TASKS.labels("pools.tasks.refill", "done").inc()
    found = scrape(scraping)
    assert value(found, "boilerhouse_container_starts_total", pool="p", result="ready") >= 1
    for family in found.values():
        for sample in family.samples:
            assert not FORBIDDEN & sample.labels.keys(), sample
            assert not any(re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text) for text in sample.labels.values()), sample


def test_names_follow_the_customs(scraping):
    found = scrape(scraping)
    assert "boilerhouse_queue_depth" in found
    for family in found.values():
        assert family.name.startswith("boilerhouse_")
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/containers/bh-0190/start", "POST /containers/{id}/start"),
        ("/containers/create?name=bh-1", "POST /containers/create"),
        ("/containers/json?all=1", "POST /containers/json"),
        ("/containers/bh-0190", "POST /containers/{id}"),
        ("/images/boilerhouse/example-workload:1/json", "POST /images/{id}/json"),
        ("/networks", "POST /networks"),
        ("/exec/abc/start", "POST /exec/{id}/start"),
        ("/images/create?fromImage=x", "POST /images/create"),
    ],
)
def test_calls_of_the_engine_are_counted_without_names(path, call):
    assert docker_client._call_of("post", f"http+docker://localhost/v1.41{path}") == call
    assert docker_client._call_of("post", f"http+docker://localhost/v1.51{path}") == call
    assert docker_client._call_of("get", "http+docker://localhost/version") == "GET /version"


def test_drift_is_counted_by_kind(scraping, monkeypatch):
    monkeypatch.setattr(reconcile, "find_drift", lambda _: [reconcile.Drift("orphan", "x", "", lambda: None)])
    before = value(scrape(scraping), "boilerhouse_reconcile_drift_total", kind="orphan")
    reconcile.heal(set())
    assert value(scrape(scraping), "boilerhouse_reconcile_drift_total", kind="orphan") == before + 1

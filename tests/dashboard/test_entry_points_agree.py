"""The API, the pages and ``apply`` validate alike and report the same errors."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from boilerhouse.dashboard import overview
from boilerhouse.dashboard.sections import sync_specs as sections
from boilerhouse.operations import resources, stats
from boilerhouse.operations.resources import Resource
from pools import sizing
from pools.models import Pool
from pools.states import ContainerState
from syncing.models import SyncSpec
from syncing.sinks import KINDS
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, Source
from tests.make import make_container, make_pool, make_sync_spec, make_workload

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]


@pytest.mark.parametrize("waiting", [0, 3])
@pytest.mark.parametrize("min_idle", [0, 2])
@pytest.mark.parametrize("wanted", [1, 4, 9])
def test_what_a_target_size_would_do_is_what_is_done(admin_client, data_dir, waiting, min_idle, wanted):
    """The page did not count waiting claims, so "start 0" started as many as waited."""
    pool = make_pool("p", max_size=9, min_idle=min_idle, waiting=waiting)
    for state in (ContainerState.CLAIMED, ContainerState.IDLE):
        make_container(pool, state=state)
    shown = admin_client.get("/pools/p/effect", {"targetSize": wanted}).context["asked"]
    Pool.objects.update(target_size=wanted)
    pool.refresh_from_db()
    step = sizing.decide(pool, pool.newest_template, list(pool.containers.order_by("pk")), parallel=100)
    assert (shown.starts, shown.removes) == (len(step.start), len(step.remove))


def test_claim_times_are_the_same_by_the_overview_and_the_api(data_dir):
    """One took the newest 1,000, the other 10,000."""
    pool, now = make_pool(), timezone.now()
    Tenant.objects.bulk_create(Tenant(pk=f"t{number}") for number in range(1500))
    Assignment.objects.bulk_create(
        Assignment(
            tenant_id=f"t{number}", pool=pool, generation=1, deadline=now, state=AssignmentState.ENDED,
            assigned_at=now - timedelta(minutes=50, milliseconds=-number), latency_ms=10 if number < 1000 else 500,
            source=Source.WARM if number < 1400 else Source.COLD,
        )
        for number in range(1500)
    )  # fmt: skip
    tiles, told = overview.tiles([], []), stats.stats()["claims"]
    assert told == {"last1h": 1500, "warm": 1400, "cold": 100, "p50Ms": 10, "p99Ms": 500}
    assert (tiles["claims"], tiles["p50"], tiles["p99"]) == (told["last1h"], told["p50Ms"], told["p99Ms"])


def test_without_claims_there_are_no_times(data_dir):
    assert stats.stats()["claims"] == {"last1h": 0, "warm": 0, "cold": 0, "p50Ms": None, "p99Ms": None}


# The kinds of sinks -----------------------------------------------------------------------------------


def _sink_fields(kind: Any) -> dict[str, Any]:
    [section] = [one for one in sections.sections_of(is_new=False)({"sink": {"type": kind}}) if one.path == "sink"]
    return {part.path: part for part in section.parts}


def test_every_kind_of_sink_has_a_form_of_its_own(data_dir):
    forms = [frozenset(_sink_fields(kind)) for kind in KINDS]
    assert len(set(forms)) == len(KINDS)
    assert all(len(form) > 1 for form in forms)


def test_a_kind_that_the_form_does_not_know_is_not_shown_as_another(admin_client, data_dir):
    """It had the fields of S3, and the list of kinds selected S3."""
    make_sync_spec(id="far")
    SyncSpec.objects.update(sink={"type": "swift", "bucket": "b"})
    fields = _sink_fields("swift")
    assert set(fields) == {"type"}
    assert fields["type"].options[-1][0] == "swift"
    page = admin_client.get("/sync/specs/far/edit").content.decode()
    assert 'value="swift" selected' in page
    assert "secretAccessKey" not in page


# What is left out -------------------------------------------------------------------------------------

NETWORK = {"dns": ["10.9.9.9"], "egress": {"mode": "none", "allow": []}}
SINK = {"type": "s3", "bucket": "bucket", "region": "r", "prefix": "t/${tenantId}/", "endpoint": "http://127.0.0.1:1",
        "provider": "Minio", "accessKeyId": "A", "secretAccessKey": "S", "rcloneFlags": ["--s3-chunk-size=8M"]}  # fmt: skip
MAPPING = {"containerPath": "/state", "pattern": "*.db", "sinkPath": "s/", "direction": "upload", "mode": "copy"}
POLICY = {"onClaim": True, "onRelease": True, "intervalMs": 60000, "allowManualTrigger": False, "quiesce": "none"}
FULL: dict[str, tuple[str, dict[str, Any]]] = {
    "Pool": ("pools", {
        "id": "one", "name": "One", "workloadId": "w", "minSize": 2, "maxSize": 7, "minIdle": 1,
        "idleTimeoutMs": 60000, "onUnhealthy": "release", "network": NETWORK,
    }),
    "SyncSpec": ("sync-specs", {
        "id": "one", "name": "One", "poolId": "held", "mappings": [MAPPING], "sink": SINK, "policy": POLICY,
    }),
    "RegistryCredential": ("registry-credentials", {
        "id": "one", "name": "One", "registry": "registry.example.com", "username": "u", "password": "p",
    }),
    "Workload": ("workloads", {
        "id": "one", "name": "One", "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
        "volumes": {"state": {"containerPath": "/state"}}, "command": ["sh"], "environment": {"A": "b"},
        "stopTimeoutMs": 1234, "labels": {"a": "b"}, "dns": ["10.9.9.9"], "resources": {"memoryMb": 77, "cpus": 0.5},
    }),
}  # fmt: skip
"""Of each kind of document one with every optional field set to what is not its default."""


CHANGING = "updatedAt", "sinkHealth", "status", "version"


def _places(value: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of each member of the object and of the objects in it."""
    if not isinstance(value, dict):
        return []
    return [path for name, one in value.items() for path in [(*way, name), *_places(one, (*way, name))]]


def _without(body: dict[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    head, *rest = way
    if not rest:
        return {name: one for name, one in body.items() if name != head}
    return {**body, head: _without(body[head], tuple(rest))}


@pytest.mark.parametrize("kind", FULL)
def test_a_field_that_is_left_out_means_the_same_by_api_and_apply(call, data_dir, kind):
    """The API removed a pool's network and apply kept it; the test covers every other field too."""
    make_pool("held", workload=make_workload("w"))
    path, full = FULL[kind]
    made = call("POST", path, full)
    assert made.status_code == 201, made.content
    tried = 0
    for way in _places(full):
        body = _without(full, way)
        told = call("PUT", f"{path}/one", body)
        if told.status_code != 200:
            continue  # required
        by_api = {name: one for name, one in told.json().items() if name not in CHANGING}
        assert call("PUT", f"{path}/one", full).status_code == 200
        if "id" in body:
            [applied] = resources.apply([Resource("here", kind, {**body})], dry_run=False)
            assert applied.outcome in ("changed", "unchanged"), (way, applied)
            found = call("GET", f"{path}/one").json()
            assert {name: found[name] for name in by_api} == by_api, way
            assert call("PUT", f"{path}/one", full).status_code == 200
            tried += 1
    assert tried


def test_a_network_that_is_left_out_goes_and_apply_shows_that_before(call, data_dir):
    """Also with --dry-run."""
    make_workload("w")
    _, full = FULL["Pool"]
    assert call("POST", "pools", full).status_code == 201
    [planned] = resources.apply([Resource("here", "Pool", _without(full, ("network",)))], dry_run=True)
    assert planned.outcome == "changed"
    assert any("10.9.9.9" in line and line.startswith("-") for line in planned.difference)
    assert Pool.objects.get().egress, "nothing was done"


def test_the_pools_page_keeps_of_the_network_what_it_does_not_show(call, admin_client, data_dir):
    """Saving the form sends every field."""
    make_workload("w")
    assert call("POST", "pools", FULL["Pool"][1]).status_code == 201
    typed = {"name": "Two", "minSize": "1", "maxSize": "5", "network.egress.mode": "none"}
    assert admin_client.post("/pools/one/configure", typed).status_code in (302, 303)
    found = call("GET", "pools/one").json()
    assert (found["name"], found["network"]) == ("Two", NETWORK)
    assert (found["minIdle"], found["idleTimeoutMs"], found["onUnhealthy"]) == (1, 0, "report"), "as the API has it"

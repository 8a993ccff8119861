"""API keys through the API, their rate limits, and the audit log of their changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from boilerhouse.controller import retention
from boilerhouse.core.models import ApiKey, AuditEntry, Event
from boilerhouse.web.throttling import Buckets
from tenants import pacing
from tenants.models import Assignment
from tests.api_calls import problem
from tests.make import make_container, make_pool, make_workload


def test_a_key_is_shown_once_works_at_once_and_is_revoked_at_once(call):
    made = call("POST", "api-keys", {"name": "ci", "role": "tenant", "tenantIds": ["a", "b"]}).json()
    key = made.pop("key")

    assert call("GET", "tenants/a/status", key=key).status_code == 200
    assert (made["lastUsedAt"], made["tenantIds"]) == (None, ["a", "b"])
    listed = call("GET", "api-keys?role=tenant").json()["items"]
    assert listed[0]["lastUsedAt"]
    assert key not in call("GET", "api-keys").content.decode()
    assert key[11:] not in str(ApiKey.objects.values())
    assert call("DELETE", f"api-keys/{made['id']}").status_code == 204
    problem(call("GET", "tenants/a/status", key=key), 401)
    assert call("DELETE", f"api-keys/{made['id']}").status_code == 204, "twice is no error"
    problem(call("DELETE", "api-keys/nobodys"), 404, "api_key_not_found")
    assert call("GET", "api-keys?role=tenant").json()["items"][0]["revokedAt"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "admin"}, "/name"),
        ({"name": "n", "role": "god"}, "/role"),
        ({"name": "n", "role": "tenant"}, "/tenantIds"),
        ({"name": "n", "role": "tenant", "tenantIds": []}, "/tenantIds"),
        ({"name": "n", "role": "viewer", "tenantIds": ["a"]}, "/tenantIds"),
        ({"name": "n", "role": "tenant", "tenantIds": ["../x"]}, "/tenantIds/0"),
        ({"name": "n", "role": "admin", "expiresAt": "2001-01-01T00:00:00Z"}, "/expiresAt"),
        ({"name": "n", "role": "admin", "key": "mine"}, "/key"),
    ],
)
def test_keys_that_cannot_be_are_refused(call, body, pointer):
    before = ApiKey.objects.count()
    found = problem(call("POST", "api-keys", body), 422, "invalid")

    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert ApiKey.objects.count() == before


def test_a_key_past_its_time_opens_nothing(call):
    soon = (timezone.now() + timedelta(hours=1)).isoformat()
    key = call("POST", "api-keys", {"name": "n", "role": "viewer", "expiresAt": soon}).json()["key"]
    assert call("GET", "pools", key=key).status_code == 200
    ApiKey.objects.filter(pk=key[3:11]).update(expires_at=timezone.now())
    problem(call("GET", "pools", key=key), 401)


def test_buckets_hold_a_burst_and_fill_again():
    buckets = Buckets()
    assert [buckets.take("a", 10, 3, now=0) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", 10, 3, now=0) == pytest.approx(0.1)
    assert buckets.take("b", 10, 3, now=0) == 0
    assert buckets.take("a", 10, 3, now=0.1) == 0
    assert buckets.take("c", 10, 3, now=0, count=10) == 0
    assert buckets.take("c", 10, 3, now=0) == pytest.approx(0.8), "the rest was taken in advance"
    assert [buckets.take("a", 10, 3, now=100) for _ in range(4)][3] > 0, "no more than the burst is saved up"


def test_too_many_requests_of_a_key_are_told_when_to_come_again(call, settings):
    settings.BOILERHOUSE_THROTTLE_RATE, settings.BOILERHOUSE_THROTTLE_BURST = 0.5, 3
    key = call.key_of("viewer")
    answers = [call("GET", "pools", key=key) for _ in range(4)]

    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    problem(answers[3], 429, "throttled")
    assert 1 <= int(answers[3]["Retry-After"]) <= 2
    assert call("GET", "pools", key=call.key_of("viewer")).status_code == 200, "another key has its own"
    assert call("GET", "health", key=None).status_code == 200


def test_a_tenants_key_may_ask_less_often_than_others(call, settings):
    """Two hundred requests a second of one tenant used a processor and made all claims four times as slow (P14)."""
    settings.BOILERHOUSE_THROTTLE_RATE = 200
    settings.BOILERHOUSE_THROTTLE_RATE_PER_TENANT, settings.BOILERHOUSE_THROTTLE_BURST_PER_TENANT = 1, 3
    key, other = (call.key_of("tenant", tenant_ids=[one]) for one in ("own", "other"))
    codes = [call("GET", "tenants/own/status", key=key).status_code for _ in range(4)]

    assert codes == [200, 200, 200, 429]
    assert call("GET", "tenants/other/status", key=other).status_code == 200
    assert {call("GET", "tenants/own/status").status_code for _ in range(20)} == {200}, "a platform's key asks for many"


@pytest.fixture
def paced(call, settings):
    """Claim with a tenant's key, which may make two new claims, and then one in an hour; returns the response."""
    pacing.buckets = Buckets()
    settings.BOILERHOUSE_CLAIM_RATE_PER_TENANT, settings.BOILERHOUSE_CLAIM_BURST_PER_TENANT = 1 / 3600, 2
    names = ["t1", "t2", "t3"]
    pool, key = make_pool(), call.key_of("tenant", tenant_ids=names)

    def claim(tenant: str, *, key: str = key) -> Any:
        return call("POST", f"tenants/{tenant}/claim", {"poolId": pool.pk, "wait": False}, key=key)

    return claim


def test_a_tenants_key_may_make_so_many_new_claims(paced, call):
    """A tenant that claimed and released in a loop used all idle processors (P14)."""
    assert [paced(tenant).status_code for tenant in ("t1", "t2")] == [202, 202]

    refused = paced("t3")
    problem(refused, 429, "too_many_claims")
    assert 3500 < int(refused["Retry-After"]) <= 3600
    assert not Assignment.objects.filter(tenant_id="t3").exists()
    other = call.key_of("tenant", tenant_ids=["t3"])
    assert paced("t3", key=other).status_code == 202, "another key has its own"


def test_a_claim_that_joins_another_is_not_a_new_one(paced):
    assert [paced("t1").status_code for _ in range(5)] == [202] * 5
    assert paced("t2").status_code == 202


def test_a_claim_that_is_refused_for_another_reason_is_not_counted(paced, call):
    key = call.key_of("tenant", tenant_ids=["t4"])
    unknown = [call("POST", "tenants/t4/claim", {"poolId": "nope"}, key=key).status_code for _ in range(5)]
    assert unknown == [404] * 5
    assert paced("t4", key=key).status_code == 202


def test_a_key_that_claims_for_many_tenants_is_not_paced(paced, call):
    operator = call.key_of("operator")
    assert [paced(f"o{number}", key=operator).status_code for number in range(6)] == [202] * 6


def test_a_long_body_counts_as_many_requests(call, settings):
    """Forty megabytes a second of invalid bodies from one key used a third of the process (P14)."""
    settings.BOILERHOUSE_THROTTLE_RATE, settings.BOILERHOUSE_THROTTLE_BURST = 1, 20
    key, body = call.key_of("operator"), {"poolId": "nope", "metadata": {"x": "y" * 640 * 1024}}
    codes = [call("POST", "tenants/t/claim", body, key=key).status_code for _ in range(3)]
    assert codes == [404, 404, 429]
    small = call.key_of("operator")
    assert [call("POST", "tenants/t/claim", {"poolId": "nope"}, key=small).status_code for _ in range(20)] == [404] * 20


def test_changes_are_audited_with_who_why_and_what_and_no_secret(call):
    call("POST", "workloads", {"id": "w", "name": "w", "image": "i", "environment": {"A": "1"}}, X_Request_ID="req-1")
    shown = call("GET", "workloads/w").json()
    call("PUT", "workloads/w", {**shown, "image": "i2"}, X_Request_ID="req-2")
    call("POST", "credentials", {"id": "c", "name": "c", "accessKeyId": "A", "secretAccessKey": "AUDIT-CANARY"})
    call("PUT", "credentials/c", {"name": "c", "accessKeyId": "A", "secretAccessKey": "AUDIT-CANARY-2"})
    call("POST", "pools", {"id": "p", "workloadId": "w"})
    call("POST", "pools/p/scale", {"targetSize": 2})
    call("POST", "pools/p/pause")
    call("POST", "pools/p/pause")
    call("PUT", "settings", {"variables": {"REGION": "eu"}})

    entries = {entry["action"]: entry for entry in call("GET", "audit?limit=50").json()["items"]}
    change = entries["workload.update"]
    assert (change["actor"], change["requestId"], change["objectId"]) == ("key admin", "req-2", "w")
    assert (change["before"]["spec"]["image"], change["after"]["spec"]["image"]) == ("i", "i2")
    assert "name" not in change["before"], "only what differs"
    assert entries["credential.update"]["after"] == {"secretAccessKey": "changed"}
    assert (entries["pool.scale"]["before"], entries["pool.scale"]["after"]) == ({"targetSize": 0}, {"targetSize": 2})
    assert entries["settings.update"]["after"] == {"variables": {"REGION": "eu"}}
    assert AuditEntry.objects.filter(action="pool.pause").count() == 1, "what changed nothing is no change"
    assert "AUDIT-CANARY" not in str(list(AuditEntry.objects.values()))
    assert [e["action"] for e in call("GET", "audit?kind=pool&objectId=p").json()["items"]] == [
        "pool.pause", "pool.scale", "pool.create",
    ]  # fmt: skip
    assert [e["action"] for e in call("GET", "audit?requestId=req-1").json()["items"]] == ["workload.create"]


def test_what_was_refused_leaves_no_trace_in_the_audit(call):
    pool = make_pool()
    before = AuditEntry.objects.count()
    problem(call("POST", f"pools/{pool.pk}/scale", {"targetSize": 99}), 422)
    problem(call("DELETE", f"workloads/{pool.workload_id}"), 409)
    assert AuditEntry.objects.count() == before


def test_events_and_audit_end_with_their_retention_and_readers_are_told(call, settings):
    from boilerhouse.core.events import emit

    for _ in range(3):
        emit("pool.scaled", pool_id="p")
    first, _, last = Event.objects.order_by("id").values_list("id", flat=True)
    Event.objects.filter(pk__lt=last).update(created_at=timezone.now() - timedelta(days=30))
    AuditEntry.objects.update(at=timezone.now() - timedelta(days=400))
    assert retention.forget_old() >= 3

    assert [e["id"] for e in call("GET", "events").json()["items"]] == [last]
    assert call("GET", f"events?after={first - 1}").json()["reset"] is True
    assert call("GET", f"events?after={last - 1}").json() == {
        "items": call("GET", "events").json()["items"], "nextCursor": None, "reset": False,
    }  # fmt: skip
    assert not AuditEntry.objects.exists()


def test_settings_are_a_full_object_below_the_environments_ceiling(call, settings):
    found = call("GET", "settings")
    shown = found.json()
    assert call("PUT", "settings", shown, If_Match=found["ETag"]).json() == shown
    wrong = {
        **shown,
        "allowRoot": True,
        "allowHostNetwork": True,
        "allowedRuntimes": ["runsc"],
        "variables": {"POOL_ID": "x"},
    }
    problem(call("PUT", "settings", wrong), 422)
    wrong["variables"] = {}
    names = {error["pointer"] for error in problem(call("PUT", "settings", wrong), 422)["errors"]}
    assert names == {"/allowRoot", "/allowHostNetwork", "/allowedRuntimes/0"}
    endless = problem(call("PUT", "settings", {**shown, "retention": {"eventsMs": 10**15}}), 422)
    assert [error["pointer"] for error in endless["errors"]] == ["/retention/eventsMs"]
    settings.BOILERHOUSE_ALLOW_ROOT = True
    assert call("PUT", "settings", {**shown, "allowRoot": True}).json()["allowRoot"] is True
    problem(call("PUT", "settings", shown, If_Match=found["ETag"]), 412, "precondition_failed")
    settings.BOILERHOUSE_ALLOW_ROOT = False
    assert call("GET", "settings").json()["allowRoot"] is False, "what the environment takes away is gone at once"


def test_a_variable_is_known_to_workloads_and_not_taken_away_while_one_uses_it(call):
    body = {"id": "w", "name": "w", "image": "i", "environment": {"URL": "http://${HUB}/${POOL_ID}"}}
    problem(call("POST", "workloads", body), 422)
    call("PUT", "settings", {"variables": {"HUB": "hub.example"}})
    assert call("POST", "workloads", body).status_code == 201
    found = problem(call("PUT", "settings", {"variables": {}}), 422)
    assert found["errors"][0]["code"] == "variable_in_use"


@pytest.mark.parametrize("kind", ["workloads", "pools", "sync-specs", "credentials"])
def test_etags_guard_every_put(call, kind):
    from tests.make import API_SINK, make_sync_spec

    credential = {"id": "x", "name": "x", "accessKeyId": "A", "secretAccessKey": "s"}
    match kind:
        case "workloads":
            make_workload("x")
        case "pools":
            make_pool("x")
        case "sync-specs":
            make_sync_spec(make_pool(), id="x", sink=API_SINK)
        case "credentials":
            call("POST", "credentials", credential)
    found = call("GET", f"{kind}/x")
    body = credential if kind == "credentials" else found.json()
    problem(call("PUT", f"{kind}/x", {**body, "name": "lost"}, If_Match='"stale"'), 412, "precondition_failed")
    problem(call("PUT", f"{kind}/x", {"nonsense": 1}, If_Match='"stale"'), 412), "it is checked first"
    changed = call("PUT", f"{kind}/x", {**body, "name": "new"}, If_Match=found["ETag"])

    assert changed.status_code == 200, changed.content
    assert changed["ETag"] != found["ETag"]
    assert call("GET", f"{kind}/x")["ETag"] == changed["ETag"]
    problem(call("PUT", f"{kind}/x", body, If_Match=found["ETag"]), 412)
    assert (
        call("PUT", f"{kind}/x", {**body, "name": "again"}, If_Match=f'"other", {changed["ETag"]}').status_code == 200
    )
    assert call("PUT", f"{kind}/x", body, If_Match="*").status_code == 200
    found = problem(call("PUT", f"{kind}/x", {**body, "id": "y"}), 422)
    assert found["errors"][0]["pointer"] == "/id"


def test_what_moves_by_itself_is_no_part_of_an_etag(call):
    pool = make_pool("p")
    before = call("GET", "pools/p")["ETag"]
    make_container(pool)
    assert call("GET", "pools/p")["ETag"] == before


def test_stats_add_up(call):
    pool = make_pool("p", max_size=7)
    make_container(pool)
    make_container(pool, state="claimed")
    found = call("GET", "stats").json()

    assert found["pools"] == {"total": 1, "byState": {"healthy": 1}}
    assert found["containers"] == {"total": 2, "max": 7, "byState": {"claimed": 1, "idle": 1}}
    assert found["tenants"] == {"assigned": 0, "releaseFailed": 0}
    assert found["claims"] == {"last1h": 0, "warm": 0, "cold": 0, "p50Ms": None, "p99Ms": None}
    assert found["sync"]["oldestUnsavedMs"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "pools/p/pause"),
        ("DELETE", "workloads/w"),
        ("POST", "tenants/t/heartbeat"),
        ("DELETE", "tenants/t/state"),
    ],
)
def test_a_body_where_none_is_taken_is_named(call, method, path):
    found = problem(call(method, path, {"force": True}), 422)
    assert found["errors"] == [{"pointer": "/force", "detail": "Unknown field.", "code": "unknown"}]
    problem(call(method, path, raw="{", content_type="application/json"), 400)
    problem(call(method, path, raw="x", content_type="text/plain"), 415)


def test_a_metrics_token_opens_the_metrics_and_nothing_else(call, settings):
    problem(call("GET", "metrics", key="a-token"), 401)
    settings.BOILERHOUSE_METRICS_TOKEN = "a-token"
    answer = call("GET", "metrics", key="a-token")
    assert answer.status_code == 200
    assert b"boilerhouse_" in answer.content
    problem(call("GET", "metrics", key="a-toke"), 401)
    problem(call("GET", "pools", key="a-token"), 401)
    problem(call("GET", "metrics", key=None), 401)

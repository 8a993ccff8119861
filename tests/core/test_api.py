"""General behaviour of the API: keys, problem documents, strict bodies, lists."""

from __future__ import annotations

import pytest

from boilerhouse.core.events import emit
from boilerhouse.core.models import Event
from pools.models import Pool, Workload
from tests.api_calls import problem
from tests.make import API_MAPPING, API_SINK, make_container, make_pool, make_sync_spec, make_workload


def test_health_is_public_and_unknown_paths_are_problems(call):
    assert call("GET", "health", key=None).json()["status"] == "ok"
    problem(call("GET", "nothing/here", key=None), 404, "not_found")
    problem(call("PATCH", "pools"), 405)


@pytest.mark.parametrize(
    ("raw", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ('{"id": "a\\u0000b"}', "application/json", 400),
        ('{"id": NaN}', "application/json", 400),
        ("[" * 100_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        ("a=b", "application/x-www-form-urlencoded", 415),
        ("[]", "application/json", 422),
        ("3", "application/json", 422),
    ],
)
def test_bodies_that_are_not_what_they_say_are_refused(call, raw, content_type, status):
    for path in ("workloads", "pools", "sync-specs", "tenants/t/claim"):
        problem(call("POST", path, raw=raw, content_type=content_type), status)
    assert not Workload.objects.exists()


def test_unknown_fields_and_wrong_values_are_named_by_pointer(call):
    body = {
        "name": "n", "image": "i", "colour": "red", "environment": {"A": "${NOPE}", "B=": "x"},
        "ports": [{"name": "p", "containerPort": 0}], "volumes": {"state": {"containerPath": "../etc"}},
        "resources": {"memoryMb": -1}, "security": {"runAsUser": 0, "networkMode": "host"},
        "configSchema": {"type": "nonsense"},
    }  # fmt: skip
    problem(call("POST", "workloads", body), 422)
    del body["colour"]
    found = problem(call("POST", "workloads", body), 422, "invalid")

    assert {error["pointer"] for error in found["errors"]} == {
        "/environment/A", "/environment/B=", "/ports/0/containerPort", "/volumes/state/containerPath",
        "/resources/memoryMb", "/security/runAsUser", "/security/networkMode", "/configSchema/type",
    }  # fmt: skip


def test_an_unknown_field_is_refused_at_any_depth(call):
    found = problem(call("POST", "workloads", {"name": "n", "image": "i", "volumes": {"state": {"path": "/s"}}}), 422)

    assert found["errors"] == [{"pointer": "/volumes/state/path", "detail": "Unknown field.", "code": "unknown"}]


def test_a_workload_comes_back_as_it_was_given_keys_untouched(call):
    body = {
        "name": "My Agent", "image": "img:1", "command": ["a", ""], "environment": {"FOO_BAR": "1", "x-y": "${POOL_ID}"},
        "configSchema": {"type": "object", "$defs": {"a_b": {"type": "string"}}, "properties": {"k_v": {"$ref": "#/$defs/a_b"}}},
        "volumes": {"custom": [{"name": "data", "containerPath": "/data"}]},
    }  # fmt: skip
    made = call("POST", "workloads", body).json()

    assert made["id"] == "my-agent"
    assert made["environment"] == body["environment"]
    assert made["configSchema"] == body["configSchema"]
    assert made["volumes"] == {"custom": [{"name": "data", "containerPath": "/data", "mode": "rw"}]}
    assert call("GET", "workloads/my-agent").json() == made
    assert call("POST", "workloads", body).json()["id"] == "my-agent-2"
    problem(call("POST", "workloads", {**body, "id": "my-agent"}), 409, "id_taken")
    assert call("POST", "workloads", {**made, "id": "copy"}).status_code == 201


def test_a_pool_with_impossible_sizes_is_refused(call):
    make_workload("w")
    found = problem(call("POST", "pools", {"workloadId": "w", "minSize": 5, "maxSize": 2, "minIdle": 3}), 422)
    assert {error["pointer"] for error in found["errors"]} == {"/minSize", "/minIdle"}
    found = problem(call("POST", "pools", {"workloadId": "none"}), 422)
    assert found["errors"][0]["pointer"] == "/workloadId"
    assert not Pool.objects.exists()


def test_scale_and_delete_answer_as_the_contract_says(call):
    pool = make_pool(min_size=1, max_size=4)
    make_container(pool, state="claimed")

    found = problem(call("POST", f"pools/{pool.pk}/scale", {"targetSize": 9}), 422)
    assert found["errors"][0]["pointer"] == "/targetSize"
    assert call("POST", f"pools/{pool.pk}/scale", {"targetSize": 2}).status_code == 202
    problem(call("DELETE", f"pools/{pool.pk}"), 409, "pool_in_use")
    problem(call("DELETE", f"workloads/{pool.workload_id}"), 409, "workload_in_use")
    assert call("DELETE", f"pools/{pool.pk}?force=true").status_code == 202
    assert call("GET", f"pools/{pool.pk}").json()["status"]["state"] == "draining"


def spec(pool, mappings=None, sink=None, **over):
    body = {
        "poolId": pool.pk,
        "mappings": mappings or [API_MAPPING],
        "sink": {**API_SINK, **(sink or {})},
        "policy": {},
    }
    return {**body, **over}


def test_an_unreachable_sink_does_not_refuse_a_spec_and_its_secret_is_never_shown(call):
    made = call("POST", "sync-specs", spec(make_pool(), id="s"))

    assert made.status_code == 201
    assert made.json()["sinkHealth"]["code"] == "unreachable"
    for path in ("sync-specs", "sync-specs/s", "events"):
        assert "very-secret" not in call("GET", path).content.decode()
    assert call("DELETE", "sync-specs/s").status_code == 204


@pytest.mark.parametrize(
    ("mappings", "sink", "pointer"),
    [
        ([{**API_MAPPING, "containerPath": "/elsewhere"}], {}, "/mappings/0/containerPath"),
        ([{**API_MAPPING, "containerPath": "/run/secrets"}], {}, "/mappings/0/containerPath"),
        ([API_MAPPING], {"prefix": "no-tenant/"}, "/mappings/0/sinkPath"),
        (
            [API_MAPPING, {**API_MAPPING, "containerPath": "/state/x", "sinkPath": "b/"}],
            {},
            "/mappings/1/containerPath",
        ),
        ([API_MAPPING, {**API_MAPPING, "direction": "upload", "sinkPath": "s/in/"}], {}, "/mappings/1/sinkPath"),
        ([{**API_MAPPING, "pattern": "{{.*}}"}], {}, "/mappings/0/pattern"),
        ([API_MAPPING], {"prefix": "x${tenantId}y"}, "/sink/prefix"),
        ([API_MAPPING], {"rcloneFlags": ["--config=/x"]}, "/sink/rcloneFlags/0"),
        ([API_MAPPING], {"accessKeyId": None, "secretAccessKey": None}, "/sink/accessKeyId"),
        ([API_MAPPING], {"endpoint": "http://user:pw@x"}, "/sink/endpoint"),
    ],
)
def test_specs_that_cannot_be_are_refused_by_pointer(call, mappings, sink, pointer):
    found = problem(call("POST", "sync-specs", spec(make_pool(), mappings, sink)), 422)

    assert pointer in {error["pointer"] for error in found["errors"]}, found


def test_another_pools_location_is_taken(call):
    """Pool A in mode sync would delete the files that pool B saves below it."""
    make_sync_spec(sink={"endpoint": "http://127.0.0.1:1", "prefix": "t/${tenantId}"})
    found = problem(call("POST", "sync-specs", spec(make_pool(), [{**API_MAPPING, "sinkPath": "state/deeper/"}])), 422)

    assert found["errors"][0]["code"] == "location_conflict"


def test_a_static_download_cannot_reach_tenants_state(call):
    """{direction: download, prefix: ""} would restore everybody's state into anyone."""
    make_sync_spec(sink={"endpoint": "http://127.0.0.1:1", "prefix": "t/${tenantId}"})
    mapping = {"containerPath": "/state", "sinkPath": "t/", "direction": "download", "mode": "sync"}
    problem(call("POST", "sync-specs", spec(make_pool(), [mapping], {"prefix": ""})), 422)


@pytest.mark.parametrize("tenant", ["a%2Fb", "..", "%2e%2e", "-x", "a%20b", "a%00b", "x" * 129, "ä"])
def test_bad_tenant_ids_are_422_or_404_and_never_500(call, tenant):
    pool = make_pool()
    for method, path, body in (
        ("POST", "claim", {"poolId": pool.pk}),
        ("POST", "release", {}),
        ("GET", "status", None),
    ):
        assert call(method, f"tenants/{tenant}/{path}", body).status_code in (404, 422)


def test_lists_page_by_cursor_and_refuse_what_they_do_not_know(call):
    for number in range(5):
        make_workload(f"w{number}")
    first = call("GET", "workloads?limit=2").json()
    second = call("GET", f"workloads?limit=2&cursor={first['nextCursor']}").json()
    third = call("GET", f"workloads?limit=2&cursor={second['nextCursor']}").json()

    assert [w["id"] for page in (first, second, third) for w in page["items"]] == ["w4", "w3", "w2", "w1", "w0"]
    assert third["nextCursor"] is None
    for query in ("limit=0", "limit=201", "limit=x", "cursor=zzz", "nope=1", "limit=99999999999999999999"):
        problem(call("GET", f"workloads?{query}"), 422)


def test_events_after_an_id_come_oldest_first_and_filter(call):
    for pool in ("a", "b", "a"):
        emit("pool.scaled", pool_id=pool)
    first = Event.objects.earliest("id").pk
    found = call("GET", f"events?after={first - 1}&poolId=a").json()["items"]

    assert [event["payload"]["poolId"] for event in found] == ["a", "a"]
    assert found[0]["id"] < found[1]["id"]
    assert call("GET", f"events?after={found[-1]['id']}").json()["items"] == []


def test_request_ids_are_taken_over_only_when_safe(client, db):
    assert client.get("/api/v1/health", headers={"X-Request-ID": "abc-1"})["X-Request-ID"] == "abc-1"
    assert client.get("/api/v1/health", headers={"X-Request-ID": "a b\tc"})["X-Request-ID"] != "a b\tc"


def test_lists_ask_the_database_the_same_however_long_they_are(call, django_assert_max_num_queries):
    for number in range(12):
        make_pool(f"q{number}", workload=make_workload(f"q{number}"))
        make_sync_spec(Pool.objects.get(pk=f"q{number}"), sink={"prefix": f"q{number}/${{tenantId}}/"})
        make_container(Pool.objects.get(pk=f"q{number}"))
    for path in (
        "workloads",
        "pools",
        "sync-specs",
        "containers",
        "tenants",
        "sync-runs",
        "events",
        "audit",
        "api-keys",
    ):
        with django_assert_max_num_queries(5):
            assert call("GET", path).status_code == 200


@pytest.mark.any_database
@pytest.mark.django_db(transaction=True)
def test_a_list_survives_what_is_deleted_while_it_is_made(client, data_dir, transactional_db):
    """A workload's version may go between the list and the look at it (P12)."""
    import threading

    from django.db import connection, transaction

    from tests.api_calls import Call

    call, over = Call(client), threading.Event()

    def churn():
        number = 0
        while not over.is_set():
            with transaction.atomic():
                make_workload(f"churn-{number}")
            Workload.objects.filter(pk=f"churn-{number}").delete()
            number += 1
        connection.close()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert {call("GET", "workloads").status_code for _ in range(150)} == {200}
    finally:
        over.set()
        thread.join()

"""Sync specs that change and credentials that rotate, by the API: nothing shown, nothing dropped unasked (P10)."""

from __future__ import annotations

import json

import pytest
from django.db import connection

from boilerhouse.core.api_keys import create_key
from boilerhouse.core.models import Role
from pools.states import ContainerState
from syncing.models import Credential, SyncMapping, SyncSpec
from tests.make import make_container, make_pool

SECRET = "very-secret-key-of-nobody"


@pytest.fixture
def call(client, db, data_dir):
    keys = {role: create_key(name=role.value, role=role)[1] for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER)}

    def call(method, path, body=None, status=200, role=Role.ADMIN):
        data = "" if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {keys[role]}"}
        answer = client.generic(method, f"/api/v1/{path}", data, content_type="application/json", headers=headers)
        assert answer.status_code == status, answer.content
        assert SECRET not in answer.content.decode()
        return answer.json() if answer.content else None

    return call


@pytest.fixture
def pool(db, data_dir):
    return make_pool("notes")


def body(**over):
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    sink = {"type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/"}
    sink |= {"endpoint": "http://127.0.0.1:1", "accessKeyId": "AKID", "secretAccessKey": SECRET, **over.pop("sink", {})}
    sink = {key: value for key, value in sink.items() if value is not None}
    policy = {"onClaim": True, "onRelease": True}
    return {"id": "notes", "poolId": "notes", "mappings": [mapping], "sink": sink, "policy": policy, **over}


def test_what_get_gave_may_be_sent_back_and_keeps_the_secret(call, pool):
    call("POST", "sync-specs", body(), 201)
    found = call("GET", "sync-specs/notes")
    assert "secretAccessKey" not in found["sink"]
    mapping = SyncMapping.objects.get().pk
    found["policy"]["intervalMs"] = 60_000
    assert call("PUT", "sync-specs/notes", found)["policy"]["intervalMs"] == 60_000
    spec = SyncSpec.objects.get()
    assert spec.sink_secrets == {"accessKeyId": "AKID", "secretAccessKey": SECRET}
    assert spec.version == 2
    assert SyncMapping.objects.get().pk == mapping, "its history stays with it"


@pytest.mark.parametrize("change", [{"endpoint": "http://127.0.0.1:2"}, {"accessKeyId": "AKID2"}, {"bucket": "other"}])
def test_a_kept_secret_is_not_lent_to_another_place(call, pool, change):
    call("POST", "sync-specs", body(), 201)
    found = call("GET", "sync-specs/notes")
    answer = call("PUT", "sync-specs/notes", {**found, "sink": {**found["sink"], **change}}, 422)
    assert answer["errors"][0]["pointer"] == "/sink/secretAccessKey"
    assert SyncSpec.objects.get().version == 1


def test_a_put_that_drops_what_held_tenants_have_saved_needs_force(call, pool):
    call("POST", "sync-specs", body(), 201)
    make_container(pool, state=ContainerState.CLAIMED)
    logs = {"containerPath": "/state/logs", "sinkPath": "logs/", "direction": "upload", "mode": "copy"}
    changed = body(mappings=[logs])
    answer = call("PUT", "sync-specs/notes", changed, 409)
    assert (answer["code"], "/state" in answer["detail"]) == ("coverage_held", True)
    assert call("GET", "sync-specs/notes")["mappings"][0]["containerPath"] == "/state"
    call("PUT", "sync-specs/notes", body(policy={"onClaim": True}), 409)
    call("PUT", "sync-specs/notes?force=true", changed)
    assert [m.container_path for m in SyncMapping.objects.all()] == ["/state/logs"]
    call("DELETE", "sync-specs/notes", None, 409)
    call("DELETE", "sync-specs/notes?force=true", None, 204)


def test_mappings_change_places_without_losing_their_rows(call, pool):
    ways = [{"containerPath": f"/state/{n}", "sinkPath": f"{n}/", "direction": "upload", "mode": "copy"} for n in "abc"]
    call("POST", "sync-specs", body(mappings=ways), 201)
    rows = dict(SyncMapping.objects.values_list("container_path", "pk"))
    call("PUT", "sync-specs/notes", body(mappings=[ways[2], ways[0]]))
    found = list(SyncMapping.objects.order_by("position").values_list("container_path", "pk", "position"))
    assert found == [("/state/c", rows["/state/c"], 0), ("/state/a", rows["/state/a"], 1)]


def test_pool_and_id_are_fixed_and_nothing_changes_then(call, pool):
    make_pool("other")
    call("POST", "sync-specs", body(), 201)
    assert call("PUT", "sync-specs/notes", body(poolId="other"), 422)["errors"][0]["pointer"] == "/poolId"
    assert call("PUT", "sync-specs/notes", body(id="else"), 422)["errors"][0]["pointer"] == "/id"
    call("PUT", "sync-specs/no-such", body(), 404)
    assert SyncSpec.objects.get().version == 1


def test_a_credential_is_stored_encrypted_used_by_name_and_rotated(call, pool):
    given = {"id": "minio", "name": "MinIO", "accessKeyId": "AKID", "secretAccessKey": SECRET}
    made = call("POST", "credentials", given, 201)
    assert (made["accessKeyId"], made["usedBy"]) == ("AKID", [])
    call("POST", "credentials", given, 409)
    sink = {"accessKeyId": None, "secretAccessKey": None, "credentialId": "minio"}
    call("POST", "sync-specs", body(sink={**sink, "credentialId": "no-such"}), 422)
    call("POST", "sync-specs", body(sink={"credentialId": "minio"}), 422)
    call("POST", "sync-specs", body(sink=sink), 201)
    assert call("GET", "sync-specs/notes")["sink"]["credentialId"] == "minio"
    assert SyncSpec.objects.get().resolved_sink().secret_access_key == SECRET
    found = call("GET", "sync-specs/notes")
    call("PUT", "sync-specs/notes", found)
    assert call("GET", "credentials")["items"][0]["usedBy"] == ["notes"]
    call("DELETE", "credentials/minio", None, 409)
    call("PUT", "credentials/minio", {**given, "accessKeyId": "AKID2", "secretAccessKey": "another"})
    sink_now = SyncSpec.objects.get().resolved_sink()
    assert (sink_now.access_key_id, sink_now.secret_access_key) == ("AKID2", "another")
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM syncing_credential")
        assert "another" not in str(cursor.fetchone())
    call("DELETE", "sync-specs/notes", None, 204)
    call("DELETE", "credentials/minio", None, 204)
    call("PUT", "credentials/minio", given, 404)


def test_credentials_are_for_admins_alone(call, pool):
    given = {"name": "MinIO", "accessKeyId": "AKID", "secretAccessKey": SECRET}
    for role in (Role.OPERATOR, Role.VIEWER):
        call("GET", "credentials", None, 403, role)
        call("POST", "credentials", given, 403, role)
        call("DELETE", "credentials/x", None, 403, role)
    call("POST", "credentials", {**given, "secretAccessKey": ""}, 422)
    call("POST", "credentials", {**given, "more": 1}, 422)
    assert not Credential.objects.exists()

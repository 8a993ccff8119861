"""Changing sync specs and rotating credentials through the API: nothing is shown, nothing is dropped unasked (P10)."""

from __future__ import annotations

import pytest
from django.db import connection

from boilerhouse.core.models import Role
from pools.states import ContainerState
from syncing.models import Credential, SyncMapping, SyncSpec
from tests.make import make_container, make_pool
from tests.spec_bodies import SECRET, spec_body


@pytest.fixture
def pool(db, data_dir):
    return make_pool("notes")


def test_what_get_gave_may_be_sent_back_and_keeps_the_secret(ask_api, pool):
    ask_api("POST", "sync-specs", spec_body(), 201)
    found = ask_api("GET", "sync-specs/notes")
    assert "secretAccessKey" not in found["sink"]
    mapping = SyncMapping.objects.get().pk
    found["policy"]["intervalMs"] = 60_000
    assert ask_api("PUT", "sync-specs/notes", found)["policy"]["intervalMs"] == 60_000
    spec = SyncSpec.objects.get()
    assert spec.sink_secrets == {"accessKeyId": "AKID", "secretAccessKey": SECRET}
    assert spec.version == 2
    assert SyncMapping.objects.get().pk == mapping, "its history stays with it"


@pytest.mark.parametrize("change", [{"endpoint": "http://127.0.0.1:2"}, {"accessKeyId": "AKID2"}, {"bucket": "other"}])
def test_a_kept_secret_is_not_lent_to_another_place(ask_api, pool, change):
    ask_api("POST", "sync-specs", spec_body(), 201)
    found = ask_api("GET", "sync-specs/notes")
    answer = ask_api("PUT", "sync-specs/notes", {**found, "sink": {**found["sink"], **change}}, 422)
    assert answer["errors"][0]["pointer"] == "/sink/secretAccessKey"
    assert SyncSpec.objects.get().version == 1


def test_a_put_that_drops_what_held_tenants_have_saved_needs_force(ask_api, pool):
    ask_api("POST", "sync-specs", spec_body(), 201)
    make_container(pool, state=ContainerState.CLAIMED)
    logs = {"containerPath": "/state/logs", "sinkPath": "logs/", "direction": "upload", "mode": "copy"}
    changed = spec_body(mappings=[logs])
    answer = ask_api("PUT", "sync-specs/notes", changed, 409)
    assert (answer["code"], "/state" in answer["detail"]) == ("coverage_held", True)
    assert ask_api("GET", "sync-specs/notes")["mappings"][0]["containerPath"] == "/state"
    ask_api("PUT", "sync-specs/notes", spec_body(policy={"onClaim": True}), 409)
    ask_api("PUT", "sync-specs/notes?force=true", changed)
    assert [m.container_path for m in SyncMapping.objects.all()] == ["/state/logs"]
    ask_api("DELETE", "sync-specs/notes", None, 409)
    ask_api("DELETE", "sync-specs/notes?force=true", None, 204)


def test_mappings_change_places_without_losing_their_rows(ask_api, pool):
    ways = [{"containerPath": f"/state/{n}", "sinkPath": f"{n}/", "direction": "upload", "mode": "copy"} for n in "abc"]
    ask_api("POST", "sync-specs", spec_body(mappings=ways), 201)
    rows = dict(SyncMapping.objects.values_list("container_path", "pk"))
    ask_api("PUT", "sync-specs/notes", spec_body(mappings=[ways[2], ways[0]]))
    found = list(SyncMapping.objects.order_by("position").values_list("container_path", "pk", "position"))
    assert found == [("/state/c", rows["/state/c"], 0), ("/state/a", rows["/state/a"], 1)]


def test_pool_and_id_are_fixed_and_nothing_changes_then(ask_api, pool):
    make_pool("other")
    ask_api("POST", "sync-specs", spec_body(), 201)
    assert ask_api("PUT", "sync-specs/notes", spec_body(poolId="other"), 422)["errors"][0]["pointer"] == "/poolId"
    assert ask_api("PUT", "sync-specs/notes", spec_body(id="else"), 422)["errors"][0]["pointer"] == "/id"
    ask_api("PUT", "sync-specs/no-such", spec_body(), 404)
    assert SyncSpec.objects.get().version == 1


def test_a_credential_is_stored_encrypted_used_by_name_and_rotated(ask_api, pool):
    given = {"id": "minio", "name": "MinIO", "accessKeyId": "AKID", "secretAccessKey": SECRET}
    made = ask_api("POST", "credentials", given, 201)
    assert (made["accessKeyId"], made["usedBy"]) == ("AKID", [])
    ask_api("POST", "credentials", given, 409)
    sink = {"accessKeyId": None, "secretAccessKey": None, "credentialId": "minio"}
    ask_api("POST", "sync-specs", spec_body(sink={**sink, "credentialId": "no-such"}), 422)
    ask_api("POST", "sync-specs", spec_body(sink={"credentialId": "minio"}), 422)
    ask_api("POST", "sync-specs", spec_body(sink=sink), 201)
    assert ask_api("GET", "sync-specs/notes")["sink"]["credentialId"] == "minio"
    assert SyncSpec.objects.get().resolved_sink().secret_access_key == SECRET
    found = ask_api("GET", "sync-specs/notes")
    ask_api("PUT", "sync-specs/notes", found)
    assert ask_api("GET", "credentials")["items"][0]["usedBy"] == ["notes"]
    ask_api("DELETE", "credentials/minio", None, 409)
    ask_api("PUT", "credentials/minio", {**given, "accessKeyId": "AKID2", "secretAccessKey": "another"})
    sink_now = SyncSpec.objects.get().resolved_sink()
    assert (sink_now.access_key_id, sink_now.secret_access_key) == ("AKID2", "another")
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM syncing_credential")
        assert "another" not in str(cursor.fetchone())
    ask_api("DELETE", "sync-specs/notes", None, 204)
    ask_api("DELETE", "credentials/minio", None, 204)
    ask_api("PUT", "credentials/minio", given, 404)


def test_credentials_are_for_admins_alone(ask_api, pool):
    given = {"name": "MinIO", "accessKeyId": "AKID", "secretAccessKey": SECRET}
    for role in (Role.OPERATOR, Role.VIEWER):
        ask_api("GET", "credentials", None, 403, role)
        ask_api("POST", "credentials", given, 403, role)
        ask_api("DELETE", "credentials/x", None, 403, role)
    ask_api("POST", "credentials", {**given, "secretAccessKey": ""}, 422)
    ask_api("POST", "credentials", {**given, "more": 1}, 422)
    assert not Credential.objects.exists()

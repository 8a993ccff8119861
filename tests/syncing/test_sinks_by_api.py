"""Local and WebDAV sinks through the API: accepted values, shown values, values that a PUT keeps (P10,
hazards.md#c13)."""

from __future__ import annotations

import pytest
from django.db import connection

from syncing.models import SyncSpec
from tests.make import make_pool
from tests.spec_bodies import SECRET, spec_body


@pytest.fixture
def pool(data_dir):
    return make_pool("notes")


def spec(sink, sink_path="t/${tenantId}/", **over):
    mapping = {"containerPath": "/state", "sinkPath": sink_path, "direction": "bidirectional", "mode": "sync"}
    return {**spec_body(), "mappings": [mapping], "sink": sink, **over}


def pointers(answer):
    return [(error["pointer"], error["code"]) for error in answer["errors"]]


def test_a_local_sink_lies_below_the_root_that_the_deployment_allows(ask_api, pool, settings, tmp_path):
    root = tmp_path / "sinks"
    root.mkdir()
    local = {"type": "local", "path": str(root / "one")}
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = ""
    found = ask_api("POST", "sync-specs", spec(local), 422)
    assert pointers(found) == [("/sink/path", "not_allowed")], "no root, no local sink"
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(root)
    for path in ("/etc", f"{root}/../x", f"{root}x", "relative", f"{root}/.boilerhouse"):
        answer = ask_api("POST", "sync-specs", spec({"type": "local", "path": path}), 422)
        assert pointers(answer)[0][0] == "/sink/path", path
    made = ask_api("POST", "sync-specs", spec(local), 201)
    assert (made["sink"], made["sinkHealth"]["state"]) == (local, "healthy")
    assert made["sinkHealth"]["conditionalWrites"] is False
    assert SyncSpec.objects.get().mappings.get().location("alice") == "one/t/alice"


def test_local_sinks_in_one_another_are_one_place(ask_api, pool, settings, tmp_path):
    """Directories that overlap on disk are refused."""
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(tmp_path)
    ask_api("POST", "sync-specs", spec({"type": "local", "path": f"{tmp_path}/a"}), 201)
    other = spec({"type": "local", "path": f"{tmp_path}/a/t"}, "${tenantId}/deeper/", id="other")
    assert pointers(ask_api("POST", "sync-specs", other, 422)) == [("/mappings/0/sinkPath", "location_conflict")]


def test_an_unmounted_root_is_missing_and_not_made(ask_api, pool, settings, tmp_path):
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(tmp_path / "mount")
    made = ask_api("POST", "sync-specs", spec({"type": "local", "path": f"{tmp_path}/mount/a"}), 201)
    assert (made["sinkHealth"]["state"], made["sinkHealth"]["code"]) == ("unhealthy", "missing")
    assert not (tmp_path / "mount").exists()


def test_header_values_are_write_only_and_kept_for_the_same_endpoint_only(ask_api, pool):
    http = {"type": "http", "endpoint": "http://127.0.0.1:1/dav/", "headers": {"Authorization": SECRET}}
    made = ask_api("POST", "sync-specs", spec(http), 201)
    assert made["sink"] == {"type": "http", "endpoint": "http://127.0.0.1:1/dav", "headers": {"Authorization": None}}
    assert made["sinkHealth"]["code"] == "unreachable"
    with connection.cursor() as cursor:
        cursor.execute("SELECT sink, sink_secrets FROM syncing_syncspec")
        assert SECRET not in str(
            [bytes(value) if isinstance(value, memoryview) else value for value in cursor.fetchone()]
        )

    made["policy"]["intervalMs"] = 60_000
    ask_api("PUT", "sync-specs/notes", made)
    assert SyncSpec.objects.get().sink_secrets == {"headers": {"Authorization": SECRET}}
    made["sink"]["endpoint"] = "http://127.0.0.1:2/dav"
    assert pointers(ask_api("PUT", "sync-specs/notes", made, 422)) == [("/sink/headers/Authorization", "required")]
    assert len(ask_api("GET", "sync-specs/notes/probes")["items"]) == 2


@pytest.mark.parametrize(
    ("sink", "pointer"),
    [
        ({"type": "ftp"}, "/sink/type"),
        ({}, "/sink/type"),
        ({"type": "http"}, "/sink/endpoint"),
        ({"type": "http", "endpoint": "http://u:p@h/"}, "/sink/endpoint"),
        ({"type": "http", "endpoint": "http://h/../x"}, "/sink/endpoint"),
        ({"type": "http", "endpoint": "http://h", "bucket": "b"}, "/sink/bucket"),
        ({"type": "http", "endpoint": "http://h", "headers": {"Host": "x"}}, "/sink/headers/Host"),
        ({"type": "http", "endpoint": "http://h", "headers": {"A": "x\r\nB: y"}}, "/sink/headers/A"),
        ({"type": "local", "path": "/x", "prefix": "y"}, "/sink/prefix"),
    ],
)
def test_bad_sinks_are_refused_with_a_pointer(ask_api, pool, sink, pointer):
    assert pointers(ask_api("POST", "sync-specs", spec(sink), 422))[0][0] == pointer


def test_nested_webdav_addresses_are_one_place(ask_api, pool):
    ask_api("POST", "sync-specs", spec({"type": "http", "endpoint": "http://127.0.0.1:1/dav"}), 201)
    other = spec({"type": "http", "endpoint": "http://127.0.0.1:1/dav/t"}, "${tenantId}/x/", id="other")
    assert pointers(ask_api("POST", "sync-specs", other, 422)) == [("/mappings/0/sinkPath", "location_conflict")]

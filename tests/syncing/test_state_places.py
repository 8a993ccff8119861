"""A place is identified by an object in it: no spelling of a sink gives access to another's locations (P3, P5)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from boilerhouse.core.models import AuditEntry, Event
from boilerhouse.operations.supervisor import free_port
from pools import nodes, volumes
from pools.spec import Owner
from syncing import (
    backups,
    endpoints,
    erasure,
    errors,
    locations,
    places,
    probes,
    restores,
    saves,
    services,
    sink_checks,
    targets,
)
from syncing.jail import rclone_path
from syncing.locations import MARKER_ROOT, PLACE_KEY
from syncing.models import Backup, SavedState, SinkPlace, SyncMapping, SyncSpec
from syncing.sinks import LocalSink, S3Sink
from syncing.states import Direction, Mode, PlaceState, Trigger
from tenants import upkeep
from tests import sink_servers
from tests.make import make_pool, make_spec, make_sync_spec
from tests.providers import FaultyProxy
from tests.s3 import S3Server
from tests.tenant_state import TENANT, UID, TenantState

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

SPELLINGS = [
    "http://localhost:{port}", "http://127.1:{port}", "http://0:{port}", "http://[::ffff:127.0.0.1]:{port}",
    "http://127.0.0.1:{port}/.", "HTTP://2130706433:{port}/", "http://127.0.0.1:{port}//", "http://0x7f.1:{port}",
]  # fmt: skip
VICTIMS = {"containerPath": "/state", "sinkPath": "t/${tenantId}/state/", "direction": "bidirectional", "mode": "sync"}
EVERYBODYS = {"containerPath": "/state", "sinkPath": "t/", "direction": "download", "mode": "copy"}
NARROWER = {**VICTIMS, "sinkPath": "t/victim/${tenantId}/"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Disables concurrency outside the tests of it, and the probe's rclone steps, which have their own tests."""
    monkeypatch.setattr(places, "SETTLE_S", 0.02)
    monkeypatch.setattr(probes, "BY_RCLONE", [])


@pytest.fixture
def server(tmp_path):
    """An S3 server for one test, which can be stopped and emptied."""
    server = S3Server(tmp_path / "store")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def served(server):
    """Other servers of the same directory: ``served("s3")``, ``served("webdav", "testbucket")``."""
    running = []

    def serve(kind: str, below: str = "") -> str:
        port = free_port()
        keys = ["--auth-key", f"{server.access_key},{server.secret_key}"] if kind == "s3" else []
        command = [rclone_path(), "serve", kind, "--addr", f"127.0.0.1:{port}", *keys, str(server.directory / below)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "RCLONE_CONFIG": "/dev/null"}
        process = subprocess.Popen([*command, "--dir-cache-time", "100ms"], env=environment, **quiet)
        running.append(process)
        sink_servers.wait_for(port, process)
        return f"http://127.0.0.1:{port}"

    yield serve
    for process in running:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def ask(call):
    """Save a sync spec through the API, each with its own pool."""

    def ask(id: str, sink: dict, *mappings: dict, status: int = 201, method: str = "POST") -> dict:
        if method == "POST":
            make_pool(f"{id}-pool")
        policy = {"onClaim": True, "onRelease": True}
        body = {"id": id, "poolId": f"{id}-pool", "sink": sink, "mappings": list(mappings), "policy": policy}
        answer = call(method, "sync-specs" if method == "POST" else f"sync-specs/{id}", body)
        assert answer.status_code == status, answer.content
        return answer.json()

    return ask


def refused(answer: dict, by: str) -> str:
    (error,) = answer["errors"]
    assert (error["pointer"], error["code"]) == ("/mappings/0/sinkPath", "location_conflict")
    assert f"sync spec {by}, mapping 0" in error["detail"]
    return error["detail"]


class Claimed:
    """An assigned container of a spec's tenant, without an engine."""

    def __init__(self, spec_id: str, tenant_id: str, generation: int = 1) -> None:
        self.spec_id, self.tenant_id, self.generation = spec_id, tenant_id, generation
        self.container_id = volumes_of(tenant_id)
        self.state = volumes.volume_path(self.container_id, "state")

    @property
    def spec(self) -> SyncSpec:
        return SyncSpec.objects.select_related("credential").prefetch_related("mappings").get(pk=self.spec_id)

    def _target(self, lock: int) -> targets.TransferTarget:
        pool_id = self.spec.pool_id
        return targets.TransferTarget(
            self.container_id, Owner(UID, UID), pool_id, make_spec(), self.tenant_id, self.generation,
            lock, nodes.here(), is_stopped=True,
        )  # fmt: skip

    def restore(self) -> dict[str, str]:
        with volumes.locked(self.container_id, within_s=30) as lock:
            sink_states = sink_checks.check_spec(self.spec, self.tenant_id).answer()
            restores.restore(self._target(lock), sink_states, Trigger.CLAIM, lambda: True)
        return self.look()

    def look(self) -> dict[str, str]:
        return {str(one.relative_to(self.state)): one.read_text() for one in self.state.rglob("*") if one.is_file()}

    def write(self, **files: str) -> None:
        for name, content in files.items():
            (self.state / name).write_text(content)
            os.chown(self.state / name, UID, UID)

    def save(self) -> None:
        with volumes.locked(self.container_id, within_s=30) as lock:
            saves.save(self._target(lock), [self.spec], Trigger.RELEASE, lambda: True)


def volumes_of(tenant_id: str):
    from uuid import uuid4

    container_id = uuid4()
    volumes.prepare(container_id, UID, make_spec())
    return container_id


def victim_saves(diary: str = "VICTIM-PRIVATE") -> Claimed:
    victim = Claimed("victims", "victim")
    victim.restore()
    victim.write(diary=diary)
    victim.save()
    return victim


# An alias when it is saved ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        *SPELLINGS[:1],
        *(pytest.param(one, marks=pytest.mark.long) for one in SPELLINGS[1:4]),
    ],  # all have unit tests below
)
def test_another_spelling_of_an_endpoint_is_the_same_place(ask, server, spelling):
    """Six spellings of one endpoint were six places, and any tenant's state could be restored into another."""
    ask("victims", server.json(""), VICTIMS)
    alias = {**server.json(""), "endpoint": spelling.format(port=server.port)}

    refused(ask("a", alias, EVERYBODYS, status=422), "victims")
    refused(ask("b", alias, NARROWER, status=422), "victims")
    ask("c", alias, {**VICTIMS, "sinkPath": "elsewhere/${tenantId}/"})
    assert len({spec.place["id"] for spec in SyncSpec.objects.all()}) == 1


def test_another_address_of_a_store_is_the_same_place(ask, server, served):
    """The spelling does not show it: another port, a DNS alias, or a load balancer."""
    ask("victims", server.json(""), VICTIMS)
    alias = {**server.json(""), "endpoint": served("s3")}

    for mapping in (EVERYBODYS, NARROWER, VICTIMS):
        said = refused(ask("alias", alias, mapping, status=422), "victims")
        assert "the two sinks are the same place" in said
        SyncSpec.objects.filter(pk="alias").delete()
        from pools.models import Pool

        Pool.objects.filter(pk="alias-pool").delete()


@pytest.mark.parametrize(
    ("way", "is_first"),
    [
        ("webdav of the bucket", True),
        ("webdav above it", False),
        ("local", True),
        ("local, linked", False),
        pytest.param("webdav of the bucket", False, marks=pytest.mark.long),  # each way and each order are tried above
        pytest.param("webdav above it", True, marks=pytest.mark.long),
        pytest.param("local", False, marks=pytest.mark.long),
        pytest.param("local, linked", True, marks=pytest.mark.long),
    ],
)
def test_a_directory_that_is_reached_by_two_kinds_of_sink_is_one_place(ask, server, served, settings, way, is_first):
    """The bucket's directory over S3, WebDAV and as a local sink; detected whichever spec was saved first."""
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(server.directory)
    (server.directory / "link").symlink_to(server.directory / "testbucket")
    victims, other = server.json(""), {}
    match way:
        case "webdav of the bucket":
            other = {"type": "http", "endpoint": served("webdav", "testbucket")}
        case "webdav above it":
            other = {"type": "http", "endpoint": f"{served('webdav')}/testbucket"}
        case "local":
            other = {"type": "local", "path": str(server.directory / "testbucket")}
        case "local, linked":
            victims = {"type": "local", "path": str(server.directory / "testbucket")}
            other = {"type": "local", "path": str(server.directory / "link")}
    if is_first:
        ask("victims", victims, VICTIMS)
        refused(ask("other", other, EVERYBODYS, status=422), "victims")
    else:
        ask("other", other, EVERYBODYS)
        refused(ask("victims", victims, VICTIMS, status=422), "other")


def test_a_link_into_a_bucket_is_found_although_its_root_is_known_long_since(ask, server, settings, monkeypatch):
    """The other specs check a new folder of a known place too."""
    monkeypatch.setattr(places, "SETTLE_S", 1.5)  # the server keeps listings for a second
    root = server.directory.parent / "root"
    root.mkdir()
    server.sink().put("deep/kept", b"so that the server keeps the folder")
    (root / "link").symlink_to(server.directory / "testbucket" / "deep")
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(root)
    ask("plain", {"type": "local", "path": str(root / "plain")}, {**VICTIMS, "sinkPath": "${tenantId}/"})
    ask("victims", server.json(""), {**VICTIMS, "sinkPath": "deep/${tenantId}/"})
    refused(ask("other", {"type": "local", "path": str(root / "link")}, NARROWER, status=422), "victims")


@pytest.mark.parametrize("is_first", [True, False])
def test_webdav_addresses_in_one_another_are_one_place_through_an_alias(ask, server, served, is_first):
    """``/testbucket`` and, at another spelling, ``/testbucket/t`` hold the same files."""
    endpoint = served("webdav")
    outer = {"type": "http", "endpoint": f"{endpoint}/testbucket"}
    inner = {"type": "http", "endpoint": f"{served('webdav')}/testbucket/t"}
    (server.directory / "testbucket" / "t").mkdir()
    inside = {**VICTIMS, "sinkPath": "${tenantId}/state/"}
    if is_first:
        ask("victims", outer, VICTIMS)
        refused(ask("other", inner, inside, status=422), "victims")
    else:
        ask("other", inner, inside)
        refused(ask("victims", outer, VICTIMS, status=422), "other")


def test_a_place_in_another_is_found_where_the_inner_server_shows_nothing_above_it(ask, server, served, monkeypatch):
    """A server of a folder of the bucket; only the outer spec can see that it is inside its own locations."""
    monkeypatch.setattr(places, "SETTLE_S", 1.5)  # the server keeps listings for a second
    outer = {**VICTIMS, "sinkPath": "deep/in/${tenantId}/"}
    ask("victims", server.json(""), outer)
    (server.directory / "testbucket" / "deep" / "in").mkdir(parents=True)
    inner = {"type": "http", "endpoint": served("webdav", "testbucket/deep/in")}

    refused(ask("inner", inner, {**VICTIMS, "sinkPath": "${tenantId}/"}, status=422), "victims")
    assert not SyncSpec.objects.filter(pk="inner").exists()
    ask("beside", {"type": "http", "endpoint": served("webdav", "testbucket/deep")}, {**VICTIMS, "sinkPath": "b/${tenantId}/"})  # fmt: skip


def test_what_is_only_typed_is_not_tried_at_an_alias_either(ask, server, served):
    """The editor's probe writes to the locations in the form."""
    ask("victims", server.json(""), VICTIMS)
    sink = {k: v for k, v in server.json("").items() if k != "secretAccessKey"} | {"endpoint": served("s3")}
    secrets = {"accessKeyId": server.access_key, "secretAccessKey": server.secret_key}
    typed = SyncSpec(sink=sink, sink_secrets=secrets)
    place = {"container_path": "/state", "direction": Direction.UPLOAD, "mode": Mode.SYNC}
    meeting = SyncMapping(spec=typed, sink_path="t/victim/${tenantId}/", **place)
    with pytest.raises(errors.LocationConflict, match="sync spec victims"):
        places.check_typed(typed, [meeting])
    places.check_typed(typed, [SyncMapping(spec=typed, sink_path="x/${tenantId}/", **place)])


# An alias that is found later -------------------------------------------------------------------------


@pytest.fixture
def down_when_saved(ask, server):
    """The victim's spec is in use; mallory's was saved while its address did not answer."""
    ask("victims", server.json(""), VICTIMS)
    alias = sink_servers.Alias(server)

    def save(mapping: dict) -> str:
        made = ask("mallorys", {**server.json(""), "endpoint": alias.endpoint}, mapping)
        assert (made["sinkHealth"]["state"], made["sinkHealth"]["code"]) == ("unhealthy", "unreachable")
        alias.start()
        return made["id"]

    yield save
    alias.stop()


def test_everybodys_state_reaches_nobody_through_an_alias_that_was_down_when_it_was_saved(down_when_saved):
    """A restore of everything at an alias gave the victim's files to mallory; now nothing is restored."""
    victim_saves()
    down_when_saved(EVERYBODYS)
    mallory = Claimed("mallorys", "mallory")

    for _ in range(2):
        with pytest.raises(errors.LocationConflict, match="sync spec victims, mapping 0, because the two sinks are"):
            mallory.restore()
    assert mallory.look() == {}
    assert SyncSpec.objects.get(pk="victims").place_state == PlaceState.KNOWN
    assert Claimed("victims", "victim", 2).restore() == {"diary": "VICTIM-PRIVATE"}


def test_nothing_is_deleted_through_an_alias_that_was_down_when_it_was_saved(down_when_saved, server):
    """A save to an alias emptied the victim's state; now it fails, and the tenant's files are kept."""
    victim_saves()
    down_when_saved({**VICTIMS, "sinkPath": "t/${tenantId}/state/"})
    emptied = Claimed("mallorys", "victim", 2)
    emptied.write(other="x")

    with pytest.raises(errors.LocationConflict):
        emptied.save()
    run = SyncSpec.objects.get(pk="mallorys").runs.get()
    assert (run.state, run.error_code) == ("failed", "location_conflict")
    with pytest.raises(errors.LocationConflict):
        erasure.erase(SyncSpec.objects.get(pk="mallorys"), "victim", lambda: True)
    with pytest.raises(errors.LocationConflict):
        backups.expire(SyncSpec.objects.get(pk="mallorys"))
    assert emptied.look() == {"other": "x"}
    assert server.keys("t/victim/state") == {"diary": 14}
    assert Claimed("victims", "victim", 3).restore() == {"diary": "VICTIM-PRIVATE"}


def test_the_probe_says_whom_a_spec_meets_until_one_of_them_is_changed(down_when_saved, ask, server):
    """A conflict found later is shown as the sink's health, and ends with its cause."""
    spec_id = down_when_saved(EVERYBODYS)
    health = services.probe(SyncSpec.objects.get(pk=spec_id))
    assert (health["state"], health["code"]) == ("unhealthy", "location_conflict")
    assert "sync spec victims, mapping 0" in health["detail"]
    assert services.probe(SyncSpec.objects.get(pk="victims"))["state"] == "healthy"
    victim_saves()

    sink = {**SyncSpec.objects.get(pk=spec_id).sink, "secretAccessKey": server.secret_key}
    refused(ask(spec_id, sink, EVERYBODYS, status=422, method="PUT"), "victims")
    ask("victims", server.json(""), VICTIMS, status=200, method="PUT")
    changed = ask(spec_id, sink, {**EVERYBODYS, "sinkPath": "given/"}, status=200, method="PUT")
    assert changed["sinkHealth"]["state"] == "healthy"
    server.sink().put("given/a", b"for all")
    assert Claimed(spec_id, "mallory").restore() == {"a": "for all"}


def test_a_block_ends_when_the_other_spec_is_gone(down_when_saved):
    """Only the cause of a conflict keeps a spec from its sink."""
    spec_id = down_when_saved(VICTIMS)
    services.probe(SyncSpec.objects.get(pk=spec_id))
    SyncSpec.objects.filter(pk="victims").delete()
    upkeep.probe_sink(spec_id)
    spec = SyncSpec.objects.get(pk=spec_id)
    assert (spec.place_state, spec.sink_health["state"]) == (PlaceState.KNOWN, "healthy")


@pytest.mark.parametrize("asked_first", ["older", "newer"])
def test_specs_of_before_get_their_places_at_first_use_and_the_older_of_two_goes_on(
    data_dir, transactional_db, server, served, asked_first
):
    """After an upgrade no spec has a known place; aliases that were accepted before are distinguished then."""
    state = server.json("")
    secrets = {"accessKeyId": server.access_key, "secretAccessKey": str(state.pop("secretAccessKey"))}
    mappings = [{"sink_path": "t/${tenantId}/state/"}]
    older = make_sync_spec(sink=state, sink_secrets=secrets, mappings=mappings, id="older")
    newer = make_sync_spec(
        sink={**state, "endpoint": served("s3")}, sink_secrets=secrets, mappings=mappings, id="newer",
        located_at=timezone.now() + timedelta(seconds=1),
    )  # fmt: skip
    alone = make_sync_spec(sink={**state, "prefix": "alone/${tenantId}/"}, sink_secrets=secrets, id="alone")

    first, second = (older, newer) if asked_first == "older" else (newer, older)
    for spec in (first, second):
        with contextlib.suppress(errors.LocationConflict):
            places.sink_of(SyncSpec.objects.get(pk=spec.pk))
    states = dict(SyncSpec.objects.values_list("pk", "place_state"))
    assert states == {"older": PlaceState.KNOWN, "newer": PlaceState.CONFLICT, "alone": PlaceState.KNOWN}
    assert places.sink_of(SyncSpec.objects.get(pk=alone.pk))


def test_new_keys_may_lead_elsewhere_so_the_place_is_asked_again(call, ask, server):
    """With another account's keys the same name may be another bucket."""
    given = {"id": "keys", "name": "keys", "accessKeyId": server.access_key, "secretAccessKey": server.secret_key}
    assert call("POST", "credentials", given).status_code == 201
    sink = {k: v for k, v in server.json("").items() if k not in ("accessKeyId", "secretAccessKey")}
    ask("victims", {**sink, "credentialId": "keys"}, VICTIMS)
    assert SyncSpec.objects.get().place_state == PlaceState.KNOWN
    assert call("PUT", "credentials/keys", {**given, "name": "renamed"}).status_code == 200
    assert SyncSpec.objects.get().place_state == PlaceState.UNASKED
    places.sink_of(SyncSpec.objects.get())
    assert SyncSpec.objects.get().place_state == PlaceState.KNOWN


def test_a_dead_sink_of_another_spec_holds_nobody_up(ask, server):
    """A sink that does not answer is queried again later; specs with other sinks continue (P14)."""
    ask("dead", {**server.json(""), "endpoint": "http://127.0.0.1:1"}, {**VICTIMS, "sinkPath": "dead/${tenantId}/"})
    ask("victims", server.json(""), VICTIMS)
    assert Claimed("victims", "victim").restore() == {}
    with pytest.raises(errors.SinkUnreachable):
        Claimed("dead", "victim").restore()


# The object -------------------------------------------------------------------------------------------


def forgotten(empty_sink_server) -> None:
    empty_sink_server.sink().delete(PLACE_KEY)


def test_all_who_make_it_at_once_end_with_one_id(empty_sink_server, monkeypatch):
    """Eight at once, on sinks that can refuse a second writer and on those that cannot."""
    monkeypatch.setattr(places, "_making", _NoLocks())
    monkeypatch.setattr(places, "SETTLE_S", 1.0)
    forgotten(empty_sink_server)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(looked_at, [empty_sink_server.sink()] * 8))
    assert len({seen.id for seen in found}) == 1
    assert json.loads(empty_sink_server.sink().get(PLACE_KEY, 15))["id"] == found[0].id


def looked_at(sink) -> places.Observation:
    """``rclone serve s3`` answers 500 while an object is being written; the query is repeated at the next use."""
    for _ in range(20):
        with contextlib.suppress(errors.SinkUnreachable):
            return places.look_at(places.Look(sink, "", ("t/${tenantId}",)))
    raise AssertionError("it never answered")


class _NoLocks:
    """As with several processes."""

    def __getitem__(self, _key):
        return contextlib.nullcontext()


def test_it_survives_saves_erasures_and_expiry_and_is_no_tenants_file(
    empty_sink_server, data_dir, transactional_db, settings
):
    """No operation takes the object for a tenant's file, or restores it to one."""
    state = TenantState(empty_sink_server)
    state.write(a="1")
    state.save()
    state.write(a="2")
    state.save()
    place = empty_sink_server.sink().get(PLACE_KEY, 15)
    assert json.loads(place)["id"] == SyncSpec.objects.get().place["id"]
    state.claim()
    assert state.look() == {"a": "2"}
    settings.BOILERHOUSE_BACKUP_RETENTION_S = -60
    assert backups.expire(state.fresh()) >= 1
    erasure.erase(state.fresh(), TENANT, lambda: True)
    assert empty_sink_server.sink().get(PLACE_KEY, 15) == place
    assert empty_sink_server.keys() == {}


@pytest.mark.parametrize("pattern", ["", "**", "*.txt"])
def test_a_restore_of_a_folder_that_is_a_place_itself_leaves_its_object(data_dir, transactional_db, server, pattern):
    """``assets/`` is also the root of another server."""
    sink = server.sink()
    sink.put("assets/a.txt", b"given")
    sink.put(f"assets/{PLACE_KEY}", b'{"format": 1, "id": "0123456789abcdef0123456789abcdef"}')
    state = server.json("")
    secrets = {"accessKeyId": server.access_key, "secretAccessKey": str(state.pop("secretAccessKey"))}
    mapping = {"sink_path": "assets/", "direction": Direction.DOWNLOAD, "mode": Mode.COPY, "pattern": pattern}
    make_sync_spec(sink=state, sink_secrets=secrets, mappings=[mapping], id="assets")
    assert Claimed("assets", "alice").restore() == {"a.txt": "given"}
    assert SyncSpec.objects.get().place["others"] == [{"id": "0123456789abcdef0123456789abcdef", "at": "assets"}]


def test_what_is_not_ours_is_not_taken_for_an_id(data_dir, transactional_db, server):
    """The object exists but is unreadable; the sink is not used, and the error says what to do."""
    server.sink().put(PLACE_KEY, b"hello")
    state = server.json("")
    secrets = {"accessKeyId": server.access_key, "secretAccessKey": str(state.pop("secretAccessKey"))}
    spec = make_sync_spec(sink=state, sink_secrets=secrets)
    assert services.probe(spec)["code"] == "unreliable"
    assert "Delete it" in services.probe(spec)["detail"]


# What a claim pays ------------------------------------------------------------------------------------


def test_a_settled_spec_costs_a_claim_no_request_and_no_statement(ask, server, monkeypatch):
    """The place is queried once; later checks read the row that the claim reads anyway."""
    ask("victims", server.json(""), VICTIMS)
    monkeypatch.setattr(places, "look_at", None)
    before = [("where", "surveys")]
    with CaptureQueriesContext(connection) as asked:
        check = sink_checks.begin_check("victims-pool", "alice")
        (sink_state,) = check.answer()
    assert sink_state.is_empty
    assert [one["sql"].split('"')[1] for one in asked.captured_queries if one["sql"].startswith("SELECT")], before
    assert len(asked.captured_queries) == 2, "the mappings with their specs, and what is known to be saved"
    with CaptureQueriesContext(connection) as asked:
        places.sink_of(sink_state.mapping.spec)
    assert not asked.captured_queries


def test_a_sink_that_fails_after_its_place_was_known_is_still_the_same_sink(ask, server):
    """The check is about places, not about health: a place that does not answer stays usable for its spec."""
    ask("victims", server.json(""), VICTIMS)
    server.stop()
    assert services.probe(SyncSpec.objects.get())["code"] == "unreachable"
    assert SyncSpec.objects.get().place_state == PlaceState.KNOWN
    server.start()
    assert services.probe(SyncSpec.objects.get())["state"] == "healthy"


# One place, several names -----------------------------------------------------------------------------


def test_a_spec_that_is_only_spelled_anew_finds_what_was_saved(ask, server, run_tasks):
    """Another spelling of the same place is no move: state, backups and erasures continue."""
    ask("victims", server.json(""), VICTIMS)
    victim = victim_saves("1")
    victim.write(diary="2")
    victim.save()
    assert Backup.objects.count() == 1
    ask("victims", {**server.json(""), "endpoint": f"http://localhost:{server.port}"}, VICTIMS, status=200, method="PUT")  # fmt: skip
    again = Claimed("victims", "victim", 2)
    assert again.restore() == {"diary": "2"}
    assert erasure.out_of_reach("victim", [again.spec]) == []
    again.write(diary="3")
    again.save()
    assert SavedState.objects.count() == 1, "one record for one place"
    assert Backup.objects.count() == 2
    assert SinkPlace.objects.values("place_id").distinct().count() == 1

    for key in [key for key in server.keys() if key.startswith(("t/", f"{MARKER_ROOT}/"))]:
        if key != PLACE_KEY:
            server.sink().delete(key)
    with pytest.raises(errors.StateMissing):
        Claimed("victims", "victim", 3).restore()
    SavedState.objects.update(place=f"http://127.0.0.1:{server.port} testbucket")
    with pytest.raises(errors.StateMissing):
        Claimed("victims", "victim", 3).restore()
    erasure.erase(again.spec, "victim", lambda: True)
    assert not SavedState.objects.exists()
    assert not Backup.objects.exists()


# A place that is another one now ----------------------------------------------------------------------


def emptied(server) -> None:
    server.stop()
    shutil.rmtree(server.directory / "testbucket")
    (server.directory / "testbucket").mkdir()
    server.start()


@pytest.mark.parametrize("is_remade", [False, True])
def test_an_emptied_bucket_is_used_again_only_when_the_spec_is_saved_again(ask, server, is_remade):
    """An address that leads elsewhere, or a recreated bucket, is not taken for the old one (P5)."""
    ask("victims", server.json(""), VICTIMS)
    victim_saves()
    known = SyncSpec.objects.get().place["id"]
    emptied(server)
    if is_remade:
        server.sink().put(PLACE_KEY, b'{"format": 1, "id": "0123456789abcdef0123456789abcdef"}')
    health = services.probe(SyncSpec.objects.get())
    assert (health["state"], health["code"]) == ("unhealthy", "place_changed")
    assert "save the spec again" in health["detail"]
    newcomer = Claimed("victims", "newcomer")
    with pytest.raises(errors.PlaceChanged):
        newcomer.restore()
    with pytest.raises(errors.PlaceChanged):
        newcomer.save()
    assert server.keys() == {}

    saved = ask("victims", server.json(""), VICTIMS, status=200, method="PUT")
    assert saved["sinkHealth"]["state"] == "healthy"
    assert (SyncSpec.objects.get().place["id"] == known) is not is_remade
    assert newcomer.restore() == {}
    with pytest.raises(errors.StateMissing):
        Claimed("victims", "victim", 2).restore()


def test_a_change_of_something_else_does_not_say_that_a_place_may_be_another(ask, server):
    """Saving a spec again to use a changed place requires that the change was reported."""
    ask("victims", server.json(""), VICTIMS)
    victim_saves()
    known = SyncSpec.objects.get().place["id"]
    emptied(server)
    server.sink().put(PLACE_KEY, b'{"format": 1, "id": "0123456789abcdef0123456789abcdef"}')
    saved = ask("victims", server.json(""), VICTIMS, status=200, method="PUT")
    assert saved["sinkHealth"]["code"] == "place_changed"
    assert SyncSpec.objects.get().place["id"] == known
    ask("victims", server.json(""), VICTIMS, status=200, method="PUT")
    assert SyncSpec.objects.get().place["id"] == "0123456789abcdef0123456789abcdef"
    change = AuditEntry.objects.filter(action="sync_spec.update").latest("pk")
    assert (change.before["place"], change.after["place"]) == (known, "0123456789abcdef0123456789abcdef")


def test_a_spec_that_is_changed_while_its_place_is_asked_uses_nothing(ask, server, monkeypatch):
    """The result is about the previous sink."""
    ask("victims", server.json(""), VICTIMS)
    SyncSpec.objects.update(place_state=PlaceState.UNASKED)
    spec, settle = SyncSpec.objects.get(), places.settle

    def changed(check, spec_id=""):
        SyncSpec.objects.update(version=2)
        settle(check, spec_id)

    monkeypatch.setattr(places, "settle", changed)
    with pytest.raises(errors.SinkUnreachable):
        places.sink_of(spec)


def test_an_address_that_leads_back_is_taken_back_by_itself(ask, server):
    """After an hour with a wrong address everything works again."""
    ask("victims", server.json(""), VICTIMS)
    victim_saves()
    bucket, aside = server.directory / "testbucket", server.directory.parent / "aside"
    server.stop()
    bucket.rename(aside)
    bucket.mkdir()
    server.start()
    assert services.probe(SyncSpec.objects.get())["code"] == "place_changed"
    server.stop()
    shutil.rmtree(bucket)
    aside.rename(bucket)
    server.start()
    assert services.probe(SyncSpec.objects.get())["state"] == "healthy"
    assert Claimed("victims", "victim", 2).restore() == {"diary": "VICTIM-PRIVATE"}


@pytest.mark.parametrize("by_another", [False, True])
def test_an_object_that_was_lost_alone_is_put_back(ask, server, by_another):
    """A sink with the last saves is the same place, even if its object is lost."""
    ask("victims", server.json(""), VICTIMS)
    victim_saves()
    known = SyncSpec.objects.get().place["id"]
    server.sink().delete(PLACE_KEY)
    if by_another:
        server.sink().put(PLACE_KEY, b'{"format": 1, "id": "0123456789abcdef0123456789abcdef"}')
    assert services.probe(SyncSpec.objects.get())["state"] == "healthy"
    now = json.loads(server.sink().get(PLACE_KEY, 15))["id"]
    assert (now == known) is not by_another
    assert SyncSpec.objects.get().place["id"] == now
    assert Claimed("victims", "victim", 2).restore() == {"diary": "VICTIM-PRIVATE"}


# A place that does not say ----------------------------------------------------------------------------


@pytest.fixture
def silent(server):
    """The same store with keys that may not access the object."""
    proxy = FaultyProxy(server.endpoint)
    proxy.fault, proxy.only = "403", "place.json"
    yield proxy
    proxy.stop()


def test_a_place_that_does_not_say_is_told_by_its_address_and_meets_nobody(ask, server, silent):
    """Without access to the object, a possibly identical store counts as identical (P3)."""
    ask("victims", server.json(""), VICTIMS)
    alias = {**server.json(""), "endpoint": silent.endpoint}
    said = refused(ask("mallorys", alias, EVERYBODYS, status=422), "victims")
    assert PLACE_KEY in said
    made = ask("others", alias, {**EVERYBODYS, "sinkPath": "given/"})
    assert made["sinkHealth"]["state"] == "healthy"
    assert SyncSpec.objects.get(pk="others").place_state == PlaceState.UNKNOWN
    server.sink().put("given/a", b"1")
    assert Claimed("others", "bob").restore() == {"a": "1"}


def test_a_place_that_says_in_the_end_is_known_from_then_on(ask, server, silent):
    """An unknown place is queried again at each use."""
    alias = {**server.json(""), "endpoint": silent.endpoint}
    ask("others", alias, {**EVERYBODYS, "sinkPath": "given/"})
    silent.heal()
    assert places.sink_of(SyncSpec.objects.get())
    assert SyncSpec.objects.get().place_state == PlaceState.KNOWN


# Spellings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("http://127.0.0.1:9000", spelling.format(port=9000)) for spelling in SPELLINGS),
        ("https://S3.example.com.", "https://s3.example.com:443/"),
        ("http://s3.example.com", "http://s3.example.com:80"),
        ("", "https://s3.eu-central-1.amazonaws.com"),
        ("https://s3.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com"),
        ("https://h/x/../store", "https://h/store/"),
    ],
)
def test_two_spellings_of_one_server(one, other):
    """Conflicts visible in the spelling are reported without a request, so also while the sink is down."""

    def sink(endpoint):
        return S3Sink("bucket", "us-east-1", "", endpoint)

    assert sink(one).area("t") == sink(other).area("t")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001"),
        ("https://a.example.com", "https://b.example.com"),
        ("", "https://minio.eu-west-1.elb.amazonaws.com"),
        ("https://h/one", "https://h/two"),
    ],
)
def test_two_servers(one, other):
    """Different spellings may be two stores."""

    def sink(endpoint):
        return S3Sink("bucket", "us-east-1", "", endpoint)

    assert sink(one).area("t") != sink(other).area("t")


def test_every_address_of_this_machine_is_one():
    """For a place without an object, the address decides."""
    own = {endpoints.resolved(f"http://{host}:1")[0] for host in ("127.0.0.1", "localhost", "[::1]", "0", "127.0.0.2")}
    assert own == {endpoints.LOOPBACK}
    assert endpoints.resolved("http://no-such-host.invalid") == ["no-such-host.invalid"]


@pytest.mark.parametrize("path", ["a/.boilerhouse", "x/.boilerhouse-trash/y"])
def test_what_is_ours_is_ours_in_every_folder(path):
    """A folder of one sink may be the root of another, with its markers and backups."""
    assert locations.check_path(path)


def test_a_local_sink_refuses_a_second_writer(tmp_path):
    """Existing objects stay."""
    sink = LocalSink(tmp_path)
    assert sink.create("a/b", b"1")
    assert sink.create("a/b", b"2")
    assert sink.get("a/b", 1) == b"1"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b"]


def test_a_change_of_a_places_owner_is_told(down_when_saved):
    """The event log reports a conflict too."""
    services.probe(SyncSpec.objects.get(pk=down_when_saved(EVERYBODYS)))
    warning = Event.objects.filter(type="pool.warning", payload__specId="mallorys").order_by("id").last()
    assert "sync spec victims" in warning.payload["detail"]

"""A probe performs the steps of a save and a restore at every kind of sink, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
import yaml
from django.conf import settings
from django_q.models import OrmQ

from boilerhouse.core import clock
from syncing import errors, probes, rclone, services
from syncing.locations import BACKUP_ROOT, MARKER_ROOT, PLACE_KEY
from syncing.models import SinkProbe, SyncMapping, SyncRun, SyncSpec
from syncing.sinks import S3Sink, WebDavSink
from tests import sink_servers
from tests.make import make_sync_spec
from tests.s3 import S3Server

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def spec(empty_sink_server, data_dir):
    has_prefix = "prefix" in empty_sink_server.definition
    mapping = {} if has_prefix else {"sink_path": "t/${tenantId}/state"}
    sink = {**empty_sink_server.definition, "prefix": "t/${tenantId}/"} if has_prefix else empty_sink_server.definition
    return make_sync_spec(sink=sink, sink_secrets=empty_sink_server.secrets, mappings=[mapping])


@pytest.fixture
def s3_spec(s3, data_dir):
    body = s3.json("t/${tenantId}/")
    secrets = {"accessKeyId": s3.access_key, "secretAccessKey": body.pop("secretAccessKey")}
    return make_sync_spec(sink=body, sink_secrets=secrets)


@pytest.fixture
def started(monkeypatch):
    """The commands by which rclone was started for a transfer."""
    commands = []
    real = rclone.subprocess.Popen

    def start(words, **more):
        if "/bin/rclone" in words and words[-1] != "version":
            commands.append(words)
        return real(words, **more)

    monkeypatch.setattr(rclone.subprocess, "Popen", start)
    return commands


def verbs(commands):
    """The operation of each rclone: the word after its last path."""
    return [words[len(words) - words[::-1].index("/bin/rclone")] for words in commands]


def left(empty_sink_server):
    """The objects at the server, with folders that exist by themselves and without the object that identifies the
    place."""
    if isinstance(empty_sink_server, sink_servers.Directory):
        found = [str(path.relative_to(empty_sink_server.root)) for path in empty_sink_server.root.rglob("*")]
        return [name for name in found if name not in (PLACE_KEY, MARKER_ROOT)]
    folders = [
        name
        for root in ("t", BACKUP_ROOT)
        for name in empty_sink_server.sink().folders(root)
        if probes.TENANT_PREFIX in name
    ]
    return [*(key for key in empty_sink_server.keys() if key != PLACE_KEY), *folders]


def test_a_probe_saves_and_restores_by_rclone_and_leaves_nothing(spec, empty_sink_server, started, data_dir):
    """In the sandbox, with a uid from the containers' range and the flags of a save."""
    with structlog.testing.capture_logs() as logs:
        health = services.probe(spec)

    assert health["state"] == "healthy", health
    assert health["transferredAt"]
    assert health["conditionalWrites"] is empty_sink_server.has_conditional_writes
    # A WebDAV server may answer 423 to two files that need the same new collection at the same moment.
    retried = [entry for entry in logs if entry["event"] == "probe step retried"]
    assert len(started) == 3 + len(retried), retried
    assert all(empty_sink_server.kind is WebDavSink and "423 Locked" in entry["detail"] for entry in retried), retried
    assert [verb for verb, _ in itertools.groupby(verbs(started))] == ["sync", "copy"]
    for words in started:
        assert int(words[words.index("--reuid") + 1]) > 1_000_000
        assert not any(secret in word for secret in _secrets(empty_sink_server) for word in words), "P10"
    assert any(word.startswith("--backup-dir=bh:") for word in started[1])
    assert left(empty_sink_server) == []
    assert list((data_dir / "probes").iterdir()) == []


def test_a_step_that_the_sink_failed_for_a_moment_is_tried_again(s3_spec, started, monkeypatch):
    """As a save and a restore try again: one stumble makes no sink unhealthy."""
    run, failures = rclone.run, [errors.TransferBroke("Locked: 423 Locked")]

    def stumbling(*arguments, **options):
        if failures:
            raise failures.pop()
        return run(*arguments, **options)

    monkeypatch.setattr(rclone, "run", stumbling)

    assert services.probe(s3_spec)["state"] == "healthy"
    assert verbs(started) == ["sync", "sync", "copy"]
    assert failures == []


def test_an_upload_that_broke_after_it_had_moved_files_aside_is_tried_again(spec, started, monkeypatch):
    """Its second attempt overwrote in the backup what the first had moved there, and the sink was called unreliable."""
    run, uploads = rclone.run, []

    def breaking(arguments, *more, **options):
        run(arguments, *more, **options)
        uploads.append(arguments[0])
        if len(uploads) == 2:
            raise errors.TransferBroke("Locked: 423 Locked")

    monkeypatch.setattr(rclone, "run", breaking)

    assert services.probe(spec)["state"] == "healthy"
    assert verbs(started) == ["sync", "sync", "sync", "copy"]


def _secrets(empty_sink_server):
    values = (empty_sink_server.secrets or {}).copy()
    return [value for value in (*values.pop("headers", {}).values(), values.get("secretAccessKey", "")) if value]


@pytest.fixture
def tls_spec(data_dir, tmp_path):
    """A healthy spec with an S3 sink over https."""
    server = S3Server(tmp_path / "s3", tls=True)
    server.start()
    try:
        body = server.json("t/${tenantId}/")
        spec = make_sync_spec(
            sink=body, sink_secrets={"accessKeyId": server.access_key, "secretAccessKey": body.pop("secretAccessKey")}
        )
        assert services.probe(spec)["state"] == "healthy"
        yield spec
    finally:
        server.stop()


def test_a_sink_that_only_the_process_reaches_is_not_healthy(tls_spec, monkeypatch):
    """A save needs rclone, whatever the in-process client can do."""
    monkeypatch.setattr("syncing.jail.CERTIFICATES", "/elsewhere.pem")
    health = services.probe(tls_spec)

    assert health["state"] == "unhealthy"
    assert health["detail"].startswith("rclone cannot save to it: ")
    assert health["code"] == "untrusted"


def test_a_transfer_that_failed_has_the_next_probe_try_one(tls_spec, monkeypatch):
    """It stayed healthy for a quarter of an hour, and a repaired sink did not become healthy."""
    with monkeypatch.context() as patched:
        patched.setattr("syncing.jail.CERTIFICATES", "/elsewhere.pem")
        assert services.probe(tls_spec, is_periodic=True)["state"] == "healthy", "rclone has no turn yet"
        SyncRun.objects.create(
            spec=tls_spec, tenant_id="alice", generation=1, direction="upload", trigger="release", state="failed",
            finished_at=clock.now(),
        )  # fmt: skip
        assert services.probe(tls_spec, is_periodic=True)["code"] == "untrusted"
    OrmQ.objects.all().delete()
    assert services.probe(tls_spec, is_periodic=True)["state"] == "healthy"
    assert [one.task["func"] for one in OrmQ.objects.all()] == ["tenants.tasks.retry_saves"]


def test_a_sink_for_restores_alone_is_only_looked_at(spec, empty_sink_server, started, data_dir):
    """Nothing is written to a sink that is only restored from; rclone reads one byte of it."""
    SyncMapping.objects.update(direction="download")
    put = empty_sink_server.sink().put
    health = services.probe(spec)
    assert health["state"] == "healthy", health
    assert started == []

    mapping = spec.mappings.get()
    mapping.sink_path = mapping.sink_path.replace("t/${tenantId}/", "t/all/")
    spec.sink = {**spec.sink, "prefix": "t/all/"} if "prefix" in spec.sink else spec.sink
    spec.save()
    mapping.spec = spec
    mapping.save()
    key = f"{mapping.location('nobody')}/a file é"
    put(key, b"shared")
    health = services.probe(SyncSpec.objects.get(pk=spec.pk))

    assert health["state"] == "healthy", health
    assert verbs(started) == ["cat"]
    assert set(empty_sink_server.keys()) == {key}


def test_every_mappings_location_is_tried(s3, data_dir, monkeypatch):
    """Permissions may be limited to a prefix, so the second mapping's prefix is tested too."""
    body = s3.json("t/${tenantId}/")
    secrets = {"accessKeyId": s3.access_key, "secretAccessKey": body.pop("secretAccessKey")}
    two = [{}, {"container_path": "/extra", "sink_path": "closed/"}]
    spec = make_sync_spec(sink=body, sink_secrets=secrets, mappings=two)
    real = S3Sink.put

    def put(self, key, content):
        if "/closed/" in key:
            raise errors.SinkDenied("Bucket answered 403 AccessDenied.")
        real(self, key, content)

    monkeypatch.setattr(S3Sink, "put", put)
    health = services.probe(spec)

    assert (health["state"], health["code"]) == ("unhealthy", "denied")
    assert "/closed cannot be used: Bucket answered 403" in health["detail"], health
    assert "docs/sync.md" in health["detail"]


def test_a_healthy_sink_is_asked_by_rclone_only_now_and_then(s3_spec, started):
    """Cheap checks continue; the thorough one follows a failure, a change, a request, and a quarter of an hour."""
    spec = s3_spec
    services.probe(spec, is_periodic=True)
    assert len(started) == 3
    first = services.probe(spec, is_periodic=True)
    assert len(started) == 3
    services.probe(spec, is_periodic=True, is_changed=True)
    assert len(started) == 6
    services.probe(spec)
    assert len(started) == 9
    SyncSpec.objects.update(sink_health={**first, "state": "unhealthy"})
    services.probe(spec, is_periodic=True)
    assert len(started) == 12
    SyncSpec.objects.update(sink_health={**first, "transferredAt": "2020-01-01T00:00:00Z"})
    services.probe(spec, is_periodic=True)
    assert len(started) == 15


def test_what_a_killed_probe_left_is_deleted_by_the_next(spec, empty_sink_server, data_dir, monkeypatch):
    """Killed halfway: objects at the sink, a backup and a directory on this node are left."""

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for step, check in (("_put_and_get", probes.locations), ("_restore", probes.transfers)):
        with monkeypatch.context() as patched:
            real = getattr(probes, step)
            patched.setattr(probes, step, lambda *given, real=real: (real(*given), die()))
            with pytest.raises(Killed):
                check(probes.Probe(empty_sink_server.sink(), list(spec.mappings.all()), spec.pk))
    directories = list((data_dir / "probes").iterdir())
    assert len(directories) == 2
    assert len({key.split("/")[1] for key in empty_sink_server.keys() if key.startswith("t/")}) == 2
    assert any(key.startswith(BACKUP_ROOT) for key in empty_sink_server.keys())
    services.probe(spec)
    assert all(one.exists() for one in directories), "they may still be at work"

    old = time.time() - 3 * probes.DEADLINE_S
    for one in directories:
        os.utime(one, (old, old))
    assert services.probe(spec)["state"] == "healthy"
    assert left(empty_sink_server) == []
    assert list((data_dir / "probes").iterdir()) == []


def test_a_probe_that_could_not_delete_leaves_it_to_the_next(s3_spec, s3, data_dir, monkeypatch):
    """A journal on this node lists the leftovers at the sink."""
    spec = s3_spec
    real = S3Sink.delete_all

    def refuse(self, location):
        if list((data_dir / "probes").glob(f"*/{probes.JOURNAL}")):
            raise errors.SinkDenied("Bucket answered 403 AccessDenied.")
        real(self, location)

    with monkeypatch.context() as patched:
        patched.setattr(S3Sink, "delete_all", refuse)
        health = services.probe(spec)
    assert health["detail"].startswith("The probe's objects cannot be deleted: ")
    (directory,) = (data_dir / "probes").iterdir()
    old = time.time() - 3 * probes.DEADLINE_S
    os.utime(directory, (old, old))

    assert services.probe(spec)["state"] == "healthy"
    assert not [key for key in s3.keys() if probes.TENANT_PREFIX in key]
    assert list((data_dir / "probes").iterdir()) == []


def test_a_process_that_may_make_no_jail_asks_a_worker(s3_spec, monkeypatch, run_tasks, started):
    """Like the web process in compose: it waits for the worker, and never reports healthy by itself."""
    spec = s3_spec

    monkeypatch.setattr(probes, "can_jail", lambda: False)
    monkeypatch.setattr(services, "WORKERS_ANSWER_S", 0.3)
    assert services.probe(spec) == {}, "no worker has answered"
    assert SinkProbe.objects.count() == 0

    monkeypatch.setattr(probes, "can_jail", lambda: True)
    assert run_tasks() == 2  # the probe, and the retry of failed saves
    spec.refresh_from_db()
    assert spec.sink_health["state"] == "healthy"
    assert len(started) == 3


def test_the_web_process_of_compose_knows_that_it_may_make_no_jail(data_dir):
    """With the privileges of compose.yaml only."""
    given = yaml.safe_load((settings.BASE_DIR / "compose.yaml").read_text())["services"]["web"]["cap_add"]
    rights = ",".join(["-all", *(f"+{one.lower()}" for one in given)])
    ask = "import django; django.setup()\nfrom syncing import probes\nprint(probes.can_jail(), probes.jail_problem())"
    told = {"DJANGO_SETTINGS_MODULE": "boilerhouse.settings", "BOILERHOUSE_DATA_DIR": str(data_dir)}
    command = ["setpriv", f"--bounding-set={rights}", "--inh-caps=-all", "--no-new-privs", sys.executable, "-c", ask]
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.startswith("False bwrap: ")


def test_a_dead_sink_is_said_without_a_worker(data_dir, monkeypatch):
    """The first checks need no sandbox."""
    monkeypatch.setattr(probes, "can_jail", lambda: False)
    spec = make_sync_spec()

    assert services.probe(spec)["code"] == "unreachable"


def test_a_typed_sink_is_probed_without_being_stored(spec, empty_sink_server, monkeypatch):
    """Through the editor; the result says whether rclone was used too."""
    mappings = list(spec.mappings.all())
    assert services.try_sink(empty_sink_server.sink(), mappings) is True
    monkeypatch.setattr(probes, "can_jail", lambda: False)
    assert services.try_sink(empty_sink_server.sink(), mappings) is False
    assert left(empty_sink_server) == []
    assert SinkProbe.objects.count() == 0


def test_no_container_has_the_uid_of_a_probe(settings):
    """Neither leased uids nor that of a dry run's health check (P11)."""
    assert probes._owner().uid > settings.BOILERHOUSE_UID_RANGE[1]
    assert probes.can_jail()


def test_a_probe_of_an_urgent_process_is_not_urgent():
    """The web process has raised priority; the rclone that it starts must not."""

    def policy():
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        pool = type(probes._probers)(1, initializer=probes._probers._initializer)
        return pool.submit(os.sched_getscheduler, 0).result()

    with ThreadPoolExecutor(1) as urgent:
        assert urgent.submit(policy).result() == os.SCHED_OTHER

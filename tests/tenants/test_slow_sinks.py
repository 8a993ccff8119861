"""A sink that delivers almost nothing, or too much, blocks some workers of a queue and never the last (P14)."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest
from django.db import transaction
from django_q.models import OrmQ

from boilerhouse.queues import slow_work
from boilerhouse.queues.tasks import enqueue
from pools import volumes
from pools.runtime import get_runtime
from syncing import markers, places, sink_checks, tasks
from syncing.locations import marker_key
from syncing.markers import PLAIN_BYTES, Manifest, Marker
from syncing.models import SyncRun
from syncing.sinks import sizes
from syncing.states import Direction, SyncRunState, Trigger
from tenants import claims, errors, preparation, releases, sink_runs, syncs
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests import hung_mounts, sink_servers
from tests.fake_engine_rows import hold, outcome, warm, work
from tests.make import make_pool, make_sync_spec
from tests.task_queue import queued_tasks

pytestmark = pytest.mark.any_database


@pytest.fixture
def pools(data_dir, transactional_db, s3, fake_engine):
    """Two pools with separate sinks: the same server with two names."""
    end = sink_servers.RcloneS3(s3)
    end.clear()
    made = []
    for host in ("127.0.0.1", "localhost"):
        pool = make_pool()
        endpoint = f"http://{host}:{s3.port}"
        sink = {**end.definition, "endpoint": endpoint, "prefix": f"{host}/"}
        make_sync_spec(pool, sink=sink, sink_secrets=end.secrets)
        made.append(pool)
    return made


@pytest.fixture
def holding(settings, monkeypatch, serve):
    """The maximum number of workers is busy with a pool's sink; this is another worker."""
    monkeypatch.setattr(slow_work, "BRIEF_S", -1.0)
    with ExitStack() as held:

        def of(queue: str, pool) -> None:
            serve(queue)
            for _ in range(settings.QUEUES[queue]["workers"] - 1):
                assert held.enter_context(slow_work.entered_for([places.far_end(pool.sync_specs.get())]))

        of.end = held.close
        yield of


def test_claims_wait_in_the_queue_while_the_sink_holds_as_many_workers_as_it_may(s3, pools, holding, monkeypatch):
    """The last worker is for claims with other sinks; waiting work is retried later."""
    runtime = get_runtime()
    end = sink_servers.RcloneS3(s3)
    slow = warm(runtime, end.definition, end.secrets)
    other = warm(runtime, {**end.definition, "endpoint": f"http://localhost:{s3.port}", "prefix": "o/"}, end.secrets)
    monkeypatch.setattr(preparation, "prepare_here", lambda assignment, *_: hand_on(assignment))
    holding("claim", slow)
    waiting = claims.begin(claims.Claim(tenant_id="mia", pool_id=slow.pk))
    assert work() >= 1
    row = Assignment.objects.get(tenant_id="mia")
    assert (row.state, row.owner) == ("pending", None)
    assert [one.task["func"] for one in OrmQ.objects.all()].count("tenants.tasks.prepare") == 1, "not forgotten"
    assert outcome(other, "bob").state == "assigned"
    holding.end()
    assert outcome_of(waiting).state == "assigned"


def hand_on(assignment) -> bool:
    """The web process's part of a claim with a restore."""
    with transaction.atomic():
        Assignment.objects.filter(pk=assignment.pk).update(owner=None)
        enqueue("claim", "tenants.tasks.prepare", assignment.pk, assignment.generation)
    return False


def outcome_of(begun):
    until = time.time() + 20
    while (settled := claims.settle(begun, until)) is None:
        work()
        time.sleep(0.02)
    return settled


def test_a_release_waits_in_the_queue_and_one_of_another_sink_is_saved(pools, fake_engine, holding):
    """It keeps its step, and occupies no worker."""
    slow, other = pools
    mine, theirs = hold(slow, fake_engine, "mallory"), hold(other, fake_engine, "bob")
    holding("save", slow)
    for one in (mine, theirs):
        assert releases.fence(Assignment.objects.filter(pk=one.pk))
    OrmQ.objects.all().delete()
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.owner) == (AssignmentState.RELEASING, None)
    assert [one.task["func"] for one in OrmQ.objects.all()] == ["tenants.tasks.finish_release"]
    releases.finish(theirs.pk)
    theirs.refresh_from_db()
    assert (theirs.state, theirs.outcome) == (AssignmentState.ENDED, "released")
    holding.end()
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "released")


def test_a_release_that_saves_nothing_waits_for_no_sink(pools, fake_engine, holding):
    """Discarding works with a dead sink."""
    slow, _ = pools
    mine = hold(slow, fake_engine, "mallory")
    holding("save", slow)
    assert releases.fence(Assignment.objects.filter(pk=mine.pk), discard=True)
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "discarded")


def test_saves_that_wait_for_a_sink_let_those_of_others_pass(pools, fake_engine, holding):
    """On the remaining worker, although they were queued later; the end of one starts those that wait."""
    slow, other = pools
    mine, theirs = hold(slow, fake_engine, "mallory"), hold(other, fake_engine, "bob")
    first = [syncs._queue(mine, [(slow.sync_specs.get(), Direction.UPLOAD)], Trigger.MANUAL)[0]]
    second = syncs._queue(theirs, [(other.sync_specs.get(), Direction.UPLOAD)], Trigger.INTERVAL)
    holding("sync", slow)
    OrmQ.objects.all().delete()
    syncs.run_next()
    states = {run.tenant_id: run.state for run in SyncRun.objects.filter(pk__in=[one.pk for one in first + second])}
    assert states == {"mallory": SyncRunState.QUEUED, "bob": SyncRunState.SUCCEEDED}
    assert queued_tasks("tenants.tasks.run_syncs") == 1
    holding.end()
    syncs.run_next()
    assert SyncRun.objects.get(pk=first[0].pk).state == SyncRunState.SUCCEEDED


def test_work_at_the_sink_alone_waits_too(pools, holding, monkeypatch):
    """State erased, backups restored, old backups deleted."""
    slow, _ = pools
    spec = slow.sync_specs.get()
    run = SyncRun.objects.create(
        spec=spec, tenant_id="mallory", generation=1, direction=Direction.UPLOAD, trigger=Trigger.ERASE
    )
    holding("sync", slow)
    sink_runs.work(run.pk, lambda *_: pytest.fail("it has begun"))
    run.refresh_from_db()
    assert run.state == SyncRunState.QUEUED
    monkeypatch.setattr(tasks.backups, "expire", lambda _: pytest.fail("it has begun"))
    tasks.expire_backups(spec.pk)
    assert [one.task["func"] for one in OrmQ.objects.all()] == ["syncing.tasks.expire_backups"]


def test_a_claim_whose_container_is_held_goes_back_to_the_queue(s3, pools, monkeypatch):
    """Its owner may be stuck for ever; no thread of the web process and no worker waits for it."""
    monkeypatch.setattr(preparation, "LOCKED_S", 0.05)
    end = sink_servers.RcloneS3(s3)
    pool = warm(get_runtime(), end.definition, end.secrets)
    with ExitStack() as held:
        for container in pool.containers.all():
            held.enter_context(volumes.locked(container.pk))
        begun = claims.begin(claims.Claim(tenant_id="mia", pool_id=pool.pk))
        assert begun.assigned is None, "the web process has handed it on"
        assert work() == 1
        row = Assignment.objects.get(tenant_id="mia")
        assert (row.state, row.owner) == ("pending", None)
        assert [one.task["func"] for one in OrmQ.objects.all()].count("tenants.tasks.prepare") == 1
    assert outcome_of(begun).state == "assigned"


def test_a_long_marker_is_read_by_a_worker(s3, pools, monkeypatch):
    """The web process reads only a small marker's size, whatever the sink sends."""
    end = sink_servers.RcloneS3(s3)
    pool = warm(get_runtime(), end.definition, end.secrets)
    location, sink = pool.sync_specs.get().mappings.get().location("mia"), pool.sync_specs.get().resolved_sink()
    names = [f"d{number}" for number in range(8_000)]
    marker = Marker("mia", "d", location, 1, "run", "closed", "2026-01-01T00:00:00Z", Manifest(empty_dirs=names))
    sink.put(marker_key(location), marker.dump())
    parsed = []
    load = json.loads
    monkeypatch.setattr(markers.json, "loads", lambda text, **more: (parsed.append(len(text)), load(text, **more))[1])
    begun = claims.begin(claims.Claim(tenant_id="mia", pool_id=pool.pk))
    assert (begun.assigned, [one for one in parsed if one > PLAIN_BYTES]) == (None, [])
    claimed = outcome_of(begun)
    assert claimed.state == "assigned"
    there = volumes.volume_path(claimed.held_container, "state")
    assert len(list(there.iterdir())) == len(names)


def test_a_marker_that_no_worker_reads_fails_the_claim_in_words(s3, pools, monkeypatch):
    """An error of that sink."""
    end = sink_servers.RcloneS3(s3)
    pool = warm(get_runtime(), end.definition, end.secrets)
    location, sink = pool.sync_specs.get().mappings.get().location("mia"), pool.sync_specs.get().resolved_sink()
    monkeypatch.setattr(sizes, "MOST_BYTES", 100_000)
    sink.put(marker_key(location), bytes(100_001))
    with pytest.raises(errors.RestoreFailed, match=r"has 100001 bytes; the limit is 100000"):
        outcome(pool, "mia")


def test_claims_at_a_directory_that_hangs_fail_in_time_and_others_go_on(data_dir, s3, pools, settings, monkeypatch):
    """No claim thread and no worker stays blocked; a directory on another mount is another sink."""
    root = data_dir / "sinks"
    for name in ("nfs", "disk"):
        (root / name).mkdir(parents=True)
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(root)
    monkeypatch.setattr(sink_checks, "PATIENT_DEADLINE_S", 0.5)
    monkeypatch.setattr(sink_checks, "_took_s", {})
    monkeypatch.setattr(sink_checks, "_silent_since", {})
    dead = warm(get_runtime(), {"type": "local", "path": f"{root}/nfs"}, {})
    alive = warm(get_runtime(), {"type": "local", "path": f"{root}/disk"}, {})
    with hung_mounts.hung_mount(root / "nfs"):
        for tenant in ("mia", "max"):
            with pytest.raises(errors.RestoreFailed, match="has not answered within"):
                outcome(dead, tenant)
        assert outcome(alive, "bob").state == "assigned"

"""Every sync run that begins has one end and one event, whichever process ends it; the first end stays."""

from __future__ import annotations

from uuid import uuid4

import pytest

from boilerhouse.core.models import Event
from boilerhouse.process import processes
from syncing import errors, rclone, runs
from syncing.models import SyncRun, SyncSpec
from syncing.states import Direction, SyncRunState, Trigger
from tenants import sink_runs, syncs, upkeep
from tenants.models import Assignment, Tenant
from tenants.transfer_target import target_of
from tests.make import make_held, make_pool, make_sync_spec

pytestmark = pytest.mark.any_database
RUNNING, FAILED = SyncRunState.RUNNING, SyncRunState.FAILED


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


@pytest.fixture
def spec() -> SyncSpec:
    return make_sync_spec(make_pool())


def make_run(spec: SyncSpec, mine: Assignment, **over: object) -> SyncRun:
    values = {"direction": Direction.UPLOAD, "trigger": Trigger.INTERVAL, "container_id": mine.container_ref, **over}
    return SyncRun.objects.create(spec=spec, tenant_id=mine.tenant_id, generation=mine.generation, **values)


def events() -> list[tuple[str, object]]:
    return [
        (one.type, one.payload.get("code")) for one in Event.objects.filter(type__startswith="sync.").order_by("id")
    ]


def test_runs_of_a_dead_process_end_with_an_event(spec):
    """They ended without an event; a client that saw ``sync.started`` never saw an end."""
    run = make_run(spec, make_held(spec.pool), state=RUNNING, owner=uuid4())
    assert upkeep.bury_dead_runs() == 1
    run.refresh_from_db()
    assert (run.state, run.error_code) == (FAILED, "interrupted")
    assert run.finished_at
    event = Event.objects.get(type="sync.failed")
    assert (event.pool_id, event.tenant_id, event.container_id) == (spec.pool_id, "alice", str(run.container_id))
    assert event.payload == {
        "runId": str(run.pk), "specId": spec.pk, "direction": "upload", "trigger": "interval", "code": "interrupted",
        "detail": "The process that executed the run died.",
    }  # fmt: skip
    assert upkeep.bury_dead_runs() == 0


def test_what_runs_by_a_container_whose_lock_is_taken_ends_with_an_event(spec):
    """The next run of the same spec overtakes it."""
    mine = make_held(spec.pool)
    make_run(spec, mine, state=RUNNING, owner=processes.current())
    target = target_of(mine, -1, is_stopped=False)
    with runs.running(spec, target, Direction.UPLOAD, Trigger.RELEASE, None):
        pass
    assert events() == [("sync.failed", "interrupted"), ("sync.started", None), ("sync.completed", None)]


def test_runs_that_a_release_leaves_behind_end_with_an_event(spec):
    """Those were cancelled without an event."""
    make_run(spec, make_held(spec.pool))
    Assignment.objects.update(state="ended")
    syncs.run_next()
    assert events() == [("sync.cancelled", "cancelled")]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_was_buried_meanwhile_keeps_its_end(spec, fails):
    """The process that was declared dead overwrote it by primary key."""
    mine = make_held(spec.pool)
    target = target_of(mine, -1, is_stopped=False)
    try:
        with runs.running(spec, target, Direction.UPLOAD, Trigger.INTERVAL, None) as run:
            SyncRun.objects.filter(pk=run.pk).update(owner=uuid4())
            upkeep.bury_dead_runs()
            if fails:
                raise errors.SyncFailed("The sink is gone.")
    except errors.SyncFailed:
        assert fails
    run.refresh_from_db()
    assert (run.state, run.error_code) == (FAILED, "interrupted")
    assert events() == [("sync.started", None), ("sync.failed", "interrupted")]


def test_a_run_that_has_ended_tells_no_progress(spec):
    """The process that was declared dead reported progress after the end."""
    target = target_of(make_held(spec.pool), -1, is_stopped=False)
    with runs.running(spec, target, Direction.UPLOAD, Trigger.INTERVAL, None) as run:
        reporter = runs.ProgressReporter(run, target)
        reporter(rclone.Progress(bytes=1, files=1))
        SyncRun.objects.filter(pk=run.pk).bury()
        reporter._said_at = 0.0
        reporter(rclone.Progress(bytes=2, files=2))
    assert [name for name, _ in events()] == ["sync.started", "sync.progress", "sync.failed"]
    run.refresh_from_db()
    assert run.progress["bytes"] <= 1


def test_runs_at_the_sinks_say_what_all_runs_say(spec):
    """Their events had no files and no detail, and pages showed "None"."""
    Tenant.objects.create(pk="alice")

    def succeed(_run: SyncRun, _may_go_on: object) -> dict[str, object]:
        return {"progress": {"files": 2, "bytes": 7}}

    def fail(_run: SyncRun, _may_go_on: object) -> dict[str, object]:
        raise errors.SyncFailed("Not today.")

    for work in (succeed, fail):
        run = sink_runs.begin("alice", Trigger.BACKUP, [(spec, {"backup": "x"})])[0]
        sink_runs.work(run.pk, work)
    completed, failed = Event.objects.get(type="sync.completed"), Event.objects.get(type="sync.failed")
    assert (completed.payload["files"], completed.payload["bytes"]) == (2, 7)
    assert (failed.payload["code"], failed.payload["detail"]) == (errors.SyncFailed.code, "Not today.")

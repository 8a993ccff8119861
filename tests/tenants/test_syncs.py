"""Syncs of assigned containers as rows: when a periodic save is due, that none accumulate, and what can be
cancelled."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.core.models import Event
from syncing.models import SavedState, SyncRun
from tenants import errors, syncs
from tenants.models import Assignment
from tenants.spec_status import spec_status
from tenants.states import AssignmentState
from tests.make import make_held, make_pool, make_sync_spec
from tests.task_queue import queued_tasks

MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def _fresh(data_dir):
    syncs._resent.clear()
    syncs._warned.clear()


@pytest.fixture
def pool(db):
    return make_pool()


def finish(run: SyncRun, state: str = "succeeded", minutes: float = 0.0) -> None:
    at = timezone.now() - timedelta(minutes=minutes)
    SyncRun.objects.filter(pk=run.pk).update(state=state, created_at=at, finished_at=at)


def test_a_beat_is_due_after_the_interval_and_not_again_while_it_runs(pool):
    spec = make_sync_spec(pool, interval_ms=MINUTE_MS)
    make_held(pool, "new", minutes=0.5)
    make_held(pool, "old", minutes=2)
    assert syncs.queue_periodic_saves() == 1
    run = SyncRun.objects.get()
    assert (run.tenant_id, run.spec_id, run.trigger, run.direction) == ("old", spec.pk, "interval", "upload")
    assert queued_tasks("tenants.tasks.run_syncs") == 1
    assert syncs.queue_periodic_saves() == 0, "one run per tenant and spec at a time"
    finish(run, "failed", minutes=0.1)
    assert syncs.queue_periodic_saves() == 0, "the next counts from the last, failed or not"
    finish(run, "succeeded", minutes=3)
    assert syncs.queue_periodic_saves() == 1


def test_only_saves_of_this_claim_by_this_spec_count(pool):
    held = make_held(pool, minutes=60)
    one, two = (make_sync_spec(pool, interval_ms=MINUTE_MS) for _ in range(2))

    def run(spec, minutes, *, state="succeeded", **over):
        values = {"generation": held.generation, "direction": "upload", "trigger": "interval", **over}
        finish(SyncRun.objects.create(spec=spec, tenant_id="alice", **values), state, minutes)

    run(one, 30)
    run(one, 20)
    run(one, 10, state="failed")
    run(one, 5, direction="download")
    run(one, 4, generation=held.generation - 1)
    run(two, 3)
    make_held(pool, "bob", minutes=60)
    ages = {
        (beat.assignment.tenant_id, beat.spec.pk): round((timezone.now() - beat.unsaved_since) / timedelta(minutes=1))
        for beat in syncs.periodic_saves()
    }
    assert ages == {("alice", one.pk): 20, ("alice", two.pk): 3, ("bob", one.pk): 60, ("bob", two.pk): 60}
    due = {beat.spec.pk: beat.due_at for beat in syncs.periodic_saves("alice")}
    assert due[one.pk] < timezone.now() - timedelta(minutes=8.9), "counted from the failed one, not from the last good"
    assert due[one.pk] > timezone.now() - timedelta(minutes=9.2)


def test_periodic_saves_read_few_runs_of_each_tenant(pool):
    """Pages and the controller added up all runs of all assigned tenants, on every refresh and every second."""
    make_sync_spec(pool, interval_ms=MINUTE_MS)
    make_held(pool, minutes=5)
    with CaptureQueriesContext(connection) as context:
        list(syncs.periodic_saves())
    sql = next(query["sql"] for query in context.captured_queries if "syncing_syncrun" in query["sql"])
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # which index it takes depends on how many rows there are
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "(spec_id)::text = (syncing_syncspec.id)::text" in plan, "it knows how many runs a spec has"
            return
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        plan = [row[3] for row in cursor.fetchall() if " U0 " in row[3]]
    assert len(plan) == 2
    assert "(tenant_id=? AND created_at>?)" in plan[0]
    assert "(tenant_id=? AND state=? AND finished_at>?)" in plan[1]


def test_hours_without_a_controller_cost_one_save_per_tenant_and_not_all_at_once(pool, settings):
    settings.BOILERHOUSE_PARALLEL_TRANSFERS = 2
    make_sync_spec(pool, interval_ms=5000)
    for number in range(9):
        make_held(pool, f"tenant-{number}", minutes=600 + number)
    assert syncs.queue_periodic_saves() == 4
    assert syncs.queue_periodic_saves() == 0
    assert "tenant-8" in SyncRun.objects.values_list("tenant_id", flat=True), "the longest overdue first"
    done = 0
    while SyncRun.objects.filter(state="queued").update(state="succeeded", finished_at=timezone.now()):
        done += syncs.queue_periodic_saves()
    assert done == 5
    assert SyncRun.objects.count() == 9


def test_no_beat_for_who_is_released_for_downloads_or_without_an_interval(pool):
    make_sync_spec(pool)
    way = {"direction": "download", "mode": "copy"}
    make_sync_spec(pool, [way], interval_ms=5000)
    make_held(pool, minutes=60)
    make_sync_spec(other := make_pool(), interval_ms=5000)
    make_held(other, "bob", minutes=60)
    Assignment.objects.filter(tenant_id="bob").update(state=AssignmentState.RELEASING)
    assert syncs.queue_periodic_saves() == 0


def test_tenants_claimed_together_drift_apart_but_none_beats_later_than_its_interval(pool):
    make_sync_spec(pool, interval_ms=100 * MINUTE_MS)
    for number in range(20):
        make_held(pool, f"tenant-{number}")
    waits = [(b.due_at - b.assignment.assigned_at) / timedelta(minutes=1) for b in syncs.periodic_saves()]
    assert all(90 <= wait <= 100 for wait in waits)
    assert max(waits) - min(waits) > 3


def test_a_lost_message_is_sent_again_and_runs_of_a_past_generation_end(pool):
    make_sync_spec(pool, interval_ms=MINUTE_MS)
    make_held(pool, minutes=5)
    syncs.queue_periodic_saves()
    OrmQ.objects.all().delete()
    assert syncs.resume() == 0, "it may still be on its way"
    SyncRun.objects.update(created_at=timezone.now() - timedelta(seconds=30))
    assert syncs.resume() == 1
    assert queued_tasks("tenants.tasks.run_syncs") == 1
    assert syncs.resume() == 0
    Assignment.objects.update(state=AssignmentState.RELEASING)
    syncs.resume()
    assert SyncRun.objects.get().state == "cancelled"


def test_trigger_by_spec_takes_all_or_one(pool):
    spec = make_sync_spec(pool)
    make_held(pool, "alice")
    make_held(pool, "bob")
    assert {run.tenant_id for run in syncs.trigger(spec, "outward", None)} == {"alice", "bob"}
    assert [run.direction for run in syncs.trigger(spec, "both", "bob")] == ["upload", "download"]
    with pytest.raises(errors.NotAssigned):
        syncs.trigger(spec, "outward", "carol")


def test_cancel_ends_what_waits_asks_what_runs_and_refuses_the_rest(pool):
    spec = make_sync_spec(pool)
    make_held(pool)
    (run,) = syncs.trigger(spec, "outward", None)
    assert syncs.cancel(run.pk).state == "cancelled"
    assert Event.objects.filter(type="sync.cancelled").count() == 1
    with pytest.raises(errors.NotCancellable):
        syncs.cancel(run.pk)
    (run,) = syncs.trigger(spec, "outward", None)
    SyncRun.objects.filter(pk=run.pk).update(state="running")
    assert syncs.cancel(run.pk).cancel_requested_at
    values = {"spec": spec, "tenant_id": "alice", "container_id": uuid4(), "generation": 1, "direction": "upload"}
    with pytest.raises(errors.NotCancellable, match="belongs to a release"):
        syncs.cancel(SyncRun.objects.create(trigger="release", state="running", **values).pk)
    with pytest.raises(errors.RunNotFound):
        syncs.cancel(uuid4())


def test_an_overdue_save_is_warned_of_once_and_counted_as_stale(pool):
    spec = make_sync_spec(pool, interval_ms=MINUTE_MS)
    make_held(pool, "late", minutes=5)
    make_held(pool, "fine", minutes=1.5)
    assert syncs.warn_of_unsaved() == 1
    assert syncs.warn_of_unsaved() == 0
    event = Event.objects.get(type="pool.warning")
    assert (event.tenant_id, event.payload["code"]) == ("late", "save_overdue")
    found = spec_status(spec)
    assert found["tenants"] == {"covered": 2, "stale": 1}
    syncs.queue_periodic_saves()
    finish(SyncRun.objects.get(tenant_id="late"))
    assert spec_status(spec)["tenants"]["stale"] == 0


def test_the_oldest_save_counts_every_mapping(pool):
    ways = [{}, {"container_path": "/state/logs", "sink_path": "logs/", "direction": "upload", "mode": "copy"}]
    spec = make_sync_spec(pool, ways)
    make_held(pool)
    first, second = spec.mappings.all()
    now = timezone.now()

    def saved(mapping, minutes):
        SavedState.objects.create(
            tenant_id="alice", mapping=mapping, place="p", location=str(mapping.pk), container_path="/state",
            pool_id=pool.pk, generation=1, run_id=uuid4(), files=1, bytes=1, saved_at=now - timedelta(minutes=minutes),
        )  # fmt: skip

    saved(first, 1)
    assert syncs.oldest_saves(spec) == {"alice": None}
    saved(second, 7)
    assert syncs.oldest_saves(spec) == {"alice": now - timedelta(minutes=7)}


def test_the_oldest_save_is_measured_and_an_overdue_one_needs_somebody(pool, client):
    """The age of the last complete save, in the metrics and on the overview (P13)."""
    from boilerhouse.attention import causes
    from boilerhouse.core.api_keys import create_key
    from boilerhouse.core.models import Role

    make_sync_spec(pool, id="notes", interval_ms=MINUTE_MS)
    make_held(pool, "fresh", minutes=0.5)
    assert not causes.present()
    make_held(pool, "late", minutes=10)
    key = create_key(name="prometheus", role=Role.VIEWER)[1]
    lines = client.get("/api/v1/metrics", headers={"Authorization": f"Bearer {key}"}).content.decode().splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if line.startswith("boilerhouse_sync_"))

    assert 600 <= float(figures[f'boilerhouse_sync_oldest_unsaved_seconds{{pool="{pool.pk}"}}']) < 660
    assert float(figures[f'boilerhouse_sync_overdue_tenants{{pool="{pool.pk}"}}']) == 1
    (cause,) = causes.present()
    assert cause.title == "Saves of notes are overdue"
    assert "late would lose changes of the last 10 min" in cause.effect
    make_held(pool, "later", minutes=20)
    (cause,) = causes.present()
    assert "2 tenants would lose changes of the last 20 min" in cause.effect


def test_a_sync_of_a_tenants_key_counts_as_several_requests(pool, call, settings):
    """Fifty a second of one key made others' claims take four times as long (P14)."""
    settings.BOILERHOUSE_THROTTLE_RATE = settings.BOILERHOUSE_THROTTLE_BURST = 1000
    settings.BOILERHOUSE_THROTTLE_RATE_PER_TENANT, settings.BOILERHOUSE_THROTTLE_BURST_PER_TENANT = 0.001, 25
    make_sync_spec(pool)
    make_held(pool)
    key = call.key_of("tenant", tenant_ids=["alice"])
    codes = [call("POST", "tenants/alice/sync", {"direction": "outward"}, key=key).status_code for _ in range(4)]

    assert codes == [202, 202, 202, 429]
    assert call("POST", "tenants/alice/sync", {"direction": "outward"}).status_code == 202


def test_who_asks_without_a_pause_rests_after_each_manual_run(pool):
    """Its runs followed each other at once and kept a processor busy; no other tenant's run waits for that (P14)."""
    spec = make_sync_spec(pool)
    make_held(pool, "eager")
    make_held(pool, "other")
    first, second = (syncs.begin("eager", "both") for _ in range(2))
    assert [run.pk for run in first] == [run.pk for run in second]
    now = timezone.now()
    ended = SyncRun.objects.filter(pk=first[0].pk)
    ended.update(state="succeeded", started_at=now - timedelta(seconds=2), finished_at=now)
    SyncRun.objects.filter(tenant_id="eager").update(created_at=now - timedelta(seconds=3))
    ready, rest_s = syncs._turns()
    assert [one.tenant_id for one in ready] == ["eager"], "the other half of what was asked for"
    assert rest_s == 0

    SyncRun.objects.filter(pk=first[1].pk).update(created_at=now - timedelta(seconds=1))
    syncs.begin("other", "outward")
    ready, rest_s = syncs._turns()
    assert [one.tenant_id for one in ready] == ["other"]
    assert 3 < rest_s <= 4

    SyncRun.objects.filter(pk=first[0].pk).update(finished_at=now - timedelta(seconds=4.5))
    assert {one.tenant_id for one in syncs._turns()[0]} == {"eager", "other"}
    ended.update(started_at=now - timedelta(hours=1), finished_at=now)
    SyncRun.objects.filter(pk=first[1].pk).update(created_at=now)
    assert 4 < syncs._turns()[1] <= syncs.REST_MOST_S

    SyncRun.objects.create(
        spec=spec, tenant_id="eager", generation=first[0].generation, direction="upload", trigger="interval"
    )
    assert {one.tenant_id for one in syncs._turns()[0]} == {"eager", "other"}, "a periodic save is not put off"


def test_a_rest_sends_its_message_for_when_it_ends(pool):
    make_sync_spec(pool)
    make_held(pool, "eager")
    [run] = syncs.begin("eager", "outward")
    now = timezone.now()
    SyncRun.objects.filter(pk=run.pk).update(
        state="succeeded", started_at=now - timedelta(seconds=1), finished_at=now, created_at=now
    )
    syncs.begin("eager", "outward")
    OrmQ.objects.all().delete()
    syncs.run_next()
    assert queued_tasks("tenants.tasks.run_syncs") == 1
    assert OrmQ.objects.get().lock > now + timedelta(seconds=10), "nobody takes it at once"

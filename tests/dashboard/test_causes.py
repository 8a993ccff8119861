"""What needs an operator: one entry per cause, with what it blocks and since when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.attention import causes, pool_causes, save_causes
from boilerhouse.attention.cause import Kind, Severity
from boilerhouse.core import deployment
from boilerhouse.core.errors import Conflict
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Deployment, FailingStep, Lease, QueueHealth
from boilerhouse.operations import archives
from pools import conditions
from pools.models import Pool
from pools.states import Trouble
from syncing.models import SinkProbe, SyncRun
from syncing.sink_words import Remedy
from tests.make import make_assignment, make_container, make_held, make_node, make_pool, make_sync_spec, make_workload
from tests.pages import plain

pytestmark = pytest.mark.django_db
WRONG_KEY = {
    "state": "unhealthy", "code": "denied",
    "detail": "The bucket state at http://s3.example:9000 answered 403 SignatureDoesNotMatch: Check your key.",
}  # fmt: skip
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def here(data_dir) -> None:
    deployment.register_node()


def unsaved(tenant: str, pool: Pool, spec: Any = None, *, minutes: float = 5, **over: Any) -> None:
    """A released tenant whose save has failed for so many minutes, if there is a spec with two failed runs."""
    values = {"state": "release_failed", "outcome": "denied", "outcome_detail": WRONG_KEY["detail"], "step": "saving"}
    values |= {"was_assigned": True, "attempt": 2, "directory_node": deployment.node_id()}
    row = make_assignment(tenant, pool=pool, **{**values, **over})
    for ago in (minutes, minutes / 2) if spec else ():
        at = timezone.now() - timedelta(minutes=ago)
        SyncRun.objects.create(
            spec=spec, tenant_id=tenant, generation=row.generation, direction="upload", trigger="release",
            state="failed", created_at=at, finished_at=at, error_code=row.outcome, error_detail=row.outcome_detail,
        )  # fmt: skip


def probed(spec: Any, *healthy_at_minutes: tuple[float, bool]) -> None:
    for minutes, is_healthy in healthy_at_minutes:
        SinkProbe.objects.create(
            spec=spec, at=timezone.now() - timedelta(minutes=minutes), is_healthy=is_healthy, duration_ms=1
        )


def test_nothing_needs_anybody_in_a_deployment_that_works():
    make_sync_spec(make_pool(), sink_health={"state": "healthy"}, interval_ms=MINUTE_MS)
    make_held(minutes=0.5)
    assert causes.present() == []


def test_one_wrong_key_is_one_cause_however_many_wait_for_it():
    """C5: the same sentence stood six times on one overview, in three kinds of entry."""
    pool = make_pool("notes")
    spec = make_sync_spec(pool, id="notes-sync", sink_health=WRONG_KEY, interval_ms=MINUTE_MS)
    probed(spec, (90, False), (60, True), (40, False), (3, False))
    for tenant in ("alice", "bob", "carol"):
        unsaved(tenant, pool, spec)
    make_held(pool, "dave", minutes=20)
    (cause,) = causes.present()

    assert (cause.kind, cause.severity, cause.title) == (Kind.SINK_DOWN, Severity.ERROR, "notes-sync cannot save")
    assert cause.why == "The secret key is wrong (403 SignatureDoesNotMatch)."
    assert "3 tenants wait. Their state is safe on this node." in cause.effect
    assert "dave would lose changes of the last 20 min if the node were lost now." in cause.effect
    assert "Claims of notes that restore state fail." in cause.effect
    assert cause.unsaved == ("alice", "bob", "carol")
    assert cause.kinds == {Kind.SINK_DOWN, Kind.STATE_NOT_SAVED, Kind.SAVE_OVERDUE}
    assert cause.remedy == Remedy.CREDENTIAL
    assert abs(timezone.now() - timedelta(minutes=40) - cause.since) < timedelta(seconds=5)
    assert cause.pool_ids == ("notes",)


def test_specs_of_one_sink_have_one_cause_and_other_sinks_their_own():
    first, second = make_pool("one"), make_pool("two")
    make_sync_spec(first, id="a", sink_health=WRONG_KEY)
    make_sync_spec(second, id="b", sink_health=WRONG_KEY)
    make_sync_spec(make_pool("three"), id="c", sink_health=WRONG_KEY, sink={"bucket": "other"})
    found = causes.present()

    assert sorted(cause.title for cause in found) == ["a and 1 other sync spec cannot save", "c cannot save"]
    assert [cause.spec_ids for cause in found if cause.subject == "a"] == [("a", "b")]
    assert len({cause.key for cause in found}) == 2


def test_a_cause_keeps_its_key_while_its_saves_are_retried():
    """Whoever is notified once per cause must not be notified at each attempt."""
    pool = make_pool()
    spec = make_sync_spec(pool, sink_health={"state": "healthy"})
    unsaved("alice", pool, spec)
    (before,) = causes.present()
    pool.assignments.update(state="releasing", step="stopping", state_changed_at=timezone.now())
    (during,) = causes.present()

    assert (before.key, before.since, before.unsaved) == (during.key, during.since, during.unsaved)
    assert "1 save is being retried now." in during.effect
    pool.assignments.update(discard=True)
    assert causes.present() == []


def test_a_sink_that_works_again_says_that_the_saves_are_retried():
    pool = make_pool()
    spec = make_sync_spec(pool, id="s", sink_health={"state": "healthy"})
    unsaved("alice", pool, spec)
    (cause,) = causes.present()

    assert (cause.kind, cause.title) == (Kind.STATE_NOT_SAVED, "State of alice is not saved")
    assert "The sink is healthy now, and the saves are retried." in cause.why
    assert cause.spec_ids == ("s",)


def test_what_is_wrong_with_a_tenants_files_is_not_put_on_the_sink():
    pool = make_pool("notes")
    spec = make_sync_spec(pool, id="s", sink_health=WRONG_KEY)
    unsaved("alice", pool, spec, outcome="unsaveable", outcome_detail="run/x is a socket.")
    unsaved("bob", pool, spec, outcome="directory_missing", outcome_detail="/d/1 is not here.")
    unsaved("carol", pool, spec, outcome="directory_missing", outcome_detail="/d/1 is not here.")
    found = {cause.title: cause for cause in causes.present()}

    assert set(found) == {"State of alice is not saved", "State of 2 tenants of notes is not saved", "s cannot save"}
    assert found["s cannot save"].unsaved == ()
    alice = found["State of alice is not saved"]
    assert alice.text.startswith("A file cannot be saved exactly (unsaveable). run/x is a socket. 1 tenant waits.")
    assert "safe" not in found["State of 2 tenants of notes is not saved"].text


def test_where_the_state_is_names_the_other_nodes():
    make_node("there")
    pool = make_pool()
    spec = make_sync_spec(pool, sink_health=WRONG_KEY)
    unsaved("alice", pool, spec, directory_node="there")
    (cause,) = causes.present()
    assert "Its state is safe on there." in cause.effect


def test_a_spec_that_may_not_use_its_place_is_a_cause_of_its_own():
    pool = make_pool()
    spec = make_sync_spec(
        pool, id="s", place_state="conflict", place_detail="t/ is in use by other.", sink_health=WRONG_KEY
    )
    unsaved("alice", pool, spec)
    (cause,) = causes.present()

    assert cause.title == "s is blocked"
    assert cause.why == "Another sync spec saves to the same location (location_conflict). t/ is in use by other."
    assert cause.unsaved == ("alice",)


def test_an_overdue_save_says_why_the_last_attempt_failed():
    pool = make_pool()
    spec = make_sync_spec(pool, id="s", interval_ms=MINUTE_MS)
    make_held(pool, "alice", minutes=10)
    SyncRun.objects.create(
        spec=spec, tenant_id="alice", generation=1, direction="upload", trigger="interval", state="failed",
        error_code="too_large", error_detail="2,000,000 files.",
    )  # fmt: skip
    (cause,) = causes.present()

    assert (cause.kind, cause.severity, cause.title) == (Kind.SAVE_OVERDUE, Severity.WARNING, "Saves of s are overdue")
    assert "The last attempt failed: The state has more files or bytes than a save may have (too_large)." in cause.why
    assert cause.overdue == ("alice",)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [("engine_down", Kind.ENGINE_GONE), ("host_not_ready", Kind.HOST_NOT_READY), ("disk_low", Kind.DISK_LOW)],
)
def test_what_all_pools_of_a_node_suffer_from_is_one_cause(trouble, kind):
    for name in ("a", "b", "c", "d"):
        make_pool(name, trouble=trouble, last_error="No room.")
    (cause,) = causes.present()
    assert cause.kind == kind
    assert cause.pool_ids == ("a", "b", "c", "d")
    assert cause.effect.startswith("a, b, c and 1 more cannot start containers.")


def test_pools_of_one_workload_that_fail_in_the_same_way_are_one_cause():
    workload = make_workload("w")
    for name in ("a", "b"):
        make_pool(name, workload=workload, trouble="start_failed", last_error="No such image: x", waiting=2)
    make_pool("c", trouble="start_failed", last_error="No such image: x")
    found = causes.present()

    assert [(cause.title, cause.workload_id) for cause in found if cause.workload_id == "w"] == [
        ("a cannot start containers", "w")
    ]
    (cause,) = (cause for cause in found if cause.workload_id == "w")
    assert cause.text == "No such image: x. b fails in the same way. 4 claims wait."
    assert len(found) == 2


def test_a_trouble_has_lasted_since_it_began_and_not_since_its_last_words():
    pool = make_pool()
    conditions.report(pool, Trouble.START_FAILED, "first")
    Pool.objects.update(trouble_since=timezone.now() - timedelta(hours=2))
    began = Pool.objects.get().trouble_since
    conditions.report(Pool.objects.get(), Trouble.START_FAILED, "second")
    assert causes.present()[0].since == began
    conditions.report(Pool.objects.get(), Trouble.ENGINE_DOWN, "third")
    assert causes.present()[0].since > began
    conditions.clear(Pool.objects.get())
    assert causes.present() == []


@pytest.mark.parametrize(
    ("over", "kind"), [({"max_size": 1}, Kind.POOL_EXHAUSTED), ({"is_paused": True}, Kind.POOL_PAUSED)]
)
def test_claims_that_wait_for_a_pools_settings(over, kind):
    pool = make_pool("notes", waiting=1, **over)
    make_held(pool, "alice")
    since = timezone.now() - timedelta(minutes=3)
    make_assignment("bob", pool=pool, created_at=since)
    (cause,) = causes.present()
    assert (cause.kind, cause.effect) == (kind, "1 claim waits.")
    assert abs(cause.since - since) < timedelta(seconds=1)


def test_unhealthy_containers_of_one_error_are_one_cause():
    pool = make_pool("notes")
    for _ in range(2):
        make_container(pool, state="claimed", health="unhealthy", error="exit code 1")
    alone = make_container(pool, state="claimed", health="unhealthy", error="")
    with recording():
        emit("container.unhealthy", pool_id="notes", container_id=alone.pk)
    found = {cause.title: cause for cause in causes.present()}
    assert set(found) == {
        "2 claimed containers of notes are unhealthy", f"Claimed container {alone.pk} is unhealthy"
    }  # fmt: skip


def test_processes_that_are_gone():
    long_ago = timezone.now() - timedelta(minutes=5)
    QueueHealth.objects.create(name="save", served_at=long_ago)
    Lease.objects.create(name=Lease.CONTROLLER, expires_at=long_ago)
    FailingStep.objects.create(name="tidy", error="OSError", detail="no such file", since=long_ago)
    node = make_node("there")
    type(node).objects.filter(pk="there").update(heartbeat_at=long_ago)
    titles = [cause.title for cause in causes.present()]
    assert sorted(titles) == [
        "No controller is running", "Node there has no worker", "Queue save is not served", "Step tidy is failing"
    ]  # fmt: skip


def test_errors_come_first_and_among_them_what_has_lasted_longest():
    make_sync_spec(make_pool(), id="late", interval_ms=MINUTE_MS)
    make_held(Pool.objects.get(), "alice", minutes=600)
    new = make_pool("new", trouble="start_failed", last_error="x", trouble_since=timezone.now())
    make_pool("old", trouble="start_failed", last_error="x", trouble_since=timezone.now() - timedelta(hours=1))
    assert [cause.subject for cause in causes.present()] == ["old", "new", "late"]
    rows = [row for row in pool_causes.rows() if row[0].pk == new.pk]
    assert [cause.subject for cause in causes.in_pool(rows)] == ["new"]
    assert [cause.subject for cause in causes.of_saves()] == ["late"]


@pytest.mark.parametrize("size", [2, 12])
def test_the_number_of_queries_does_not_grow_with_what_is_wrong(size, django_assert_max_num_queries):
    for number in range(size):
        pool = make_pool(f"p{number}", trouble="start_failed", last_error=f"error {number}")
        spec = make_sync_spec(pool, sink_health=WRONG_KEY, sink={"bucket": f"b{number}"})
        unsaved(f"t{number}", pool, spec)
        make_container(pool, state="claimed", health="unhealthy")
    with django_assert_max_num_queries(14):
        assert len(causes.present()) == 3 * size


def test_the_whole_list_of_unsaved_tenants_says_since_when():
    pool = make_pool()
    spec = make_sync_spec(pool)
    unsaved("alice", pool, spec, minutes=30)
    unsaved("bob", pool, minutes=30)
    (first, second) = save_causes.unsaved()
    assert (first.tenant_id, first.failed_spec) == ("alice", spec.pk)
    assert (second.tenant_id, second.failed_spec) == ("bob", None)


# Backups ----------------------------------------------------------------------------------------------


def test_without_a_limit_nobody_asks_for_backups():
    """A database may be backed up by other means, which cannot be seen."""
    Deployment.objects.update(created_at=timezone.now() - timedelta(days=900))
    assert causes.present() == []


def test_a_backup_that_is_missing_or_too_old_needs_somebody(settings, tmp_path, client):
    settings.BOILERHOUSE_BACKUP_MAX_AGE_S = 7 * 86_400
    assert causes.present() == [], "it is younger than the limit"
    Deployment.objects.update(created_at=timezone.now() - timedelta(days=9))
    (cause,) = causes.present()
    assert (cause.kind, cause.severity) == (Kind.BACKUP_MISSING, Severity.WARNING)
    assert cause.text.startswith("It has never been backed up. There should be one every 7 d")
    assert abs(timezone.now() - timedelta(days=2) - cause.since) < timedelta(minutes=1)

    client.force_login(User.objects.create_superuser("ada"))
    page = plain(client.get("/"))
    assert "This deployment has no recent backup" in page
    assert "Show backups" in page

    archives.write(tmp_path / "b.zip", lambda _: None)
    assert causes.present() == []
    Deployment.objects.update(backed_up_at=timezone.now() - timedelta(days=8))
    (cause,) = causes.present()
    assert cause.why.startswith("The last backup is 8 d old.")


def test_a_backup_that_failed_does_not_count(settings, tmp_path):
    settings.BOILERHOUSE_BACKUP_MAX_AGE_S = 60
    Deployment.objects.update(created_at=timezone.now() - timedelta(hours=1))
    (tmp_path / "b.zip").write_text("there")
    with pytest.raises(Conflict):
        archives.write(tmp_path / "b.zip", lambda _: None)
    assert [cause.kind for cause in causes.present()] == [Kind.BACKUP_MISSING]

"""A10: every event names who asked for it, also if a worker does the work; ``system`` is for what the system decides.

Rows, files, rclone and S3 are real; the engine is a fake one.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core.context import acting
from boilerhouse.core.models import Event
from pools import lifecycle, services, sizing
from pools.models import Container
from pools.states import ContainerState
from syncing.models import SyncRun, SyncSpec
from syncing.states import Direction, SyncRunState, Trigger
from tenants import aborts, claims, releases, removals, sink_runs, syncs, upkeep, validation, wait_queue
from tenants.errors import ClaimTimeout
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests.fake_engine_rows import hold, warm, work
from tests.make import make_container, make_sync_spec
from tests.pages import text_of

pytestmark = pytest.mark.any_database
ADA, GATEWAY = "user ada", "key gateway"


@pytest.fixture
def pool(saving_pool):
    return saving_pool


def events(*types: str) -> list[tuple[str, str]]:
    """(type, actor) of the events of these types, or of all but progress, in their order."""
    rows = Event.objects.exclude(type="sync.progress").order_by("id")
    return list((rows.filter(type__in=types) if types else rows).values_list("type", "actor"))


def finish(held: Assignment) -> None:
    """As a worker does it, which nobody asked for by name."""
    with acting("system"):
        releases.finish(held.pk)


def test_a_release_and_its_save_are_those_of_who_asked(pool, fake_engine):
    held = hold(pool, fake_engine, "alice")
    Event.objects.all().delete()
    with acting(ADA):
        releases.begin("alice")
    finish(held)

    assert events() == [
        ("sync.started", ADA), ("sync.completed", ADA), ("container.destroyed", ADA), ("container.released", ADA),
    ]  # fmt: skip
    assert SyncRun.objects.get(trigger=Trigger.RELEASE).asked_by == ADA


def test_what_the_system_decides_is_the_systems_and_says_why(pool, fake_engine, client):
    held = hold(pool, fake_engine, "alice")
    pool.__class__.objects.update(idle_timeout_ms=60_000)
    Assignment.objects.update(last_activity_at=timezone.now() - timedelta(hours=1))
    Container.objects.update(created_at=timezone.now() - timedelta(hours=2))
    rows = Assignment.objects.filter(pk=held.pk)
    with acting("system"):
        assert releases.fence(rows, reason="idle")
    finish(held)

    assert events("container.released") == [("container.released", "system")]
    client.force_login(User.objects.create_superuser("ada"))
    assert ", because it was inactive for longer than its pool allows" in text_of(client.get("/activity/"))


def test_a_failed_save_and_its_automatic_retry_are_still_those_of_who_asked(pool, fake_engine):
    held = hold(pool, fake_engine, "alice")
    SyncSpec.objects.update(sink_secrets={"accessKeyId": "AKIDTEST", "secretAccessKey": "wrong"})
    with acting(ADA):
        releases.begin("alice")
    finish(held)
    assert events("container.release_failed", "sync.failed") == [
        ("sync.failed", ADA),
        ("container.release_failed", ADA),
    ]

    held.refresh_from_db()
    Assignment.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    with acting("system"):
        upkeep.retry_failed_saves()
    held.refresh_from_db()
    assert held.released_by == ADA
    with acting("user bob"):
        releases.begin("alice", discard=True)
    held.refresh_from_db()
    assert held.released_by == "user bob"
    finish(held)
    assert events("container.released") == [("container.released", "user bob")]


def test_a_claim_that_a_worker_or_the_deadline_ends_is_that_of_who_asked(pool, fake_engine):
    with acting(GATEWAY):
        claims.begin(validation.Claim(tenant_id="alice", pool_id=pool.pk))
    held = Assignment.objects.get()
    assert held.claimed_by == GATEWAY
    with acting("system"):
        aborts.give_up(held.pk, ClaimTimeout.code)

    assert events("container.claim_failed") == [("container.claim_failed", GATEWAY)]


def test_a_claim_that_waited_is_that_of_who_asked(data_dir, transactional_db, s3, fake_engine):
    """A worker prepares the container that becomes free later."""
    body = s3.json("t/${tenantId}/")
    pool = warm(fake_engine, body, {"accessKeyId": s3.access_key, "secretAccessKey": body.pop("secretAccessKey")})
    Container.objects.update(state=ContainerState.STARTING)
    with acting(GATEWAY):
        claims.begin(validation.Claim(tenant_id="alice", pool_id=pool.pk))
    Container.objects.update(state=ContainerState.IDLE)
    with acting("system"):
        wait_queue.match_waiters(pool.pk)
        assert work() == 1

    assert Assignment.objects.get().state == AssignmentState.ASSIGNED
    assert events("container.claimed") == [("container.claimed", GATEWAY)]


def test_an_operator_who_cancels_a_claim_is_named_as_the_one_who_ended_it(pool):
    with acting(GATEWAY):
        claims.begin(validation.Claim(tenant_id="alice", pool_id=pool.pk))
    with acting(ADA):
        releases.begin("alice")
    assert events("container.claim_failed") == [("container.claim_failed", ADA)]


def test_a_manual_save_is_that_of_who_asked_and_a_periodic_one_is_the_systems(pool, fake_engine):
    hold(pool, fake_engine, "alice")
    Event.objects.all().delete()
    with acting(ADA):
        [manual] = syncs.begin("alice", "outward")
    with acting("system"):
        syncs.run_next()
    assert events("sync.started", "sync.completed") == [("sync.started", ADA), ("sync.completed", ADA)]
    assert manual.asked_by == ADA


def test_a_cancelled_run_is_that_of_who_cancelled_it(pool, fake_engine):
    hold(pool, fake_engine, "alice")
    with acting(GATEWAY):
        [run] = syncs.begin("alice", "outward")
    with acting(ADA):
        syncs.cancel(run.pk)
    assert events("sync.cancelled") == [("sync.cancelled", ADA)]


def test_the_tenants_of_a_deleted_pool_are_released_by_who_deleted_it(pool, fake_engine):
    held = hold(pool, fake_engine, "alice")
    with acting(ADA):
        services.start_deleting(pool.pk, force=True)
    with acting("system"):
        upkeep.release_of_deleted_pools()
    finish(held)
    with acting("system"):
        sizing.refill(pool.pk)

    [event] = Event.objects.filter(type="container.released")
    assert (event.actor, event.payload["reason"]) == (ADA, "pool_deleted")
    assert events("pool.scaled")[-1] == ("pool.scaled", ADA)


def test_an_idle_container_is_removed_by_who_asked(pool, fake_engine):
    container = make_container(pool)
    with acting(ADA):
        removals.begin(container.pk, discard=False)
    with acting("system"):
        lifecycle.destroy_container(container.pk)
    assert events("container.destroyed") == [("container.destroyed", ADA)]


def test_a_run_at_the_sinks_is_that_of_who_asked(db, data_dir):
    spec = make_sync_spec()
    Tenant.objects.create(pk="alice")
    with acting(ADA):
        [run] = sink_runs.begin("alice", Trigger.ERASE, [(spec, {"erased": 0})])
    with acting("system"):
        SyncRun.objects.filter(pk=run.pk).transition(SyncRunState.QUEUED, SyncRunState.RUNNING)
    assert run.direction == Direction.UPLOAD
    assert events("sync.started") == [("sync.started", ADA)]


def test_rows_of_an_earlier_version_are_the_systems(pool, fake_engine):
    held = hold(pool, fake_engine, "alice")
    with acting(ADA):
        releases.begin("alice")
    Assignment.objects.update(released_by="")
    finish(held)
    assert events("container.released") == [("container.released", "system")]
    assert Container.objects.filter(state=ContainerState.CLAIMED).count() == 0

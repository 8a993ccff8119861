"""What tenants use: added up once, by day and month, whatever runs at the same time or is killed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from boilerhouse.controller import controller
from boilerhouse.core import clock, tenant_usage
from boilerhouse.core.events import recording
from boilerhouse.core.models import TenantUsage
from boilerhouse.core.tenant_usage import Amounts
from pools.models import ContainerUsage
from syncing.models import SavedState, SyncRun
from syncing.states import SyncRunState
from tenants import usage
from tenants.models import Assignment, Tenant, next_generation
from tenants.states import AssignmentState
from tests.make import make_assignment, make_container, make_held, make_pool, make_sync_spec

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = 3_600_000


@pytest.fixture
def at(monkeypatch):
    """Sets the database's time."""
    return lambda now: monkeypatch.setattr(clock, "now", lambda: now)


def ended(tenant: str, since: datetime, until: datetime | None, **over: Any) -> Assignment:
    """A claim that had its container from ``since`` to ``until``; None: it still has it."""
    state = AssignmentState.ASSIGNED if until is None else AssignmentState.ENDED
    values = {"assigned_at": since, "last_activity_at": since, "held_until": until, "ended_at": until, "state": state}
    return make_assignment(tenant, container=make_container(state="claimed"), **{**values, **over})


def sample(row: Assignment, at: datetime, cpu_s: float = 0, memory: int = 0) -> None:
    ContainerUsage.objects.create(
        container_id=row.container_ref, at=at, cpu_ns=round(cpu_s * 1e9), memory_bytes=memory, pids=1
    )


def of(tenant: str, period: str = "month") -> dict[date, TenantUsage]:
    return {row.start: row for row in TenantUsage.objects.filter(tenant_id=tenant, period=period)}


def test_a_claim_is_counted_as_it_goes_on_and_once(at):
    row = ended("alice", NOON, None)
    for minutes in (10, 10, 25):
        at(NOON + timedelta(minutes=minutes))
        usage.count()
    Assignment.objects.filter(pk=row.pk).update(state="ended", held_until=NOON + timedelta(minutes=30))
    at(NOON + timedelta(hours=5))
    assert usage.count() == 1
    assert usage.count() == 0, "a claim that has ended is not looked at again"

    assert of("alice")[date(2026, 10, 1)].held_ms == HOUR / 2
    assert of("alice", "day")[date(2026, 10, 20)].held_ms == HOUR / 2


def test_a_claim_over_midnight_is_divided_between_the_days_and_the_months(at):
    row = ended("alice", MIDNIGHT - timedelta(hours=2), MIDNIGHT + timedelta(hours=25))
    for minutes, cpu_s in ((-125, 5), (-60, 65), (-1, 100), (60, 130), (24 * 60 + 30, 150)):
        sample(row, MIDNIGHT + timedelta(minutes=minutes), cpu_s, memory=10**9)
    at(MIDNIGHT + timedelta(days=3))
    usage.count()

    days, months = of("alice", "day"), of("alice")
    assert {day.day: row.held_ms / HOUR for day, row in days.items()} == {31: 2, 1: 24, 2: 1}
    assert {day.day: row.cpu_ns / 1e9 for day, row in days.items()} == {31: 35, 1: 30, 2: 20}
    assert {day.month: row.held_ms / HOUR for day, row in months.items()} == {10: 2, 11: 25}
    assert {day.month: round(row.memory_gb_hours, 6) for day, row in months.items()} == {10: 2, 11: 25}


def test_what_the_container_used_before_the_claim_is_not_the_tenants(at):
    row = ended("alice", NOON, NOON + timedelta(minutes=2))
    for seconds, cpu_s in ((-45, 50), (-5, 100), (10, 101), (100, 110)):
        sample(row, NOON + timedelta(seconds=seconds), cpu_s)
    at(NOON + timedelta(hours=1))
    usage.count()

    assert of("alice")[date(2026, 10, 1)].cpu_ns == 10 * 10**9


def test_cpu_time_goes_on_where_the_last_count_ended_also_with_a_sample_that_came_late(at):
    """Another controller led for a while: its last sample is committed after the count that should have had it."""
    row = ended("alice", NOON, None)
    sample(row, NOON + timedelta(seconds=15), 1)
    at(NOON + timedelta(seconds=31))
    usage.count()
    sample(row, NOON + timedelta(seconds=30), 2)
    sample(row, NOON + timedelta(seconds=45), 4)
    at(NOON + timedelta(seconds=60))
    usage.count()

    assert of("alice")[date(2026, 10, 1)].cpu_ns == 3 * 10**9


def test_memory_is_not_counted_for_a_time_that_nobody_measured(at):
    """The controller was down for an hour of a claim of two."""
    row = ended("alice", NOON, NOON + timedelta(hours=2))
    sample(row, NOON + timedelta(minutes=1), memory=10**9)
    at(NOON + timedelta(minutes=2))
    Assignment.objects.filter(pk=row.pk).update(held_until=None)
    usage.count()
    Assignment.objects.filter(pk=row.pk).update(held_until=row.held_until)
    at(NOON + timedelta(hours=3))
    usage.count()

    month = of("alice")[date(2026, 10, 1)]
    assert month.held_ms == 2 * HOUR
    assert 0 < month.memory_gb_hours < 0.1


def test_two_controllers_count_nothing_twice(at, monkeypatch):
    """The second read the rows before the first had stored anything, which is what a lost lease allows."""
    for name in ("alice", "bob"):
        ended(name, NOON, NOON + timedelta(hours=1))
    at(NOON + timedelta(hours=2))
    read = list(usage.due())
    assert usage.count() == 2
    assert usage._count(read, clock.now()) == 0

    assert of("alice")[date(2026, 10, 1)].held_ms == of("bob")[date(2026, 10, 1)].held_ms == HOUR


def test_the_others_are_counted_when_one_of_them_was_counted_elsewhere(at):
    for name in ("alice", "bob"):
        ended(name, NOON, NOON + timedelta(hours=1))
    at(NOON + timedelta(hours=2))
    read = list(usage.due())
    usage._count([one for one in read if one.tenant_id == "alice"], clock.now())
    assert usage._count(list(usage.due()) + [one for one in read if one.tenant_id == "alice"], clock.now()) == 1

    assert of("alice")[date(2026, 10, 1)].held_ms == of("bob")[date(2026, 10, 1)].held_ms == HOUR


def test_a_count_that_fails_half_way_leaves_nothing(at, monkeypatch):
    row = ended("alice", NOON, NOON + timedelta(hours=1))
    at(NOON + timedelta(hours=2))
    with monkeypatch.context() as broken:
        broken.setattr(tenant_usage, "add", lambda _used: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            usage.count()
    row.refresh_from_db()
    assert row.counted_to is None
    usage.count()
    assert of("alice")[date(2026, 10, 1)].held_ms == HOUR


def test_samples_are_deleted_only_when_they_are_counted(at, monkeypatch, settings):
    settings.BOILERHOUSE_USAGE_RETENTION_S = 60
    now = timezone.now()
    row = ended("alice", now - timedelta(hours=1), None)
    sample(row, now - timedelta(minutes=50), 1)
    sample(row, now - timedelta(minutes=40), 8)
    with monkeypatch.context() as broken:
        broken.setattr(usage, "_use_of", lambda _part: (_ for _ in ()).throw(ValueError("no")))
        with pytest.raises(ValueError, match="no"):
            controller.forget_samples()
    assert ContainerUsage.objects.count() == 2
    controller.forget_samples()

    assert not ContainerUsage.objects.exists()
    assert sum(month.cpu_ns for month in of("alice").values()) == 7 * 10**9


def test_a_failed_save_ends_the_use_of_a_container_and_its_retries_do_not_go_on(at):
    row = make_held(tenant="alice", minutes=60)
    rows = Assignment.objects.filter(pk=row.pk)
    rows.transition(AssignmentState.ASSIGNED, AssignmentState.RELEASING)
    rows.transition(AssignmentState.RELEASING, AssignmentState.RELEASE_FAILED)
    row.refresh_from_db()
    first = row.held_until
    rows.transition(AssignmentState.RELEASE_FAILED, AssignmentState.RELEASING)
    rows.update(held_until=first - timedelta(minutes=10))
    rows.transition(AssignmentState.RELEASING, AssignmentState.ENDED)
    row.refresh_from_db()

    assert row.held_until == first - timedelta(minutes=10)


def test_the_use_of_a_deleted_pools_tenants_stays(at):
    row = ended("alice", NOON, NOON + timedelta(hours=1))
    at(NOON + timedelta(hours=2))
    pool = row.pool
    row.container.delete()
    pool.delete()

    assert not Assignment.objects.exists()
    assert of("alice")[date(2026, 10, 1)].held_ms == HOUR


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
@pytest.mark.parametrize(("direction", "column"), [("upload", "sent_bytes"), ("download", "received_bytes")])
def test_a_run_adds_what_it_transferred_when_it_ends_and_once(state, direction, column):
    run = SyncRun.objects.create(
        spec=make_sync_spec(), tenant_id="alice", container_id=make_container().pk, generation=1, trigger="interval",
        direction=direction, state="running", progress={"bytes": 700, "sentBytes": 40},
    )  # fmt: skip
    rows = SyncRun.objects.filter(pk=run.pk)
    for _ in range(2):
        rows.transition(SyncRunState.RUNNING, SyncRunState(state))

    (month,) = of("alice").values()
    assert getattr(month, column) == 40
    assert month.sent_bytes + month.received_bytes == 40


def test_a_run_at_the_sink_alone_transfers_nothing():
    run = SyncRun.objects.create(
        spec=make_sync_spec(), tenant_id="alice", generation=1, trigger="backup", direction="upload", state="running",
        progress={"bytes": 700},
    )  # fmt: skip
    SyncRun.objects.filter(pk=run.pk).transition(SyncRunState.RUNNING, SyncRunState.SUCCEEDED)

    assert not TenantUsage.objects.exists()


def test_old_days_and_months_are_forgotten(settings, at):
    settings.BOILERHOUSE_TENANT_USAGE_RETENTION_S = 40 * 86400
    at(MIDNIGHT)
    for day in (date(2026, 8, 31), date(2026, 10, 30)):
        tenant_usage.add({("alice", day): Amounts(held_ms=1)})
    tenant_usage.forget_old()

    assert set(of("alice", "day")) == {date(2026, 10, 30)}
    assert set(of("alice")) == {date(2026, 10, 1)}


def test_more_tenants_than_one_statement_takes_are_all_added():
    used = {(f"t{n}", date(2026, 10, 20)): Amounts(held_ms=n) for n in range(1, 501)}
    tenant_usage.add(used)
    tenant_usage.add(used)

    assert {row.tenant_id: row.held_ms for row in TenantUsage.objects.filter(period="day")} == {
        f"t{n}": 2 * n for n in range(1, 501)
    }


def test_a_tenants_row_says_when_it_was_seen_and_what_is_saved(at):
    row = make_held(tenant="alice", minutes=5)
    saved_at = timezone.now() - timedelta(minutes=1)
    for number in (1, 2):
        SavedState.objects.create(
            tenant_id="alice", place="p", location=f"l{number}", container_path="/state", pool_id=row.pool_id,
            generation=1, run_id=row.pk, files=1, bytes=500, saved_at=saved_at,
        )  # fmt: skip
    Tenant.objects.update(seen_at=NOON)
    usage.count()

    alice = Tenant.objects.get()
    assert (alice.saved_bytes, alice.saved_at, alice.seen_at) == (1000, saved_at, row.last_activity_at)


def test_a_claim_is_seen_at_once():
    Tenant.objects.create(id="alice", seen_at=NOON)
    with recording():
        next_generation("alice")
        next_generation("new")

    assert all(tenant.seen_at > timezone.now() - timedelta(minutes=1) for tenant in Tenant.objects.all())


def test_many_claims_take_few_statements(at, django_assert_max_num_queries):
    pool = make_pool()
    for n in range(60):
        make_held(pool, f"t{n}", minutes=5)
    with django_assert_max_num_queries(20 if connection.vendor == "sqlite" else 12):
        assert usage.count() == 60

"""The absolute end of a claim."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.core.models import AuditEntry
from tenants import claims, releases, ttl, upkeep, validation
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason
from tests.api_calls import problem, refused_fields
from tests.make import make_assignment, make_held, make_pool

pytestmark = pytest.mark.django_db
PAST = timedelta(seconds=-1)


@pytest.fixture(autouse=True)
def _deployment(data_dir, fake_engine):
    pass


def ends_in(row, time, **more):
    Assignment.objects.filter(pk=row.pk).update(ends_at=timezone.now() + time, **more)


def test_a_claim_records_its_end_and_says_it(call):
    begun = claims.begin(validation.Claim(tenant_id="alice", pool_id=make_pool().pk, ttl_ms=60_000))

    left = Assignment.objects.get(pk=begun.assignment_id).ends_at - timezone.now()
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    assert call("GET", "tenants/alice/status").json()["endsAt"]


def test_a_tenant_is_released_at_its_end_with_a_save_however_active_it_is():
    row = make_held(tenant="alice")
    ends_in(row, PAST, last_activity_at=timezone.now())

    assert upkeep.end_overdue() == 1
    row.refresh_from_db()
    assert (row.state, row.reason, row.discard) == (AssignmentState.RELEASING, ReleaseReason.EXPIRED, False)
    assert upkeep.end_overdue() == 0


def test_an_end_that_discards_does():
    row = make_held(tenant="alice")
    ends_in(row, PAST, end_discards=True)

    upkeep.end_overdue()
    row.refresh_from_db()
    assert (row.state, row.discard) == (AssignmentState.RELEASING, True)


def test_an_end_that_was_extended_meanwhile_does_not_release(monkeypatch):
    """Between the look for overdue claims and the release of one."""
    row = make_held(tenant="alice")
    ends_in(row, PAST)
    fence = releases.fence

    def late(rows, **options):
        ends_in(row, timedelta(minutes=5))
        return fence(rows, **options)

    monkeypatch.setattr(releases, "fence", late)
    assert upkeep.end_overdue() == 0
    row.refresh_from_db()
    assert row.state == AssignmentState.ASSIGNED


def test_a_pending_claim_is_left_until_it_is_assigned():
    ends_in(make_assignment("alice", pool=make_pool()), PAST)

    assert upkeep.end_overdue() == 0


def test_the_end_can_be_moved_and_taken_away(call):
    row = make_held(tenant="alice")

    assert call("PUT", "tenants/alice/ttl", {"ttlMs": 60_000}).json()["endsAt"]
    row.refresh_from_db()
    assert row.ends_at > timezone.now()
    assert call("PUT", "tenants/alice/ttl", {"ttlMs": None}).json() == {"tenantId": "alice", "endsAt": None}
    row.refresh_from_db()
    assert row.ends_at is None
    assert AuditEntry.objects.filter(action="tenant.ttl").count() == 2


def test_only_longer_keeps_a_later_end_and_none():
    row = make_held(tenant="alice")

    assert ttl.set_ttl("alice", 60_000, only_longer=True) is None
    ends_in(row, timedelta(minutes=5))
    row.refresh_from_db()
    assert ttl.set_ttl("alice", 60_000, only_longer=True) == row.ends_at
    assert ttl.set_ttl("alice", 600_000, only_longer=True) > row.ends_at


def test_what_has_no_end_to_move_is_refused(call):
    problem(call("PUT", "tenants/alice/ttl", {"ttlMs": 1}), 409, "not_assigned")
    row = make_held(tenant="alice")
    releases.fence(Assignment.objects.filter(pk=row.pk))
    problem(call("PUT", "tenants/alice/ttl", {"ttlMs": 1}), 409, "releasing")
    assert refused_fields(call("PUT", "tenants/alice/ttl", {"ttlMs": -1}))[0]


def test_a_second_claim_says_that_its_time_to_live_was_ignored(call):
    row = make_held(tenant="alice")

    answer = call("POST", "tenants/alice/claim", {"poolId": row.pool_id, "ttlMs": 1000})
    assert (answer.status_code, answer.json()["ignored"], answer.json()["endsAt"]) == (200, ["ttlMs"], None)

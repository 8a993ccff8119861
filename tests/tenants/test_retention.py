"""The rows that claims leave in the database are bounded: in bytes immediately, in number by the retention."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants import aborts, upkeep
from tenants.models import Assignment, Death
from tenants.states import AssignmentState
from tests.make import make_assignment, make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]

LARGE = {"config": {"x": "y" * 500_000}, "metadata": {"z": "y" * 500_000}}


def sent() -> int:
    rows = Assignment.objects.exclude(config=None, metadata=None)
    return rows.count()


def test_a_claim_that_is_over_keeps_nothing_of_what_was_sent_with_it(data_dir):
    """For every outcome; 3 claims kept 3 MB for ever."""
    pool = make_pool()
    given_up = make_assignment("alice", pool=pool, **LARGE)
    assert aborts.give_up(given_up.pk, "claim_timeout")
    released = make_assignment("bob", pool=pool, state=AssignmentState.RELEASING, **LARGE)
    held = make_assignment("carol", pool=pool, state=AssignmentState.ASSIGNED, **LARGE)
    assert sent() == 2
    rows = Assignment.objects.filter(pk=released.pk)
    assert rows.transition(AssignmentState.RELEASING, AssignmentState.ENDED, ended_at=timezone.now())
    assert sent() == 1
    held.refresh_from_db()
    assert (held.config, held.metadata) == (LARGE["config"], LARGE["metadata"])


def test_ended_assignments_go_with_the_runs_but_the_last_of_each_tenant_and_pool(data_dir, settings):
    """The pages and the erasure of state need the last one; a death's report keeps its own."""
    settings.BOILERHOUSE_RUN_RETENTION_S = 3600
    pool, other = make_pool(), make_pool()
    old = timezone.now() - timedelta(hours=3)

    def ended(tenant, hours, where=pool):
        at = timezone.now() - timedelta(hours=hours)
        return make_assignment(tenant, pool=where, state=AssignmentState.ENDED, created_at=at, ended_at=at).pk

    gone = {ended("alice", 5), ended("alice", 4), ended("bob", 9)}
    kept = {ended("alice", 3), ended("alice", 6, other), ended("carol", 9)}
    reported = ended("alice", 7)
    Death.objects.create(
        assignment_id=reported,
        tenant_id="alice",
        container_ref="0" * 32,
        at=timezone.now(),
        detail="d",
        words=[],
        log="",
    )
    recent = {ended("dan", 0.5), ended("dan", 0.2)}
    live = make_assignment("bob", pool=pool, state=AssignmentState.ASSIGNED, created_at=old).pk
    upkeep.forget_old()
    left = set(Assignment.objects.values_list("pk", flat=True))
    assert left == kept | recent | {reported, live}
    assert not left & gone

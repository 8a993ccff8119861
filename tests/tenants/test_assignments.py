"""Claims as rows: which claim wins, which waits, and what the database refuses independently of the code."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.core.errors import Invalid
from pools import errors as pool_errors
from pools.models import Container, Pool
from pools.states import ContainerState
from tenants import aborts, claims, errors, releases, upkeep, validation, wait_queue
from tenants.models import Assignment, Tenant, next_generation
from tenants.states import TRANSITIONS, AssignmentState
from tests.make import make_assignment, make_container, make_pool


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def claim(tenant, pool, **over):
    return claims.begin(validation.Claim(tenant_id=tenant, pool_id=pool.pk, **over))


def test_the_generation_never_goes_back_even_when_the_clock_does():
    """Above the last one and above the clock, whichever is higher."""
    first = next_generation("alice")[0].generation
    future = first + 10**12
    Tenant.objects.update(generation=future)

    assert abs(first - time.time() * 1_000_000) < 10_000_000
    for above in (1, 2):
        tenant, busy_with = next_generation("alice")
        assert (tenant.generation, busy_with) == (future + above, None)


def test_the_database_refuses_a_second_live_assignment_of_a_tenant_or_a_container():
    container = make_container(state=ContainerState.CLAIMED)
    make_assignment("alice", container=container, container_ref=container.pk)

    with pytest.raises(IntegrityError), transaction.atomic():
        make_assignment("alice")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_assignment("bob", container=container, container_ref=container.pk)
    Assignment.objects.update(state=AssignmentState.ENDED)
    make_assignment("alice", container=container, container_ref=container.pk)


def test_the_database_refuses_secrets_that_outlive_the_claim():
    make_assignment(secrets={"TOKEN": "x"})

    with pytest.raises(IntegrityError), transaction.atomic():
        Assignment.objects.update(state=AssignmentState.ASSIGNED)
    Assignment.objects.update(state=AssignmentState.ASSIGNED, secrets=None)


def test_every_state_has_its_transitions_and_the_last_has_none():
    assert set(TRANSITIONS) == set(AssignmentState)
    assert TRANSITIONS[AssignmentState.ENDED] == frozenset()


def test_of_decide_and_abort_exactly_one_wins(transactional_db, data_dir):
    """The web process aborts at the deadline while the worker completes."""
    for _ in range(20):
        assignment = make_assignment("alice")
        won = []

        def decide(pk=assignment.pk, won=won):
            if Assignment.objects.filter(pk=pk).transition(AssignmentState.PENDING, AssignmentState.ASSIGNED):
                won.append("decided")
            connection.close()

        def abort(pk=assignment.pk, won=won):
            if aborts.give_up(pk, "claim_timeout"):
                won.append("aborted")
            connection.close()

        threads = [threading.Thread(target=decide), threading.Thread(target=abort)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        Assignment.objects.all().delete()


def test_a_claim_without_a_container_waits_and_counts():
    pool = make_pool()
    begun = claim("alice", pool)
    pool.refresh_from_db()

    assert claims.settle(begun, time.time() + 5) is None
    assert pool.waiting == 1
    assert pool.desired_size(0) == 1  # a pool that keeps nothing warm starts one for who waits


def test_those_who_wait_are_served_first_come_first():
    pool = make_pool()
    for tenant in ("first", "second", "third"):
        claim(tenant, pool)
    make_container(pool)
    make_container(pool)
    OrmQ.objects.all().delete()

    assert wait_queue.match_waiters(pool.pk) == 2
    served = Assignment.objects.exclude(container_ref=None).values_list("tenant_id", flat=True)
    assert set(served) == {"first", "second"}
    assert Pool.objects.get().waiting == 1
    assert [m.func() for m in OrmQ.objects.all()].count("tenants.tasks.prepare") == 2


def test_a_new_claim_does_not_pass_those_who_wait():
    pool = make_pool()
    claim("first", pool)
    make_container(pool)
    claim("late", pool)

    assert Assignment.objects.get(tenant_id="late").container_ref is None


def test_a_wait_that_ends_holds_nothing_and_says_why():
    pool = make_pool()
    begun = claim("alice", pool)

    with pytest.raises(errors.PoolExhausted):
        claims.settle(begun, time.time() - 1)
    assert not Assignment.objects.live().exists()
    assert Pool.objects.get().waiting == 0


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"is_draining": True}, errors.Draining),
        ({"is_paused": True}, errors.PoolPaused),
        ({"last_error": "no image"}, errors.PoolError),
    ],
)
def test_pools_that_cannot_serve_say_so_at_once(over, error):
    pool = make_pool(**over)

    with pytest.raises(error):
        claim("alice", pool)
    assert not Assignment.objects.exists()
    assert not Tenant.objects.filter(assignments__isnull=False).exists()


def test_a_pool_that_does_not_exist_is_404_and_a_bad_tenant_422():
    with pytest.raises(pool_errors.PoolNotFound):
        claims.begin(validation.Claim("alice", "none"))
    with pytest.raises(Invalid):
        claims.begin(validation.Claim("../alice", "none"))


@pytest.mark.parametrize(
    ("state", "error"),
    [(AssignmentState.RELEASING, errors.Releasing), (AssignmentState.RELEASE_FAILED, errors.ReleaseFailed)],
)
def test_a_claim_during_a_release_is_refused(state, error):
    pool = make_pool()
    make_assignment("alice", pool=pool, state=state)

    with pytest.raises(error):
        claim("alice", pool)


def test_joining_a_pending_claim_extends_its_deadline_only():
    pool = make_pool()
    first = claim("alice", pool, timeout_ms=1000)
    before = Assignment.objects.get().deadline
    second = claim("alice", pool, timeout_ms=60_000)
    third = claim("alice", pool, timeout_ms=1)

    assert first.assignment_id == second.assignment_id == third.assignment_id
    assert (first.is_new, second.is_new) == (True, False)
    assert Assignment.objects.get().deadline > before + timedelta(seconds=30)
    with pytest.raises(errors.OutcomeUnknown):  # somebody else still waits for it
        claims.settle(third, time.time() - 1)
    assert Assignment.objects.get().state == AssignmentState.PENDING


def test_overdue_claims_are_given_up_by_the_controller():
    make_assignment("alice", deadline=timezone.now() - timedelta(seconds=10))
    make_assignment("bob")

    assert upkeep.abort_overdue_claims() == 1
    assert list(Assignment.objects.live().values_list("tenant_id", flat=True)) == ["bob"]


def test_a_drained_pool_tells_those_who_wait():
    pool = make_pool()
    begun = claim("alice", pool)
    Pool.objects.update(is_draining=True)
    upkeep.release_of_deleted_pools()

    with pytest.raises(errors.Draining):
        claims.settle(begun, time.time() + 5)


def test_retry_and_discard_of_a_failed_save_are_one_verdict():
    """Release, retry and discard race; the row's attempt number decides."""
    assignment = make_assignment(state=AssignmentState.RELEASE_FAILED, was_assigned=True)
    stale = Assignment.objects.get(pk=assignment.pk)

    assert releases.retry(assignment) is True
    assert releases.retry(stale, discard=True) is False
    assignment.refresh_from_db()
    assert (assignment.state, assignment.discard, assignment.attempt) == (AssignmentState.RELEASING, False, 1)


def test_a_release_whose_owner_is_dead_is_carried_on_once_per_message():
    old = timezone.now() - timedelta(minutes=1)
    container = make_container(state=ContainerState.REMOVING)
    make_assignment(state=AssignmentState.RELEASING, container_ref=container.pk, state_changed_at=old)

    assert upkeep.resume_releases() == 1
    assert upkeep.resume_releases() == 0


def test_deleting_a_pool_waits_for_its_tenants_and_forgets_its_history():
    from pools import services, sizing

    pool = make_pool()
    make_assignment("alice", pool=pool, state=AssignmentState.ENDED)
    container = make_container(pool, state=ContainerState.CLAIMED)
    with pytest.raises(pool_errors.PoolInUse):
        services.start_deleting(pool.pk, force=False)
    services.start_deleting(pool.pk, force=True)
    sizing.refill(pool.pk)
    assert Pool.objects.exists()
    Container.objects.filter(pk=container.pk).delete()
    sizing.refill(pool.pk)

    assert not Pool.objects.exists()
    assert not Assignment.objects.exists()


def test_many_that_begin_to_wait_at_once_are_all_counted(transactional_db, data_dir):
    """The second transaction must see what the first one committed, or the pool starts too few."""
    pool = make_pool(max_size=50)

    def wait(number: int) -> None:
        claim(f"tenant-{number}", pool)
        connection.close()

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Pool.objects.get().waiting == 16


def test_a_row_whose_key_is_gone_can_be_deleted(db):
    row = make_assignment(secrets={"TOKEN": "x"})
    with connection.cursor() as cursor:
        cursor.execute("UPDATE tenants_assignment SET secrets = %s", [b"no key opens this"])
    Assignment.objects.filter(pk=row.pk).delete()
    assert not Assignment.objects.filter(pk=row.pk).exists()

"""P2: no container is created at or above maxSize, however many refill at once (hazards.md#d1)."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from boilerhouse.core.errors import Invalid
from boilerhouse.process import processes
from pools import errors, lifecycle, services, sizing
from pools.models import Container, HostCounter, HostLease, Pool
from pools.states import ContainerState, PoolState
from tests.make import make_container, make_pool, make_workload


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def states(pool):
    return sorted(Container.objects.filter(pool=pool).values_list("state", flat=True))


def test_refill_starts_what_is_missing_but_only_a_few_at_a_time(settings):
    settings.BOILERHOUSE_PARALLEL_CREATES = 2
    pool = make_pool(min_size=5)

    assert sizing.refill(pool.pk) == 2
    assert sizing.refill(pool.pk) == 0
    assert states(pool) == ["starting", "starting"]


def test_each_container_gets_a_uid_of_its_own_that_is_not_reused_while_leased():
    pool = make_pool(min_size=3)
    sizing.refill(pool.pk)
    uids = set(Container.objects.values_list("uid", flat=True))
    Container.objects.all().delete()
    HostCounter.objects.filter(pk=HostCounter.Of.UID).update(position=min(uids))
    sizing.refill(pool.pk)

    assert len(uids) == 3
    assert not uids & set(Container.objects.values_list("uid", flat=True))
    assert HostLease.objects.filter(resource__startswith="uid ").count() == 6


def test_claimed_and_removing_ones_count_against_max_size():
    pool = make_pool(min_size=4, max_size=4)
    for state in (ContainerState.CLAIMED, ContainerState.CLAIMED, ContainerState.REMOVING):
        make_container(pool, state=state)

    assert sizing.refill(pool.pk) == 1
    assert sizing.refill(pool.pk) == 0


def test_shrinking_removes_the_oldest_idle_only():
    pool = make_pool(min_size=1, target_size=1)
    oldest, newest = make_container(pool), make_container(pool)
    claimed = make_container(pool, state=ContainerState.CLAIMED)
    Container.objects.filter(pk=newest.pk).update(state_changed_at="2030-01-01T00:00:00Z")
    sizing.refill(pool.pk)

    assert {c.pk: c.state for c in Container.objects.all()} == {
        oldest.pk: "removing", newest.pk: "removing", claimed.pk: "claimed",
    }  # fmt: skip

    Container.objects.filter(pk=newest.pk).update(state="idle")
    Pool.objects.update(target_size=2)
    sizing.refill(pool.pk)
    newest.refresh_from_db()
    assert newest.state == "idle"


def test_a_paused_pool_starts_nothing_and_a_draining_one_removes_its_warm_ones():
    paused, draining = make_pool(min_size=2, is_paused=True), make_pool(min_size=2, is_draining=True)
    make_container(draining)

    assert sizing.refill(paused.pk) == 0
    sizing.refill(draining.pk)
    assert states(draining) == ["removing"]


def test_after_a_failed_start_one_try_per_back_off():
    pool = make_pool(min_size=5)
    sizing.refill(pool.pk)
    for container in Container.objects.select_related("pool"):
        Container.objects.filter(pk=container.pk).update(owner=processes.current())
        lifecycle._start_failed(container, errors.EngineFailure("image is missing"))
    pool = Pool.objects.with_counts().get()

    assert pool.status().state == PoolState.ERROR
    assert pool.last_error == "image is missing."
    assert sizing.refill(pool.pk) == 0
    Pool.objects.update(next_start_at=None)
    assert sizing.refill(pool.pk) == 1


def test_many_refills_at_once_never_overshoot(transactional_db, data_dir):
    pool = make_pool(min_size=8, max_size=8)
    errors_seen = []

    def work() -> None:
        try:
            for _ in range(5):
                sizing.refill(pool.pk)
                Container.objects.filter(state="starting").update(state="idle")
        except Exception as error:
            errors_seen.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors_seen
    assert Container.objects.count() == 8


def test_scale_refuses_what_cannot_be():
    pool = make_pool(min_size=1, max_size=4)
    for _ in range(2):
        make_container(pool, state=ContainerState.CLAIMED)

    with pytest.raises(Invalid):
        services.scale(pool.pk, 5)
    with pytest.raises(errors.BelowClaimed):
        services.scale(pool.pk, 1)
    assert services.scale(pool.pk, 3).target_size == 3


def test_a_workload_in_use_is_not_deleted():
    workload = make_workload()
    make_pool(workload=workload)

    with pytest.raises(errors.WorkloadInUse):
        services.delete_workload(workload)


def test_a_row_that_no_transition_allows_is_refused():
    container = make_container(state=ContainerState.CLAIMED)

    with pytest.raises(AssertionError):
        Container.objects.filter(pk=container.pk).transition(ContainerState.CLAIMED, ContainerState.IDLE)


def test_a_claim_need_not_ask_for_another_container_while_the_pool_keeps_none_idle_or_has_plenty():
    """Concurrent claims do not see each other, so that many spare containers are needed."""
    keeps_none, keeps_two = make_pool(max_size=5), make_pool(min_idle=2, max_size=50)
    make_container(keeps_none)
    for _ in range(2 + sizing.CLAIMS_AT_ONCE):
        last = make_container(keeps_two)

    assert not sizing.may_lack(keeps_none)
    assert not sizing.may_lack(keeps_two)
    Container.objects.filter(pk=last.pk).update(state=ContainerState.CLAIMED)
    assert sizing.may_lack(keeps_two)


def test_a_pool_that_is_full_lacks_nothing_that_it_could_start():
    pool = make_pool(min_idle=2, max_size=2)
    for state in (ContainerState.IDLE, ContainerState.CLAIMED):
        make_container(pool, state=state)

    assert not sizing.may_lack(pool)
    Container.objects.filter(state=ContainerState.CLAIMED).delete()
    assert sizing.may_lack(pool)

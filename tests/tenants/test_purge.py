"""After a purge the database is correct: no tenant has a container, and pools can be used and deleted."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from boilerhouse.core.models import Event
from pools import cleanup, sizing
from pools.models import Container, HostLease, Pool
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import SyncRunState
from tenants import releases, wait_queue
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.make import make_assignment, make_container, make_held, make_node, make_pool, make_sync_spec

pytestmark = pytest.mark.any_database


@pytest.fixture(autouse=True)
def _nothing_to_remove(data_dir, monkeypatch):
    """Tests the rows; ``tests/stack`` tests the host's part."""
    monkeypatch.setattr(cleanup, "purge", lambda: {"containers": 0, "directories": 0})


def held(pool: Pool, tenant: str, state: AssignmentState, **over: object) -> Assignment:
    container = make_container(pool, state=ContainerState.CLAIMED)
    return make_assignment(tenant, pool=pool, state=state, container=container, container_ref=container.pk, **over)


def test_a_purge_ends_every_claim_by_its_transitions_and_the_pool_can_be_deleted():
    """It wrote the state directly, and the pool's counts stayed, so a deleted pool never disappeared."""
    pool = make_pool(is_deleting=True, is_draining=True)
    held(pool, "ann", AssignmentState.ASSIGNED, was_assigned=True, config={"a": 1})
    held(pool, "bob", AssignmentState.PENDING, secrets={"TOKEN": "x"})
    held(pool, "cem", AssignmentState.RELEASING, step="saving", was_assigned=True)
    held(pool, "dee", AssignmentState.RELEASE_FAILED, was_assigned=True)
    make_assignment("eve", pool=pool)
    wait_queue.recount(pool.pk)
    releases.recount(pool.pk)
    pool.refresh_from_db()
    assert (pool.waiting, pool.release_failed) == (1, 1)

    call_command("purge", "--yes", verbosity=0)
    ended = Assignment.objects.all()
    assert {(one.state, one.outcome, one.step, one.owner, one.config) for one in ended} == {
        (AssignmentState.ENDED, "purged", "", None, None)
    }
    assert all(one.ended_at for one in ended)
    assert not Container.objects.exists()
    assert not HostLease.objects.exists()
    pool.refresh_from_db()
    assert (pool.waiting, pool.release_failed) == (0, 0)
    sizing.refill(pool.pk)
    assert not Pool.objects.exists()


def test_every_claim_container_and_run_has_its_last_event():
    """A client that saw their start event gets their end event."""
    pool = make_pool()
    spec, mine = make_sync_spec(pool), make_held(pool, "ann")
    make_assignment("bob", pool=pool)
    for state in (SyncRunState.QUEUED, SyncRunState.RUNNING):
        SyncRun.objects.create(
            spec=spec, tenant_id="ann", generation=mine.generation, direction="upload", trigger="manual", state=state
        )
    call_command("purge", "--yes", verbosity=0)
    ends = {(one.type, one.tenant_id) for one in Event.objects.all()}
    assert ends >= {
        ("container.released", "ann"), ("container.claim_failed", "bob"), ("container.destroyed", ""),
        ("sync.cancelled", "ann"), ("sync.failed", "ann"),
    }  # fmt: skip
    assert not SyncRun.objects.unfinished().exists()


def test_what_another_node_has_stays(data_dir):
    """Its engine and disk were not purged, so its rows are unchanged."""
    pool = make_pool()
    here, there = make_held(pool, "ann"), make_held(pool, "bob")
    Container.objects.filter(pk=there.container_ref).update(node=make_node("elsewhere"))
    call_command("purge", "--yes", verbosity=0)
    here.refresh_from_db()
    there.refresh_from_db()
    assert (here.state, there.state) == (AssignmentState.ENDED, AssignmentState.ASSIGNED)
    assert list(Container.objects.values_list("pk", flat=True)) == [there.container_ref]

"""P14, B28: work of hours on large states stands in line without a worker, and leaves one to all other work."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.core import lanes
from pools import volumes
from syncing.models import SyncRun
from tenants import releases, syncs, upkeep
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.tenants.test_missing_directories import engine, hold, pool  # noqa: F401 - fixtures
from tests.tenants.test_syncs import messages

pytestmark = pytest.mark.any_database


@pytest.fixture
def busy(settings, monkeypatch):
    """A worker of this queue, while all others but one are busy with large work."""
    settings.BOILERHOUSE_LARGE_BYTES = 1
    with ExitStack() as held:

        def of(queue: str) -> None:
            monkeypatch.setenv("Q_CLUSTER_NAME", queue)
            for _ in range(settings.QUEUES[queue]["workers"] - 1):
                assert held.enter_context(lanes.entered(1))

        of.free = held.close
        yield of


def test_a_large_release_is_put_off_and_taken_up_when_there_is_room(pool, engine, busy):  # noqa: F811
    """P14: it holds no worker meanwhile, and is not forgotten."""
    mine = hold(pool, engine, "alice")
    syncs.begin("alice", "outward")
    syncs.run_queued(mine.pk, mine.generation)
    busy("save")
    assert releases.fence(Assignment.objects.filter(pk=mine.pk))
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.owner) == (AssignmentState.RELEASING, None)
    assert mine.next_attempt_at > timezone.now()
    busy.free()
    Assignment.objects.update(next_attempt_at=None, state_changed_at=timezone.now() - timedelta(seconds=60))
    assert upkeep.resume_releases() == 1
    releases.finish(mine.pk)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "released")


def test_a_sync_beside_a_long_one_of_the_same_tenant_holds_no_worker(pool, engine, monkeypatch):  # noqa: F811
    """P14: its message ends, the run stays queued, and is sent again."""
    monkeypatch.setattr(syncs, "TURN_S", 0.1)
    syncs._resent.clear()
    mine = hold(pool, engine, "alice")
    run = syncs.begin("alice", "outward")[0]
    with volumes.locked(mine.held_container):
        syncs.run_queued(mine.pk, mine.generation)
    run.refresh_from_db()
    assert run.state == "queued"
    SyncRun.objects.update(created_at=timezone.now() - timedelta(seconds=60))
    before = messages()
    assert syncs.resume() == 1
    assert messages() == before + 1

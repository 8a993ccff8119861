"""A claim whose container turns out dead takes another, and a concurrent cancel or retry is respected."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps as django_apps
from django.db import connection
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.core import failpoints
from boilerhouse.core.models import Event
from pools import nodes, volumes
from pools.models import Container, Pool
from pools.runtime.base import Pending
from pools.states import ContainerState
from tenants import aborts, preparation, releases, wait_queue
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests.fake_runtime import FakeRuntime
from tests.make import make_container, make_pool
from tests.runtimes import choose_runtime

pytestmark = pytest.mark.any_database


class BusyEngine(FakeRuntime):
    """Runs a concurrent change while it removes a container for the first time."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.meanwhile: Callable[[], object] | None = None

    def remove(self, name: str) -> Pending | None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return super().remove(name)


@pytest.fixture
def engine(data_dir: object, settings: object, monkeypatch: pytest.MonkeyPatch) -> BusyEngine:
    monkeypatch.setattr(nodes.Host, "release_uid", lambda _container: None)
    return choose_runtime(settings, BusyEngine)


def claimed_dead(pool: Pool, **over: Any) -> Assignment:
    """A pending claim whose container no longer exists on the engine and the disk."""
    Tenant.objects.get_or_create(pk="alice")
    container = make_container(pool, state=ContainerState.CLAIMED)
    values = {
        "tenant_id": "alice", "pool": pool, "generation": 1, "deadline": timezone.now() + timedelta(seconds=60),
        "container": container, "container_ref": container.pk, "version": container.version, "uid": container.uid,
    }  # fmt: skip
    return Assignment.objects.create(**{**values, **over})


def test_a_claim_given_up_in_the_swap_is_released(engine, run_tasks):
    """The release begins after the swap; without the container's name it stayed ``releasing``."""
    mine = claimed_dead(make_pool())
    engine.meanwhile = lambda: aborts.give_up(mine.pk, "claim_timeout")
    preparation.prepare(mine.pk, mine.generation)
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.RELEASING, "claim_timeout")
    run_tasks()
    mine.refresh_from_db()
    assert (mine.state, mine.outcome, mine.owner) == (AssignmentState.ENDED, "claim_timeout", None)
    assert not Container.objects.filter(pk=mine.container_ref).exists()


def test_a_release_under_way_is_not_disowned_by_the_swap(engine, transactional_db, data_dir):
    """The other order: the swap ends during the release; the release lost its owner and its container."""
    mine = claimed_dead(make_pool())
    is_given_up, may_go_on = threading.Event(), threading.Event()

    def give_up() -> None:
        aborts.give_up(mine.pk, "claim_timeout")
        is_given_up.set()
        assert may_go_on.wait(30)

    def swap() -> None:
        preparation.prepare(mine.pk, mine.generation)
        connection.close()

    engine.meanwhile = give_up
    swapping = threading.Thread(target=swap)

    def finish_the_swap() -> None:
        may_go_on.set()
        swapping.join(30)

    swapping.start()
    assert is_given_up.wait(30)
    failpoints.hooks["release.wiped"] = finish_the_swap
    try:
        releases.finish(mine.pk)
    finally:
        failpoints.hooks.clear()
        finish_the_swap()
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.ENDED, "claim_timeout")
    assert not Container.objects.exists()


def test_a_late_swap_takes_no_container_from_an_assigned_tenant(engine):
    """Another worker has taken a container for the claim, and the tenant works in it."""
    pool = make_pool()
    mine, other = claimed_dead(pool), make_container(pool, state=ContainerState.CLAIMED)

    def assign() -> None:
        Assignment.objects.filter(pk=mine.pk).update(
            container=other, container_ref=other.pk, state=AssignmentState.ASSIGNED, owner=None
        )

    engine.meanwhile = assign
    preparation.prepare(mine.pk, mine.generation)
    mine.refresh_from_db()
    assert (mine.state, mine.container_ref) == (AssignmentState.ASSIGNED, other.pk)


def test_a_swap_that_finds_no_container_leaves_the_claim_in_line_and_unowned(engine, run_tasks):
    """A duplicate message must not own a waiting claim; no other worker could prepare it then."""
    pool = make_pool()
    mine = claimed_dead(pool)
    for _ in range(2):
        preparation.prepare(mine.pk, mine.generation)
    mine.refresh_from_db()
    assert (mine.state, mine.container_ref, mine.owner) == (AssignmentState.PENDING, None, None)
    make_container(pool)
    OrmQ.objects.all().delete()
    assert wait_queue.match_waiters(pool.pk) == 1


def test_a_swap_that_finds_a_container_goes_on_as_its_owner(engine):
    """The worker that takes the next container owns the claim, so that no other prepares it at the same time."""
    pool = make_pool()
    mine, spare = claimed_dead(pool), make_container(pool)
    owners = []

    def note_owner() -> None:
        owners.append(Assignment.objects.get(pk=mine.pk).owner)
        engine.meanwhile = note_owner

    engine.meanwhile = note_owner
    preparation.prepare(mine.pk, mine.generation)
    assert not Container.objects.filter(pk=spare.pk).exists()  # dead as well: it has no directory either
    assert len(owners) == 2
    assert owners[0] is not None
    assert owners[1] == owners[0]


def test_releases_that_a_swap_has_left_without_a_container_are_ended(db):
    """Rows of an earlier database; their tenant can claim again."""
    stuck = claimed_dead(make_pool(), container=None, container_ref=None, state=AssignmentState.RELEASING)
    importlib.import_module("tenants.migrations.0011_releases_without_container").end(django_apps, None)
    stuck.refresh_from_db()
    assert (stuck.state, stuck.owner) == (AssignmentState.ENDED, None)


def test_a_claim_given_up_wipes_no_directory_that_has_seen_another_tenant(engine, run_tasks):
    """An older database showed bob's container as free; alice's claim was aborted before the check (P4)."""
    mine = claimed_dead(make_pool())
    assert mine.container
    volumes.prepare(mine.held_container, mine.container.uid, mine.container.version.spec)
    volumes.latch(mine.held_container, "bob", 1)
    unsaved = volumes.volume_path(mine.held_container, "state") / "unsaved"
    unsaved.write_text("bob's")
    aborts.give_up(mine.pk, "claim_aborted")
    run_tasks()
    mine.refresh_from_db()
    assert mine.state == AssignmentState.ENDED
    assert unsaved.read_text() == "bob's"
    assert not Container.objects.filter(pk=mine.container_ref).exists()
    assert "quarantined" in Event.objects.get(type="pool.warning").payload["detail"]

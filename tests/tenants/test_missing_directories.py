"""A missing directory is never a success: nothing is reported as saved, and files that reappear are saved then.

Rows, files, mounts, rclone and S3 are real; the engine is a fake one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.core import deployment
from boilerhouse.core.models import Event
from pools import lifecycle, reconcile, volumes
from pools.errors import DirectoryGone, HostNotReady
from pools.models import Container
from pools.runtime.base import Image
from pools.states import ContainerState
from syncing.models import SavedState, SyncRun
from syncing.states import Direction, Trigger
from tenants import idle, preparation, releases, syncs, upkeep
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseStep
from tests.fake_engine_rows import hold
from tests.make import make_assignment, make_container, make_spec

pytestmark = pytest.mark.any_database


@pytest.fixture
def pool(saving_pool):
    return saving_pool


def release(held: Assignment) -> Assignment:
    releases.begin(held.tenant_id)
    releases.finish(held.pk)
    held.refresh_from_db()
    return held


def take_away_all(held):
    return volumes.containers_dir()


def take_away_home(held):
    return volumes.home(held.held_container)


def take_away_lock(held):
    return volumes.home(held.held_container) / "lock"


def take_away_volume(held):
    return volumes.volume_path(held.held_container, "state")


@pytest.mark.parametrize("missing", [take_away_all, take_away_home, take_away_lock, take_away_volume])
def test_a_release_without_its_directory_fails_and_heals_when_it_comes_back(pool, fake_engine, missing):
    """Never ``released`` with nothing saved; the retry saves it when the directory is back."""
    held = hold(pool, fake_engine, f"{missing.__name__}")
    there = missing(held)
    aside = there.with_name(f"aside-{there.name}")
    there.rename(aside)

    release(held)
    assert (held.state, held.outcome) == (AssignmentState.RELEASE_FAILED, "directory_missing")
    assert str(there.parent if there.name == "lock" else there) in held.outcome_detail or there.name == "containers"
    assert deployment.node_id() in held.outcome_detail
    assert "kept on the node" not in held.whereabouts
    assert not fake_engine.containers, "its slot is free"
    assert not SavedState.objects.filter(tenant_id=held.tenant_id).exists()
    for run in SyncRun.objects.filter(tenant_id=held.tenant_id):
        assert (run.state, run.error_code) == ("failed", "directory_missing")

    Assignment.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    assert upkeep.retry_failed_saves() == 1
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.attempt) == (AssignmentState.RELEASE_FAILED, 1), "still away, still kept"
    assert held.next_attempt_at > timezone.now()

    aside.rename(there)
    assert releases.retry(held)
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome) == (AssignmentState.ENDED, "released")
    assert SavedState.objects.get(tenant_id=held.tenant_id).files == 1
    assert not volumes.home(held.held_container).exists()


def test_a_discard_ends_a_release_whose_directory_never_comes_back(pool, fake_engine):
    """Only the caller can give the state up, and there is no other way out."""
    held = hold(pool, fake_engine, "gone")
    shutil.rmtree(volumes.home(held.held_container))
    release(held)
    assert held.outcome == "directory_missing"
    releases.begin(held.tenant_id, discard=True)
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome) == (AssignmentState.ENDED, "discarded")


@pytest.mark.parametrize("step", [ReleaseStep.DESTROYING, ReleaseStep.WIPING])
def test_a_wipe_that_was_done_before_a_crash_is_a_success(pool, fake_engine, step):
    """From ``destroying`` on the directory may be missing, because it was saved."""
    held = hold(pool, fake_engine, step)
    releases.begin(held.tenant_id)
    Assignment.objects.update(step=step)
    volumes.wipe(held.held_container)
    releases.finish(held.pk)
    held.refresh_from_db()
    assert (held.state, held.outcome) == (AssignmentState.ENDED, "released")


def test_a_disk_image_that_is_missing_fails_the_release(pool, fake_engine):
    """Without its image a container with diskMb has no volumes at all."""
    held = hold(pool, fake_engine, "disk", disk_mb=16)
    home = volumes.home(held.held_container)
    assert os.path.ismount(home / "disk")
    subprocess.run(["umount", str(home / "disk")], check=True)
    (home / "disk.img").rename(home / "elsewhere")

    release(held)
    assert (held.state, held.outcome) == (AssignmentState.RELEASE_FAILED, "directory_missing")
    assert "disk.img" in held.outcome_detail
    (home / "elsewhere").rename(home / "disk.img")
    assert releases.retry(held)
    releases.finish(held.pk)
    assert SavedState.objects.get(tenant_id="disk").files == 1


@pytest.mark.parametrize("trigger", [Trigger.MANUAL, Trigger.INTERVAL])
@pytest.mark.parametrize("missing", [take_away_home, take_away_volume])
def test_a_save_while_it_runs_without_its_directory_fails(pool, fake_engine, missing, trigger, monkeypatch):
    """Neither "succeeded" without files, nor queued for ever; the next run succeeds when the directory is back."""
    monkeypatch.setattr(syncs, "RESTS", 0)
    held = hold(pool, fake_engine, f"{missing.__name__}-{trigger}")
    there = missing(held)
    aside = there.with_name("aside")
    there.rename(aside)
    spec = pool.sync_specs.get()
    [run] = syncs._queue(held, [(spec, Direction.UPLOAD)], trigger)
    syncs.run_next()
    run.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "directory_missing")
    assert str(there) in run.error_detail
    assert Event.objects.filter(type="sync.failed", tenant_id=held.tenant_id).count() == 1
    aside.rename(there)
    [run] = syncs._queue(held, [(spec, Direction.UPLOAD)], trigger)
    syncs.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_a_directory_that_is_missing_inside_a_volume_is_empty(pool, fake_engine):
    """A path that the tenant never created is no failure."""
    spec = pool.sync_specs.get()
    spec.mappings.update(container_path="/state/not/made")
    held = hold(pool, fake_engine, "young")
    [run] = syncs._queue(held, [(spec, Direction.UPLOAD)], Trigger.MANUAL)
    syncs.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_an_idle_check_without_the_directory_decides_nothing(pool, fake_engine):
    """Changes of its files are unknown, so it is not released as idle."""
    pool.idle_timeout_ms = 1000
    pool.save()
    held = hold(pool, fake_engine, "quiet")
    Assignment.objects.update(last_activity_at=timezone.now() - timedelta(hours=1))
    shutil.rmtree(volumes.home(held.held_container))
    with pytest.raises(DirectoryGone):
        idle.check(held.pk, held.generation)
    held.refresh_from_db()
    assert held.state == AssignmentState.ASSIGNED
    Assignment.objects.update(state=AssignmentState.RELEASING)
    assert idle.check(held.pk, held.generation) is False


@pytest.mark.parametrize("missing", [take_away_home, take_away_volume])
def test_a_claim_whose_containers_directory_is_missing_takes_another(pool, fake_engine, missing):
    """A directory missing before the claim does not affect the tenant."""
    first, second = (make_container(pool, state=ContainerState.CLAIMED) for _ in range(2))
    for container in (first, second):
        volumes.prepare(container.pk, container.uid, container.version.spec)
        fake_engine.create(lifecycle.plan_of(container, container.version.spec, "net", Image("sha256:1")))
        fake_engine.start(lifecycle.runtime_name(container.pk))
    Container.objects.filter(pk=second.pk).update(state=ContainerState.IDLE)
    claim = make_assignment(
        missing.__name__, pool=pool, container=first, container_ref=first.pk, version=first.version, uid=first.uid
    )
    shutil.rmtree(missing(claim))
    preparation.prepare(claim.pk, claim.generation)
    claim.refresh_from_db()
    if claim.container_ref is None or claim.state == AssignmentState.PENDING:
        preparation.prepare(claim.pk, claim.generation)
        claim.refresh_from_db()
    assert (claim.state, claim.container_ref) == (AssignmentState.ASSIGNED, second.pk)


def test_another_nodes_containers_are_neither_removed_nor_missed_here(pool, fake_engine):
    """Rows of another machine are not judged by this machine's engine and disk."""
    removing = make_container(pool, state=ContainerState.REMOVING, node="elsewhere")
    claimed = make_container(
        pool, state=ContainerState.CLAIMED, node="elsewhere", state_changed_at=timezone.now() - timedelta(hours=1)
    )
    lifecycle.destroy_container(removing.pk)
    reconcile.heal(set())
    assert Container.objects.filter(pk=removing.pk).exists()
    claimed.refresh_from_db()
    assert claimed.fault == ""


def test_nothing_is_made_in_an_empty_mount_point(pool, data_dir):
    """Files created there are hidden, and so missing, when the mount is back."""
    container = make_container(pool)
    (data_dir / "deployment-id").rename(data_dir / "aside")
    with pytest.raises(HostNotReady, match="mounted"):
        volumes.prepare(container.pk, container.uid, make_spec())
    assert not volumes.containers_dir().exists()

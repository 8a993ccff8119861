"""Disk use of tenants: whoever holds more than a limit that is watched is saved and released, whatever it hides it by."""

from __future__ import annotations

import os
import threading

import pytest

from boilerhouse.core.models import Event
from pools import quota, volumes
from pools.models import Container
from pools.states import Fault
from tenants import disks
from tenants.states import AssignmentState, ReleaseReason
from tests.dashboard.test_controller import hold
from tests.make import make_pool, make_workload

MB = 1 << 20


@pytest.fixture
def held(data_dir, settings):
    """Who holds a container whose volumes are there; its limit is watched."""
    settings.BOILERHOUSE_DISK_LIMITS = "watch"

    def make(tenant: str = "alice", **resources):
        row = hold(tenant, make_pool(workload=make_workload(resources=resources)))
        volumes.prepare(row.held_container, row.uid, row.version.spec)
        volumes.latch(row.held_container, tenant, 1)
        return row

    return make


def state_of(row):
    return volumes.volume_path(row.held_container, "state")


def fill(path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def is_released(row) -> bool:
    row.refresh_from_db()
    if row.state == AssignmentState.ASSIGNED:
        return False
    assert (row.state, row.reason) == (AssignmentState.RELEASING, ReleaseReason.DISK)
    assert Container.objects.get(pk=row.held_container).fault == Fault.DISK
    return True


def words(row) -> str:
    event = Event.objects.get(type="container.unhealthy", tenant_id=row.tenant_id)
    return str(event.payload["detail"])


def hide_behind_many_files(state) -> None:
    for number in range(20_500):
        (state / f"f{number}").touch()
    (state / "z").mkdir()
    fill(state / "z" / "large", 140 * MB)


def many_files(state) -> None:
    for number in range(128 * quota.FILES_PER_MB + 1):
        (state / f"f{number}").touch()


def deep(state) -> None:
    here = os.open(state, os.O_RDONLY)
    for _ in range(volumes.MAX_WALK_DEPTH + 1):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


@pytest.mark.parametrize(
    ("hide", "said"),
    [
        (lambda state: fill(state / "large", 129 * MB), "129 MiB or more on disk; diskMb 128 allows"),
        (hide_behind_many_files, "MiB or more on disk; diskMb 128 allows 128"),
        (many_files, "files or more; diskMb 128 allows 32768"),
        (deep, "cannot be measured"),
    ],
)
def test_who_holds_more_than_a_watched_limit_is_released(held, hide, said):
    """D8: also behind 20,001 small files, in files alone, and where it cannot be measured; also in pools that only
    report what is unhealthy."""
    honest, hider = held("honest", disk_mb=128), held("hider", disk_mb=128)
    fill(state_of(honest) / "large", 100 * MB)
    hide(state_of(hider))
    for row in (honest, hider):
        disks.check(row.pk)
    assert not is_released(honest)
    assert is_released(hider)
    assert said in words(hider)
    assert "It is saved and released." in words(hider)


def test_what_takes_too_long_to_measure_is_too_much(held, monkeypatch):
    """D8: what the walk could not finish is not what it had seen until then."""
    monkeypatch.setattr(disks, "LONGEST_S", 0.0)
    row = held(disk_mb=128)
    for number in range(200):
        (state_of(row) / f"f{number}").touch()
    disks.check(row.pk)
    assert is_released(row)
    assert "takes longer than" in words(row)


def test_without_disk_mb_the_deployments_default_holds(held, settings):
    """Issue 19: bytes and files; 0 is no limit."""
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 8
    large, many, free = held("large"), held("many"), held("free", disk_mb=64)
    for row in (large, free):
        fill(state_of(row) / "large", 9 * MB)
    for number in range(8 * quota.FILES_PER_MB + 1):
        (state_of(many) / f"f{number}").touch()
    watch = disks.DiskWatch(lambda: True, threading.Event())

    settings.BOILERHOUSE_DEFAULT_DISK_MB = 0
    watch.look()
    assert not any(map(is_released, (large, many, free)))

    settings.BOILERHOUSE_DEFAULT_DISK_MB = 8
    watch.look()
    assert not any(map(is_released, (large, many, free)))  # just measured
    watch = disks.DiskWatch(lambda: True, threading.Event())
    watch.look()
    assert [is_released(row) for row in (large, many, free)] == [True, True, False]
    assert "BOILERHOUSE_DEFAULT_DISK_MB 8 allows 8" in words(large)
    assert "BOILERHOUSE_DEFAULT_DISK_MB 8 allows 2048" in words(many)
    assert Container.objects.get(pk=free.held_container).disk_bytes >= 9 * MB


def test_a_container_with_a_file_system_of_its_own_is_never_released_for_its_size(held, settings):
    settings.BOILERHOUSE_DISK_LIMITS = "loop"
    row = held(disk_mb=8)
    home = volumes.home(row.held_container)
    assert (home / quota.IMAGE).exists()
    with pytest.raises(OSError, match="No space left"):
        fill(state_of(row) / "large", 20 * MB)
    disks.check(row.pk)
    assert not is_released(row)
    quota.release(home)


def test_a_walk_keeps_no_more_open_than_it_is_deep(held):
    row = held(disk_mb=128)
    deep(state_of(row))
    before = len(os.listdir("/proc/self/fd"))
    disks.check(row.pk)
    assert len(os.listdir("/proc/self/fd")) <= before

"""Disk use of tenants: a tenant above a watched limit is saved and released, however it hides its files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading

import pytest
import requests

from boilerhouse.core.models import Event
from pools import host, quota, volumes
from pools.models import Container
from pools.states import Fault
from tenants import disks
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason
from tests import cgroups, small_disks
from tests.make import make_held, make_pool, make_workload
from tests.waiting import eventually
from tests.webserver import running

pytestmark = pytest.mark.slow

MB = 1 << 20


@pytest.fixture
def held(data_dir, settings):
    """A tenant with a container and existing volumes; its limit is watched."""
    settings.BOILERHOUSE_DISK_LIMITS = "watch"

    def make(tenant: str = "alice", **resources):
        row = make_held(make_pool(workload=make_workload(resources=resources)), tenant)
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
        (lambda state: fill(state / "large", 129 * MB), "at least 129 MiB on disk; diskMb 128 allows"),
        (hide_behind_many_files, "MiB on disk; diskMb 128 allows 128"),
        (many_files, "files; diskMb 128 allows 32768"),
        (deep, "cannot be measured"),
    ],
)
def test_who_holds_more_than_a_watched_limit_is_released(held, hide, said):
    """Also hidden behind 20,001 small files, by number of files, and where it cannot be measured; also in pools that
    only report unhealthy containers."""
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
    """An unfinished walk does not report its partial result."""
    monkeypatch.setattr(disks, "LONGEST_S", 0.0)
    row = held(disk_mb=128)
    for number in range(200):
        (state_of(row) / f"f{number}").touch()
    disks.check(row.pk)
    assert is_released(row)
    assert "takes too long" in words(row)


HOLDS = """
import os, sys, time
held = []
for number in range(3):
    file = os.open(os.path.join(sys.argv[1], "f"), os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, 50 << 20)
    os.unlink(os.path.join(sys.argv[1], "f"))
    held += [file, os.dup(file)]
print("go")
time.sleep(600)
"""


def test_files_without_a_name_count_as_long_as_they_are_open(held):
    """Unlinked open files use the disk although no walk sees them; each counts once."""
    row, other = held("hider", disk_mb=128), held("other", disk_mb=160)
    with cgroups.group() as hides, cgroups.group() as fits:
        for one, runtime_id in ((row, hides), (other, fits)):
            Container.objects.filter(pk=one.held_container).update(runtime_id=runtime_id)
            cgroups.start(runtime_id, HOLDS, state_of(one))
            disks.check(one.pk)
        assert is_released(row)
        assert "diskMb 128 allows 128" in words(row)
        assert not is_released(other)


def test_without_disk_mb_the_deployments_default_holds(held, settings, monkeypatch):
    """Bytes and files; 0 is no limit."""
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 8
    large, many, free = held("large"), held("many"), held("free", disk_mb=64)
    for row in (large, free):
        fill(state_of(row) / "large", 9 * MB)
    for number in range(8 * quota.FILES_PER_MB + 1):
        (state_of(many) / f"f{number}").touch()
    watch = disks.DiskWatch(lambda: True, threading.Event())
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 8
    watch.look()
    assert not any(map(is_released, (large, many, free))), "just claimed"

    monkeypatch.setattr(disks, "EVERY_S", 0.0)
    monkeypatch.setattr(disks, "DEAR", 0)
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 0
    watch.look()
    assert not any(map(is_released, (large, many, free)))

    settings.BOILERHOUSE_DEFAULT_DISK_MB = 8
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


# The node's disk -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    with small_disks.mounted(tmp_path, 200) as mount:
        yield mount


@pytest.fixture
def on_small_disk(small_disk, data_dir, held, settings):
    """The same, with the containers' directories on it."""
    (small_disk / "deployment-id").write_bytes((data_dir / "deployment-id").read_bytes())
    settings.BOILERHOUSE_DATA_DIR = small_disk
    settings.BOILERHOUSE_DISK_FLOOR_MB = 60
    return held


def test_below_the_floor_who_grows_the_most_is_released_one_at_a_time(on_small_disk, small_disk, monkeypatch):
    """It releases a growing tenant, not the largest, and none while free space does not shrink."""
    monkeypatch.setattr(disks, "EVERY_S", 0.0)
    monkeypatch.setattr(disks, "LOW_EVERY_S", 0.0)
    monkeypatch.setattr(disks, "DEAR", 0)
    large, slow, hog = on_small_disk("large"), on_small_disk("slow"), on_small_disk("hog")
    watch = disks.DiskWatch(lambda: True, threading.Event())
    fill(state_of(large) / "large", 50 * MB)
    fill(state_of(hog) / "first", 20 * MB)
    watch.look()
    assert not host.disk_is_low()

    fill(state_of(hog) / "second", 30 * MB)
    assert host.disk_is_low()
    watch.look()
    watch.look()
    assert not any(map(is_released, (large, slow, hog))), "it has grown, and does no more"

    fill(state_of(slow) / "little", 3 * MB)
    fill(state_of(hog) / "third", 9 * MB)
    watch.look()
    assert [is_released(row) for row in (large, slow, hog)] == [False, False, True]
    assert "grows the fastest: by 9 MiB" in words(hog)

    fill(state_of(hog) / "fourth", 9 * MB)
    fill(state_of(slow) / "more", 3 * MB)
    watch.look()
    assert not is_released(slow), "the one before is just ending"

    Assignment.objects.filter(pk=hog.pk).update(step="saving")
    (small_disk / "not-a-tenants").write_bytes(bytes(4 * MB))
    watch.look()
    assert not is_released(slow), "somebody else's"
    fill(state_of(slow) / "again", 3 * MB)
    watch.look()
    assert is_released(slow)
    assert not is_released(large)


def test_on_a_disk_that_is_full_to_the_last_byte_who_filled_it_is_found_and_room_is_made(
    on_small_disk, small_disk, monkeypatch
):
    """Then all tenants stop growing; before, the database could not record the release."""
    monkeypatch.setattr(disks, "EVERY_S", 0.0)
    monkeypatch.setattr(disks, "LOW_EVERY_S", 0.0)
    monkeypatch.setattr(disks, "DEAR", 0)
    large, hog = on_small_disk("large"), on_small_disk("hog")
    watch = disks.DiskWatch(lambda: True, threading.Event())
    fill(state_of(large) / "large", 50 * MB)
    watch.look()
    assert (small_disk / "reserve").stat().st_blocks * 512 >= 32 * MB
    small_disks.fill(state_of(hog) / "all")
    assert host.free_disk_mb() == 0
    watch.look()
    assert [is_released(row) for row in (large, hog)] == [False, True]
    assert not (small_disk / "reserve").exists()
    assert host.free_disk_mb() >= 30
    watch.look()
    assert not (small_disk / "reserve").exists(), "not while the disk is low"
    (state_of(hog) / "all").unlink()
    watch.look()
    assert (small_disk / "reserve").exists()


def test_a_database_on_a_full_disk_answers_503_and_loses_nothing(small_disk):
    """SQLite on a full disk: claims and other writes are refused with a reason, and continue afterwards."""
    with running(small_disk) as web:

        def ask(method: str, path: str, body=None) -> requests.Response:
            headers = {"Authorization": f"Bearer {web.key}"}
            return requests.request(method, f"{web.base}/api/v1/{path}", json=body, headers=headers, timeout=60)

        def make(number: int) -> requests.Response:
            return ask("POST", "workloads", {"id": f"w{number}", "name": "w", "image": "i", "environment": {"A": BIG}})

        def claim(number: int) -> requests.Response:
            body = {"poolId": "p", "metadata": {"a": BIG}}
            return ask("POST", f"tenants/t{number}/claim?timeoutMs=100", body)

        assert make(0).status_code == 201
        assert ask("POST", "pools", {"id": "p", "workloadId": "w0"}).status_code == 201
        assert claim(0).json()["code"] == "pool_exhausted"

        made = []
        small_disks.fill(small_disk / "filler")
        refused = []
        for number in range(1, 40):
            for answer in (make(number), claim(number)):
                assert answer.status_code in (201, 503), answer.text
                if answer.json().get("code") == "database_unavailable":
                    assert answer.headers["Retry-After"]
                    refused.append(number)
                elif answer.status_code == 201:
                    made.append(number)
            assert web.health() in (200, 503)
        assert len(refused) > 10

        (small_disk / "filler").unlink()
        eventually(lambda: claim(99).json()["code"] == "pool_exhausted", 30)
        assert make(99).status_code == 201
        for number in made:
            assert ask("GET", f"workloads/w{number}").status_code == 200
        assert ask("GET", f"tenants/t{refused[-1]}/status").json()["assigned"] is False
    with contextlib.closing(sqlite3.connect(small_disk / "data" / "boilerhouse.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


BIG = "x" * 100_000

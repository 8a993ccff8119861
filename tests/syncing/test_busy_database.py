"""An SQLite database in WAL mode under constant commits in a real container, saved repeatedly; then the host is
lost."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time

import pytest

from boilerhouse.core import failpoints
from pools import images, lifecycle
from pools.models import Container
from syncing import errors
from syncing.models import SyncRun
from tests import sqlite
from tests.sink_servers import RcloneS3
from tests.tenant_state import UID, LiveState

pytestmark = [pytest.mark.any_database, pytest.mark.slow]


@pytest.fixture
def image(tmp_path):
    images.ensure_example()
    with sqlite.built_image(tmp_path / "image") as built:
        yield built


class Busy(LiveState):
    """A tenant whose container runs on the engine."""

    def begin(self, image: str) -> None:
        name = lifecycle.runtime_name(self.container_id)
        os.chmod(self.state, 0o777)
        command = ["docker", "run", "-d", "--name", name, "-v", f"{self.state}:/state", "-u", f"{UID}:{UID}", image]
        done = subprocess.run([*command, "sh", "/writer.sh"], capture_output=True, text=True, check=True)
        Container.objects.filter(pk=self.container_id).update(runtime_id=done.stdout.strip())

    def end(self) -> None:
        subprocess.run(
            ["docker", "rm", "-f", lifecycle.runtime_name(self.container_id)], capture_output=True, check=True
        )

    def content(self, directory) -> str:
        directory.mkdir()
        location = self.spec.mappings.get().location("alice")
        for name, _ in self.sink.names(location):
            (directory / name).write_bytes(self.sink.get(f"{location}/{name}", 15))
        return sqlite.content(directory / "app.db")


@pytest.mark.parametrize("saves", [4, pytest.param(20, marks=pytest.mark.long)])  # 20 take a minute
def test_a_busy_database_comes_back_as_the_last_save_had_it(
    s3, data_dir, transactional_db, image, tmp_path, saves, capsys
):
    """Each save is one consistent snapshot; if the next one is interrupted and the host lost, a restore returns the
    last one."""
    end = RcloneS3(s3)
    end.clear()
    tenant = Busy(end)
    tenant.begin(image)
    told = []
    try:
        time.sleep(1)
        contents = []
        for number in range(saves):
            told.append(tenant.told())
            contents.append(tenant.content(tmp_path / f"at-{number}"))
            time.sleep(random.uniform(0, 0.3))
        assert all(one["pointInTime"] for one in told)
        newest = [int(one.split()[0]) for one in contents]
        assert newest == sorted(set(newest)), "it has gone on between any two"
        cut_in_next_save(tenant, random.uniform(0, 0.4))
        is_done = SyncRun.objects.latest("created_at").state == "succeeded"
        expected = tenant.content(tmp_path / "last") if is_done else contents[-1]
    finally:
        tenant.end()
    tenant.lose_host()
    tenant.claim()
    assert sqlite.content(tenant.state / "app.db") == expected
    frozen = sorted(one["freezeMs"] for one in told)
    with capsys.disabled():
        p50, p95 = frozen[len(frozen) // 2], frozen[int(0.95 * (len(frozen) - 1))]
        rate = (newest[-1] - newest[0]) / len(newest)
        print(
            f"\nbusy database, {rate:.0f} commits between saves; freeze ms, n={len(frozen)}: min {frozen[0]} p50 {p50}"
            f" p95 {p95} max {frozen[-1]}"
        )


def cut_in_next_save(tenant: Busy, after_s: float) -> None:
    """The next save is cancelled after that time, from within, as a lost worker would leave it: nothing is undone."""
    until = time.monotonic() + after_s
    reached = threading.Event()

    def look() -> None:
        if time.monotonic() > until and not reached.is_set():
            reached.set()
            raise errors.TransferCancelled

    places = ("save.snapshot-taken", "save.marker-open", "save.uploaded")
    failpoints.hooks.update(dict.fromkeys(places, look))
    try:
        tenant.save()
    except errors.SyncFailed:
        pass
    finally:
        for place in places:
            failpoints.hooks.pop(place, None)

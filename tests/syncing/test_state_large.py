"""B28: large states on slow and bad lines: a transfer ends by standing still, not by its length, and goes on where it
stopped. Real rclone, real S3, a line that breaks."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time

import pytest

from boilerhouse.core import processes
from boilerhouse.core.deployment import data_dir as deployments_dir
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.models import SyncRun
from syncing.sinks import LocalSink
from tests import far_ends
from tests.lines import Line
from tests.syncing.test_exactly_the_last_save import UID, Tenant

pytestmark = pytest.mark.any_database

STALL_S = 2


@pytest.fixture
def line(s3):
    made = Line(s3.endpoint)
    yield made
    made.stop()


@pytest.fixture
def make_tenant(s3, line, data_dir, transactional_db, settings):
    """A tenant whose sink is at the end of the line, with these flags of rclone."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = STALL_S

    def make(*flags: str) -> Tenant:
        end = far_ends.RcloneS3(s3)
        end.clear()
        end.shown = {**end.shown, "endpoint": line.endpoint, "rcloneFlags": list(flags)}
        return Tenant(end)

    return make


def fill(tenant: Tenant, count: int, size: int) -> dict[str, bytes]:
    """Files of random bytes in the tenant's volume."""
    made = {f"f{number:02}": os.urandom(size) for number in range(count)}
    for name, content in made.items():
        path = tenant.state / name
        path.write_bytes(content)
        os.chown(path, UID, UID)
    return made


def lies_in(tenant: Tenant) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tenant.state.iterdir()}


def all_slots_are_free() -> bool:
    """Whether nobody holds a transfer slot; who was killed may be dying still."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            for path in (deployments_dir() / "slots").iterdir():
                with path.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def test_a_transfer_that_is_longer_than_the_bound_goes_on_as_long_as_it_moves(make_tenant):
    """B28: what takes a multiple of the bound completes, both ways."""
    tenant = make_tenant("--bwlimit=1M")
    made = fill(tenant, 5, 1_000_000)
    began = time.monotonic()
    tenant.save()
    assert time.monotonic() - began > STALL_S
    tenant.claim()
    assert lies_in(tenant) == made


def test_a_line_that_falls_silent_stalls_the_transfer_and_frees_its_slot(make_tenant, line):
    """B28: no byte for the bound ends it, says so, and leaves nothing behind that holds a slot."""
    tenant = make_tenant("--bwlimit=1M")
    fill(tenant, 6, 1_000_000)
    silence = threading.Timer(1.0, line.silent.set)
    silence.start()
    began = time.monotonic()
    with pytest.raises(errors.TransferStalled) as raised:
        tenant.save()
    assert raised.value.code == "stalled"
    assert "Nothing has moved for 2 s" in raised.value.detail
    assert time.monotonic() - began < 30
    assert all_slots_are_free()
    run = SyncRun.objects.get(direction="upload")
    assert (run.state, run.error_code) == ("failed", "stalled")


def test_a_process_that_hangs_is_ended(make_tenant, monkeypatch):
    """B28: as on a read that never returns."""
    tenant = make_tenant("--bwlimit=1M")
    fill(tenant, 4, 1_000_000)
    real = rclone._Supervisor.__enter__

    def enter(self):
        threading.Timer(1.0, stop, [self._process.pid]).start()
        return real(self)

    def stop(pid: int) -> None:
        for one in processes.descendants(pid):
            os.kill(one, signal.SIGSTOP)

    monkeypatch.setattr(rclone._Supervisor, "__enter__", enter)
    with pytest.raises(errors.TransferStalled):
        tenant.save()
    assert all_slots_are_free()


def test_reading_a_large_file_is_work(data_dir, transactional_db, settings, tmp_path):
    """B28: rclone says nothing while it compares a large file by its checksum, and is not ended for that."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = 1
    root, volume = tmp_path / "sink", tmp_path / "volume"
    for directory in (root / "t" / "one", volume):
        directory.mkdir(parents=True)
        os.chown(directory, UID, UID)
        with (directory / "large").open("wb") as file:
            file.truncate(1 << 30)
        os.utime(directory / "large", (1, 1))
        os.chown(directory / "large", UID, UID)
    sink = LocalSink(root)
    backup = ".boilerhouse-trash/one"
    arguments = rclone.upload(sink, "t/one", [], deletes=False, inside="", backup=backup)
    binds = tuple(sink.binds(["t/one", backup], UID))
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    done = rclone.run(arguments, sink, Jail(volume, UID, False, binds), lock)
    os.close(lock)
    assert (done.progress.checks, done.progress.files) == (1, 0)


def test_large_transfers_leave_slots_to_others(data_dir, settings):
    """B28, P14: they may hold theirs for hours."""
    settings.BOILERHOUSE_PARALLEL_TRANSFERS, settings.BOILERHOUSE_LARGE_BYTES = 3, 100
    with rclone.slot(100), pytest.raises(errors.TransferCancelled), rclone.slot(100, lambda: False):
        pass
    with rclone.slot(100), rclone.slot(99), rclone.slot(99), pytest.raises(errors.TransferCancelled):
        rclone.slot(99, lambda: False).__enter__()


def test_a_deadline_that_is_still_set_is_told_to_have_no_effect(monkeypatch):
    """B28: the setting is retired; who still sets it is told so and by what."""
    from boilerhouse.core.checks import environment

    monkeypatch.setenv("BOILERHOUSE_TRANSFER_TIMEOUT_S", "600")
    told = [one for one in environment() if one.id == "boilerhouse.W003"]
    assert "BOILERHOUSE_TRANSFER_STALL_S" in told[0].hint


def test_no_queue_ends_a_transfer_by_a_timeout_of_its_own(settings):
    """B28: django-q2 would kill the task, and hand it to a second worker while the first one works."""
    for name in ("claim", "save", "sync"):
        queue = settings.Q_CLUSTER["ALT_CLUSTERS"][name]
        assert queue["timeout"] >= 7 * 86400
        assert queue["retry"] > queue["timeout"]

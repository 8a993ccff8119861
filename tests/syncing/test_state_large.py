"""B28: large states on slow and bad lines: a transfer ends by standing still, not by its length, and goes on where it
stopped. Real rclone, real S3, a line that breaks."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from boilerhouse.core.deployment import data_dir as deployments_dir
from boilerhouse.process import pids
from pools import volumes
from pools.spec import Owner
from pools.volumes import staged_restores
from syncing import errors, rclone, restores, runs, sink_checks
from syncing.jail import Jail
from syncing.models import SyncRun
from syncing.sinks import LocalSink
from syncing.states import Trigger
from tests import sink_servers
from tests.lines import Line
from tests.tenant_state import TENANT, UID, TenantState

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

STALL_S = 2


@pytest.fixture
def line(s3):
    made = Line(s3.endpoint)
    yield made
    made.stop()


@pytest.fixture
def make_tenant(s3, line, data_dir, transactional_db, settings):
    """A tenant whose sink has this connection, with these flags of rclone."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = STALL_S

    def make(*flags: str) -> TenantState:
        end = sink_servers.RcloneS3(s3)
        end.clear()
        end.definition = {**end.definition, "endpoint": line.endpoint, "rcloneFlags": list(flags)}
        return TenantState(end)

    return make


def fill(tenant: TenantState, count: int, size: int) -> dict[str, bytes]:
    """Files of random bytes in the tenant's volume."""
    made = {f"f{number:02}": os.urandom(size) for number in range(count)}
    for name, content in made.items():
        path = tenant.state / name
        path.write_bytes(content)
        os.chown(path, UID, UID)
    return made


def lies_in(tenant: TenantState) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tenant.state.iterdir()}


def all_slots_are_free() -> bool:
    """Whether no process holds a transfer slot; a killed one may still be dying."""
    deadline = time.monotonic() + 30
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
    """A transfer that takes a multiple of the time limit completes, in both directions."""
    tenant = make_tenant("--bwlimit=1M")
    made = fill(tenant, 5, 1_000_000)
    began = time.monotonic()
    tenant.save()
    assert time.monotonic() - began > STALL_S
    tenant.claim()
    assert lies_in(tenant) == made


def test_a_line_that_falls_silent_stalls_the_transfer_and_frees_its_slot(make_tenant, line):
    """A transfer without a byte for the time limit ends with a reason, and frees its slot."""
    tenant = make_tenant("--bwlimit=1M")
    fill(tenant, 6, 1_000_000)
    before, has_ended = line.up, threading.Event()

    def fall_silent() -> None:
        while line.up < before + 1_000_000 and not has_ended.wait(0.02):
            pass  # until files are on their way
        line.silent.set()

    falling = threading.Thread(target=fall_silent)
    falling.start()
    try:
        with pytest.raises(errors.TransferStalled) as raised:
            tenant.save()
    finally:
        has_ended.set()
        falling.join()
    assert raised.value.code == "stalled"
    assert "The transfer has made no progress for 2 s" in raised.value.detail
    assert all_slots_are_free()
    run = SyncRun.objects.get(direction="upload")
    assert (run.state, run.error_code) == ("failed", "stalled")


def test_a_sink_that_drips_bytes_into_a_restore_stalls_it(make_tenant, line):
    """An occasional byte is no progress; it would occupy a worker and a slot indefinitely."""
    tenant = make_tenant()
    fill(tenant, 6, 3_000_000)
    tenant.save()
    line.drips_from = line.down + 3_000_000
    with pytest.raises(errors.TransferStalled, match=r"no progress for 2 s"):
        tenant.claim()
    assert all_slots_are_free()


def test_a_sink_that_is_always_just_alive_stalls_it_too(make_tenant, line):
    """600 bytes a second and a connection, below BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S."""
    tenant = make_tenant()
    fill(tenant, 6, 3_000_000)
    tenant.save()
    line.drips_from, line.drip_bytes = line.down + 3_000_000, 60
    with pytest.raises(errors.TransferStalled, match=r"no progress for 2 s"):
        tenant.claim()
    assert all_slots_are_free()


def test_what_moves_slower_than_the_bound_is_ended_and_not_begun_again(make_tenant, line, settings):
    """The error says so, whatever has arrived; a lower limit lets it continue (hazards.md#d10)."""
    settings.BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S = 10_000_000
    tenant = make_tenant()
    fill(tenant, 6, 3_000_000)
    tenant.save()
    line.drips_from, line.drip_bytes = line.down + 3_000_000, 16_384
    with pytest.raises(errors.TooSlow, match=r"slower than 10000000 bytes a second \(.*\) for 2 s, after"):
        tenant.claim()
    run = SyncRun.objects.filter(direction="download").latest("created_at")
    assert (run.state, run.error_code, run.retries) == ("failed", "stalled", 0)
    settings.BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S = 8192
    threading.Timer(3, setattr, (line, "drips_from", math.inf)).start()
    tenant.claim()
    assert len(lies_in(tenant)) == 6


def test_a_process_that_hangs_is_ended(make_tenant, monkeypatch):
    """As on a read that never returns."""
    tenant = make_tenant("--bwlimit=1M")
    fill(tenant, 4, 1_000_000)
    real = rclone._Supervisor.__enter__

    def enter(self):
        threading.Timer(1.0, stop, [self._process.pid]).start()
        return real(self)

    def stop(pid: int) -> None:
        for one in pids.descendants(pid):
            with contextlib.suppress(ProcessLookupError):  # it may have ended since the list was read
                os.kill(one, signal.SIGSTOP)

    monkeypatch.setattr(rclone._Supervisor, "__enter__", enter)
    with pytest.raises(errors.TransferStalled):
        tenant.save()
    assert all_slots_are_free()


def test_reading_a_large_file_is_work(data_dir, transactional_db, settings, tmp_path):
    """rclone reports nothing while it compares a large file by checksum, and is not ended for that."""
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
    done = rclone.run(arguments, sink, Jail(volume, Owner(UID, UID), False, binds), lock)
    os.close(lock)
    assert (done.progress.checks, done.progress.files) == (1, 0)


def test_large_transfers_leave_slots_to_others(data_dir, settings):
    """They may hold theirs for hours (P14)."""
    settings.BOILERHOUSE_PARALLEL_TRANSFERS, settings.BOILERHOUSE_LARGE_BYTES = 3, 100
    with rclone.slot(100), pytest.raises(errors.TransferCancelled), rclone.slot(100, lambda: False):
        pass
    with rclone.slot(100), rclone.slot(99), rclone.slot(99), pytest.raises(errors.TransferCancelled):
        rclone.slot(99, lambda: False).__enter__()


def test_transfers_with_one_sink_leave_slots_to_others(data_dir, settings):
    """Small ones too; a very slow sink occupies them for as long as it may (P14)."""
    settings.BOILERHOUSE_PARALLEL_TRANSFERS = 4
    with rclone.slot(far_end="slow"), rclone.slot(far_end="slow"):
        with pytest.raises(errors.TransferCancelled), rclone.slot(0, lambda: False, far_end="slow"):
            pass
        with (
            rclone.slot(0, lambda: False, far_end="other"),
            rclone.slot(0, lambda: False, far_end="third"),
        ):
            pass


def test_a_deadline_that_is_still_set_is_told_to_have_no_effect(monkeypatch):
    """The setting is retired; a deployment that still sets it gets a warning that names its replacement."""
    from boilerhouse.core.checks import environment

    monkeypatch.setenv("BOILERHOUSE_TRANSFER_TIMEOUT_S", "600")
    told = [one for one in environment() if one.id == "boilerhouse.W003"]
    assert "BOILERHOUSE_TRANSFER_STALL_S" in told[0].hint


def test_no_queue_ends_a_transfer_by_a_timeout_of_its_own(settings):
    """django-q2 would kill the task, and hand it to a second worker while the first one works."""
    for name in ("claim", "save", "sync"):
        queue = settings.Q_CLUSTER["ALT_CLUSTERS"][name]
        assert queue["timeout"] >= 7 * 86400
        assert queue["retry"] > queue["timeout"]


# It goes on where it stopped ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "size", "times", "flags"),
    [
        (8, 200_000, 2, ("--bwlimit=2M", "--transfers=2")),
        # long: 40 MB twice over a line that is cut ten times, as the issue asks for
        pytest.param(80, 500_000, 10, ("--bwlimit=4M", "--transfers=2"), marks=pytest.mark.long),
    ],
)
def test_a_line_that_is_cut_again_and_again_costs_no_file_twice(make_tenant, line, pieces, size, times, flags):
    """Save and restore continue where they stopped, within one run; at most the files in transfer are sent again."""
    tenant = make_tenant(*flags)
    made = fill(tenant, pieces, size)
    total = pieces * size
    spare = (times + 1) * 2 * (size + 65_536) + pieces * 4000  # both transfers of each cut, buffers, and headers
    line.breaks(times, every=total // (times + 1))
    tenant.save()
    assert line.cuts == times
    assert total <= line.up <= total + spare
    run = SyncRun.objects.get(direction="upload")
    assert run.state == "succeeded"
    assert run.retries >= 1

    line.breaks(times, every=total // (times + 1))
    tenant.claim()
    assert lies_in(tenant) == made
    assert line.cuts == times
    assert total <= line.down <= total + spare
    run = SyncRun.objects.get(direction="download", state="succeeded")
    assert (run.progress["files"], run.progress["bytes"]) == (pieces, total)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def stop_after(monkeypatch, size: int, error: BaseException) -> None:
    """Interrupt the next transfer once, after this many bytes."""
    real = runs.ProgressReporter.__call__

    def told(self, progress):
        real(self, progress)
        if progress.bytes >= size:
            monkeypatch.setattr(runs.ProgressReporter, "__call__", real)
            raise error

    monkeypatch.setattr(runs.ProgressReporter, "__call__", told)


def carry_on(tenant: TenantState) -> None:
    """What the next worker does for the same claim."""
    with volumes.locked(tenant.container_id, within_s=30) as lock:
        sink_states = sink_checks.check_spec(tenant.fresh(), TENANT).answer()
        restores.restore(tenant.target(lock), sink_states, Trigger.CLAIM, lambda: True)


def test_a_restore_whose_worker_died_is_carried_on_with_what_was_staged(make_tenant, line, monkeypatch):
    """The next worker fetches the missing files, and progress includes the existing ones."""
    tenant = make_tenant("--bwlimit=1M", "--transfers=1")
    made = fill(tenant, 8, 400_000)
    tenant.save()
    stop_after(monkeypatch, 1_500_000, Killed())
    with pytest.raises(Killed):
        tenant.claim()
    there = files_staged(tenant)
    assert there >= 2
    line.down = 0
    carry_on(tenant)
    assert lies_in(tenant) == made
    assert line.down <= (8 - there) * 400_000 + 200_000
    assert SyncRun.objects.filter(direction="download").latest("created_at").progress["bytes"] == 3_200_000


def files_staged(tenant: TenantState) -> int:
    [staging] = volumes.staging_dir(tenant.container_id).iterdir()
    return staged_restores.count(staging)[0]


def test_a_claim_that_failed_leaves_what_it_had_to_the_tenants_next_container(make_tenant, line, monkeypatch):
    """Moved by rename, owned by the new container's user, and not fetched again."""
    tenant = make_tenant("--bwlimit=1M", "--transfers=1")
    made = fill(tenant, 8, 400_000)
    tenant.save()
    there = fail_a_claim(tenant, monkeypatch)
    line.down = 0
    tenant.claim()
    assert lies_in(tenant) == made
    assert line.down <= (8 - there) * 400_000 + 200_000
    assert not list(staged_restores.directory().glob("*/*"))


def fail_a_claim(tenant: TenantState, monkeypatch) -> int:
    """A claim aborted during its restore; its container is wiped. Returns how many files arrived."""
    stop_after(monkeypatch, 1_500_000, errors.TransferCancelled())
    with pytest.raises(errors.TransferCancelled):
        tenant.claim()
    there = files_staged(tenant)
    assert there >= 2
    with volumes.locked(tenant.container_id, within_s=30):
        assert staged_restores.put_aside(tenant.container_id, TENANT) == 1
        volumes.wipe(tenant.container_id)
    return there


@pytest.mark.long  # the line is dead for longer than a claim that somebody waits for would try
@pytest.mark.parametrize("is_patient", [True, False])
def test_a_line_that_is_dead_for_a_while_ends_only_claims_that_somebody_waits_for(
    make_tenant, line, monkeypatch, settings, is_patient
):
    """Without a waiting client, a claim is bounded by the time without progress."""
    tenant = make_tenant("--bwlimit=1M", "--transfers=1")
    made = fill(tenant, 8, 400_000)
    tenant.save()
    stop_after(monkeypatch, 1_200_000, Killed())
    with pytest.raises(Killed):
        tenant.claim()
    settings.BOILERHOUSE_TRANSFER_STALL_S = 120
    sink_states = sink_checks.check_spec(tenant.fresh(), TENANT).answer()
    line.die(30)
    ends = contextlib.nullcontext() if is_patient else pytest.raises(errors.SyncFailed)
    with volumes.locked(tenant.container_id, within_s=30) as lock, ends:
        restores.restore(tenant.target(lock), sink_states, Trigger.CLAIM, lambda: True, is_patient=is_patient)
    assert (lies_in(tenant) == made) is is_patient


def test_what_is_kept_of_a_claim_is_of_its_tenant_and_its_save_alone(make_tenant, monkeypatch, settings):
    """Another save there, another tenant, an erasure and its age: each deletes it (P3)."""
    tenant = make_tenant("--bwlimit=1M", "--transfers=1")
    fill(tenant, 8, 400_000)
    tenant.save()
    fail_a_claim(tenant, monkeypatch)
    [home] = staged_restores.directory().glob("*/*")
    assert home.parent.stat().st_mode & 0o777 == home.stat().st_mode & 0o777 == 0o700
    note = staged_restores._read(home / "note.json")
    path = volumes.staging_dir(tenant.container_id)
    for other in (replace(note, tenant_id="bob"), replace(note, subject="elsewhere")):
        assert not staged_restores._take(other, path / "never")
        assert home.exists()
    assert not staged_restores._take(replace(note, key="another save"), path / "never")
    assert not home.exists()

    fail_a_claim(tenant, monkeypatch)
    assert list(staged_restores.directory().glob("*/*"))
    staged_restores.forget("bob")
    assert list(staged_restores.directory().glob("*/*"))
    staged_restores.forget(TENANT)
    assert not list(staged_restores.directory().glob("*"))

    fail_a_claim(tenant, monkeypatch)
    assert staged_restores.tidy() == 0
    settings.BOILERHOUSE_STAGED_MAX_BYTES = 1000
    assert staged_restores.tidy() == 1
    assert not list(staged_restores.directory().glob("*"))


def test_a_save_in_between_is_never_mixed_with_what_was_kept(make_tenant, monkeypatch):
    """A restore returns the complete last save (P5)."""
    tenant = make_tenant("--bwlimit=1M", "--transfers=1")
    fill(tenant, 8, 400_000)
    tenant.save()
    first = tenant.container_id, tenant.generation, tenant.state
    fail_a_claim(tenant, monkeypatch)
    failed = tenant.generation
    tenant.container_id, tenant.generation, tenant.state = first
    made = fill(tenant, 8, 400_000)  # same names, same sizes, other bytes
    tenant.save()
    tenant.generation = failed
    tenant.claim()
    assert lies_in(tenant) == made
    assert not list(staged_restores.directory().glob("*/*"))


def test_staging_that_lies_on_a_file_system_of_its_own_is_copied(data_dir, tmp_path):
    """If the disk limit is a separate file system, a rename across it is impossible."""
    import subprocess
    from uuid import uuid4

    from tests.make import make_spec

    container_id, other = uuid4(), uuid4()
    for one in (container_id, other):
        volumes.prepare(one, UID, make_spec())
    apart = volumes.staging_dir(container_id)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(apart)], check=True)
    try:
        note = staged_restores.note_of("alice", "t/alice", "save")
        path = staged_restores.open_staging(container_id, Owner(UID, UID), "mapping-1", note)
        (path / "d").mkdir()
        (path / "d" / "one").write_bytes(b"1" * 1000)
        (path / "two.0123abcd.partial").write_bytes(b"2")
        os.utime(path / "d" / "one", (5, 5))
        assert staged_restores.put_aside(container_id, "alice") == 1
    finally:
        subprocess.run(["umount", "-l", str(apart)], check=True)
    got = staged_restores.open_staging(other, Owner(UID + 1, UID + 1), "mapping-1", note)
    assert staged_restores.count(got) == (1, 1000)
    seen = (got / "d" / "one").stat()
    assert (seen.st_uid, seen.st_mtime) == (UID + 1, 5)

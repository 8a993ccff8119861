"""Saves of files that are being written. Real rclone, real sinks, writers in their own freezer cgroup."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pools import freezer, volumes
from pools.errors import EngineTimeout, Locked
from pools.models import Container
from pools.spec import Owner
from pools.states import ContainerState
from pools.volumes import copies
from pools.volumes.copies import Copies
from syncing import errors, rclone, runs, saves, snapshots
from syncing.jail import Jail
from syncing.locations import BACKUP_ROOT, marker_key
from syncing.models import SyncRun, SyncSpec
from syncing.states import Trigger
from tenants import upkeep
from tests import cgroups, sink_servers, small_disks
from tests.tenant_state import LOCATION, TENANT, UID, LiveState
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.slow]


@pytest.fixture
def live(empty_sink_server, data_dir, transactional_db):
    with cgroups.group() as runtime_id:
        yield LiveState(empty_sink_server, runtime_id)


@pytest.fixture
def one(s3, data_dir, transactional_db):
    """With one sink, for tests that do not depend on its kind."""
    from tests.sink_servers import RcloneS3

    end = RcloneS3(s3)
    end.clear()
    with cgroups.group() as runtime_id:
        yield LiveState(end, runtime_id)


PAIR = """
import itertools, os, sys
os.chdir(sys.argv[1])
for n in itertools.count(1):
    for name in ("first", "second"):
        with open(name, "w") as file:
            file.write(f"{n:09}\\n" * 3000)
    with open("log", "a") as log:
        log.write(f"{n}\\n")
    if n == 1:
        print("go")
"""
"""``second`` is never more than one behind ``first``; a file that is being written is short."""


MAPPED = """
import mmap, os, sys, time
os.chdir(sys.argv[1])
with open("db", "w+b") as file:
    file.write(bytes(8192))
    file.flush()
    os.fsync(file.fileno())
    held = mmap.mmap(file.fileno(), 8192)
held[0:5] = b"first"
print("go")
while not os.path.exists("more"):
    time.sleep(0.01)
held[0:5] = b"other"
open("done", "w").close()
time.sleep(600)
"""


def test_what_is_written_through_a_mapping_is_in_the_next_save(one):
    """Such a write changes no time of the file while its page is not on the disk, so the file was not copied again."""
    one.start(MAPPED)
    time.sleep(0.2)  # then its times are no longer too young to count
    assert one.told()["pointInTime"]
    (one.state / "more").touch()
    while not (one.state / "done").exists():
        time.sleep(0.01)
    assert one.told()["pointInTime"]
    one.come_back()
    assert (one.state / "db").read_bytes()[:5] == b"other"


@sink_servers.SOME
def test_files_that_change_all_the_time_never_fail_a_save_and_are_of_one_moment(live):
    """Periodic saves of files that are being written complete, and a restore returns one consistent snapshot."""
    writer = live.start(PAIR)
    for _ in range(4):
        step = live.save()
        assert step["snapshot"]["pointInTime"] is True
        assert step["snapshot"]["freezeMs"] > 0
        assert "changedDuring" not in step
    assert writer.poll() is None, "it goes on"
    found = live.come_back()
    first, second = (found[name].split() for name in ("first", "second"))
    log = [int(line) for line in found["log"].split()]
    assert log == list(range(1, len(log) + 1)), "not torn"
    # Where one was being written at that moment, it is short, and the other is whole.
    assert len(first) == 3000 or len(second) == 3000
    if len(first) == len(second) == 3000:
        assert int(first[0]) - int(second[0]) in (0, 1)
    assert len(log) in {int(one[0]) + by for one in (first, second) if one for by in (-1, 0)}


CHURN = """
import itertools, os, sys
os.chdir(sys.argv[1])
os.mkdir("d")
for n in itertools.count():
    with open(f"d/{n}", "w") as file:
        file.write(str(n))
    if n >= 20:
        os.unlink(f"d/{n - 20}")
    if n == 40:
        print("go")
"""


@sink_servers.SOME
def test_files_made_and_removed_all_the_time_never_fail_a_save_and_deletes_are_done(live):
    """Saves of a directory with changing files complete, and deleted files are deleted at the sink."""
    live.start(CHURN)
    for _ in range(4):
        live.save()
        kept = sorted(int(name.partition("/")[2]) for name in live.sink_server.keys(LOCATION))
        assert 19 <= len(kept) <= 21
        assert kept == list(range(kept[0], kept[-1] + 1)), "as it was at one moment"
    assert SyncRun.objects.filter(deleted__gt=0).exists()
    assert len(live.come_back()) == len(kept)


def test_only_what_changed_is_copied_and_sent(live):
    """An unchanged file is neither read nor sent, a touched or moved one is, a removed one goes to the backup."""
    live.write(**{f"f{n}": str(n) for n in range(20)})
    settle()
    assert live.told()["copiedFiles"] == 20
    os.chmod(live.state / "f1", 0o600)
    live.write(f2="other", added="new")
    (live.state / "f3").rename(live.state / "moved")
    live.remove("f4")
    settle()
    step = live.save()
    assert step["snapshot"]["copiedFiles"] == 4
    assert step["files"] == 20
    run = SyncRun.objects.filter(direction="upload").latest("created_at")
    assert run.deleted == 2
    assert set(live.sink_server.keys(LOCATION)) == set(live.look())
    kept = {key.rpartition("/")[2] for key in live.sink_server.keys(BACKUP_ROOT)}
    assert kept - {"f1"} == {"f2", "f3", "f4"}, "WebDAV tells no checksum, so what was only touched is sent, too"
    assert live.told()["copiedFiles"] == 0
    expected = live.look()
    assert live.come_back() == expected
    assert stat.S_IMODE((live.state / "f1").stat().st_mode) == 0o600


def settle() -> None:
    """Wait until the file system's clock distinguishes a change."""
    time.sleep(0.1)


def test_a_change_within_a_tick_of_the_clock_is_not_missed(one):
    """A write right after the copy, with unchanged size and time, is in the next save."""
    one.write(a="1" * 100)
    for number in range(2, 12):
        one.save()
        seen = (one.state / "a").stat()
        one.write(a=str(number % 10) * 100)
        os.utime(one.state / "a", ns=(seen.st_atime_ns, seen.st_mtime_ns))
        one.save()
        assert one.sink.get(f"{LOCATION}/a", 15) == (str(number % 10) * 100).encode()


def test_what_is_known_holds_only_for_the_save_it_came_from(one):
    """After another spec, another save, or a lost record everything counts as changed."""
    one.write(a="1", b="2")
    settle()
    one.save()
    assert one.told()["copiedFiles"] == 0
    key = marker_key(LOCATION)
    marker = json.loads(one.sink.get(key, 15))
    one.sink.put(key, json.dumps({**marker, "saved_at": "2020-01-01T00:00:00Z"}).encode())
    assert one.told()["copiedFiles"] == 2
    assert one.told()["copiedFiles"] == 0
    SyncSpec.objects.filter(pk=one.spec.pk).update(version=7)
    assert one.told()["copiedFiles"] == 2
    (record,) = (volumes.home(one.container_id) / ".saved").iterdir()
    record.write_text("{")
    assert one.told()["copiedFiles"] == 2
    record.unlink()
    assert one.told()["copiedFiles"] == 2


@sink_servers.SOME
def test_what_a_claim_restored_is_known(live):
    """The first save after a claim sends only the changes."""
    (live.state / "d").mkdir()
    os.chown(live.state / "d", UID, UID)
    live.write(**{f"d/f{n}": "x" for n in range(10)})
    live.save()
    live.lose_host()
    live.claim()
    live.write(**{"d/f1": "y"})
    settle()
    assert live.told()["copiedFiles"] <= 10, "what was restored in this instant is not told from what was written"
    live.write(**{"d/f2": "z"})
    settle()
    assert live.told()["copiedFiles"] == 1
    assert live.come_back() == {f"d/f{n}": {1: "y", 2: "z"}.get(n, "x") for n in range(10)}


@sink_servers.SOME
def test_what_an_unfinished_save_touched_is_looked_at_again(live):
    """A directory moved away during an interrupted save, and back again, has the same inodes and times."""
    (live.state / "d").mkdir()
    os.chown(live.state / "d", UID, UID)
    live.write(**{"d/a": "1", "b": "2", "c": "3"})
    settle()
    live.save()
    (live.state / "d").rename(live.state / "away")
    live.write(b="4")
    live.cut("save.uploaded")
    (live.state / "away").rename(live.state / "d")
    live.write(c="5")
    live.save()
    expected = {"d/a": "1", "b": "4", "c": "5"}
    assert {
        name: live.sink.get(f"{LOCATION}/{name}", 15).decode() for name in live.sink_server.keys(LOCATION)
    } == expected
    assert live.come_back() == expected


@sink_servers.SOME
@pytest.mark.parametrize("place", ["save.snapshot-taken", "save.frozen", "save.marker-open", "save.uploaded"])
def test_a_live_save_that_was_cut_is_taken_back(live, place):
    """Wherever it is interrupted, a restore returns the last complete save, the container continues, nothing is
    left."""
    live.write(kept="1", changed="old", deleted="here")
    live.save()
    saved = live.look()
    writer = live.start("import time; print('go')\nwhile True: time.sleep(0.01)")
    live.write(changed="new", added="x")
    live.remove("deleted")
    live.cut(place)
    assert not freezer.is_frozen(live.runtime_id)
    assert writer.poll() is None
    assert not volumes.snapshot_dir(volumes.home(live.container_id)).exists()
    if place == "save.marker-open":
        live.save()
        saved = live.look()
    assert live.come_back() == saved


@sink_servers.SOME
def test_closed_directories_are_no_obstacle_and_stay_closed(live):
    """A directory or file without permissions for its owner does not fail a periodic save; its mode is restored."""
    (live.state / "d").mkdir()
    live.write(**{"d/f": "x", "g": "y"})
    os.chmod(live.state / "d", 0)
    os.chmod(live.state / "g", 0)
    live.save()
    assert stat.S_IMODE((live.state / "d").stat().st_mode) == 0
    assert live.come_back() == {"d/f": "x", "g": "y"}
    assert stat.S_IMODE((live.state / "d").stat().st_mode) == 0
    assert stat.S_IMODE((live.state / "g").stat().st_mode) == 0


ODD = ["new\nline", "tab\t", "-n", "bad\udcff", "trailing ", "%41", "back\\slash", "\u2400", "d/x", "#c"]


def test_odd_names_come_and_go(live):
    """Names that sinks encode differently are sent, recognised, changed and deleted like others."""
    (live.state / "d").mkdir()
    names = [name for name in ODD if live.sink.type == "s3" or name not in ("bad\udcff", "\u2400")]
    if live.sink_server.has_conditional_writes:
        names.remove("new\nline")  # moto cannot
    live.write(**dict.fromkeys(names, "1"))
    settle()
    live.save()
    assert live.told()["copiedFiles"] == 0
    live.write(**{names[0]: "2"})
    live.remove(*names[1:3])
    live.save()
    expected = live.look()
    assert live.come_back() == expected


SWAP = """
import itertools, os, sys
os.chdir(sys.argv[1])
for n in itertools.count():
    os.symlink("/etc/shadow", "t"); os.rename("t", "x")
    os.mkfifo("t"); os.rename("t", "x")
    open("t", "w").write("mine"); os.rename("t", "x")
    os.rename("dir", "away"); os.symlink("/etc", "dir"); os.unlink("dir"); os.rename("away", "dir")
    if n == 10:
        print("go")
"""


@pytest.mark.parametrize("quiesce", ["freeze", "none"])
def test_links_and_fifos_swapped_in_meanwhile_lead_nowhere(one, quiesce):
    """Whatever a tenant puts in a file's place during a save, nothing from outside is saved and nothing hangs."""
    SyncSpec.objects.filter(pk=one.spec.pk).update(quiesce=quiesce)
    (one.state / "dir").mkdir()
    one.write(**{"dir/passwd": "mine", "dir/shadow": "mine"})
    os.chown(one.state / "dir", UID, UID)
    os.chown(one.state, UID, UID)
    one.start(SWAP)
    saved = set()
    for _ in range(6):
        one.save()
        for name in one.sink_server.keys(LOCATION):
            assert one.sink.get(f"{LOCATION}/{name}", 15) in (b"mine", b""), name
            saved.add(name)
    assert saved


def test_each_way_out_of_a_volume_is_refused_by_the_copy_itself(tmp_path):
    """A link, a FIFO, a directory, a link in the path: refused at once."""
    (tmp_path / "volume" / "d").mkdir(parents=True)
    (tmp_path / "copies").mkdir()
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "volume"
    (root / "link").symlink_to("../outside")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "fifo")
    os.link(tmp_path / "outside", root / "hard")
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    with Copies(tmp_path / "copies", 1 << 20, 0) as held:
        for path in ("link", "up/outside", "fifo", "d", "nothing", "hard/x"):
            with pytest.raises(FileNotFoundError):
                held.take(handle, path, time.monotonic() + 60)
            assert copies.stamp_of(handle, path) is None
        assert held.take(handle, "hard", time.monotonic() + 60) is not None
    os.close(handle)


def test_copies_keep_holes_times_and_their_bound(tmp_path):
    """Sparse files stay sparse, and a copy beyond the limit or the reserved disk space is not made."""
    (tmp_path / "copies").mkdir()
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x" * 5000)
    os.utime(sparse, ns=(0, 12345))
    (tmp_path / "big").write_bytes(b"x" * (1 << 20))
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with Copies(tmp_path / "copies", 1 << 20, 0) as held:
        made = held.take(handle, "sparse", time.monotonic() + 60)
        assert made
        copy = tmp_path / "copies" / made.name
        assert (copy.stat().st_size, copy.stat().st_mtime_ns) == (1 << 30, 12345)
        assert copy.stat().st_blocks * 512 < 1 << 20
        with copy.open("rb") as file:
            file.seek((1 << 29) - 1)
            assert file.read(5002) == b"\0" + b"x" * 5000 + b"\0"
        assert held.take(handle, "big", time.monotonic() + 60) is None, "the other has taken some of the room"
        held.drop(made.name)
        assert held.take(handle, "big", time.monotonic() + 60)
        with pytest.raises(TimeoutError):
            held.drop("3")
            held.take(handle, "big", time.monotonic() - 1)
    with Copies(tmp_path / "copies", 1 << 30, 1 << 60) as held:
        assert held.take(handle, "big", time.monotonic() + 60) is None
    os.close(handle)


@sink_servers.SOME
def test_what_there_is_no_room_to_copy_is_sent_as_it_lies_there(live, settings):
    """Above the limit files are sent while the tenant works; those that change are sent again, or named."""
    settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES = 100_000
    live.write(big="x" * 300_000, small="1")
    settle()
    told = live.told()
    assert (told["sentLive"], told["copiedFiles"], told["pointInTime"]) == (1, 1, True)
    assert "sentLive" not in live.told(), "it is known from now on"
    live.write(big="y" * 300_000)
    live.save()
    assert live.sink.get(f"{LOCATION}/big", 15) == b"y" * 300_000
    assert live.come_back() == {"big": "y" * 300_000, "small": "1"}


def test_a_file_above_the_bound_that_never_stands_still_fails_the_save_with_its_name(one, settings, monkeypatch):
    """After three attempts the error names the file and the setting."""
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES = 100_000
    one.write(small="1")
    one.save()
    one.start(
        "import os, sys, time; f = open(os.path.join(sys.argv[1], 'big'), 'wb'); f.write(bytes(range(256)) * 8000)\n"
        "os.chmod(f.name, 0o644)\n"
        "print('go')\nwhile True: f.seek(7000); f.write(os.urandom(100)); f.flush()"
    )
    with pytest.raises(errors.FileChanging, match=r"big changed .*BOILERHOUSE_SNAPSHOT_MAX_BYTES"):
        one.save()
    assert SyncRun.objects.latest("created_at").error_code == "file_changing"
    assert one.come_back() == {"small": "1"}


PIPES = """
import ctypes, itertools, os, sys, time
os.chdir(sys.argv[1])
EXCHANGE, HERE = 2, -100
os.mkfifo("pipe")
libc = ctypes.CDLL(None, use_errno=True)
files = [name.encode() for name in sorted(os.listdir(".")) if name.startswith("big")]
print("go")
for name in itertools.cycle(files):
    for _ in range(2):
        assert libc.renameat2(HERE, name, HERE, b"pipe", EXCHANGE) == 0
        time.sleep(0.0002)
"""
"""Each file is a pipe for a moment, and then what it was; ``pipe`` itself has no letter of the pattern."""


def is_free(container_id) -> bool:
    try:
        with volumes.locked(container_id):
            return True
    except Locked:
        return False


def test_a_pipe_in_the_place_of_a_file_that_is_sent_ends_the_transfer(one, settings, monkeypatch):
    """rclone would block in opening it, with the container's lock and a slot; the save fails with the reason."""
    monkeypatch.setattr(runs, "RETRY_AFTER_S", ())
    settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES = 0
    one.write(**{f"big{number}": "x" * 50_000 for number in range(60)})
    one.start(PIPES)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises((errors.FileChanging, errors.TransferStalled, errors.TransferBroke)):
            one.save()
        assert time.monotonic() - began < settings.BOILERHOUSE_TRANSFER_STALL_S / 2
        eventually(lambda: is_free(one.container_id))  # the kernel ends what was in the jail
        with rclone.slot():
            pass


def test_a_transfer_that_opens_a_pipe_is_ended_in_seconds(s3, data_dir, tmp_path, settings):
    """Detected from the kernel's state of rclone, also where nothing checks the files."""
    volume, sink = tmp_path / "volume", s3.sink()
    volume.mkdir()
    os.mkfifo(volume / "pipe")
    os.chown(volume, UID, UID)
    os.chown(volume / "pipe", UID, UID)
    (tmp_path / "lock").touch()
    began = time.monotonic()
    jail = Jail(volume, Owner(UID, UID), writable=False, binds=())
    arguments = rclone.upload(sink, "x", [], deletes=False, inside="", backup="y")
    with (tmp_path / "lock").open() as lock, pytest.raises(errors.TransferStalled, match="A pipe has replaced a file"):
        rclone.run([*arguments, "--files-from-raw=/vol/pipe"], sink, jail, lock.fileno())
    assert time.monotonic() - began < settings.BOILERHOUSE_TRANSFER_STALL_S / 2
    with rclone.slot():
        pass


def test_without_a_freeze_each_file_is_whole(one):
    """``quiesce: none`` copies each file until it is unchanged during the copy; the run is not a consistent
    snapshot."""
    SyncSpec.objects.filter(pk=one.spec.pk).update(quiesce="none")
    one.write(**{f"f{n}": "x" * 1000 for n in range(50)})
    writer = one.start(
        "import os, sys, time, itertools; os.chdir(sys.argv[1])\n"
        "for n in itertools.count():\n"
        " open('t', 'w').write(f'{n:05}' * 20000); os.rename('t', 'whole')\n"
        " if n == 1: print('go')\n"
        " time.sleep(0.002)"
    )
    for _ in range(3):
        told = one.told()
        assert (told["pointInTime"], told["freezeMs"]) == (False, 0)
        content = one.sink.get(f"{LOCATION}/whole", 15)
        assert len({content[i : i + 5] for i in range(0, len(content), 5)}) == 1
    assert writer.poll() is None


def test_a_freeze_that_cannot_be_done_in_time_is_given_up_and_the_save_goes_on(one, settings):
    """A container is frozen no longer than allowed; then each file is copied by itself."""
    settings.BOILERHOUSE_FREEZE_MAX_MS = 1
    one.write(**{f"f{n}": "x" for n in range(2000)})
    one.start("import time; print('go')\nwhile True: time.sleep(0.01)")
    told = one.told()
    assert told["pointInTime"] is False
    assert "1 ms" in told["reason"]
    assert len(one.sink_server.keys(LOCATION)) == 2000


def test_a_freezer_that_never_reports_frozen_is_let_go(tmp_path):
    """A process that waits for a hung disk cannot be frozen; nothing waits for it."""
    control, state = tmp_path / "control", tmp_path / "state"
    state.write_text("FREEZING\n")
    group = freezer.Group(control, "FROZEN", "THAWED", state, "FROZEN")
    with pytest.raises(freezer.CannotFreeze, match="cannot be frozen"), freezer.frozen(group, 1.0):
        raise AssertionError("it was not frozen")
    assert control.read_text().strip() == "THAWED"


def test_a_container_let_go_in_between_is_no_moment():
    """If a container is unfrozen during a save, the torn copy is not reported as consistent."""
    with cgroups.group() as runtime_id:
        group = freezer.group_of(runtime_id)
        assert group
        with pytest.raises(freezer.CannotFreeze, match="thawed too early"), freezer.frozen(group, 1.0) as freeze:
            assert freezer.is_frozen(runtime_id)
            group.thaw()
        assert freeze.seconds > 0


def test_a_container_that_ends_while_it_is_let_go_is_no_error():
    """A cgroup removed between the open and the write of its file says ENODEV, on v1 and on v2."""
    with cgroups.group() as runtime_id:
        group = freezer.group_of(runtime_id)
        assert group
        opened = os.open(group.control, os.O_RDWR)
        kept = group.control.parent
    assert not kept.exists()
    gone = Path(f"/proc/self/fd/{opened}")
    group = freezer.Group(gone, group.freezes, group.thaws, gone, group.is_done)
    group.thaw()
    with pytest.raises(freezer.CannotFreeze, match="No such device"):
        group.freeze()
    os.close(opened)


def test_a_lease_on_a_file_is_waited_for_outside_the_freeze(one):
    """A tenant with a file lease delays its own save, and is not frozen while it must release the lease."""
    one.write(leased="1", other="2")
    one.start(
        "import fcntl, os, signal, sys, time\n"
        "f = open(os.path.join(sys.argv[1], 'leased'), 'r+')\n"
        "def let_go(*_): time.sleep(0.5); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n"
        "signal.signal(signal.SIGIO, let_go)\n"
        "fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print('go')\nwhile True: time.sleep(1)"
    )
    assert one.told()["pointInTime"] is True
    assert one.come_back() == {"leased": "1", "other": "2"}


def test_a_freeze_that_fails_is_tried_again_after_a_pause(one, monkeypatch):
    """A process that waits for a busy disk can be frozen a moment later."""
    freeze, tries = freezer.Group.freeze, []

    def busy_for_a_second(group: freezer.Group) -> None:
        tries.append(time.monotonic())
        if tries[-1] - tries[0] < 1:
            raise freezer.CannotFreeze("A process of the container cannot be frozen; it may be waiting for a disk.")
        freeze(group)

    monkeypatch.setattr(freezer.Group, "freeze", busy_for_a_second)
    one.write(a="1")
    one.start("import time; print('go')\nwhile True: time.sleep(0.01)")
    assert one.told()["pointInTime"] is True
    assert len(tries) > 1


def test_a_cancelled_snapshot_leaves_nothing(one, monkeypatch):
    """Cancelling a save while its files are being copied does not wait for them."""
    monkeypatch.setattr(snapshots, "LOOK_EVERY_S", 0.0)
    one.write(**{f"f{n}": "x" for n in range(10)})
    with volumes.locked(one.container_id, within_s=30) as lock, pytest.raises(errors.TransferCancelled):
        saves.save(one.target(lock), [one.fresh()], Trigger.INTERVAL, lambda: False)
    assert not one.sink_server.keys(LOCATION)
    assert not volumes.snapshot_dir(volumes.home(one.container_id)).exists()
    assert not freezer.is_frozen(one.runtime_id)


def test_a_mapping_that_cannot_be_saved_does_not_keep_the_others_from_it(one, settings):
    """One snapshot for all mappings of a spec; the run fails with the name, the rest is saved."""
    settings.BOILERHOUSE_MAX_FILE_BYTES = 1000
    one.spec.mappings.all().delete()
    for position, name in enumerate(("a", "b")):
        one.spec.mappings.create(
            position=position, container_path=f"/state/{name}", sink_path=f"t/${{tenantId}}/{name}/",
            direction="bidirectional", mode="sync",
        )  # fmt: skip
        (one.state / name).mkdir()
    one.write(**{"a/large": "x" * 2000, "b/fine": "x"})
    with pytest.raises(errors.Unsaveable, match="large"):
        one.save()
    assert set(one.sink_server.keys(f"t/{TENANT}/b")) == {"fine"}
    assert not one.sink_server.keys(f"t/{TENANT}/a")


def test_what_a_killed_save_left_is_swept(one):
    """The copies of a killed save are deleted with the next save, by the pruning, or with the container."""
    left = volumes.snapshot_dir(volumes.home(one.container_id))
    (left / "files").mkdir(parents=True)
    (left / "files" / "1").write_text("x")
    with volumes.locked(one.container_id, within_s=30):
        assert volumes.sweep_snapshots() == 0, "somebody works on it"
    assert volumes.sweep_snapshots() == 1
    assert not left.exists()
    left.mkdir()
    one.write(a="1")
    one.save()
    assert not left.exists()


def test_an_engine_that_does_not_answer_makes_no_save_less_of_a_moment(one, monkeypatch):
    """The kernel freezes without the engine; it is only queried for an imminent health check (P13)."""
    one.start(PAIR)

    class Silent:
        def inspect(self, _name):
            raise EngineTimeout("The engine has not answered.")

    monkeypatch.setattr("pools.runtime._runtime", lambda *_: Silent())
    told = one.told()
    assert told["pointInTime"], told


def test_a_thousand_files_of_which_fifty_changed_stand_still_shortly(one, capsys):
    """The freeze for 1,000 files of which 50 changed; the figures are printed."""
    for number in range(20):
        (one.state / f"d{number}").mkdir()
        one.write(**{f"d{number}/f{n}": "x" * 4000 for n in range(50)})
    one.start("import time; print('go')\nwhile True: time.sleep(0.01)")
    one.save()
    took = []
    for round in range(20 if os.environ.get("BOILERHOUSE_LONG") else 5):
        one.write(**{f"d{n % 20}/f{n}": f"{round}" * 4000 for n in range(50)})
        told = one.told()
        assert told["pointInTime"], told
        assert told["copiedFiles"] <= 100
        took.append(told["freezeMs"])
    took.sort()
    with capsys.disabled():
        p50, p95 = took[len(took) // 2], took[int(0.95 * (len(took) - 1))]
        print(f"\nfreeze ms, n={len(took)}: min {took[0]} p50 {p50} p95 {p95} max {took[-1]}")
    assert p95 < 500, "ten times what is wanted"


HOLD = """
import os, sys, time
import django
django.setup()
from pools import freezer
group = freezer.group_of(sys.argv[1])
with freezer.frozen(group, float(sys.argv[2])):
    print("frozen", flush=True)
    time.sleep(600)
"""


def hold(runtime_id: str, most_s: float) -> subprocess.Popen[bytes]:
    """A process that freezes the container and does not unfreeze it."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    command = [sys.executable, "-c", HOLD, runtime_id, str(most_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2])
    assert process.stdout
    assert process.stdout.readline() == b"frozen\n"
    return process


def guards_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_freeze_does_not_outlive_its_owner_or_its_time(tmp_path):
    """Killed while the container is frozen, or too slow: the watchdog unfreezes it."""
    with cgroups.group() as runtime_id:
        owner = hold(runtime_id, 600)
        assert freezer.is_frozen(runtime_id)
        owner.kill()
        eventually(lambda: not freezer.is_frozen(runtime_id))
        owner.wait()

        owner = hold(runtime_id, 0.2)
        eventually(lambda: not freezer.is_frozen(runtime_id))
        assert owner.poll() is None
        owner.kill()
        owner.wait()


def test_where_the_guard_dies_too_the_controller_lets_the_container_go_on(one, run_tasks):
    """Owner and watchdog killed: the step unfreezes the container, but not one that a save has frozen (P8)."""
    Container.objects.filter(pk=one.container_id).update(state=ContainerState.CLAIMED)
    owner = hold(one.runtime_id, 600)
    for pid in (*guards_of(owner.pid), owner.pid):
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    time.sleep(0.2)
    assert freezer.is_frozen(one.runtime_id)
    with volumes.locked(one.container_id, within_s=30):
        assert upkeep.thaw_forgotten() == 1
        run_tasks()
        assert freezer.is_frozen(one.runtime_id), "somebody works on it"
    assert upkeep.thaw_forgotten() == 1
    run_tasks()
    assert not freezer.is_frozen(one.runtime_id)
    assert upkeep.thaw_forgotten() == 0


def test_a_container_that_was_left_frozen_is_let_go_by_the_next_save(one):
    """The next save does not wait for the controller."""
    SyncSpec.objects.filter(pk=one.spec.pk).update(quiesce="none")
    group = freezer.group_of(one.runtime_id)
    assert group
    group.freeze()
    one.save()
    assert not freezer.is_frozen(one.runtime_id)


@pytest.fixture
def xfs(tmp_path):
    """A file system that clones files."""
    image, mounted = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True, env={"PATH": "/usr/sbin:/sbin"})
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    yield mounted
    if os.path.ismount(mounted):  # where it lay in a data directory, that took it along
        subprocess.run(["umount", str(mounted)], check=True)


def test_where_the_file_system_clones_files_large_ones_are_cloned_and_take_no_room(xfs, tmp_path):
    """Reflinks on XFS: later writes to the file are not in the copy."""
    assert copies.can_clone(xfs)
    (xfs / "copies").mkdir()
    (xfs / "big").write_bytes(b"x" * (100 << 20))
    (xfs / "small").write_bytes(b"x")
    os.sync()
    before = os.statvfs(xfs).f_bfree
    handle = os.open(xfs, os.O_RDONLY | os.O_DIRECTORY)
    with Copies(xfs / "copies", 1 << 20, 0) as held:
        big, small = (held.take(handle, name, time.monotonic() + 60) for name in ("big", "small"))
        assert big
        assert small
        assert (held.cloned, held.used) == (1, 1)
    with (xfs / "big").open("r+b") as file:
        file.write(b"y" * 10)
    assert (xfs / "copies" / big.name).read_bytes()[:10] == b"x" * 10
    assert (before - os.statvfs(xfs).f_bfree) * os.statvfs(xfs).f_frsize < 20 << 20
    (tmp_path / "elsewhere").mkdir()
    with Copies(tmp_path / "elsewhere", 1 << 30, 0) as held:
        assert held.take(handle, "big", time.monotonic() + 60)
        assert (held.cloned, held.clones) == (0, False), "another file system: copied"
    os.close(handle)


def test_a_save_uses_reflinks_where_the_containers_lie_on_such_a_file_system(
    s3, data_dir, xfs, transactional_db, settings
):
    """A full save and restore with the containers' directory on XFS; the run reports reflinks."""
    from tests.sink_servers import RcloneS3

    settings.BOILERHOUSE_DISK_FLOOR_MB = 16
    (xfs / "containers").mkdir(mode=0o700)
    (data_dir / "containers").symlink_to(xfs / "containers")
    end = RcloneS3(s3)
    end.clear()
    with cgroups.group() as runtime_id:
        tenant = LiveState(end, runtime_id)
        tenant.write(big="x" * (2 << 20), small="1")
        settle()
        told = tenant.told()
        assert (told["copiedBy"], told["copiedFiles"], told["pointInTime"]) == ("reflink", 2, True)
        expected = tenant.look()
        assert tenant.come_back() == expected


def test_on_a_full_disk_a_live_save_is_refused_and_a_release_saves(s3, data_dir, tmp_path, transactional_db):
    """Copies of running containers need space, a release needs none; a failed live save loses nothing."""
    from tests.sink_servers import RcloneS3

    end = RcloneS3(s3)
    end.clear()
    with small_disks.mounted(tmp_path, 64) as disk, cgroups.group() as runtime_id:
        (disk / "containers").mkdir(mode=0o700)
        (data_dir / "containers").symlink_to(disk / "containers")
        tenant = LiveState(end, runtime_id)
        tenant.write(one="1", two="2")
        settle()
        tenant.told()
        tenant.write(one="other", three="x" * 100_000)
        small_disks.fill(disk / "filler")
        for number in range(20_000):  # until there is no inode either
            try:
                (disk / f"f{number}").touch()
            except OSError:
                break
        settle()
        with pytest.raises(errors.DiskFull, match="A release copies nothing"):
            tenant.save()
        expected = tenant.look()
        with volumes.locked(tenant.container_id, within_s=30) as lock:
            target = replace(tenant.target(lock), is_stopped=True)
            saves.save(target, [tenant.fresh()], Trigger.RELEASE, lambda: True)
        (disk / "filler").unlink()
        for path in disk.glob("f*"):
            path.unlink()
        assert tenant.come_back() == expected


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_source_that_is_swapped_for_a_link_is_not_followed_out_of_it(
    s3, data_dir, transactional_db, settings, monkeypatch, above, late
):
    """After the check of a mapping's directory and before rclone, the tenant puts a link to the sandbox's root
    there."""
    from tests.sink_servers import RcloneS3

    settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES = 1000
    end = RcloneS3(s3)
    end.clear()
    with cgroups.group() as runtime_id:
        tenant = LiveState(end, runtime_id, container_path="/state/a/b" if above else "/state/b")
        source = tenant.state / "a" / "b" if above else tenant.state / "b"
        (source / "bin").mkdir(parents=True)
        (source / "bin" / "setpriv").write_text("mine " * 1000)
        for path in (source, source / "bin", source.parent, source / "bin" / "setpriv"):
            os.chown(path, UID, UID)
        settle()
        swapped = source.parent if above else source
        whose, name = (Jail, "show") if late else (rclone, "upload_named")
        meanwhile = getattr(whose, name)

        def swap(*arguments, **named):
            done = meanwhile(*arguments, **named)
            swapped.rename(tenant.state / "aside")
            if above:
                swapped.mkdir()
                (swapped / "b").symlink_to("/")
            else:
                swapped.symlink_to("/")
            return done

        monkeypatch.setattr(whose, name, swap)
        with pytest.raises(errors.SyncFailed) as raised:
            tenant.save()
        assert raised.value.code == "path_planted"
        sent = tenant.sink.get(f"{LOCATION}/bin/setpriv", 15)
        assert sent == (b"mine " * 1000 if late else None)
        assert not list(volumes.home(tenant.container_id).rglob("source-*"))

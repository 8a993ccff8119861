"""D10, P14: a directory on a mount that hangs: every question ends, and nobody else waits for it. Real mounts: a FUSE that
nobody serves, and a file system that is frozen."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from boilerhouse.process import pids
from pools.spec import Owner
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.sinks import CLAIM_DEADLINE_S, LocalSink, local, local_helpers
from tests import hung_mounts

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

UID = 200_781


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of sinks with a mount below it that hangs."""
    root = tmp_path / "sinks"
    for name in ("nfs", "disk"):
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture
def soon():
    """Shortens deadlines from its call until its end, so that the tests do not wait for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "LISTED_S", 1e-6)

        def begin() -> None:
            patch.setattr(local, "whole_s", lambda *_: 0.5)
            for name in ("RUN_DEADLINE_S", "COPY_DEADLINE_S", "LISTING_DEADLINE_S"):
                patch.setattr(local, name, 0.5)

        begin.end = patch.undo
        yield begin


def test_each_question_ends_and_another_mount_answers(root, soon):
    """No thread and no process is left."""
    sink = LocalSink(root)
    sink.put("disk/one", b"1")
    soon()
    with hung_mounts.hung_mount(root / "nfs"):
        threads = threading.active_count()
        for ask in (
            lambda: sink.get("nfs/k", CLAIM_DEADLINE_S),
            lambda: sink.has_objects("nfs/x", CLAIM_DEADLINE_S),
            lambda: sink.put("nfs/k", b"x"),
            lambda: sink.copy("nfs/k", "nfs/l"),
            lambda: list(sink.names("nfs/x")),
            lambda: sink.delete_all("nfs/x"),
            lambda: sink.binds(["nfs/x"], UID),
        ):
            with pytest.raises(errors.SinkUnreachable, match=r"has not answered|hangs"):
                ask()
            assert sink.get("disk/one", CLAIM_DEADLINE_S) == b"1"
        assert threading.active_count() <= threads + 1, "the one that watches deadlines"
    soon.end()
    sink.put("nfs/k", b"back")
    assert sink.get("nfs/k", CLAIM_DEADLINE_S) == b"back"


def test_what_not_even_a_signal_ends_is_left_behind_and_not_risked_for_ever(tmp_path, soon):
    """A write to a frozen file system: after a few stuck processes the sink is reported as hung without another, and
    none of them holds a lock, a socket or a file of ours."""
    with hung_mounts.frozen_mount(tmp_path) as mount:
        sink, before = LocalSink(mount), set(pids.children(os.getpid()))
        soon()
        for _ in range(local_helpers.MOST_STUCK):
            with pytest.raises(errors.SinkStumbled, match="has not answered"):
                sink.put("k", b"x")
        began = time.monotonic()
        with pytest.raises(
            errors.SinkUnreachable, match=f"{mount} hangs, and holds {local_helpers.MOST_STUCK} processes"
        ):
            sink.put("k", b"x")
        assert time.monotonic() - began < 5 * 0.5
        stuck = [pid for pid in pids.children(os.getpid()) if is_stuck(pid) and pid not in before]
        assert len(stuck) == local_helpers.MOST_STUCK
        hung_mounts.thaw(mount)
        deadline = time.monotonic() + 20
        while any(is_stuck(pid) for pid in stuck):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        soon.end()
        sink.put("k", b"thawed")
        assert sink.get("k", CLAIM_DEADLINE_S) == b"thawed"


def is_stuck(pid: int) -> bool:
    """Whether it is querying a directory."""
    try:
        return b"local_program" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_many_at_once_wait_for_no_more_processes_than_a_mount_may_hold(root, soon):
    """Sixteen threads of saves query it; another mount still has all its processes."""
    sink, failed = LocalSink(root), []

    def ask() -> None:
        try:
            sink.get("nfs/k", CLAIM_DEADLINE_S)
        except errors.SinkUnreachable as error:
            failed.append(error)

    before = len(list(pids.children(os.getpid())))
    sink.has_objects("disk", CLAIM_DEADLINE_S)
    soon()
    with hung_mounts.hung_mount(root / "nfs"):
        askers = [threading.Thread(target=ask) for _ in range(3 * local_helpers.AT_ONCE)]
        for one in askers:
            one.start()
        assert sink.has_objects("disk", CLAIM_DEADLINE_S) is False
        assert len(list(pids.children(os.getpid()))) <= before + 1 + local_helpers.AT_ONCE
        for one in askers:
            one.join()
    assert len(failed) == len(askers)


def test_a_transfer_to_a_mount_that_hangs_meanwhile_stalls(root, data_dir, transactional_db, settings, tmp_path):
    """rclone is killed while it waits; the worker continues."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = 2
    sink, volume = LocalSink(root), tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_bytes(b"x")
    for path in (volume, volume / "file"):
        os.chown(path, UID, UID)
    backup = "nfs/trash"
    arguments = rclone.upload(sink, "nfs/t", [], deletes=False, inside="", backup=backup)
    binds = tuple(sink.binds(["nfs/t", backup], UID))
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    with (
        hung_mounts.hung_mount(root / "nfs"),
        pytest.raises(errors.TransferStalled, match="The transfer has made no progress for 2 s"),
    ):
        rclone.run(arguments, sink, Jail(volume, Owner(UID, UID), False, binds), lock, location="nfs/t")
    os.close(lock)

"""Directories of containers: the latch, the lock, and no link of a tenant is followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import PurePosixPath
from uuid import uuid4

import pytest

from pools import lifecycle, nodes, volumes
from pools.errors import DirectoryGone, DirtyContainer, Locked
from pools.spec import Owner
from tests.make import make_spec

UID = 234_567
OWNER = Owner(UID, UID)


@pytest.fixture
def container(data_dir):
    container_id = uuid4()
    volumes.prepare(container_id, UID, make_spec())
    return container_id


def test_the_latch_is_set_once_and_names_its_claim(container):
    volumes.latch(container, "alice", 7)
    volumes.latch(container, "alice", 7)

    with pytest.raises(DirtyContainer):
        volumes.latch(container, "alice", 8)
    with pytest.raises(DirtyContainer):
        volumes.latch(container, "bob", 9)


def test_thirty_two_threads_of_different_tenants_latch_once(container):
    won = []

    def attempt(number: int) -> None:
        try:
            volumes.latch(container, f"tenant-{number}", number)
            won.append(number)
        except DirtyContainer:
            pass

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1


def test_the_lock_is_held_until_the_last_process_with_its_descriptor_is_dead(container):
    """The lock belongs to the process tree: its holder exits, its child still works, and nobody else gets the lock."""
    with volumes.locked(container) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(descriptor,))
    got = threading.Event()

    def wait() -> None:
        with volumes.locked(container, within_s=30):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got.wait(0.5)
    child.kill()
    assert got.wait(5)
    waiter.join()
    child.wait()


def test_a_lock_that_is_held_is_given_up_and_not_waited_for_for_ever(container, monkeypatch):
    """Its holder may be stuck in the kernel while a mount hangs; nothing is removed meanwhile."""
    monkeypatch.setattr(lifecycle, "LOCKED_S", 0.1)
    with volumes.locked(container):
        with pytest.raises(Locked, match=str(container)), volumes.locked(container):
            pass
        with pytest.raises(Locked):
            lifecycle.wipe(nodes.here(), container)
        assert volumes.home(container).exists()
    lifecycle.wipe(nodes.here(), container)
    assert not volumes.home(container).exists()


def test_whoever_waited_for_the_lock_of_a_wiped_container_fails(container):
    failed = []

    def wait() -> None:
        try:
            with volumes.locked(container, within_s=30):
                failed.append(False)
        except DirectoryGone:
            failed.append(True)

    with volumes.locked(container):
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.3)
        volumes.wipe(container)
    waiter.join()

    assert failed == [True]
    assert not volumes.home(container).exists()


def test_a_tree_too_deep_for_python_is_wiped(container):
    path = volumes.home(container) / "state"
    script = "import os\nfor _ in range(3000):\n os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", script], cwd=path, check=True)
    volumes.wipe(container)

    assert not volumes.home(container).exists()
    assert list(volumes.trash_dir().iterdir()) == []


def test_move_in_refuses_a_planted_directory_link(container, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    volume = volumes.home(container) / "state"
    (volume / "data").symlink_to(outside)
    staging = volumes.new_staging(container, OWNER, "m")
    (staging / "x").write_text("x")

    with pytest.raises(OSError):
        volumes.move_in(container, OWNER, staging, volume, PurePosixPath("data"), replace=True)
    assert list(outside.iterdir()) == []


def test_move_in_replaces_what_the_app_made_and_merge_keeps_it(container):
    volume = volumes.home(container) / "state"
    for replace, left in ((False, {"old", "new", "sub"}), (True, {"new", "sub"})):
        (volume / "old").write_text("app")
        staging = volumes.new_staging(container, OWNER, "m")
        (staging / "new").write_text("tenant")
        (staging / "sub").mkdir()
        (staging / "sub" / "deep").write_text("tenant")
        volumes.move_in(container, OWNER, staging, volume, PurePosixPath(), replace=replace)
        assert {path.name for path in volume.iterdir()} == left


def test_the_census_counts_what_is_there_and_follows_nothing(container):
    volume = volumes.home(container) / "state"
    (volume / "dir").mkdir()
    (volume / "dir" / "a").write_text("12345")
    (volume / "empty").mkdir()
    (volume / "x").write_text("1")
    (volume / "x").chmod(0o600)
    (volume / "out").symlink_to("/etc")
    os.mkfifo(volume / "fifo")
    (volume / "odd\nname").write_text("")
    (volume / "big").write_text("x" * 100)
    root = os.open(volume, os.O_RDONLY)
    seen = volumes.census(root, None, 99)
    os.close(root)

    assert (seen.files, seen.bytes) == (4, 106)
    assert seen.links == {"out": "/etc"}
    assert seen.empty_dirs == ["empty"]
    assert seen.skipped == ["fifo"]
    assert list(seen.names) == ["odd\nname"]
    assert seen.modes["x"] == 0o600
    assert [path for path, _ in seen.unsaveable] == ["big"]


def test_names_that_a_sink_wrote_otherwise_get_their_exact_form_back(container):
    staging = volumes.new_staging(container, OWNER, "m")
    (staging / "d␉r").mkdir()
    (staging / "d␉r" / "new␊line").write_text("")
    volumes.restore_names(staging, ["d\tr/new\nline", "d\tr"])

    assert (staging / "d\tr" / "new\nline").exists()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_a_manifest_that_points_outside_is_refused(container, path):
    staging = volumes.new_staging(container, OWNER, "m")

    with pytest.raises(ValueError, match="outside"):
        volumes.apply_manifest(staging, OWNER, {}, {path: "target"}, [])


def test_config_and_secrets_belong_to_the_containers_user_alone(container):
    volumes.provision(container, OWNER, {"a": 1}, {"TOKEN": "x"}, {"tenantId": "alice"})
    directory = volumes.secrets_dir(container)

    assert {p.name: (p.stat().st_uid, p.stat().st_mode & 0o777) for p in directory.iterdir()} == dict.fromkeys(
        ("config.json", "TOKEN", "claim.json"), (UID, 256)
    )

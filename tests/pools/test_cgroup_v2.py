"""Containers on hosts with cgroup v2, in a real hierarchy laid out as Docker does with each driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pools import freezer, host_processes
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

COUNTS = """
import sys, time
print("ready", flush=True)
while True:
    with open(sys.argv[1], "a") as file: file.write("x")
    time.sleep(0.001)
"""


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[Path]:
    """The kernel's v2 hierarchy; it exists next to v1, without the controllers of v1."""
    root = tmp_path / "cgroup"
    root.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


@pytest.fixture(params=["docker/{}", "system.slice/docker-{}.scope"], ids=["cgroupfs", "systemd"])
def running(request: pytest.FixtureRequest, hierarchy: Path, tmp_path: Path) -> Iterator[tuple[str, int, Path]]:
    """The id of a container, its only process, and a file that the process keeps appending to."""
    runtime_id, counted = uuid.uuid4().hex * 2, tmp_path / "counted"
    group = hierarchy / request.param.format(runtime_id)
    is_ours = not group.parent.exists()
    group.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", COUNTS, counted], stdout=subprocess.PIPE,
        preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield runtime_id, process.pid, counted
    finally:
        (group / "cgroup.freeze").write_text("0")
        process.kill()
        process.wait(10)
        eventually(lambda: "populated 0" in (group / "cgroup.events").read_text())
        group.rmdir()
        if is_ours:
            with suppress(OSError):  # somebody else uses it by now
                group.parent.rmdir()


def test_it_stands_still_for_a_save_and_goes_on(running, hierarchy):
    """With the kernel's v2 freezer, for the duration of the block."""
    runtime_id, _, counted = running
    group = freezer.group_of(runtime_id, hierarchy)
    assert group
    assert group.control.name == "cgroup.freeze"
    eventually(counted.exists)
    with freezer.frozen(group, 5.0) as freeze:
        before = counted.stat().st_size
        time.sleep(0.2)
        assert counted.stat().st_size == before
    assert freeze.seconds >= 0.2
    assert not group.is_frozen()
    eventually(lambda: counted.stat().st_size > before)


def test_its_guard_lets_it_go_on_where_the_save_was_killed(running, hierarchy):
    """A container that was unfrozen in between is not consistent."""
    runtime_id = running[0]
    group = freezer.group_of(runtime_id, hierarchy)
    assert group
    guard = subprocess.Popen(group.guard(60), stdin=subprocess.PIPE)
    group.freeze()
    assert group.is_frozen()
    guard.stdin.close()
    guard.wait(20)
    eventually(lambda: not group.is_frozen())
    with pytest.raises(freezer.CannotFreeze, match="thawed too early"), freezer.frozen(group, 5.0):
        group.thaw()


def test_its_processes_are_known_as_its_own(running):
    """For commands past their timeout, and for the kernel's report of the confinement."""
    runtime_id, pid, _ = running
    said = host_processes.status(pid, runtime_id)
    assert said
    assert said["Pid"] == str(pid)
    assert host_processes.status(pid, "0" * 64) is None
    assert not host_processes.kill_tree(pid, "0" * 64)
    assert host_processes.kill_tree(pid, runtime_id)
    eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL


def test_without_a_container_there_is_no_freezer(hierarchy):
    assert freezer.group_of("0" * 64, hierarchy) is None

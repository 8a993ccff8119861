"""The limits that the kernel enforces on a container, and the cgroup files that we read and write, v1 and v2, on a
real engine."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pools import freezer, host, host_processes, lifecycle, reconcile, usage
from pools.errors import ExecTimedOut
from pools.runtime import get_runtime
from pools.states import ContainerState, Fault
from tests.docker_command import docker
from tests.waiting import eventually

pytestmark = pytest.mark.any_database
COUNTS = ["sh", "-c", "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"]
GLUTTON = ["sh", "-c", "while [ ! -e /tmp/now ]; do sleep 0.1; done; exec tail /dev/zero"]
RESOURCES = {"memory_mb": 64, "pids_limit": 64, "cpus": 0.25}
FILES = {
    "1": "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
    "2": "memory.max pids.max cpu.max memory.swap.max cgroup.controllers",
}
"""By version: of the container's own cgroup, as it sees it."""
HELD = {"1": "67108864 64 25000 100000", "2": "67108864 64 25000 100000 0 "}


def test_the_kernel_holds_a_container_to_what_was_asked_for(engine):
    """Its limits of memory, swap, processes and CPU time, and what it uses of them."""
    row, pool = engine.start(resources=RESOURCES)
    assert row, pool.last_error
    version = engine.runtime.capabilities().cgroup_version
    assert " ".join(engine.run(row, f"cd /sys/fs/cgroup && cat {FILES[version]}").split()).startswith(HELD[version])
    with pytest.raises(AssertionError, match="Read-only file system"):
        engine.run(row, f"cd /sys/fs/cgroup && echo 1000 > {FILES[version].split()[1]}")

    before = usage.read(row.runtime_id)
    engine.run(row, "(sleep 1000 &) ; (sleep 1000 &) ; head -c 8388608 /dev/zero > /dev/shm/much")
    after = usage.read(row.runtime_id)
    assert before
    assert after
    assert before.pids + 1 <= after.pids <= before.pids + 3  # process 1 has its sleep, or just not
    assert after.memory_bytes >= before.memory_bytes + 7 * 1024**2  # the first sample counts its own command's pages
    assert after.cpu_ns > before.cpu_ns


def test_a_running_container_is_held_still_by_the_kernel_or_by_the_engine(engine):
    """Nothing in it runs during the block, a command that arrives waits, and everything continues afterwards."""
    row, pool = engine.start(command=COUNTS)
    assert row, pool.last_error
    name = lifecycle.runtime_name(row.pk)
    pid = engine.inspect(row)["State"]["Pid"]
    group = freezer.group_of(row.runtime_id)
    assert group
    commands = threading.Thread(target=engine.run, args=(row, "echo ran > /tmp/ran"))
    for way in (group, freezer.EnginePause(get_runtime(), name)):
        with freezer.frozen(way, 5.0):
            assert freezer.is_frozen(row.runtime_id)
            stood = status(pid)
            if way is group:
                commands.start()
            time.sleep(0.5)
            assert status(pid) == stood
        assert not freezer.is_frozen(row.runtime_id)
        moved = engine.run(row, "cat /tmp/count")
        eventually(lambda moved=moved: engine.run(row, "cat /tmp/count") != moved)
    commands.join(timeout=60)
    assert engine.run(row, "cat /tmp/ran") == "ran\n"
    group.freeze()
    assert freezer.thaw(get_runtime(), row.runtime_id, name)
    docker("pause", name)
    assert freezer.thaw(get_runtime(), row.runtime_id, name)
    assert not freezer.thaw(get_runtime(), row.runtime_id, name)


def status(pid: int) -> list[str]:
    """How often the process was switched in and out."""
    with open(f"/proc/{pid}/status") as file:
        return [line for line in file if "ctxt_switches" in line]


def test_a_process_is_a_containers_by_its_cgroup(engine):
    """A command past its timeout is killed with its children, and no process of the host is mistaken for one."""
    row, pool = engine.start()
    assert row, pool.last_error
    pid = engine.inspect(row)["State"]["Pid"]
    assert host_processes.status(pid, row.runtime_id)
    assert host_processes.status(os.getpid(), row.runtime_id) is None
    with pytest.raises(ExecTimedOut):
        engine.runtime.exec(lifecycle.runtime_name(row.pk), ("sh", "-c", "sleep 4321 & sleep 4321"), 2000)
    eventually(lambda: "4321" not in engine.run(row, "ps -o args | grep -v grep || true"))


def test_a_container_that_wanted_too_much_memory_is_told_apart_from_one_that_was_killed(engine):
    """The kernel's report reaches the event and the engine's state, whichever is read."""
    events: list[str] = []
    stream = engine.runtime.events(host.labels())

    def listen() -> None:
        for event in stream:
            events.append(event.kind)
            if {"oom", "die"} <= set(events):
                return

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    row, pool = engine.start(command=GLUTTON, health_check=None, resources=RESOURCES)
    assert row, pool.last_error
    engine.run(row, "touch /tmp/now")
    listening.join(timeout=120)
    assert {"oom", "die"} <= set(events)
    seen = engine.runtime.inspect(lifecycle.runtime_name(row.pk))
    assert seen
    assert (seen.exit_code, seen.is_oom_killed) == (137, True)
    assert row.state == ContainerState.IDLE
    reconcile.look_at(row.pk)
    row.refresh_from_db()
    assert row.fault == Fault.OOM

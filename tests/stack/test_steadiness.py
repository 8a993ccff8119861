"""A deployment on an overloaded machine: it starts, restarts nothing in a loop, and stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from boilerhouse.operations.supervisor import free_port
from boilerhouse.process import pids, processes
from tests.stack.conftest import ROOT, eventually, is_ready
from tests.stack.machines import Machine

CGROUP = Path("/sys/fs/cgroup")
QUOTA_US = 25_000
"""Of every 100 ms: a quarter of one processor for web, controller, four queues and their supervisor."""
LOOPS = 20


@pytest.fixture
def quarter() -> Iterator[Path]:
    """A control group with a quarter of a processor."""
    is_v2 = (CGROUP / "cgroup.controllers").exists()
    if is_v2:
        (CGROUP / "cgroup.subtree_control").write_text("+cpu")
    group = (CGROUP if is_v2 else CGROUP / "cpu") / f"bh-test-{os.getpid()}"
    group.mkdir()
    if is_v2:
        (group / "cpu.max").write_text(f"{QUOTA_US} 100000")
    else:
        (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(), 60)
    group.rmdir()


@contextmanager
def load(loops: int) -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
        for one in spinning:
            one.wait()


@contextmanager
def up(machine: Machine, before: Callable[[], None] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    with machine.log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port)],
            cwd=ROOT, env=machine.environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=before,
        )  # fmt: skip
    machine.up = process
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            pids.kill_tree(process.pid)
            process.wait()


def restarts(machine: Machine) -> int:
    """How often a process of the deployment was started again."""
    return len(re.findall("worker exits|process ended", machine.log.read_text()))


def queues_serve(base: str) -> bool:
    try:
        return requests.get(f"{base}/api/v1/health/ready", timeout=30).json()["checks"].get("workers") == "ok"
    except (requests.RequestException, ValueError):
        return False


@pytest.mark.long  # a quarter of a processor takes minutes for what takes seconds
def test_a_deployment_with_a_quarter_of_a_processor_comes_up(machine, quarter):
    """55 restarts in 200 s, and no queue ever served; a start has its patience now."""

    def join() -> None:
        (quarter / "cgroup.procs").write_text(str(os.getpid()))

    with up(machine, join) as (_, base):
        began = time.monotonic()
        eventually(lambda: queues_serve(base), 600, 1)
        print(f"up with a quarter of a processor after {time.monotonic() - began:.0f} s")
        time.sleep(30)  # long enough for the next silence to be judged
        assert restarts(machine) <= 1
        assert queues_serve(base)


@pytest.mark.long  # twenty busy loops make every step slow
def test_under_a_load_of_twenty_queues_serve_and_up_stops(machine):
    """F8, C: nothing is restarted in a loop, and SIGTERM ends everything, hung tasks included."""
    with up(machine) as (process, base), load(LOOPS):
        eventually(lambda: is_ready(base), 300, 0.5)
        time.sleep(40)
        assert restarts(machine) <= 1
        everyone = pids.descendants(process.pid)
        for hung in [pid for pid in everyone if b"run_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]:
            os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=50)  # 10 s are promised
        print(f"up stopped under load {os.getloadavg()[0]:.0f} after {time.monotonic() - began:.1f} s")
        assert process.returncode == 0
        eventually(lambda: not [pid for pid in everyone if processes.pid_started(pid) is not None], 20)

"""Several controllers and workers: one leads, failover is quick, a stuck queue is noticed, and P2 holds under load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from django.utils import timezone

from boilerhouse.core.models import Lease, Node, Process
from boilerhouse.process import pids, processes
from pools.models import Container
from tenants.models import Assignment
from tests.stack.conftest import ROOT, eventually
from tests.stack.convergence import wait_until_converged


@contextmanager
def running(command: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Additional processes of one command next to the stack's own."""
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), command, "--skip-checks"], cwd=ROOT, env=dict(os.environ),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pids.kill_tree(process.pid)


def leader() -> Process | None:
    holder = Lease.objects.filter(name="controller", expires_at__gt=timezone.now()).values_list("holder", flat=True)
    return Process.objects.filter(pk__in=[h for h in holder if h]).first()


def controllers() -> set[int]:
    rows = Process.objects.filter(kind=Process.Kind.CONTROLLER, pk__in=processes.living())
    return set(rows.values_list("pid", flat=True))


def handed_over(victim: int) -> float:
    began = time.monotonic()
    eventually(lambda: (row := leader()) and row.pid != victim, 30, 0.02)
    return time.monotonic() - began


def test_one_leads_and_hands_over_at_once_on_sigterm_and_within_seconds_when_killed(stack):
    with running("run_controller"):
        eventually(lambda: len(controllers()) >= 2, 30)
        first = eventually(leader)
        os.kill(first.pid, signal.SIGTERM)
        assert handed_over(first.pid) < 5  # 1 s is promised
        eventually(lambda: len(controllers()) >= 2, 30)  # `up` starts its own again
        second = eventually(leader)
        os.kill(second.pid, signal.SIGKILL)
        assert handed_over(second.pid) < 15  # 5 s are promised
        eventually(
            lambda: Node.objects.get().watcher in processes.living() - {second.pk}, 15
        )  # and the node is watched
        eventually(lambda: len(controllers()) >= 1, 30)


def test_a_worker_that_hangs_is_said_and_so_is_its_return(stack):
    """Another worker takes over its work; in between, the queues are reported as unserved."""
    (worker,) = Process.objects.filter(kind="worker", pk__in=processes.living())
    before = max((e["id"] for e in stack.events("pool.warning")), default=0)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        said = eventually(lambda: [e for e in stack.events("pool.warning") if e["id"] > before], 30, 0.1)
        assert "has not been served" in said[0]["payload"]["detail"]
        eventually(lambda: readiness(stack)["workers"] == "no worker is running", 40, 0.3)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    eventually(lambda: [e for e in stack.events("pool.recovered") if e["id"] > before], 20, 0.3)
    eventually(lambda: readiness(stack)["workers"] == "ok", 20, 0.3)


def readiness(stack) -> dict[str, str]:
    checks: dict[str, str] = requests.get(f"{stack.base}/api/v1/health/ready", timeout=5).json()["checks"]
    return checks


@pytest.mark.long
def test_two_controllers_and_four_workers_never_overshoot_under_a_claim_storm(stack, pools):
    """maxSize 8, twenty tenants come and go; the population is looked at every 50 ms (P2)."""
    pool = pools(warm=4, maxSize=8)
    most, answers, stop = {"engine": 0, "rows": 0}, [], threading.Event()

    def look() -> None:
        docker = ["docker", "ps", "-aq", "--filter", f"label=boilerhouse.pool={pool}"]
        while not stop.wait(0.05):
            listed = subprocess.run(docker, capture_output=True, text=True, check=True).stdout.split()
            most["engine"] = max(most["engine"], len(listed))
            most["rows"] = max(most["rows"], Container.objects.filter(pool_id=pool).count())

    def come_and_go(name: str) -> None:
        for _ in range(3):
            claimed = stack.call("POST", f"tenants/{name}/claim?timeoutMs=60000", {"poolId": pool})
            answers.append(claimed.status_code)
            if claimed.status_code == 201:
                released = stack.call("POST", f"tenants/{name}/release?timeoutMs=60000", {})
                answers.append(released.status_code)

    with running("run_controller"), running("run_worker", 3):
        eventually(lambda: Process.objects.filter(kind="worker", pk__in=processes.living()).count() >= 4, 90, 0.5)
        watch = threading.Thread(target=look)
        watch.start()
        threads = [threading.Thread(target=come_and_go, args=(f"storm-{n}",)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        watch.join()
        assert set(answers) <= {200, 201}, {code: answers.count(code) for code in answers}
        assert most["engine"] <= 8
        assert most["rows"] <= 8
        wait_until_converged(pool)
    assert not Assignment.objects.live().filter(pool_id=pool).exists()


def test_those_who_wait_in_two_web_processes_are_served_first_come_first(stack, pools):
    """One container, five waiting claims at two processes; no wake-up is lost, and the order is kept."""
    from dataclasses import replace

    from boilerhouse.operations import supervisor

    pool = pools(warm=1, maxSize=1)
    port = supervisor.free_port()
    listening = supervisor.listen("127.0.0.1", port)
    second = supervisor.web(listening).start()
    other = replace(stack, base=f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: _answers(other), 40, 0.3)
        stack.claim("holder", pool)
        served: list[str] = []

        def wait(web, name: str) -> None:
            web.claim(name, pool, timeout_ms=90_000)
            served.append(name)
            web.release(name)

        threads = []
        for number in range(5):
            name = f"turn-{number}"
            threads.append(threading.Thread(target=wait, args=((stack, other)[number % 2], name)))
            threads[-1].start()
            eventually(lambda name=name: Assignment.objects.live().filter(tenant_id=name).exists(), 30, 0.02)
        stack.release("holder")
        for thread in threads:
            thread.join()
        assert served == [f"turn-{number}" for number in range(5)]
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(20)


def _answers(web) -> bool:
    try:
        return requests.get(f"{web.base}/api/v1/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False

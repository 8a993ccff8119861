"""Operators' commands: what they print, how they exit, and that they leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from boilerhouse.core import processes
from boilerhouse.core.models import Process
from tests.stack.conftest import ROOT, eventually, manage


def traces() -> dict[str, set[str]]:
    """Everything of any deployment on this host: containers, networks, rules, mounts, directories."""
    run = {"capture_output": True, "text": True, "check": True}
    docker = ["docker", "--log-level", "error"]
    labelled = ["--filter", "label=boilerhouse.deployment", "--format", "{{.ID}}"]
    return {
        "containers": set(subprocess.run([*docker, "ps", "-a", *labelled], **run).stdout.split()),
        "networks": set(subprocess.run([*docker, "network", "ls", *labelled], **run).stdout.split()),
        "rules": set(re.findall(r'"boilerhouse (\w+)"', subprocess.run(["iptables", "-S"], **run).stdout)),
        "mounts": {
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if "/boilerhouse/" in line
        },
        "directories": {path.name for path in (ROOT / ".boilerhouse").glob("demo-*")},
    }


def without(found: dict[str, set[str]], before: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: values - before[name] for name, values in found.items()}


NOTHING: dict[str, set[str]] = {
    "containers": set(),
    "networks": set(),
    "rules": set(),
    "mounts": set(),
    "directories": set(),
}


@pytest.mark.any_database
def test_the_demo_does_the_main_job_and_leaves_nothing(stack):
    """B47: also in an environment that is set for another deployment, behind TLS, and for a proxy."""
    before = traces()
    others = {"BOILERHOUSE_HTTPS": "true", "BOILERHOUSE_ALLOWED_HOSTS": "boilerhouse.example.com",
              "BOILERHOUSE_BASE_PATH": "/bh", "HTTP_PROXY": "http://127.0.0.1:9"}  # fmt: skip
    done = manage("demo", "--once", "--output", "json", env={**os.environ, **others})

    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["ok"] is True
    assert found["sizes"]["restoredFiles"] == found["sizes"]["files"] > 1000
    assert {"poolWarmMs", "claimMs", "restoreMs", "saveMs", "releaseMs", "totalMs"} <= set(found["timings"])
    # other tests' pools come and go in the shared deployment; what is new must not stay
    eventually(lambda: without(traces(), before)["networks"] == without(traces(), before)["mounts"] == set(), 10)
    left = without(traces(), before)
    assert left["rules"] == left["directories"] == set()


@pytest.mark.long
def test_ctrl_c_ends_the_demo_and_all_it_started(stack):
    before = traces()
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "demo"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said = ""
    assert demo.stderr
    for line in demo.stderr:
        said += line
        if "Ctrl-C" in line:
            break
    link = re.search(r"Log in +(http\S+)", said)
    assert link, said
    session = requests.Session()
    assert "Overview" in session.get(link[1], timeout=10).text
    assert requests.get(link[1], timeout=10).status_code == 410
    (directory,) = without(traces(), before)["directories"]
    started = time.monotonic()
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=40)

    assert time.monotonic() - started < 30
    left = without(traces(), before)
    assert left["networks"] == left["rules"] == left["mounts"] == left["directories"] == set()
    alive = subprocess.run(["pgrep", "-f", directory], capture_output=True, text=True, check=False).stdout
    assert alive == ""


@pytest.mark.any_database
def test_purge_is_refused_while_processes_run(stack):
    done = manage("purge", "--yes")

    assert done.returncode == 5
    assert "running" in done.stderr


@pytest.mark.any_database
def test_purge_does_not_ask_where_nobody_can_answer(stack):
    done = manage("purge", stdin=subprocess.DEVNULL)

    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_refill_pools_waits_and_reports(stack, pools):
    pool = pools(warm=2, maxSize=2)
    done = manage("refill_pools", "--pool", pool, "--wait", "--output", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"][0]["idle"] == 2
    assert manage("refill_pools", "--pool", "none").returncode == 3


@pytest.mark.any_database
def test_a_key_is_printed_alone_and_bad_roles_are_usage_errors(stack):
    made = manage("create_api_key", "--name", "x", "--role", "tenant", "--tenant", "t1", "--expires-days", "1")
    assert re.fullmatch(r"bh_\w{46}\n", made.stdout)
    for wrong in (["--role", "king"], ["--role", "tenant"], ["--role", "admin", "--tenant", "t"]):
        assert manage("create_api_key", "--name", "x", *wrong).returncode == 2


@pytest.mark.any_database
def test_up_restarts_what_dies_and_tenants_keep_working(stack, pools):
    """P8: kill -9 of web, controller and worker, one after another."""
    pool = pools(warm=1, maxSize=2)
    held = stack.claim("survivor", pool)
    stack.exec(held["containerId"], "echo here > /state/x")
    for kind in (Process.Kind.WEB, Process.Kind.CONTROLLER, Process.Kind.WORKER):
        living = Process.objects.filter(kind=kind, pk__in=processes.living())
        victims = [row.pid for row in living]
        assert victims, kind
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        def is_back(kind=kind, victims=victims) -> bool:
            rows = Process.objects.filter(kind=kind, pk__in=processes.living()).exclude(pid__in=victims)
            try:
                return rows.exists() and stack.call("GET", "health/ready", timeout=5).status_code == 200
            except requests.RequestException:
                return False

        eventually(is_back, 40, 0.3)
    assert stack.exec(held["containerId"], "cat /state/x") == "here\n"
    assert stack.claim("newcomer", pool)["tenantId"] == "newcomer"


@pytest.mark.long  # a dozen starts of Django
@pytest.mark.any_database
def test_operators_claim_look_run_save_and_release_by_commands(stack, pools, sink_server, tmp_path):
    pool = pools(sink=sink_server.json("t/${tenantId}/"), warm=1, maxSize=2)
    (tmp_path / "secrets.json").write_text('{"TOKEN": "COMMAND-CANARY"}')
    claimed = manage("claim", "ops-1", "--pool", pool, "--secrets", str(tmp_path / "secrets.json"), "--output", "json")
    assert claimed.returncode == 0, claimed.stderr
    assert json.loads(claimed.stdout)["tenantId"] == "ops-1"
    ran = manage(
        "exec",
        "ops-1",
        "--",
        "sh",
        "-c",
        "cat /run/secrets/TOKEN; echo kept > /state/a; echo said > /proc/1/fd/1; exit 7",
    )
    assert (ran.returncode, ran.stdout) == (7, "COMMAND-CANARY")
    assert manage("logs", "ops-1").stdout == "said\n"
    planned = manage("sync", "ops-1", "--dry-run")
    assert "new 1, changed 0" in planned.stdout
    assert not sink_server.keys("t/ops-1/state")
    saved = manage("sync", "ops-1", "--wait", "--output", "json")
    assert saved.returncode == 0, saved.stderr
    assert json.loads(saved.stdout)["runs"][0]["state"] == "succeeded"
    assert list(sink_server.keys("t/ops-1/state")) == ["a"]
    released = manage("release", "ops-1")
    assert "is released; its state is saved" in released.stdout
    assert manage("release", "ops-1").returncode == 3
    assert manage("exec", "ops-1", "--", "true").returncode == 5
    assert manage("claim", "ops-1", "--pool", "none").returncode == 3
    assert manage("release", "ops-1", "--discard").returncode == 2
    examined = manage("doctor", "--output", "json")
    failures = [one for one in json.loads(examined.stdout)["findings"] if one["state"] == "failure"]
    assert failures == []
    assert examined.returncode == 0

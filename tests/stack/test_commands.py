"""Operators' commands: their output and exit codes, and that they leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from boilerhouse.core.models import Process
from boilerhouse.process import processes
from tests.stack.conftest import ROOT, eventually, manage


class Demo:
    """A running ``manage.py demo``, and everything of its deployment on this host."""

    def __init__(self, *arguments: str, **options) -> None:
        before = set(self._directories())
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "demo", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options,
        )  # fmt: skip
        (self.directory,) = eventually(lambda: set(self._directories()) - before)
        self.id = eventually(self._id, 60)

    @staticmethod
    def _directories() -> list[Path]:
        return list((ROOT / ".boilerhouse").glob("demo-*"))

    def _id(self) -> str:
        assert self.process.poll() is None, self.process.stderr.read()[-3000:]
        try:
            return (self.directory / "deployment-id").read_text().strip()
        except FileNotFoundError:
            return ""

    def traces(self) -> dict[str, str]:
        """The objects on this host by kind; other deployments may start and stop in between."""
        run = {"capture_output": True, "text": True, "check": True}
        docker = ["docker", "--log-level", "error"]
        labelled = ["--filter", f"label=boilerhouse.deployment={self.id}", "--format", "{{.ID}}"]
        tables = subprocess.run(["nft", "list", "tables"], **run).stdout
        mounts = Path("/proc/mounts").read_text()
        found = {
            "containers": subprocess.run([*docker, "ps", "-a", *labelled], **run).stdout,
            "networks": subprocess.run([*docker, "network", "ls", *labelled], **run).stdout,
            "rules": "\n".join(re.findall(rf"^.* boilerhouse_{self.id}$", tables, re.M)),
            "mounts": "\n".join(re.findall(rf"^.*(?:{self.id}|{self.directory}).*$", mounts, re.M)),
            "directory": "\n".join(path.name for path in [self.directory] if path.exists()),
            "processes": subprocess.run(["pgrep", "-f", self.directory], **{**run, "check": False}).stdout,
        }
        return {kind: text for kind, text in found.items() if text}


@pytest.mark.any_database
def test_the_demo_does_the_main_job_and_leaves_nothing(stack):
    """Also in an environment that is set for another deployment, behind TLS, and for a proxy."""
    others = {"BOILERHOUSE_HTTPS": "true", "BOILERHOUSE_ALLOWED_HOSTS": "boilerhouse.example.com",
              "BOILERHOUSE_BASE_PATH": "/bh", "HTTP_PROXY": "http://127.0.0.1:9"}  # fmt: skip
    demo = Demo("--once", "--output", "json", env={**os.environ, **others})
    eventually(lambda: {"networks", "rules", "mounts", "directory"} <= set(demo.traces()), 60)
    said, complained = demo.process.communicate(timeout=180)

    assert demo.process.returncode == 0, complained[-3000:]
    (line,) = said.splitlines()
    found = json.loads(line)
    assert found["ok"] is True
    assert found["sizes"]["restoredFiles"] == found["sizes"]["files"] > 1000
    assert {"poolWarmMs", "claimMs", "restoreMs", "saveMs", "releaseMs", "totalMs"} <= set(found["timings"])
    assert demo.traces() == {}


@pytest.mark.long
def test_ctrl_c_ends_the_demo_and_all_it_started(stack):
    demo = Demo()
    said = ""
    assert demo.process.stderr
    for line in demo.process.stderr:
        said += line
        if "Ctrl-C" in line:
            break
    link = re.search(r"Log in +(http\S+)", said)
    assert link, said
    session = requests.Session()
    assert "Overview" in session.get(link[1], timeout=10).text
    assert requests.get(link[1], timeout=10).status_code == 410
    assert {"containers", "networks", "rules", "mounts", "directory", "processes"} <= set(demo.traces())
    started = time.monotonic()
    os.killpg(demo.process.pid, signal.SIGINT)
    demo.process.communicate(timeout=40)

    assert time.monotonic() - started < 30
    assert demo.traces() == {}


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


@pytest.mark.any_database
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
    wrong = (["--role", "king"], ["--role", "tenant"], ["--role", "admin", "--tenant", "t"])
    with ThreadPoolExecutor() as threads:
        refused = list(threads.map(lambda roles: manage("create_api_key", "--name", "x", *roles), wrong))
    assert [one.returncode for one in refused] == [2, 2, 2]


@pytest.mark.any_database
def test_up_restarts_what_dies_and_tenants_keep_working(stack, pools):
    """kill -9 of web, controller and worker, one after another (P8)."""
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

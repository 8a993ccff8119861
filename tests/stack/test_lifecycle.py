"""Automatic upkeep of pools on the real stack: health, deaths, rolls, idle release, hooks, seeds, disk limits."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from boilerhouse.core import deployment
from boilerhouse.core.models import Process
from boilerhouse.process import processes
from pools import dry_runs, lifecycle, volumes
from pools.models import Container, ContainerUsage
from tenants.models import Assignment
from tests.docker_command import docker
from tests.make import make_spec
from tests.stack.conftest import eventually, manage

STATE = "t/${tenantId}/"


def runtime_name(container_id) -> str:
    return lifecycle.runtime_name(container_id)


def volume(container_id, name="state") -> Path:
    return volumes.volume_path(Container.objects.get(pk=container_id).pk, name)


# Deaths and health -----------------------------------------------------------------------------------


def test_a_claimed_container_that_dies_is_reported_at_once_saved_and_released(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("dora", pool)
    stack.exec(claimed["containerId"], "echo written > /state/x")
    killed = time.time()
    docker("kill", runtime_name(claimed["containerId"]))
    (event,) = eventually(lambda: stack.events("container.unhealthy", poolId=pool), 5, 0.05)

    assert datetime.fromisoformat(event["timestamp"]).timestamp() - killed < 5  # 1 s is promised, 0.1 s usual
    assert event["payload"]["reason"] == "exit"
    assert (event["payload"]["tenantId"], event["payload"]["state"]) == ("dora", "claimed")
    eventually(lambda: not stack.status("dora")["assigned"], 20)
    assert Assignment.objects.filter(tenant_id="dora").latest("created_at").reason == "container_died"
    again = stack.claim("dora", pool)
    assert stack.exec(again["containerId"], "cat /state/x") == "written\n"


LIVES_UNTIL_TOLD = """
while [ ! -e /state/now ]; do sleep 0.1; done
echo 'ValueError: invalid permissions on /data' >&2
i=0; while [ $i -lt 30 ]; do echo "  at step $i" >&2; i=$((i+1)); done
exit 3
"""


@pytest.mark.any_database
def test_a_claimed_container_that_dies_leaves_its_last_words_to_its_tenant(stack, pools):
    """Its log answered 409 or 502 from then on, and the cause was nowhere."""
    spec = {"command": ["sh", "-c", LIVES_UNTIL_TOLD], "healthCheck": None, "ports": []}
    pool = pools(workload=spec, maxSize=2)
    claimed = stack.claim("ida", pool)
    stack.exec(claimed["containerId"], "touch /state/now")
    (event,) = eventually(lambda: stack.events("container.unhealthy", poolId=pool), 30)
    assert (event["payload"]["exitCode"], event["payload"]["reason"]) == (3, "exit")
    assert "ValueError: invalid permissions on /data" in event["payload"]["lastWords"]
    eventually(lambda: not stack.status("ida")["assigned"], 60)
    death = stack.status("ida")["lastDeath"]
    assert (death["exitCode"], death["signal"], death["containerId"]) == (3, None, claimed["containerId"])
    assert death["detail"] == "The container's main process ended with exit code 3."
    assert death["lastWords"].startswith("ValueError: invalid permissions on /data")
    for path in ("tenants/ida/logs", f"containers/{claimed['containerId']}/logs"):
        lines = stack.call("GET", path).text.splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("ValueError: invalid permissions on /data", "  at step 29", 31)
    assert "lastWords" not in stack.ok("GET", f"pools/{pool}")["status"]
    assert "ValueError" not in stack.call("GET", f"pools/{pool}").text


@pytest.mark.any_database
def test_a_container_that_wanted_too_much_memory_is_told_apart(stack, pools):
    glutton = "while [ ! -e /state/now ]; do sleep 0.1; done; exec tail /dev/zero"
    pool = pools(workload={"command": ["sh", "-c", glutton], "healthCheck": None, "ports": []}, maxSize=2)
    claimed = stack.claim("gil", pool)
    stack.exec(claimed["containerId"], "touch /state/now")
    (event,) = eventually(lambda: stack.events("container.unhealthy", poolId=pool), 30)

    assert event["payload"]["reason"] == "oom"
    assert "memoryMb" in event["payload"]["detail"]


@pytest.mark.any_database
def test_a_pool_that_cannot_start_says_the_message_and_not_the_tail_of_the_dump(stack, pools):
    """Also with NUL characters in it, in a trial before the workload is saved, and with the signal's name."""
    dump = (
        "echo 'Error: no config at /etc/app' >&2; i=0; while [ $i -lt 40 ]; do echo '    at step' >&2; i=$((i+1)); done"
    )
    sick = {"command": ["false"], "startPeriodMs": 20_000}
    pool = pools(warm=0, workload={"command": ["sh", "-c", f"{dump}; kill -SEGV $$"], "healthCheck": sick, "ports": []})
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 1}, 202)
    said = eventually(lambda: stack.pool_status(pool)["lastError"], 60)
    assert "Error: no config at /etc/app" in said
    assert "exit code 139 (SIGSEGV)" in said
    binary = {"command": ["sh", "-c", "cat /proc/1/environ; exit 1"], "startPeriodMs": 100}
    pool = pools(warm=0, workload={"healthCheck": binary, "ports": []})
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 1}, 202)
    assert "last probe: exit code 1: PATH=" in eventually(lambda: stack.pool_status(pool)["lastError"], 60)
    spec = make_spec(command=["sh", "-c", f"{dump}; exit 4"], volumes=[], ports=[])
    found = dry_runs.run(spec)
    assert (found.is_healthy, found.exit_code) == (False, 4)
    assert found.log.startswith("Error: no config at /etc/app")


SICK = {
    "command": ["test", "!", "-e", "/state/sick"],
    "intervalMs": 500,
    "timeoutMs": 2000,
    "retries": 1,
    "startPeriodMs": 0,
}


@pytest.mark.any_database
def test_an_unhealthy_idle_container_is_replaced_a_claimed_one_only_reported(stack, pools):
    pool = pools(workload={"healthCheck": SICK}, warm=2, maxSize=3)
    claimed = stack.claim("hal", pool)
    stack.wait_warm(pool, 1)
    (idle, *_) = stack.containers(pool)
    (volume(idle["id"]) / "sick").touch()
    eventually(lambda: not Container.objects.filter(pk=idle["id"]).exists(), 30)
    stack.wait_warm(pool, 1)

    stack.exec(claimed["containerId"], "touch /state/sick")
    eventually(lambda: stack.ok("GET", f"containers/{claimed['containerId']}")["fault"] == "unhealthy", 20)
    assert stack.status("hal")["state"] == "assigned"
    assert stack.pool_status(pool)["unhealthy"] == 1
    stack.exec(claimed["containerId"], "rm /state/sick")
    eventually(lambda: stack.ok("GET", f"containers/{claimed['containerId']}")["health"] == "healthy", 20)


@pytest.mark.any_database
def test_where_the_pool_says_so_an_unhealthy_claimed_container_is_released_with_save(stack, pools, sink_server):
    pool = pools(workload={"healthCheck": SICK}, sink=sink_server.json(STATE), onUnhealthy="release")
    claimed = stack.claim("ian", pool)
    stack.exec(claimed["containerId"], "echo kept > /state/x; touch /state/sick")
    eventually(lambda: not stack.status("ian")["assigned"], 30)

    assert Assignment.objects.filter(tenant_id="ian").latest("created_at").reason == "unhealthy"
    assert set(sink_server.keys("t/ian/state")) == {"x", "sick"}


@pytest.mark.any_database
def test_an_idle_container_that_vanishes_is_replaced_and_foreign_ones_stay(stack, pools):
    pool = pools(warm=1)
    foreign = docker(
        "create", "--label", "boilerhouse.deployment=somebody-else", "--label", f"boilerhouse.pool={pool}",
        "boilerhouse/example-workload:1",
    ).strip()  # fmt: skip
    try:
        (idle,) = stack.containers(pool)
        docker("rm", "-f", runtime_name(idle["id"]))
        eventually(lambda: {c["id"] for c in stack.containers(pool)} - {idle["id"]})
        done = manage("reconcile", "--output", "json")
        assert done.returncode == 0, done.stderr
        assert docker("inspect", "--format", "{{.State.Status}}", foreign).strip() == "created"
    finally:
        docker("rm", "-f", foreign)


@pytest.mark.any_database
def test_reconcile_shows_and_heals_an_orphan(stack, pools):
    pool = pools(warm=1)
    (idle,) = stack.containers(pool)
    labels = docker(
        "inspect", "--format", '{{index .Config.Labels "boilerhouse.deployment"}}', runtime_name(idle["id"])
    )
    leader = Process.objects.filter(pk__in=processes.living()).get(kind=Process.Kind.CONTROLLER).pid
    os.kill(leader, signal.SIGSTOP)  # else it may heal what a busy machine has not looked at yet
    try:
        stray = docker(
            "create", "--label", f"boilerhouse.deployment={labels.strip()}", "--label",
            "boilerhouse.container=00000000-0000-7000-8000-000000000000", "boilerhouse/example-workload:1",
        ).strip()  # fmt: skip
        shown = manage("reconcile", "--dry-run")
        assert "orphan" in shown.stdout
        assert docker("ps", "-aq", "--no-trunc", "--filter", f"id={stray}").strip() == stray
    finally:
        os.kill(leader, signal.SIGCONT)
    eventually(lambda: not docker("ps", "-aq", "--no-trunc", "--filter", f"id={stray}").strip(), 40, 0.5)


@pytest.mark.any_database
def test_usage_is_sampled_and_shown(stack, pools):
    pool = pools(warm=1)
    (idle,) = stack.containers(pool)
    eventually(lambda: ContainerUsage.objects.filter(container_id=idle["id"], memory_bytes__gt=0).exists(), 30, 0.5)
    (sample, *_) = stack.ok("GET", f"pools/{pool}/usage")["items"]
    assert sample["size"] >= 1
    metrics = stack.call("GET", "metrics").text
    assert f'boilerhouse_pool_containers{{pool="{pool}",state="idle"}} 1.0' in metrics
    assert 'boilerhouse_queue_silent{queue="claim"} 0.0' in metrics


# Sizing ------------------------------------------------------------------------------------------------


@pytest.mark.any_database
def test_pause_drain_and_resume(stack, pools):
    pool = pools(warm=2, maxSize=5)  # room for one more when all that were warm are claimed
    held = stack.claim("pam", pool)
    stack.wait_warm(pool, 1)
    assert stack.ok("POST", f"pools/{pool}/pause", status=202)["status"]["state"] == "paused"
    eventually(lambda: stack.pool_status(pool)["starting"] == 0)  # a start that was under way ends
    for number in range(stack.pool_status(pool)["idle"]):  # warm ones are still handed out
        stack.claim(f"pat{number or ''}", pool)
    stack.problem("POST", "tenants/pip/claim?timeoutMs=500", {"poolId": pool}, 503, "pool_paused")
    assert stack.ok("POST", f"pools/{pool}/resume", status=202)["status"]["state"] != "paused"
    stack.wait_warm(pool, 1)

    stack.ok("POST", f"pools/{pool}/drain", status=202)
    stack.problem("POST", "tenants/pip/claim", {"poolId": pool}, 409, "draining")
    eventually(lambda: stack.pool_status(pool)["idle"] == 0)
    assert stack.exec(held["containerId"], "echo still here") == "still here\n"
    stack.release("pat")
    stack.ok("POST", f"pools/{pool}/resume", status=202)
    stack.wait_warm(pool, 1)


@pytest.mark.any_database
def test_a_pool_follows_its_new_sizes(stack, pools):
    pool = pools(warm=1, maxSize=2)
    body = stack.ok("GET", f"pools/{pool}")
    stack.ok("PUT", f"pools/{pool}", {**body, "minSize": 3, "maxSize": 4, "minIdle": 3})
    stack.wait_warm(pool, 3)
    stack.ok("PUT", f"pools/{pool}", {**body, "minSize": 0, "minIdle": 1})
    eventually(lambda: stack.pool_status(pool)["size"] == 1)
    stack.problem("PUT", f"pools/{pool}", {**body, "workloadId": "other"}, 422, "invalid")
    stack.problem("PUT", f"pools/{pool}", {**body, "id": "other"}, 422, "invalid")


# Rolling -----------------------------------------------------------------------------------------------


def test_a_new_version_rolls_under_claims_without_one_that_fails(stack, pools):
    pool = pools(warm=3, maxSize=6)
    held = stack.claim("rob", pool)
    stop, codes = threading.Event(), []

    def churn(name: str) -> None:
        while not stop.is_set():
            codes.append(stack.call("POST", f"tenants/{name}/claim", {"poolId": pool}).status_code)
            codes.append(stack.call("POST", f"tenants/{name}/release", {}).status_code)
            time.sleep(0.2)

    threads = [threading.Thread(target=churn, args=(f"roll-{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    changed = stack.put_workload(pool, environment={"COLOUR": "green"})
    assert changed["version"] == 2

    def rolled() -> bool:
        others = Container.objects.filter(pool_id=pool).exclude(pk=held["containerId"])
        return others.exists() and not others.exclude(version__number=2).exists()

    try:
        eventually(rolled, 60, 0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(codes) <= {200, 201}, codes
    assert stack.ok("GET", f"containers/{held['containerId']}")["workloadVersion"] == 1
    assert stack.exec(held["containerId"], "echo $COLOUR") == "\n"
    fresh = stack.claim("ros", pool)
    assert stack.exec(fresh["containerId"], "echo $COLOUR") == "green\n"
    versions = stack.ok("GET", f"workloads/{pool}/versions")["items"]
    assert [v["version"] for v in versions] == [2, 1]
    assert all(v["imageDigest"].startswith("sha256:") for v in versions)


@pytest.mark.any_database
def test_a_version_that_never_becomes_healthy_stops_the_roll(stack, pools):
    pool = pools(warm=2, maxSize=3)
    before = {c["id"] for c in stack.containers(pool)}
    stack.put_workload(pool, command=["no-such-program"])
    status = eventually(lambda: (s := stack.pool_status(pool))["trouble"] == "roll_halted" and s, 40)

    assert "Version 2" in status["lastError"]
    assert "Correct the workload's command" in status["lastError"]
    assert status["state"] == "degraded"
    assert {c["id"] for c in stack.containers(pool)} == before
    claimed = stack.claim("sam", pool)
    assert stack.ok("GET", f"containers/{claimed['containerId']}")["workloadVersion"] == 1
    stack.wait_warm(pool, 2)
    assert len(stack.events("container.failed", poolId=pool)) == 1, "a version that failed is not tried again"

    stack.put_workload(pool, command=[])
    eventually(lambda: all(c["workloadVersion"] == 3 for c in stack.containers(pool)), 60, 0.3)
    assert stack.pool_status(pool)["lastError"] is None


@pytest.mark.any_database
def test_without_headroom_one_at_a_time(stack, pools):
    """maxSize 2, both warm: the population never goes above, and both are of the new version in the end."""
    pool = pools(warm=2, maxSize=2)
    stack.put_workload(pool, environment={"A": "1"})
    most = 0

    def rolled() -> bool:
        nonlocal most
        most = max(most, len(docker("ps", "-aq", "--filter", f"label=boilerhouse.pool={pool}").split()))
        idle = stack.containers(pool)
        return len(idle) == 2 and all(c["workloadVersion"] == 2 for c in idle)

    eventually(rolled, 60, 0.05)
    assert most <= 2


@pytest.mark.any_database
def test_what_cannot_apply_is_refused_when_it_is_saved(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE))
    body = stack.ok("GET", f"workloads/{pool}")
    for over, pointer in (
        ({"resources": {"cpus": 900}}, "/resources/cpus"),
        ({"resources": {"memoryMb": 4_000_000}}, "/resources/memoryMb"),
        ({"seed": "nothing-there"}, "/seed"),
        ({"seed": "../etc"}, "/seed"),
        ({"volumes": {"comm": {"containerPath": "/comm"}}}, "/volumes"),
    ):
        found = stack.problem("PUT", f"workloads/{pool}", {**body, **over}, 422, "invalid")
        assert pointer in [e["pointer"] for e in found["errors"]]
    assert stack.ok("GET", f"workloads/{pool}")["version"] == 1


# Idle release ------------------------------------------------------------------------------------------


@pytest.mark.any_database
def test_an_idle_tenant_is_released_with_save_and_activity_moves_the_deadline(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), idleTimeoutMs=5000)
    claimed = stack.claim("ida", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/x; (sleep 10; echo 2 > /state/deep) > /dev/null 2>&1 &")
    assert stack.status("ida")["releaseDueAt"]
    began = time.monotonic()
    while time.monotonic() - began < 7:
        assert stack.call("POST", "tenants/ida/heartbeat").status_code == 204
        time.sleep(0.5)
    eventually(lambda: not stack.status("ida")["assigned"], 40)

    assert Assignment.objects.filter(tenant_id="ida").latest("created_at").reason == "idle"
    assert set(sink_server.keys("t/ida/state")) == {"x", "deep"}, "the file written later was activity, too"
    stack.problem("POST", "tenants/ida/heartbeat", None, 404, "nothing_held")


# Hooks and seeds ---------------------------------------------------------------------------------------


def hook(script: str, timeout_ms: int = 5000) -> dict:
    return {"command": ["sh", "-c", script], "timeoutMs": timeout_ms}


@pytest.mark.any_database
def test_hooks_run_after_the_config_is_there_and_before_the_save(stack, pools, sink_server):
    hooks = {
        "postClaim": hook("cat /run/secrets/config.json > /state/seen"),
        "preRelease": hook("echo bye > /state/farewell"),
    }
    pool = pools(workload={"hooks": hooks}, sink=sink_server.json(STATE))
    claimed = stack.claim("hana", pool, config={"model": "m"})
    assert "model" in stack.exec(claimed["containerId"], "cat /state/seen")
    stack.release("hana")

    assert set(sink_server.keys("t/hana/state")) == {"seen", "farewell"}


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("script", "timeout_ms", "words"),
    [("cat /proc/1/environ; exit 3", 5000, "exit code 3"), ("sleep 30", 300, "300 ms")],
)
def test_a_failing_post_claim_hook_fails_the_claim_and_holds_nothing(stack, pools, script, timeout_ms, words):
    pool = pools(workload={"hooks": {"postClaim": hook(script, timeout_ms)}}, maxSize=2)
    found = stack.problem("POST", "tenants/hugo/claim", {"poolId": pool}, 502, "hook_failed")

    assert words in found["detail"]
    assert not Assignment.objects.filter(tenant_id="hugo", state="assigned").exists()
    eventually(lambda: not stack.status("hugo")["assigned"], 30)
    stack.wait_warm(pool, 1)


@pytest.mark.any_database
def test_a_failing_pre_release_hook_is_reported_and_the_save_goes_on(stack, pools, sink_server):
    pool = pools(workload={"hooks": {"preRelease": hook("exit 9")}}, sink=sink_server.json(STATE))
    claimed = stack.claim("hedy", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/x")
    stack.release("hedy")

    assert set(sink_server.keys("t/hedy/state")) == {"x"}
    (warning,) = [e for e in stack.events("pool.warning", poolId=pool) if "preRelease" in e["payload"]["detail"]]
    assert "exit code 9" in warning["payload"]["detail"]


@pytest.mark.any_database
def test_a_hook_that_is_not_there_is_said_so(stack, pools):
    """With a shell's error text, at both ends of a claim."""
    missing = {"command": ["nope"], "timeoutMs": 5000}
    pool = pools(workload={"hooks": {"preRelease": missing}})
    stack.claim("ines", pool)
    stack.release("ines")
    (warning,) = [e for e in stack.events("pool.warning", poolId=pool) if "preRelease" in e["payload"]["detail"]]
    assert "exit code 127: nope: command not found" in warning["payload"]["detail"]
    pool = pools(workload={"hooks": {"postClaim": missing}})
    found = stack.problem("POST", "tenants/ines/claim", {"poolId": pool}, 502, "hook_failed")
    assert "exit code 127: nope: command not found" in found["detail"]


@pytest.mark.any_database
def test_seed_files_are_there_on_first_use_only(stack, pools, sink_server):
    seeds = deployment.data_dir() / "seeds" / "starter"
    seeds.mkdir(parents=True, exist_ok=True)
    (seeds / "welcome.txt").write_text("hello\n")
    (seeds / "bin").mkdir(exist_ok=True)
    (seeds / "bin" / "tool").write_text("#!/bin/sh\n")
    (seeds / "bin" / "tool").chmod(0o755)
    if not (seeds / "link").is_symlink():
        (seeds / "link").symlink_to("welcome.txt")
    pool = pools(workload={"seed": "starter"}, sink=sink_server.json(STATE))
    claimed = stack.claim("seba", pool)
    look = "cd /state; cat welcome.txt; stat -c '%a %u' bin/tool; readlink link; id -u; rm welcome.txt; echo mine > own"
    text, mode, link, uid = stack.exec(claimed["containerId"], look).split("\n")[:4]
    assert (text, mode, link) == ("hello", f"755 {uid}", "welcome.txt")
    stack.release("seba")
    claimed = stack.claim("seba", pool)
    assert "welcome.txt" not in stack.exec(claimed["containerId"], "ls /state")
    stack.exec(claimed["containerId"], "rm -r /state/*")
    stack.release("seba")
    claimed = stack.claim("seba", pool)
    assert stack.exec(claimed["containerId"], "ls /state") == "", "emptied on purpose is not first use"


# Disk --------------------------------------------------------------------------------------------------


@pytest.mark.any_database
def test_a_disk_limit_is_kept_by_a_file_system_of_its_own(stack, pools, sink_server):
    limits = {"memoryMb": 64, "tmpfsMb": 16, "pidsLimit": 64, "diskMb": 20}
    pool = pools(workload={"resources": limits}, sink=sink_server.json(STATE), warm=1, maxSize=2)
    claimed = stack.claim("disa", pool)
    fill = "echo kept > /state/x; head -c 100000000 /dev/zero > /state/big; echo $?; du -m /state/big | cut -f1; rm /state/big"
    said = stack.exec(claimed["containerId"], fill, check=False).split()
    assert said[0] != "0"
    assert 16 <= int(said[1]) <= 22
    home = volumes.home(Container.objects.get(pk=claimed["containerId"]).pk)
    assert (home / "disk").is_mount()
    stack.release("disa")

    assert not home.exists()
    assert str(home) not in Path("/proc/mounts").read_text()
    again = stack.claim("disa", pool)
    assert stack.exec(again["containerId"], "cat /state/x") == "kept\n"
    assert not list(volumes.trash_dir().glob(f"{claimed['containerId']}*"))

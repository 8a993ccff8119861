"""The guest agent in real containers: the same as the engine's exec, and a tenant that attacks it."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]

BY_AGENT = 'test "$(cat /proc/$PPID/comm)" = agent'
"""Holds where the command's parent is the agent; the engine's commands have no parent inside."""


@pytest.fixture(scope="module")
def pool(stack):
    name = stack.make_pool(warm=2, maxSize=6)
    yield name
    stack.drop_pool(name)


@pytest.fixture
def held(stack, pool):
    yield stack.claim("guest-alice", pool)["containerId"]
    stack.release("guest-alice", sync=False)


def engine(container: str, script: str) -> str:
    done = subprocess.run(
        ["docker", "exec", f"bh-{container}", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_commands_run_as_the_engine_would_run_them(stack, held):
    stack.exec(held, BY_AGENT)
    for script in (
        "id", "pwd", "env | sort", "ulimit -a", "umask", "cat /proc/self/cgroup", "ls -l /proc/self/ns | sed 's/.*-> //'",
        "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Sig(Blk|Ign|Cgt)):' /proc/self/status",
        "ls /proc/self/fd | wc -l", "cat /proc/self/oom_score_adj",
    ):  # fmt: skip
        assert stack.exec(held, script) == engine(held, script), script


def test_it_is_process_1_and_hides_itself(stack, held):
    assert stack.exec(held, "cat /proc/1/comm") == "agent\n"
    for script in (
        "cat /proc/$PPID/environ", "ls /proc/$PPID/fd/", "ls /.boilerhouse/run/",
        "rm -f /.boilerhouse/run/socket", "touch /.boilerhouse/run/x", "echo x > /.boilerhouse/agent",
        "echo x > /proc/1/exe", "mv /.boilerhouse/run /tmp/x", "chmod 777 /.boilerhouse/run",
    ):  # fmt: skip
        done = stack.ok("POST", f"containers/{held}/exec", {"command": ["sh", "-c", script]})
        assert done["exitCode"] != 0, script
    stack.exec(held, BY_AGENT)


def test_signals_from_inside_do_not_end_it(stack, held):
    stack.exec(held, "kill -9 1; kill -STOP 1; true")
    stack.problem(
        "POST", f"containers/{held}/exec", {"command": ["sh", "-c", "kill -9 $PPID; sleep 5"]}, 502, "command_lost"
    )
    stack.exec(held, BY_AGENT)


def test_a_command_whose_watcher_is_stopped_is_killed(stack, held):
    began = time.monotonic()
    body = {"command": ["sh", "-c", "kill -STOP $PPID; exec sleep 4361"], "timeoutMs": 500}
    problem = stack.problem("POST", f"containers/{held}/exec", body, 504, "exec_timed_out")
    assert time.monotonic() - began < 40
    assert "was killed" in problem["detail"]
    assert "4361" not in stack.exec(held, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -v grep || true").replace(
        "cat /proc", ""
    )


def test_a_fork_bomb_leaves_it_and_its_container_alive(stack, held):
    body = {"command": ["sh", "-c", "i=0; while [ $i -lt 400 ]; do sleep 10 & i=$((i+1)); done"], "timeoutMs": 5000}
    stack.call("POST", f"containers/{held}/exec", body)
    full = stack.call("POST", f"containers/{held}/exec", {"command": ["true"]})
    assert full.status_code in (200, 502), full.text  # it has no process to spare, and says so
    by_agent = {"command": ["sh", "-c", BY_AGENT]}

    def works() -> bool:
        done = stack.call("POST", f"containers/{held}/exec", by_agent)
        return done.ok and done.json()["exitCode"] == 0

    eventually(works, 60)


def test_a_main_process_that_ends_in_the_middle_of_a_command_is_said(stack, pool):
    inside = stack.claim("guest-bob", pool)["containerId"]
    problem = stack.call("POST", f"containers/{inside}/exec", {"command": ["sh", "-c", "kill -9 -1; sleep 20"]})
    assert problem.status_code == 502, problem.text
    stack.release("guest-bob", sync=False)

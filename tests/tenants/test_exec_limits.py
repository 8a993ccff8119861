"""The deployment's limits of commands: each setting is effective, in a real container and from the command line."""

from __future__ import annotations

import base64
import io
import sys

import pytest
from django.core.management import CommandError, call_command

from boilerhouse.core.models import IdempotencyRecord
from boilerhouse.process import budgets
from pools.states import ContainerState
from tenants import activity
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.api_calls import problem
from tests.make import make_assignment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(call, engine):
    """Run a command in alice's container: ``run(["true"], timeoutMs=…)``."""
    row, pool = engine.start()
    assert row, pool.last_error
    row.state = ContainerState.CLAIMED
    row.save()
    make_assignment("alice", pool=pool, state=AssignmentState.ASSIGNED, container=row, container_ref=row.pk)
    path = f"containers/{row.pk}/exec"
    return lambda command, headers=None, **body: call("POST", path, {"command": command, **body}, **(headers or {}))


def refused(answer):
    (one,) = problem(answer, 422, "invalid")["errors"]
    return one["pointer"], one["code"]


def test_each_limit_is_what_the_deployment_says(run, settings, monkeypatch):
    """Time, output, input and words; output within the limits is complete."""
    settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS = 1000
    assert refused(run(["true"], timeoutMs=1001)) == ("/timeoutMs", "max_value")
    late = problem(run(["sh", "-c", "echo begun; sleep 60"]), 504, "exec_timed_out")
    assert "1000 ms" in late["detail"], "the usual time is never above the longest"
    assert late["stdout"] == "begun\n"
    settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS = 60_000

    settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES = 2000
    done = run(["sh", "-c", "head -c 2000 /dev/zero | tr '\\0' a; head -c 2001 /dev/zero | tr '\\0' b >&2"]).json()
    assert (done["stdout"], done["stdoutTruncated"]) == ("a" * 2000, False)
    assert (done["stderr"], done["stderrTruncated"], done["truncated"]) == ("b" * 2000, True, True)

    settings.BOILERHOUSE_EXEC_STDIN_MAX_BYTES = 4
    assert run(["cat"], stdin="four").json()["stdout"] == "four"
    assert refused(run(["cat"], stdin="fives")) == ("/stdin", "too_large")
    given = base64.b64encode(b"fives").decode()
    assert refused(run(["cat"], stdin=given, encoding="base64")) == ("/stdin", "too_large")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fives")))
    with pytest.raises(CommandError, match="stdin is longer than 4 bytes"):
        call_command("exec", "--stdin", "alice", "--", "cat", skip_checks=True)

    settings.BOILERHOUSE_EXEC_COMMAND_MAX_BYTES = 1024
    assert run(["echo", "x" * 1020]).json()["stdout"] == "x" * 1020 + "\n"
    assert refused(run(["echo", "x" * 1021])) == ("/command", "too_large")


def test_so_is_how_many_commands_run_at_once(run, settings):
    """With a limit of one, the next command runs when the first has ended."""
    settings.BOILERHOUSE_EXEC_PARALLEL = 1
    with activity.one_more(Assignment.objects.get().held_container):
        problem(run(["true"]), 429, "too_many_commands")
    assert run(["true"]).json()["exitCode"] == 0


def test_a_long_output_is_not_kept_for_an_idempotency_key(run):
    """A megabyte of NULs is six in JSON, and more in the database; a retry does not run the command again."""
    once = {"Idempotency_Key": "once"}
    command = ["sh", "-c", "echo again >> /tmp/runs; head -c 1000000 /dev/zero"]
    first = run(command, once)
    assert len(first.content) > 6_000_000
    problem(run(command, once), 409, "answer_not_kept")
    assert run(["cat", "/tmp/runs"]).json()["stdout"] == "again\n"
    assert IdempotencyRecord.objects.get().size < 2000


def test_so_many_followers_of_one_log_and_no_more(run, call, settings):
    """The cost depends on the container's output; pages and other keys that follow the same log count too."""
    settings.BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_TENANT = 2
    path = f"containers/{Assignment.objects.get().held_container}/logs?follow=true"
    container = budgets.container(Assignment.objects.get().held_container)
    with budgets.follows.enter(container), budgets.follows.enter(container):
        refused = problem(call("GET", path, key=call.key_of("admin")), 429, "budget_exceeded")
        assert "2 followed logs" in refused["detail"]
        assert call("GET", path.removesuffix("?follow=true")).status_code == 200
    for _ in range(3):  # this client leaves as soon as the answer begins
        assert call("GET", path).status_code == 200
    assert budgets.follows.used() == 0

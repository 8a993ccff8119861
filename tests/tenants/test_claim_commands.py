"""A claim with a command: one request for both, in a real container."""

from __future__ import annotations

import time
from concurrent.futures import Future
from uuid import uuid4

import pytest

from boilerhouse.process import budgets
from tenants import activity, commands
from tenants.api import claim_commands
from tenants.api.claim_commands import ClaimCommand
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.api_calls import problem, refused_fields

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def claim(call, engine):
    row, pool = engine.start()
    assert row, pool.last_error

    def send(status=201, headers=None, tenant="alice", **body):
        answer = call("POST", f"tenants/{tenant}/claim", {"poolId": pool.pk, **body}, **(headers or {}))
        assert answer.status_code == status, answer.content
        return answer

    yield send
    assert not claim_commands._waiting, "nothing is left of a claim that was answered"


def test_the_answer_has_its_result_and_a_replay_has_the_same(claim, call):
    once = {"Idempotency_Key": "once"}
    first = claim(headers=once, script="sleep 0.2; echo ran >> /tmp/runs; cat /tmp/runs; exit 3")
    done = first.json()["command"]
    assert (done["exitCode"], done["stdout"], done["via"], done["error"]) == (3, "ran\n", "agent", None)
    again = claim(headers=once, script="sleep 0.2; echo ran >> /tmp/runs; cat /tmp/runs; exit 3")
    assert (again.content, again["Idempotency-Replayed"]) == (first.content, "true")
    joined = claim(status=200, command=["touch", "/tmp/never"]).json()
    assert joined["ignored"] == ["command"]
    assert "command" not in joined
    container = activity.held_by("alice")
    assert activity.run(container, ("ls", "/tmp/never"), 5000, None).exit_code != 0
    assert [one["commandId"] for one in call("GET", "tenants/alice/commands").json()["items"]] == [done["commandId"]]


def test_a_command_that_fails_leaves_the_claim(claim, monkeypatch):
    """The container is the tenant's all the same, and the answer says what became of the command."""
    monkeypatch.setattr("tenants.commands.DEFAULT_WAIT_MS", 300)
    late = claim(script="echo so far; sleep 60").json()
    assert late["command"]["error"]["code"] == "exec_timed_out"
    assert (late["command"]["stdout"], late["command"]["exitCode"]) == ("so far\n", None)
    assert Assignment.objects.get().state == AssignmentState.ASSIGNED


def test_a_tenant_whose_slow_requests_are_all_in_use_is_told_so(claim, settings):
    settings.BOILERHOUSE_SLOW_THREADS_PER_TENANT = 1
    with budgets.slow.enter(budgets.tenant("alice")):
        told = claim(command=["true"]).json()["command"]
    assert told["error"]["code"] == "budget_exceeded"


def test_nothing_is_left_of_claims_whose_clients_have_left():
    """Their requests are not resumed, so their results are never taken."""
    wish, over = commands.Wish(command=("true",)), time.time() - 1
    gone, running = ClaimCommand(uuid4(), wish, "a", over), ClaimCommand(uuid4(), wish, "b", over)
    gone._state.future, running._state.future = Future(), Future()
    gone._state.future.set_result({})
    asked = ClaimCommand(uuid4(), wish, "c", time.time() + 60)
    try:
        assert set(claim_commands._waiting) == {running._key, asked._key}
    finally:
        for one in (gone, running, asked):
            one.forget()


def test_a_fault_of_ours_does_not_keep_the_claim_waiting(claim, monkeypatch):
    monkeypatch.setattr("tenants.commands.run", lambda *_: commands.Running("x", 0))
    assert claim(command=["true"]).json()["command"]["error"]["code"] == "error"


def test_a_command_that_cannot_be_is_refused_before_anything_is_claimed(claim, call):
    for body, pointer in (
        ({"command": ["a"], "script": "b"}, "/command"),
        ({"command": ["a"], "wait": False}, "/command"),
        ({"script": "a", "wait": False}, "/script"),
        ({"command": []}, "/command"),
    ):
        fields, _ = refused_fields(claim(status=422, **body))
        assert pointer in {at for at, _ in fields}
    problem(call("GET", "tenants/alice/commands"), 409, "not_assigned")

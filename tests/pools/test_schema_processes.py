"""Configs are validated in separate processes, which are killed at their limits and delay nobody else
(hazards.md#d5)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from boilerhouse.process import pids, subprocess_pool
from boilerhouse.process.subprocess_pool import AllowanceSpent, LimitExceeded, SubprocessPool
from pools import schema_program, schemas
from pools.spec import WorkloadSpec
from tenants import validation
from tenants.models import Assignment
from tests.api_calls import problem, refused_fields
from tests.make import SPEC, make_pool, make_workload

PROGRAM = Path(schema_program.__file__)
MODEL = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}}


def multiplied(steps=20):
    """Each schema asks the next eight times: 8**steps checks of one value."""
    names = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(steps)}
    return {"$ref": "#/$defs/d0", "$defs": names | {f"d{steps}": {"type": "string"}}}


def tree():
    """As a schema of expressions may be: the errors of a value multiply with its depth."""
    branch = {"properties": {"a": {"$ref": "#"}, "f": {"type": "string"}}}
    return {"oneOf": [branch, {**branch, "title": "another"}]}


def nested(depth):
    value = {"f": 1}
    for _ in range(depth):
        value = {"a": value}
    return value


def spec_of(schema):
    return WorkloadSpec.from_json({**SPEC, "config_schema": schema})


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The limit is on processor time, not on elapsed time, however busy the machine is."""
    monkeypatch.setattr(subprocess_pool, "PATIENCE_S", 60)


@pytest.fixture
def program():
    """A separate process pool; its processes end with it, as with a web process."""
    return SubprocessPool(PROGRAM, places=2)


def ask(program, schema, value, asker="bob"):
    return program.ask({"schema": subprocess_pool.json.dumps(schema), "values": [value]}, asker)


HEAVY = {
    "processor": (multiplied(), {}),
    "memory": (tree(), nested(60)),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_what_takes_too_much_is_ended_and_refuses_that_claim_only(kind):
    """It ran in the web process, which answered no other request (hazards.md#d5)."""
    schema, config = HEAVY[kind]
    used = time.process_time()
    [[wrong]] = validation.config_errors([config], spec_of(schema), f"mallory-{kind}")
    assert time.process_time() - used < schema_program.PROCESSOR_S / 2  # it was another process that computed
    assert (wrong.code, wrong.pointer) == ("too_much", "")
    [[error]] = validation.config_errors([{}], spec_of(MODEL), "bob")
    assert error.code == "required"


def test_who_asked_for_too_much_pauses_and_others_do_not():
    """One tenant's configs never use more than their quota of processes (P14)."""
    with pytest.raises(LimitExceeded):
        schemas.errors(multiplied(), [{}], "mallory")
    with pytest.raises(AllowanceSpent) as refused:
        schemas.errors(MODEL, [{}], "mallory")
    assert refused.value.retry_after >= 1
    assert schemas.errors(MODEL, [{"model": "m"}], "bob") == [[]]


def test_one_asker_has_one_place_however_many_questions(program):
    """Many slow configs leave the other processes to others (P14)."""
    outcomes = []

    def flood():
        try:
            ask(program, multiplied(), {}, "mallory")
        except (LimitExceeded, AllowanceSpent) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=flood) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert ask(program, MODEL, {"model": "m"})["errors"] == [[]]
    for thread in threads:
        thread.join()
    assert outcomes.count(LimitExceeded) == 1
    assert outcomes.count(AllowanceSpent) == 5


@pytest.mark.parametrize(
    ("schema", "config"),
    [
        ({"properties": {"l": {"uniqueItems": True}}}, {"l": [{"a": n} for n in range(60_000)]}),
        ({"properties": {"e": {"pattern": r"^([a-zA-Z0-9]+\.?)*@x$"}}}, {"e": "a" * 500_000 + "!"}),
        ({"properties": {"e": {"pattern": r"^((?=a)(a|aa))*$"}}}, {"e": "a" * 50_000 + "!"}),
    ],
    ids=["uniqueItems", "linear pattern", "pattern that must backtrack"],
)
def test_innocent_schemas_answer_on_hostile_configs(schema, config):
    """A list of 80 KB took seconds, 27 characters minutes; now there is a result, not only a timeout."""
    [found] = validation.config_errors([config], spec_of(schema), f"claimer {sorted(schema['properties'])}")
    assert [one.pointer for one in found] == ([] if "l" in config else ["/e"])


def test_nothing_is_fetched_at_a_claim_nor_when_a_workload_is_saved():
    """The web process requested any address in the schema, at each claim, without a deadline."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.2)
        schema = {"properties": {"a": {"$ref": f"http://127.0.0.1:{listener.getsockname()[1]}/x"}}}
        assert schemas.problem(schema).pointer == "/properties/a/$ref"
        [[wrong]] = validation.config_errors([{"a": 1}], spec_of(schema), "bob")
        assert wrong.code == "schema"
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_killed_process_fails_its_own_question_and_the_next_is_answered(program):
    assert ask(program, MODEL, {"model": "m"})["errors"] == [[]]
    for ours in [one for one in pids.children(os.getpid()) if is_ours(one)]:
        os.kill(ours, signal.SIGKILL)
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(ask(program, MODEL, {"model": "m"})["errors"])
        except LimitExceeded:
            outcomes.append(None)
    assert outcomes[1:] == [[[]], [[]]]


def test_who_waits_for_a_busy_machine_owes_nothing(program):
    """By elapsed time, a tenant would be throttled for the load of others (P14)."""
    program.warm()
    [pid] = [one for one in pids.children(os.getpid()) if is_ours(one)][-1:]
    for _ in range(2):
        os.kill(pid, signal.SIGSTOP)
        later = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
        later.start()
        assert ask(program, MODEL, {"model": "m"})["errors"] == [[]]
        later.join()
    assert ask(program, MODEL, {"model": "m"})["errors"] == [[]]


def is_ours(pid):
    return PROGRAM.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_its_processes_may_not_write_nor_grow(program):
    program.warm()
    assert ask(program, {}, {})["errors"] == [[]]
    [pid] = [one for one in pids.children(os.getpid()) if is_ours(one)][-1:]
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name, bound in (
        ("Max address space", schema_program.MEMORY_BYTES),
        ("Max file size", 0),
        ("Max core file size", 0),
    ):
        [line] = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == [str(bound)] * 2


@pytest.mark.any_database
def test_a_claim_is_refused_for_its_config_and_the_next_tenants_goes_on(call):
    """422 with a pointer for one tenant, 429 while it is throttled, and normal results for another (P14)."""
    make_pool("notes", workload=make_workload("notes", config_schema=multiplied()))
    make_pool("other", workload=make_workload("other", config_schema=MODEL))

    def claim(tenant, pool):
        return call("POST", f"tenants/{tenant}/claim?timeoutMs=100", {"poolId": pool, "config": {}})

    fields, _ = refused_fields(claim("eve", "notes"))
    assert fields == {("/config", "too_much")}
    paused = claim("eve", "notes")
    problem(paused, 429, "budget_exceeded")
    assert int(paused["Retry-After"]) >= 1
    fields, _ = refused_fields(claim("bob", "other"))
    assert fields == {("/config", "required")}
    assert not Assignment.objects.exists()

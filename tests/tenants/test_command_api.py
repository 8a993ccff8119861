"""Commands that outlive their request, by the API, in a real guest agent."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import signal
import struct
import termios
import threading
import time

import pytest
from django.http import HttpResponse

from boilerhouse.core.models import AuditEntry
from boilerhouse.web.streaming import Stream
from pools import container_commands
from pools.guest import connections
from pools.runtime.base import Executed
from tenants import activity, terminals
from tenants.api import command_output
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.api_calls import problem, refused_fields
from tests.guest_agent import sealed_agent
from tests.make import make_held

pytestmark = pytest.mark.django_db(transaction=True)
COMMANDS = "tenants/alice/commands"


@pytest.fixture
def agent(tmp_path, monkeypatch, data_dir, fake_engine):
    """Alice holds a container whose guest agent it is."""
    monkeypatch.setattr(container_commands, "_has_ended", lambda _: False)
    monkeypatch.setattr(Stream, "close", lambda _: None)  # the test client would close it before it is read
    with sealed_agent(tmp_path / "run", monkeypatch) as running:
        make_held()
        yield running


@pytest.fixture
def run(call, agent):
    def send(status=200, path=COMMANDS, headers=None, **body):
        answer = call("POST", path, body, **(headers or {}))
        assert answer.status_code == status, answer.content
        return answer.json()

    return send


def start(run, script, **more):
    return run(201, script=script, wait=False, **more)["commandId"]


def ended(call, command):
    deadline = time.monotonic() + 10
    while (shown := call("GET", f"{COMMANDS}/{command}").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return shown


class Page:
    """What a stream has written."""

    def __init__(self):
        self.text = b""

    async def write(self, data):
        self.text += data

    def events(self):
        """Name, data and id of each event."""
        found = []
        for block in self.text.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if fields:
                found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
        return found


def follow(call, command, query="", **headers):
    answer = call("GET", f"{COMMANDS}/{command}/output{query}", **headers)
    assert answer.status_code == 200, answer.content
    page = Page()
    asyncio.run(answer.run(page))
    HttpResponse.close(answer)
    return page.events()


def test_one_that_is_waited_for_answers_with_its_result(run, agent, tmp_path):
    done = run(command=["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in")
    assert {**done, "commandId": "", "durationMs": 0} == {
        "commandId": "", "exitCode": 3, "signal": None, "stdout": "in", "stderr": "err\n", "truncated": False,
        "stdoutTruncated": False, "stderrTruncated": False, "durationMs": 0, "via": "agent",
    }  # fmt: skip
    assert run(script="kill -9 $$")["signal"] == "SIGKILL"
    done = run(script="pwd; echo $ONE", cwd=str(tmp_path), env={"ONE": "1"})
    assert done["stdout"] == f"{tmp_path}\n1\n"
    done = run(command=["cat"], stdin=base64.b64encode(b"\xff\0").decode(), encoding="base64")
    assert base64.b64decode(done["stdout"]) == b"\xff\0"
    assert run(command=["no-such-command"])["exitCode"] == 127


def test_one_that_is_late_is_killed_with_its_output_so_far(call, run):
    late = problem(call("POST", COMMANDS, {"script": "echo so far; sleep 60", "timeoutMs": 300}), 504, "exec_timed_out")
    assert late["stdout"] == "so far\n"


def test_output_beyond_the_limit_is_truncated(run, settings):
    settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES = 2000
    done = run(script="head -c 5000 /dev/zero | tr '\\0' x")
    assert (done["stdout"], done["stdoutTruncated"], done["truncated"]) == ("x" * 2000, True, True)


def test_one_that_is_left_goes_on_and_is_followed_later(call, run):
    command = start(run, "echo one; echo two >&2; sleep 0.1; echo three; exit 5")
    assert follow(call, command) == [
        ("stdout", {"offset": 4, "data": "one\n"}, "4"),
        ("stderr", {"offset": 8, "data": "two\n"}, "8"),
        ("stdout", {"offset": 14, "data": "three\n"}, "14"),
        ("exit", {"exitCode": 5, "signal": None, "timedOut": False}, None),
    ]
    assert follow(call, command, "?after=8")[0][1]["data"] == "three\n"
    assert follow(call, command, "?after=0", Last_Event_ID="6")[0][1]["data"] == "o\n"
    shown = ended(call, command)
    assert (shown["exitCode"], shown["script"][:8], shown["command"]) == (5, "echo one", None)
    assert [one["commandId"] for one in call("GET", COMMANDS).json()["items"]] == [command]


def test_no_character_is_torn_and_bytes_are_exact(call, run):
    command = start(run, "printf '\\342\\202'; sleep 0.2; printf '\\254\\377'; printf '\\342' ; sleep 0.1; echo x >&2")
    events = follow(call, command)
    text = "".join(data["data"] for name, data, _ in events if name == "stdout")
    assert text == "€\ufffd\ufffd"
    assert max(data["offset"] for name, data, _ in events if name == "stdout") == 5
    raw = [data["data"] for name, data, _ in follow(call, command, "?encoding=base64") if name == "stdout"]
    assert b"".join(map(base64.b64decode, raw)) == b"\xe2\x82\xac\xff\xe2"


def test_a_gap_is_said(call, run):
    command = start(run, "head -c 2000000 /dev/zero | tr '\\0' x")
    ended(call, command)
    (name, data, position), *_ = follow(call, command)
    assert (name, data["offset"], position) == ("gap", 2_000_000 - (1 << 20), str(2_000_000 - (1 << 20)))


def test_input_signals_and_size(call, run):
    command = start(run, "cat; echo end", stdin="one ")
    for data, close in (("two ", False), ("three\n", True)):
        body = {"data": data, "close": close}
        assert call("POST", f"{COMMANDS}/{command}/stdin", body).status_code == 204
    assert ended(call, command)["exitCode"] == 0
    assert (
        "".join(data["data"] for name, data, _ in follow(call, command) if name == "stdout") == "one two three\nend\n"
    )
    problem(call("POST", f"{COMMANDS}/{command}/stdin", {"data": "x"}), 409, "command_ended")

    terminal = start(run, "read x; stty size; read x", tty={"cols": 80, "rows": 24})
    assert call("POST", f"{COMMANDS}/{terminal}/resize", {"cols": 100, "rows": 30}).status_code == 204
    assert call("POST", f"{COMMANDS}/{terminal}/stdin", {"data": "\n", "close": True}).status_code == 204
    assert "30 100" in "".join(data["data"] for name, data, _ in follow(call, terminal) if name == "stdout")

    waits = start(run, "sleep 60")
    assert call("POST", f"{COMMANDS}/{waits}/signal", {"signal": "SIGTERM"}).status_code == 204
    assert ended(call, waits)["signal"] == "SIGTERM"
    problem(call("POST", f"{COMMANDS}/{waits}/signal", {"signal": "SIGTERM"}), 409, "command_ended")

    closed = start(run, "sleep 60")
    problem(call("POST", f"{COMMANDS}/{closed}/stdin", {"data": "x"}), 409, "input_closed")
    assert call("DELETE", f"{COMMANDS}/{closed}").status_code == 204
    assert ended(call, closed)["signal"] == "SIGKILL"
    assert call("DELETE", f"{COMMANDS}/{closed}").status_code == 204, "what it left behind would be killed"
    for name in ("0" * 32, "x"):
        for method, what in (("GET", ""), ("DELETE", ""), ("GET", "/output")):
            problem(call(method, f"{COMMANDS}/{name}{what}"), 404, "command_not_found")


def test_a_repeated_request_finds_its_command_even_if_the_first_was_cut_off(call, run, monkeypatch, tmp_path):
    """As after kill -9 of the web process: no answer was stored."""
    script, once = f"echo again >> {tmp_path}/runs; sleep 0.3; echo done", {"Idempotency_Key": "once"}

    def cut(*_):
        raise RuntimeError("the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr("tenants.commands._Waiting.result", cut)
        problem(call("POST", COMMANDS, {"script": script}, **once), 500)
    assert run(script=script, headers=once)["stdout"] == "done\n"
    assert run(script=script, headers=once)["stdout"] == "done\n", "replayed"
    assert (tmp_path / "runs").read_text() == "again\n"


def test_a_release_ends_streams_and_says_so(call, run, monkeypatch):
    monkeypatch.setattr(command_output, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(command_output, "IDLE_S", 0.05)
    command = start(run, "echo first; sleep 60")
    answer = call("GET", f"{COMMANDS}/{command}/output")
    Assignment.objects.update(state=AssignmentState.RELEASING)
    page = Page()
    asyncio.run(answer.run(page))
    assert [name for name, *_ in page.events()] == ["stdout", "end"]
    assert page.events()[-1][1]["reason"] == "released"
    for method, what in (("GET", ""), ("GET", f"/{command}/output"), ("DELETE", f"/{command}")):
        problem(call(method, f"{COMMANDS}{what}"), 409, "releasing")
    problem(call("POST", COMMANDS, {"command": ["true"]}), 409, "releasing")
    Assignment.objects.all().delete()
    problem(call("POST", COMMANDS, {"command": ["true"]}), 409, "not_assigned")


def test_a_keeper_that_is_killed_is_said(call, run):
    command = start(run, "sleep 0.2; kill -9 $PPID; sleep 1")
    assert ended(call, command)["state"] == "lost"
    events = follow(call, command)
    assert [(name, data.get("reason")) for name, data, _ in events] == [("end", "lost")]
    problem(call("POST", COMMANDS, {"script": "sleep 0.2; kill -9 $PPID; sleep 1"}), 502, "command_lost")


def test_without_an_agent_the_engine_does_what_it_can(call, run, monkeypatch):
    def none(*_):
        raise connections.NoAgent("none")

    done = Executed(137, b"out", b"", 7)
    monkeypatch.setattr("pools.guest.kept.connect", none)
    monkeypatch.setattr("pools.nodes.Commands.run_by_engine", staticmethod(lambda *_, **__: done))
    answer = run(command=["true"], stdin="x")
    assert (answer["stdout"], answer["via"], answer["signal"]) == ("out", "engine", "SIGKILL")
    for more in ({"wait": False}, {"cwd": "/"}, {"env": {"A": "b"}}, {"tty": {"cols": 1, "rows": 1}}):
        problem(call("POST", COMMANDS, {"command": ["true"], **more}), 409, "needs_guest_agent")
    problem(call("GET", COMMANDS), 409, "needs_guest_agent")


def test_the_audit_log_names_it_and_never_its_input_or_environment(call, run):
    run(command=["cat", "visible-word"], stdin="hidden-input", env={"A": "hidden-value"})
    (entry,) = AuditEntry.objects.filter(action="container.command")
    assert entry.after["tenantId"] == "alice"
    shown = json.dumps([entry.before, entry.after]) + call("GET", COMMANDS).content.decode()
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/command"),
        ({"command": ["a"], "script": "b"}, "/command"),
        ({"command": []}, "/command"),
        ({"command": ["a"], "cwd": "state"}, "/cwd"),
        ({"command": ["a"], "env": {"A=": "b"}}, "/env"),
        ({"command": ["a"], "env": {"": "b"}}, "/env"),
        ({"command": ["a"], "timeoutMs": -1}, "/timeoutMs"),
        ({"command": ["a"], "tty": {"cols": 0, "rows": 1}}, "/tty/cols"),
        ({"command": ["a"], "stdin": "!", "encoding": "base64"}, "/stdin"),
        ({"command": ["a"], "tty": {"cols": 9, "rows": 9}, "stdin": "x"}, "/stdin"),
        ({"command": ["a"], "more": 1}, "/more"),
    ],
)
def test_bad_requests_say_what_is_wrong(call, agent, body, pointer):
    fields, _ = refused_fields(call("POST", COMMANDS, body))
    assert pointer in {at for at, _ in fields}


def test_another_tenants_key_reaches_nothing(call, run):
    command = start(run, "sleep 60")
    foreign, viewer = call.key_of("tenant", tenant_ids=["bob"]), call.key_of("viewer")
    for method, what in (("GET", ""), ("POST", ""), ("GET", f"/{command}/output"), ("DELETE", f"/{command}")):
        assert call(method, f"{COMMANDS}{what}", {} if method == "POST" else None, key=foreign).status_code == 404
        assert call(method, f"{COMMANDS}{what}", {} if method == "POST" else None, key=viewer).status_code == 403
    own = call.key_of("tenant", tenant_ids=["alice"])
    assert call("DELETE", f"{COMMANDS}/{command}", key=own).status_code == 204


def test_streams_count_against_the_tenants_budget(call, run, settings):
    settings.BOILERHOUSE_MAX_STREAMS_PER_TENANT = 1
    own = call.key_of("tenant", tenant_ids=["alice"])
    command = start(run, "sleep 60")
    first = call("GET", f"{COMMANDS}/{command}/output", key=own)
    problem(call("GET", f"{COMMANDS}/{command}/output", key=own), 429, "budget_exceeded")
    HttpResponse.close(first)
    HttpResponse.close(call("GET", f"{COMMANDS}/{command}/output", key=own))


def test_a_terminal_of_the_command_line(call, agent):
    """``manage.py exec -it``: its size, keys, a new size, and the exit code."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    shown = bytearray()

    def person():
        while b"24 80" not in shown:
            shown.extend(os.read(ours, 1000))
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        os.write(ours, b"x\r")
        while b"50 132" not in shown:
            shown.extend(os.read(ours, 1000))

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    script = "stty size; read x; until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; stty size; exit 7"
    before = termios.tcgetattr(theirs)
    assert terminals.interact(activity.held_by("alice"), ("sh", "-c", script), theirs, theirs) == 7
    thread.join(10)
    assert b"50 132" in shown
    assert termios.tcgetattr(theirs) == before

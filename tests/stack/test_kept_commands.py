"""Commands that outlive their request, in real containers behind a real web process that is killed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from tests.stack.conftest import Stack, eventually, is_ready
from tests.stack.event_bursts import web_pid

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
OWN = "tenants/kept-alice/commands"


@pytest.fixture(scope="module")
def pool(stack: Stack) -> Iterator[str]:
    name = stack.make_pool(warm=1, maxSize=3)
    yield name
    stack.drop_pool(name)


@pytest.fixture
def held(stack: Stack, pool: str) -> Iterator[dict[str, Any]]:
    yield stack.claim("kept-alice", pool, script="echo first command; exit 3")
    stack.release("kept-alice", sync=False)


def events(stack: Stack, command: str, after: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each event of the command's output."""
    answer = requests.get(
        f"{stack.base}/api/v1/{OWN}/{command}/output", params={"after": after}, stream=True, timeout=60,
        headers={"Authorization": f"Bearer {stack.key}"},
    )  # fmt: skip
    name = ""
    for line in answer.iter_lines():
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def test_a_claims_first_command_answers_with_the_claim(stack: Stack, held: dict[str, Any]) -> None:
    done = held["command"]
    assert (done["exitCode"], done["stdout"], done["via"]) == (3, "first command\n", "agent")


def test_a_web_process_that_is_killed_during_a_stream_loses_no_byte(stack: Stack, held: dict[str, Any]) -> None:
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.02; done; exit 5"
    command = stack.ok("POST", OWN, {"script": script, "wait": False}, 201)["commandId"]
    text, after, code = "", 0, None
    with pytest.raises(requests.RequestException):
        for name, data in events(stack, command, 0):
            assert name == "stdout"
            text, after = text + data["data"], data["offset"]
            if after > 100:
                os.kill(web_pid(stack), signal.SIGKILL)
    eventually(lambda: is_ready(stack.base), 60)
    for name, data in events(stack, command, after):
        if name == "stdout":
            text += data["data"]
        else:
            assert name == "exit"
            code = data["exitCode"]
    assert text == "".join(f"{number}\n" for number in range(1, 401))
    assert code == 5


def test_a_terminal_over_a_websocket(stack: Stack, held: dict[str, Any]) -> None:
    body = {"command": ["sh"], "tty": {"cols": 80, "rows": 24}, "wait": False}
    command = stack.ok("POST", OWN, body, 201)["commandId"]
    address = f"{stack.base.replace('http', 'ws', 1)}/ws/{OWN}/{command}"
    shown, said = b"", list[dict[str, Any]]()
    with connect(address, additional_headers={"Authorization": f"Bearer {stack.key}"}) as socket:
        socket.send(json.dumps({"cols": 132, "rows": 50}))
        socket.send(b"stty size; exit 7\n")
        for message in socket:
            if isinstance(message, bytes):
                shown += message
            else:
                said.append(json.loads(message))
    assert b"50 132" in shown
    assert [one["type"] for one in said] == ["state", "exit"]
    assert said[-1]["exitCode"] == 7
    with connect(address) as socket:
        assert json.loads(socket.recv())["code"] == 4401


MIB = 1 << 20
KEPT_BYTES = 8 * MIB
"""Of commands that have ended, in one container."""


def shared_bytes(stack: Stack, container: str) -> int:
    """Shared memory of the container: what its agent keeps, and files in its RAM."""
    found = stack.exec(container, "cat /sys/fs/cgroup/memory.stat /sys/fs/cgroup/memory/memory.stat 2>/dev/null; true")
    return next(int(line.split()[1]) for line in found.splitlines() if line.startswith("shmem "))


@pytest.mark.long
def test_ten_thousand_commands_of_a_tenant_harm_no_other(stack: Stack, held: dict[str, Any], pool: str) -> None:
    """As fast as they are taken, each with output that is kept and two connections that break off."""
    made = stack.ok("POST", "api-keys", {"name": "flood", "role": "tenant", "tenantIds": ["kept-alice"]}, 201)
    before, taken, refused = shared_bytes(stack, held["containerId"]), Counter[int](), Counter[str]()

    def flood(count: int) -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {made['key']}"
            while count:
                body = {"script": "head -c 400000 /dev/zero; exit 3", "wait": count % 7 == 0}
                answer = session.post(f"{stack.base}/api/v1/{OWN}", json=body, timeout=60)
                taken[answer.status_code] += 1
                if answer.status_code in (200, 201):
                    count -= 1
                else:
                    refused[answer.json()["code"]] += 1

    with ThreadPoolExecutor(8) as threads:
        floods = [threads.submit(flood, 1250) for _ in range(8)]
        claims = 0
        while not all(one.done() for one in floods):
            inside = stack.claim("kept-bob", pool, script="echo mine")
            assert inside["command"]["stdout"] == "mine\n"
            stack.release("kept-bob", sync=False)
            claims += 1
        for one in floods:
            one.result()
    print(f"answers {dict(taken)}, refusals {dict(refused)}, claims of the other {claims}")
    assert taken[200] + taken[201] == 10_000
    assert set(refused) <= {"too_many_commands", "budget_exceeded"}
    assert claims > 1
    eventually(lambda: not any(one["state"] == "running" for one in stack.ok("GET", OWN)["items"]), 60)
    assert stack.ok("POST", OWN, {"script": "exit 4"})["exitCode"] == 4
    listed = stack.ok("GET", OWN)["items"]
    assert len(listed) <= 33
    assert {one["exitCode"] for one in listed} == {3, 4}
    kept = shared_bytes(stack, held["containerId"]) - before
    assert kept <= KEPT_BYTES * 5 // 4 + MIB, "with the streams of its bytes, whole pages, and the newest"


def test_a_release_ends_what_runs(stack: Stack, pool: str) -> None:
    stack.claim("kept-alice", pool)
    command = stack.ok("POST", OWN, {"script": "echo up; sleep 600", "wait": False}, 201)["commandId"]
    found = events(stack, command, 0)
    assert next(found)[1]["data"] == "up\n"
    stack.release("kept-alice", sync=False)
    name, data = next(found)
    assert (name, data["reason"]) == ("end", "released")
    stack.problem("GET", f"{OWN}/{command}", None, 409, "not_assigned")

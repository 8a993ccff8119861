"""The Python client, against the running product."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boilerhouse_client as bh
import httpx
import pytest
import requests

from tests.stack.conftest import eventually
from tests.stack.event_bursts import emit_events, web_pid

pytestmark = [pytest.mark.stack, pytest.mark.any_database]


@pytest.fixture(scope="module")
def client(stack):
    return bh.Client(stack.base, stack.key)


@pytest.fixture(scope="module")
def pool(stack, s3):
    name = stack.make_pool(warm=2, maxSize=4, sink=s3.json("client/${tenantId}/"))
    yield name
    stack.drop_pool(name)


def test_a_claim_is_released_with_its_state_at_the_end_of_the_block(client, pool):
    with client.claim("c-alice", pool, config={"a": 1}, secrets={"TOKEN": "s3cret"}) as c:
        assert c.exec(["sh", "-c", "cat > /state/f; echo done"], stdin="kept").stdout == "done\n"
        assert c.exec(["cat", "/run/secrets/TOKEN"]).stdout == "s3cret"
        assert c.exec(["sh", "-c", "printf '\\377\\0'; exit 3"]) == bh.Executed(
            3, b"\xff\0", b"", False, pytest.approx(0, abs=5000)
        )
        assert c.request("GET", "/cgi-bin/about").json()["claim"]["generation"] == c.generation
        assert c.status()["state"] == "assigned"
        assert client.claim("c-alice", pool).source == "existing"
        c.heartbeat()
        assert [row["tenantId"] for row in client.tenants(poolId=pool)] == ["c-alice"]
    assert client.tenant("c-alice").status()["assigned"] is False
    with client.claim("c-alice", pool) as c:
        assert c.exec(["cat", "/state/f"]).stdout == "kept"
        assert {run["direction"] for run in c.runs()} == {"upload", "download"}
        c.exec(["sh", "-c", "echo new > /state/f"])
        run = c.sync()[0]
        eventually(lambda: client.sync_runs.get(run["id"])["state"] == "succeeded", 20)
    backup = next(iter(client.tenant("c-alice").backups()))
    run = client.tenant("c-alice").restore_backup(backup["id"])
    eventually(lambda: client.sync_runs.get(run["id"])["state"] == "succeeded", 20)
    with client.claim("c-alice", pool) as c:
        assert c.exec(["cat", "/state/f"]).stdout == "kept"
        c.release(discard=True)
    assert client.tenant("c-alice").erase_state() is True
    with client.claim("c-alice", pool) as c:
        assert c.answer["restored"] is None


def test_a_claim_is_begun_and_waited_for_apart(client, pool):
    """With progress during a restore; a failed claim raises its code."""
    with client.begin_claim("c-cora", pool, config={"a": 1}).wait(60) as c:
        c.exec(["sh", "-c", "echo kept > /state/f"])
    seen = []
    with client.begin_claim("c-cora", pool).wait(60, every_s=0.01, on_progress=seen.append) as c:
        assert c.exec(["cat", "/state/f"]).stdout == "kept\n"
        assert c.answer["restored"]["files"] == 1
    assert all(one["percent"] is None or 0 <= one["percent"] <= 100 for one in seen)

    held = [client.claim(f"c-{n}", pool) for n in range(4)]  # all that the pool may have
    try:
        pending = client.begin_claim("c-cora", pool, timeout_s=0.5)
        with pytest.raises(bh.Failed) as raised:
            pending.wait(30)
        assert raised.value.code == "pool_exhausted"
    finally:
        for claim in held:
            claim.release(discard=True)


def test_a_command_that_is_not_there_or_too_slow_says_so(client, pool):
    """With what it had printed."""
    with client.claim("c-slow", pool) as c:
        done = c.exec(["nope"])
        assert (done.exit_code, done.stdout, done.stderr) == (127, "", "nope: command not found\n")
        with pytest.raises(bh.TimedOut) as raised:
            c.exec(["sh", "-c", "echo one; echo two >&2; sleep 1234"], timeout_s=1.5)
        assert (raised.value.code, raised.value.stdout_bytes, raised.value.stderr_bytes) == (
            "exec_timed_out", b"one\n", b"two\n",
        )  # fmt: skip


def test_an_error_in_the_block_still_releases(client, pool):
    with pytest.raises(ZeroDivisionError), client.claim("c-err", pool):
        raise ZeroDivisionError
    assert client.tenant("c-err").status()["assigned"] is False
    with client.claim("c-err", pool) as c:
        client.tenant("c-err").release()
        assert c.released is False, "somebody else did it"


def test_errors_are_classes_with_code_words_and_pointers(client, pool, stack):
    with pytest.raises(bh.NotFound) as error:
        client.pools.get("no-such")
    assert (error.value.code, error.value.status) == ("pool_not_found", 404)
    assert error.value.request_id
    with pytest.raises(bh.Invalid) as error:
        client.pools.create({"workloadId": "x", "maxSize": 0})
    assert error.value.errors[0]["pointer"] == "/maxSize"
    with pytest.raises(bh.Unauthorized):
        bh.Client(stack.base, "bh_wrong").pools.get("x")
    viewer = client.api_keys.create({"name": "v", "role": "viewer"})["key"]
    with pytest.raises(bh.Forbidden):
        bh.Client(stack.base, viewer).pools.act(pool, "pause")
    with pytest.raises(bh.Conflict) as error:
        client.tenant("nobody").exec(["id"])
    assert error.value.code == "not_assigned"
    with client.claim("c-slow", pool) as c:
        with pytest.raises(bh.TimedOut):
            c.exec(["sleep", "30"], timeout_s=0.3)
        with pytest.raises(bh.Conflict, match="other_pool"):
            client.claim("c-slow", stack.make_pool(warm=0))
    with pytest.raises(bh.Unreachable):
        bh.Client("http://127.0.0.1:9", "k", retries=0).pools.get("x")


def test_collections_page_update_and_never_lose_anothers_change(client):
    made = [client.workloads.create({"name": f"cl-{n}", "image": "i"})["id"] for n in range(3)]
    assert [one["id"] for one in client.workloads.list() if one["id"] in made] == list(reversed(made))
    assert client.workloads.update(made[0], image="i2")["version"] == 2
    answer = client.raw("GET", f"workloads/{made[0]}")
    client.workloads.update(made[0], image="i3")
    with pytest.raises(bh.PreconditionFailed):
        client.workloads.replace(made[0], {**answer.json(), "image": "lost"}, answer.headers["ETag"])
    for one in made:
        client.workloads.delete(one)
    assert client.pools.act(
        client.pools.create({"workloadId": client.workloads.create({"name": "p", "image": "i"})["id"]})["id"], "pause"
    )


def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_done_twice(client, stack):
    """The server has done it, the connection broke: the same Idempotency-Key returns the same answer."""
    lost = []

    class Lossy(httpx.HTTPTransport):
        def handle_request(self, request):
            answer = super().handle_request(request)
            if not lost:
                lost.append(json.loads(answer.read())["id"])
                raise httpx.ReadError("lost")
            return answer

    fresh = bh.Client(stack.base, stack.key, transport=Lossy())
    made = fresh.workloads.create({"name": "once", "image": "i"})
    assert made["id"] == lost[0]
    assert [one["id"] for one in client.workloads.list() if one["name"] == "once"] == [made["id"]]


def test_events_go_on_across_a_restart_of_the_server(client, stack):
    pool, seen = f"cl-{time.time_ns()}", []
    emit_events(pool)
    start = client.call("GET", "events", params={"poolId": pool})["items"][0]["id"]

    def read() -> None:
        for event in bh.Client(stack.base, stack.key).events(after=start - 1, poolId=pool):
            seen.append(event)
            if len(seen) == 6:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    emit_events(pool, 2)
    eventually(lambda: len(seen) == 3)
    os.kill(web_pid(stack), signal.SIGKILL)
    emit_events(pool, 3)
    reader.join(60)
    assert [event.payload["number"] for event in seen] == [0, 0, 1, 0, 1, 2]
    eventually(lambda: requests.get(f"{stack.base}/api/v1/health", timeout=5).ok)


def test_log_lines_are_followed(client, stack):
    script = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.2; done"
    pool = stack.make_pool(warm=1, workload={"command": ["sh", "-c", script], "healthCheck": None})
    with client.claim("c-logs", pool) as c:
        lines = c.follow_logs(tail=1)
        first = int(next(lines))
        assert [int(next(lines)), int(next(lines))] == [first + 1, first + 2]
        assert len(c.logs(tail=2).splitlines()) == 2
        lines.close()
    stack.drop_pool(pool)


README = Path(__file__).resolve().parents[2] / "clients" / "python" / "README.md"


def test_the_examples_of_the_readme_run(client, stack, pool, tmp_path):
    """One after the other, as they are written; only the address and the pool are the test's."""
    (tmp_path / "report.pdf").write_bytes(b"a report")
    examples = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.M | re.S)
    assert examples
    program = "\n".join(examples).replace("http://127.0.0.1:8000", stack.base).replace('"notes"', f'"{pool}"')
    environment = {**os.environ, "BOILERHOUSE_API_KEY": stack.key}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "copy.pdf").read_bytes() == b"a report"
    assert client.tenant("alice").status()["assigned"] is False

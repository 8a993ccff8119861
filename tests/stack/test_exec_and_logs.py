"""exec and logs in real containers: exact bytes, exit codes, kills, limits, and isolation between tenants."""

from __future__ import annotations

import base64
import threading
import time

import pytest
import requests

from tests.stack.conftest import eventually, manage

pytestmark = [pytest.mark.stack, pytest.mark.any_database]


@pytest.fixture(scope="module")
def pool(stack):
    name = stack.make_pool(warm=2, maxSize=6)
    yield name
    stack.drop_pool(name)


@pytest.fixture
def held(stack, pool):
    claimed = stack.claim("exec-alice", pool)
    yield claimed["containerId"]
    stack.release("exec-alice", sync=False)


def run(stack, container, *command, status=200, **more):
    return stack.ok("POST", f"containers/{container}/exec", {"command": list(command), **more}, status)


def test_stdin_exit_code_and_both_outputs_are_exact(stack, held):
    done = run(stack, held, "sh", "-c", "cat; echo err >&2; exit 7", stdin="hello\nworld")
    assert (done["stdout"], done["stderr"], done["exitCode"], done["truncated"]) == ("hello\nworld", "err\n", 7, False)

    every_byte = bytes(range(256)) * 1000
    given = base64.b64encode(every_byte).decode()
    done = run(stack, held, "cat", stdin=given, encoding="base64")
    assert base64.b64decode(done["stdout"]) == every_byte
    assert run(stack, held, "cat", stdin="")["stdout"] == ""
    assert run(stack, held, "sh", "-c", "cat; echo end")["stdout"] == "end\n", "without stdin its input is empty"
    assert run(stack, held, "true", stdin="x" * 500_000)["exitCode"] == 0, "it may leave its input unread"
    assert "\ufffd" in run(stack, held, "printf", "\\377")["stdout"]
    found = stack.problem(
        "POST", f"containers/{held}/exec", {"command": ["cat"], "stdin": "%", "encoding": "base64"}, 422, "invalid"
    )
    assert found["errors"][0]["pointer"] == "/stdin"


def test_output_is_bounded(stack, held):
    """Per stream; a flood on one does not drop the output of the other."""
    done = run(stack, held, "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo done >&2", timeoutMs=30_000)
    assert (done["truncated"], done["stdoutTruncated"], done["stderrTruncated"]) == (True, True, False)
    assert done["stderr"] == "done\n"
    assert len(done["stdout"]) == 1 << 20
    assert done["exitCode"] == 0


def test_a_command_that_is_too_slow_is_killed_with_its_children(stack, held):
    began = time.monotonic()
    script = "sleep 1234 & (sleep 1235; true) & exec sleep 1236"
    found = stack.problem(
        "POST", f"containers/{held}/exec", {"command": ["sh", "-c", script], "timeoutMs": 700}, 504, "exec_timed_out"
    )
    assert time.monotonic() - began < 30
    assert "was killed" in found["detail"]
    assert (found["stdout"], found["stderr"]) == ("", "")
    left = run(stack, held, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")["stdout"]
    assert "sleep 12" not in left


def test_what_it_printed_until_then_is_kept(stack, held):
    """The output of a build that was too slow was lost with it."""
    body = {"command": ["sh", "-c", "echo built 1; echo slow >&2; head -c 2000000 /dev/zero; sleep 1234"]}
    body |= {"timeoutMs": 1500, "encoding": "base64"}
    found = stack.problem("POST", f"containers/{held}/exec", body, 504, "exec_timed_out")
    assert base64.b64decode(found["stdout"]).startswith(b"built 1\n")
    assert base64.b64decode(found["stderr"]) == b"slow\n"
    assert (found["stdoutTruncated"], found["stderrTruncated"]) == (True, False)
    by_hand = manage("exec", "--timeout-ms", "1500", "exec-alice", "--", "sh", "-c", "echo built 1; sleep 1234")
    assert (by_hand.returncode, by_hand.stdout) == (6, "built 1\n")
    assert "did not end within 1500 ms" in by_hand.stderr


def test_one_tenants_commands_leave_threads_to_others(stack, held, pool):
    """Each waits with a thread of the web process, for minutes if asked to. Some of the eight are refused (P14)."""
    path, busy = f"containers/{held}/exec", {"command": ["sleep", "5"]}
    answers: list[int] = []
    ask = lambda: answers.append(stack.call("POST", path, busy).status_code)  # noqa: E731
    waiting = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for one in waiting:
        one.start()
    eventually(lambda: 429 in answers, 30, 0.05)
    other = stack.claim("exec-bob", pool)["containerId"]
    assert run(stack, other, "true")["exitCode"] == 0
    stack.release("exec-bob", sync=False)
    for one in waiting:
        one.join()
    assert sorted(set(answers)) == [200, 429]
    assert run(stack, held, "true")["exitCode"] == 0


def test_it_ends_when_its_process_ends_whatever_that_left_behind(stack, held):
    """Docker's own stream stays open as long as anybody holds the output."""
    began = time.monotonic()
    done = run(stack, held, "sh", "-c", "sleep 300 & echo started", timeoutMs=20_000)
    assert (done["stdout"], done["exitCode"]) == ("started\n", 0)
    assert time.monotonic() - began < 20


def test_what_cannot_run_is_said_as_a_shell_says_it(stack, held):
    """The engine's error was returned as standard output, always with exit code 126."""
    run(
        stack, held, "sh", "-c", "echo x > /state/plain; printf '#!/no/such\n' > /state/script; chmod 755 /state/script"
    )
    for command, code, words in (
        ("nope", 127, "nope: command not found\n"),
        ("/no/such/thing", 127, "/no/such/thing: no such file, or its interpreter does not exist\n"),
        ("/state/script", 127, "/state/script: no such file, or its interpreter does not exist\n"),
        ("/state/plain", 126, "/state/plain: permission denied: the container's user may not execute it\n"),
        ("permission denied", 127, "permission denied: command not found\n"),
    ):
        done = run(stack, held, command)
        assert (done["exitCode"], done["stdout"], done["stderr"]) == (code, "", words)
    done = run(stack, held, "/etc")
    assert (done["exitCode"], done["stdout"]) == (126, "")
    denied = "/etc: permission denied: the container's user may not execute it\n"
    assert done["stderr"] in (denied, "/etc: is a directory\n"), "runc 1.1.5 does not tell directories, 1.1.15 does"
    mimic = "OCI runtime exec failed: exec failed: unable to start container process: nope"
    done = run(stack, held, "sh", "-c", f"echo '{mimic}'; exit 126")
    assert (done["exitCode"], done["stdout"], done["stderr"]) == (126, f"{mimic}\n", "")
    by_hand = manage("exec", "exec-alice", "--", "nope")
    assert (by_hand.returncode, by_hand.stdout, by_hand.stderr) == (127, "", "nope: command not found\n")


def test_what_is_no_command_is_refused(stack, held):
    for body, pointer in (
        ({}, "/command"),
        ({"command": []}, "/command"),
        ({"command": ["a"], "timeoutMs": 5}, "/timeoutMs"),
        ({"command": ["a"], "timeoutMs": 600_001}, "/timeoutMs"),
        ({"command": ["a", "x" * 70_000, "x" * 70_000]}, "/command"),
    ):
        found = stack.problem("POST", f"containers/{held}/exec", body, 422, "invalid")
        assert found["errors"][0]["pointer"] == pointer


def test_a_tenants_key_reaches_its_own_container_only(stack, pool, held):
    key = stack.ok("POST", "api-keys", {"name": "alice", "role": "tenant", "tenantIds": ["exec-alice"]}, 201)["key"]
    own = {"Authorization": f"Bearer {key}"}
    other = stack.claim("exec-bob", pool)["containerId"]
    try:
        done = stack.call(
            "POST", "tenants/exec-alice/exec", {"command": ["cat", "/run/secrets/claim.json"]}, headers=own
        )
        assert held in done.json()["stdout"]
        for method, path in (
            ("POST", "tenants/exec-bob/exec"), ("GET", "tenants/exec-bob/logs"), ("GET", "tenants/exec-bob/status"),
        ):  # fmt: skip
            assert stack.call(method, path, {"command": ["id"]}, headers=own).status_code == 404
        for method, path in (("POST", f"containers/{other}/exec"), ("GET", f"containers/{held}/logs")):
            assert stack.call(method, path, {"command": ["id"]}, headers=own).status_code == 403
    finally:
        stack.release("exec-bob", sync=False)
    stack.problem("POST", "tenants/exec-bob/exec", {"command": ["id"]}, 409, "not_assigned")
    stack.problem("GET", "tenants/exec-bob/logs", None, 409, "not_assigned")
    stack.wait_warm(pool)
    idle = stack.containers(pool)[0]["id"]
    stack.problem("POST", f"containers/{idle}/exec", {"command": ["id"]}, 409, "not_claimed")


@pytest.fixture(scope="module")
def talker(stack):
    """A container that copies a file to its output."""
    script = "echo booted; while true; do [ -f /state/say ] && cat /state/say && rm /state/say; sleep 0.05; done"
    pool = stack.make_pool(warm=1, workload={"command": ["sh", "-c", script], "healthCheck": None})
    claimed = stack.claim("talker", pool)
    yield claimed["containerId"]
    stack.release("talker", sync=False)
    stack.drop_pool(pool)


def say(stack, container, text):
    run(stack, container, "sh", "-c", "cat > /state/new && mv /state/new /state/say", stdin=text + "\n")
    eventually(lambda: text in stack.call("GET", f"containers/{container}/logs").text)


def test_logs_by_tail_and_since(stack, talker):
    say(stack, talker, "one")
    time.sleep(1.1)
    since = time.time()
    say(stack, talker, "two")
    logs = f"containers/{talker}/logs"
    answer = stack.call("GET", logs)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.splitlines() == ["booted", "one", "two"]
    assert stack.call("GET", f"{logs}?tail=1").text == "two\n"
    assert stack.call("GET", f"{logs}?tail=0").text == ""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since)) + f".{int(since % 1 * 1e6):06d}Z"
    assert stack.call("GET", f"{logs}?since={moment}").text == "two\n"
    assert stack.call("GET", "tenants/talker/logs?tail=1").text == "two\n"
    for bad in ("tail=-1", "tail=x", "tail=10001", "since=yesterday", "since=2026-01-01", "follow=yes", "until=1"):
        stack.problem("GET", f"{logs}?{bad}", None, 422, "invalid")


def follow(stack, container, key, found, begun, done):
    with requests.get(
        f"{stack.base}/api/v1/containers/{container}/logs?follow=true&tail=0",
        headers={"Authorization": f"Bearer {key}"}, stream=True, timeout=60,
    ) as answer:  # fmt: skip
        begun.set()
        for chunk in answer.iter_content(None):
            found.append(chunk)
    done.set()


def test_logs_are_followed_until_the_key_is_revoked(stack, talker):
    made = stack.ok("POST", "api-keys", {"name": "f", "role": "operator"}, 201)
    found, begun, done = [], threading.Event(), threading.Event()
    threading.Thread(target=follow, args=(stack, talker, made["key"], found, begun, done), daemon=True).start()
    assert begun.wait(30), "the head comes before the first line"
    for word in ("three", "four"):
        say(stack, talker, word)
        eventually(lambda word=word: word.encode() in b"".join(found))
    assert not done.is_set()
    stack.ok("DELETE", f"api-keys/{made['id']}", status=204)
    assert done.wait(30), "the open log ends with its key"
    assert b"".join(found) == b"three\nfour\n"


def test_a_followed_log_ends_with_its_container(stack, pool):
    claimed = stack.claim("followed", pool)
    begun, done = threading.Event(), threading.Event()
    args = (stack, claimed["containerId"], stack.key, [], begun, done)
    threading.Thread(target=follow, args=args, daemon=True).start()
    assert begun.wait(30)
    stack.release("followed", sync=False)
    assert done.wait(30)


def test_a_container_is_removed_by_hand_and_the_pool_makes_another(stack, pool):
    stack.wait_warm(pool, 1)
    idle = stack.containers(pool)[0]["id"]
    stack.ok("DELETE", f"containers/{idle}", status=204)
    stack.problem("GET", f"containers/{idle}", None, 404, "container_not_found")
    stack.wait_warm(pool, 1)


def test_a_claimed_container_is_saved_before_it_is_removed(stack, s3):
    pool = stack.make_pool(sink=s3.json("removed/${tenantId}/"))
    claimed = stack.claim("removed", pool)
    stack.exec(claimed["containerId"], "echo kept > /state/f")
    stack.ok("DELETE", f"containers/{claimed['containerId']}", status=204)
    assert stack.status("removed")["assigned"] is False
    again = stack.claim("removed", pool)
    assert stack.exec(again["containerId"], "cat /state/f") == "kept\n"
    stack.exec(again["containerId"], "echo lost > /state/f")
    stack.ok("DELETE", f"containers/{again['containerId']}?discard=true", status=204)
    third = stack.claim("removed", pool)
    assert stack.exec(third["containerId"], "cat /state/f") == "kept\n"
    stack.release("removed")
    stack.ok("DELETE", "tenants/removed/state", status=204)
    assert stack.claim("removed", pool)["restored"] is None
    stack.problem("DELETE", "tenants/removed/state", None, 409, "held")
    stack.release("removed", sync=False)
    stack.drop_pool(pool)

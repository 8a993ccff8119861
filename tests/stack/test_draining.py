"""Stopping a web process (rolling restarts): no request fails, and nothing is lost (P8)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from boilerhouse.core.models import Process
from boilerhouse.process import processes
from tests.stack.conftest import eventually

pytestmark = pytest.mark.any_database


def stop_web() -> int:
    """Ask the web process to stop, as a restart does; ``up`` starts another. Returns its pid."""

    def registered() -> Process | None:
        return Process.objects.filter(kind=Process.Kind.WEB, pk__in=processes.living()).first()

    web = eventually(registered, 20)
    os.kill(web.pid, signal.SIGTERM)
    return web.pid


def is_gone(pid: int) -> bool:
    return processes.pid_started(pid) is None


def test_no_request_fails_while_the_web_process_is_restarted_again_and_again(stack, pools):
    pool = pools(warm=3, maxSize=6)
    stop, answers, failures = threading.Event(), [], []

    def work(name: str) -> None:
        while not stop.is_set():
            try:
                for method, path, body in (
                    ("POST", f"tenants/{name}/claim?timeoutMs=30000", {"poolId": pool}),
                    ("GET", f"tenants/{name}/status", None),
                    ("POST", f"tenants/{name}/release?timeoutMs=30000", {}),
                ):
                    answer = stack.call(method, path, body)
                    answers.append(answer.status_code)
                    if answer.status_code >= 300:
                        failures.append((method, path, answer.status_code, answer.text))
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(f"drain-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = len(answers)
            pid = stop_web()
            eventually(lambda pid=pid: is_gone(pid))
            eventually(lambda before=before: len(answers) > before + 12, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert not failures, failures[:3]


def test_a_claim_that_waits_is_told_to_ask_again_and_joins_what_went_on(stack, pools):
    pool = pools(warm=1, maxSize=1)
    stack.claim("drain-first", pool)
    found = []
    asking = threading.Thread(
        target=lambda: found.append(stack.call("POST", "tenants/drain-second/claim?timeoutMs=60000", {"poolId": pool}))
    )
    asking.start()
    eventually(lambda: stack.pool_status(pool)["waiting"] == 1)
    began = time.monotonic()
    pid = stop_web()
    asking.join(20)
    eventually(lambda: is_gone(pid))

    assert time.monotonic() - began < 40, "it does not go on for the minute that the claim may take"
    assert found[0].status_code == 503, found[0].text
    assert found[0].json()["code"] == "outcome_unknown"
    assert found[0].headers["Retry-After"] == "1"
    generation = stack.status("drain-second")["generation"]
    stack.release("drain-first")
    again = stack.ok("POST", "tenants/drain-second/claim?timeoutMs=60000", {"poolId": pool}, 200)
    assert again["generation"] == generation, "the claim went on meanwhile"


def test_what_is_being_done_is_answered_before_the_process_ends(stack, pools):
    pool = pools()
    claimed = stack.claim("drain-exec", pool)
    said = []
    script = "touch /state/begun; sleep 3; echo done"
    running = threading.Thread(target=lambda: said.append(stack.exec(claimed["containerId"], script)))
    running.start()
    eventually(lambda: stack.exec(claimed["containerId"], "ls /state") == "begun\n")
    stop_web()
    running.join()

    assert said == ["done\n"]


def test_event_sockets_are_closed_with_a_word_and_go_on_without_a_gap(stack, pools):
    pool = pools(warm=0, maxSize=4)
    url = f"{stack.base.replace('http', 'ws')}/ws/events?poolId={pool}"
    headers = {"Authorization": f"Bearer {stack.key}"}
    with connect(url, additional_headers=headers) as opened:
        stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 1}, 202)
        last = json.loads(opened.recv(timeout=20))["id"]
        stop_web()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                last = json.loads(opened.recv(timeout=20)).get("id", last)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4503
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    with connect(f"{url}&after={last}", additional_headers=headers) as opened:
        found = [json.loads(opened.recv(timeout=20))]
        while found[-1]["type"] != "pool.scaled":
            found.append(json.loads(opened.recv(timeout=20)))
    assert found[-1]["payload"]["targetSize"] == 2
    assert [event["type"] for event in found].count("container.created") == 1, "the one of before, once"

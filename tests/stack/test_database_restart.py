"""PostgreSQL restarts under load: answers are correct, nothing is lost, and work continues (P8, hazards.md#a7)."""

from __future__ import annotations

import collections
import os
import subprocess
import threading
import time

import requests
from django.db import connection

from tests.stack.conftest import eventually
from tests.stack.convergence import claim_until_held, wait_until_converged

STATE = "t/${tenantId}/"


def test_restarted_under_load(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=4, maxSize=8)
    stop, codes = threading.Event(), collections.Counter()
    written: dict[str, int] = {}

    def call(method: str, path: str, body: object) -> requests.Response | None:
        try:
            answer = stack.call(method, path, body, timeout=60)
        except requests.RequestException:
            codes["no answer"] += 1
            return None
        codes[answer.status_code] += 1
        return answer

    def live(name: str) -> None:
        """Claim, check and increment a counter, release; failed requests are retried, as clients do."""
        number = 0
        while not stop.is_set():
            claimed = call("POST", f"tenants/{name}/claim?timeoutMs=20000", {"poolId": pool})
            if claimed is None or claimed.status_code not in (200, 201):
                time.sleep(0.3)
                continue
            script = f"cat /state/n 2>/dev/null || echo 0; echo {number + 1} > /state/n"
            body = {"command": ["sh", "-c", script]}
            done = call("POST", f"containers/{claimed.json()['containerId']}/exec", body)
            if done is not None and done.status_code == 200:
                found = int(done.json()["stdout"])
                assert found in (number, number + 1), f"{name} found {found}, wrote {number}"
                number += 1
                written[name] = number
            call("POST", f"tenants/{name}/release?timeoutMs=20000", {})

    failures: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            live(name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(f"pg-{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(6)
            restart = [os.environ["BOILERHOUSE_TEST_RESTART_DATABASE"]]
            subprocess.run(restart, check=True, timeout=60, capture_output=True)
        time.sleep(6)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    connection.close()

    assert not failures, failures
    assert codes[201] > 5, codes
    assert set(codes) <= {200, 201, 202, 404, 409, 502, 503, 504, "no answer"}, codes
    eventually(lambda: stack.call("GET", "health/ready").status_code == 200, 30)
    for name, number in written.items():
        got = claim_until_held(stack, name, pool)
        assert int(stack.exec(got["containerId"], "cat /state/n")) in (number, number + 1)
        stack.release(name)
    wait_until_converged(pool)


def test_a_read_only_database_is_said_and_nothing_is_decided(stack, pools, sink_server):
    """As after a failover, while the answering server is still a standby."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    held = stack.claim("ro-held", pool)
    stack.exec(held["containerId"], "echo kept > /state/x")

    def read_only(on: bool) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
            cursor.execute("SELECT pg_reload_conf()")

    read_only(True)
    try:
        eventually(lambda: stack.call("POST", "tenants/ro-new/claim", {"poolId": pool}).status_code == 503)
        for method, path, body in (
            ("POST", "tenants/ro-new/claim", {"poolId": pool}),
            ("POST", "tenants/ro-held/release", {}),
            ("POST", "workloads", {"name": "x", "image": "y"}),
            ("POST", "tenants/ro-held/exec", {"command": ["true"]}),  # no command without its entry in the audit
        ):
            answer = stack.call(method, path, body)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable"), answer.text
            assert answer.headers["Retry-After"]
        assert stack.status("ro-held")["state"] == "assigned", "what is only read is answered"
        time.sleep(10)  # heartbeats fail, the lease runs out, nobody decides anything
    finally:
        read_only(False)
    eventually(lambda: stack.call("GET", "health/ready").status_code == 200, 30)
    assert stack.status("ro-held")["containerId"] == held["containerId"]
    assert stack.exec(held["containerId"], "cat /state/x") == "kept\n"
    assert claim_until_held(stack, "ro-new", pool)
    stack.release("ro-held")
    stack.release("ro-new")
    assert set(sink_server.keys("t/ro-held/state")) == {"x"}
    wait_until_converged(pool)

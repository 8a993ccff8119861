"""The main use through the API: claim, work, release, claim again with the state."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from pools.models import Container
from tenants.models import Assignment
from tests.stack.conftest import eventually

FILL = (
    "cd /state; mkdir -p empty deep/er private; echo one > a.txt; echo x > private/key; chmod 600 private/key;"
    " chmod 700 private; ln -s a.txt link; ln -s /nowhere dangling; printf '#!/bin/sh\\necho runs\\n' > run; chmod 755 run;"
    " touch -d '2020-02-03 04:05:06' a.txt; : > zero; printf x > 'new\nline'; printf y > 'ünï'; chmod 000 zero"
)
LOOK = (
    "cd /state; find . | sort; find . -type f -o -type d | sort | xargs -d '\\n' stat -c '%a %n' 2>/dev/null"
    " || find . -type f -o -type d | sort | while read -r f; do stat -c '%a' \"$f\" 2>/dev/null; done;"
    " stat -c '%a %Y' a.txt run private/key zero; stat -c %a private empty deep; for l in link dangling; do readlink $l; done; cat a.txt; ./run; id -u >/dev/null"
)


def test_a_tenant_finds_its_state_again_in_another_container(stack, pools, sink_server):
    pool = pools(sink=sink_server.json("t/${tenantId}/"), warm=2, maxSize=4)
    first = stack.claim("alice", pool, config={"a": 1}, secrets={"TOKEN": "s3cr3t"})
    stack.exec(first["containerId"], FILL)
    before = stack.exec(first["containerId"], LOOK, check=False)
    stack.release("alice")

    bob = stack.claim("bob", pool)
    assert stack.exec(bob["containerId"], "find /state /extra /tmp -mindepth 1") == ""
    again = stack.claim("alice", pool)

    assert again["containerId"] != first["containerId"]
    assert again["generation"] > first["generation"]
    assert again["restored"]["files"] == 6
    assert stack.exec(again["containerId"], LOOK, check=False) == before
    assert "runs" in before


def test_claiming_again_changes_nothing_and_says_what_it_ignored(stack, pools):
    pool = pools()
    first = stack.claim("carol", pool, config={"a": 1})
    stack.exec(first["containerId"], "echo mine > /state/x")
    second = stack.ok("POST", "tenants/carol/claim", {"poolId": pool, "config": {"a": 2}, "secrets": {"X": "y"}})

    assert second["containerId"] == first["containerId"]
    assert second["source"] == "existing"
    assert second["ignored"] == ["config", "secrets"]
    assert stack.exec(first["containerId"], "cat /state/x; cat /run/secrets/config.json") == 'mine\n{"a": 1}'


def test_a_tenant_that_claims_twice_at_once_gets_one_container(stack, pools):
    pool = pools(warm=3, maxSize=3)
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: stack.call("POST", "tenants/dave/claim", {"poolId": pool}), range(8)))

    assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
    assert len({a.json()["containerId"] for a in answers}) == 1
    assert Container.objects.filter(pool_id=pool, state="claimed").count() == 1


def test_a_claim_in_another_pool_is_refused(stack, pools):
    one, other = pools(), pools()
    stack.claim("erin", one)

    stack.problem("POST", "tenants/erin/claim", {"poolId": other}, 409, "other_pool")


def test_releasing_nothing_is_404_and_a_released_container_is_gone(stack, pools):
    pool = pools()
    claimed = stack.claim("frank", pool)
    stack.release("frank")

    stack.problem("POST", "tenants/frank/release", {}, 404, "nothing_held")
    stack.problem("GET", f"containers/{claimed['containerId']}", None, 404, "container_not_found")
    assert stack.status("frank")["assigned"] is False


@pytest.mark.any_database
def test_config_that_breaks_the_schema_is_refused_with_pointers_and_takes_nothing(stack, pools):
    schema = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}, "n": {"minimum": 1}}}
    pool = pools(workload={"configSchema": schema})
    found = stack.problem(
        "POST", "tenants/gina/claim", {"poolId": pool, "config": {"model": 3, "n": 0}}, 422, "invalid"
    )

    assert {e["pointer"] for e in found["errors"]} == {"/config/model", "/config/n"}
    assert not Assignment.objects.filter(tenant_id="gina").exists()
    assert stack.ok("GET", f"pools/{pool}")["status"]["idle"] == 1


@pytest.mark.any_database
@pytest.mark.parametrize("name", ["config.json", "claim.json", "../x", ".hidden", "a/b", "", "x" * 129])
def test_secret_names_that_could_leave_their_directory_are_refused(stack, pools, name):
    pool = stack_pool(stack)
    found = stack.problem("POST", "tenants/hal/claim", {"poolId": pool, "secrets": {name: "v"}}, 422, "invalid")

    assert found["errors"][0]["code"] == "secret_name"


_shared: list[str] = []


def stack_pool(stack):
    """One idle pool for tests that take nothing from it."""
    if not _shared:
        _shared.append(stack.make_pool())
    return _shared[0]


def test_an_exhausted_pool_answers_503_after_the_timeout_and_holds_nothing(stack, pools):
    pool = pools(warm=1, maxSize=1)
    stack.claim("ida", pool)
    started = time.monotonic()
    answer = stack.call("POST", "tenants/jack/claim?timeoutMs=1500", {"poolId": pool})

    assert answer.status_code == 503
    assert answer.json()["code"] == "pool_exhausted"
    assert int(answer.headers["Retry-After"]) >= 1
    assert 1.4 < time.monotonic() - started < 7
    assert stack.status("jack")["assigned"] is False
    assert stack.ok("GET", f"pools/{pool}")["status"]["waiting"] == 0


def test_those_who_wait_are_served_in_order_as_containers_come_free(stack, pools):
    pool = pools(warm=1, maxSize=1)
    stack.claim("w0", pool)
    served = []

    def wait(number: int) -> None:
        stack.claim(f"w{number}", pool)
        served.append(number)
        stack.release(f"w{number}")

    threads = []
    for number in (1, 2, 3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        eventually(lambda n=number: stack.ok("GET", f"pools/{pool}")["status"]["waiting"] == n, 30, 0.05)
    stack.release("w0")
    for thread in threads:
        thread.join()

    assert served == [1, 2, 3]


@pytest.mark.any_database
def test_a_cold_start_serves_a_pool_that_keeps_nothing_warm(stack, pools):
    pool = pools(warm=0, maxSize=2)
    claimed = stack.claim("kim", pool)

    assert claimed["source"] == "cold"


@pytest.mark.postgresql
def test_forty_waiting_claims_hold_no_thread(stack, pools):
    pool = pools(warm=1, maxSize=1)
    stack.claim("holder", pool)
    path = f"{stack.base}/api/v1/tenants/%s/claim?timeoutMs=120000"
    headers = {"Authorization": f"Bearer {stack.key}"}
    with ThreadPoolExecutor(40) as many:
        waiting = [
            many.submit(requests.post, path % f"q{n}", json={"poolId": pool}, headers=headers, timeout=180)
            for n in range(40)
        ]
        eventually(lambda: stack.ok("GET", f"pools/{pool}")["status"]["waiting"] == 40)
        assert stack.call("GET", "health").status_code == 200
        # Four threads serve the process; forty claims sit in none of them.
        assert not any(one.done() for one in waiting)
        for number in range(40):
            stack.release(f"q{number}")
        answers = [one.result().status_code for one in waiting]

    assert answers == [409] * 40, "aborted"


def test_releasing_a_pending_claim_aborts_it(stack, pools):
    pool = pools(warm=1, maxSize=1)
    stack.claim("lea", pool)
    with ThreadPoolExecutor(1) as one:
        pending = one.submit(stack.call, "POST", "tenants/mia/claim", {"poolId": pool})
        eventually(lambda: stack.status("mia")["state"] == "pending")
        stack.release("mia")
        answer = pending.result()

    assert (answer.status_code, answer.json()["code"]) == (409, "claim_aborted")
    assert stack.status("mia")["assigned"] is False


@pytest.mark.any_database
def test_a_dead_warm_container_is_replaced_within_the_claim(stack, pools):
    from pools import lifecycle
    from pools.runtime import get_runtime

    pool = pools(warm=2, maxSize=3)
    oldest = Container.objects.filter(pool_id=pool).order_by("state_changed_at").first()
    get_runtime().stop(lifecycle.runtime_name(oldest.pk), 0)
    claimed = stack.claim("ned", pool)

    assert claimed["containerId"] != str(oldest.pk)
    eventually(lambda: not Container.objects.filter(pk=oldest.pk).exists())


@pytest.mark.any_database
def test_an_image_that_is_missing_is_said_where_the_pool_is_and_claims_get_503(stack, pools):
    pool = pools(warm=0)
    workload = {"id": f"{pool}-x", "name": "x", "image": "nowhere/none:1", "pullPolicy": "never"}
    stack.ok("POST", "workloads", workload, 201)
    stack.ok("POST", "pools", {"id": f"{pool}-x", "workloadId": f"{pool}-x", "minSize": 1}, 201)
    status = eventually(lambda: (s := stack.ok("GET", f"pools/{pool}-x")["status"])["state"] == "error" and s, 30)

    assert "nowhere/none:1" in status["lastError"]
    stack.problem("POST", "tenants/olga/claim?timeoutMs=3000", {"poolId": f"{pool}-x"}, 503, "pool_error")
    assert stack.status("olga")["assigned"] is False
    stack.drop_pool(f"{pool}-x")


@pytest.mark.any_database
def test_the_plans_and_our_example_files_load(stack, sink_server):
    import yaml

    from tests.stack.conftest import ROOT

    paths = {"Workload": "workloads", "Pool": "pools", "SyncSpec": "sync-specs"}
    for file in sorted((ROOT / "examples").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            kind = document.pop("kind")
            if kind == "SyncSpec":
                document["sink"] |= {k: v for k, v in sink_server.json("").items() if k not in ("prefix", "type")}
            stack.ok("POST", paths[kind], document, 201)
    for pool in ("notes", "batch", "ml-gpu-pool"):
        stack.wait_warm(pool)
    done = stack.claim("worker-1", "batch", config={"job": "count"})
    assert done["restored"] is None

    def is_done():
        look = {"command": ["test", "-s", "/results/result.txt"]}
        return stack.ok("POST", "tenants/worker-1/exec", look)["exitCode"] == 0

    eventually(is_done)
    stack.release("worker-1")
    assert "batch/worker-1/results/result.txt" in sink_server.keys()
    trained = stack.claim("ml-1", "ml-gpu-pool")
    stack.exec(
        trained["containerId"],
        "cd /data; mkdir -p checkpoints/sub logs/in; touch checkpoints/a.pt"
        " checkpoints/sub/b.pt logs/top.log logs/in/deep.log logs/no.txt",
    )
    stack.release("ml-1")
    kept = {key.removeprefix("workloads/ml/ml-1/") for key in sink_server.keys() if key.startswith("workloads/")}
    assert kept == {"checkpoints/a.pt", "logs/top.log", "logs/in/deep.log"}
    for pool in ("notes", "batch", "ml-gpu-pool"):
        stack.drop_pool(pool)

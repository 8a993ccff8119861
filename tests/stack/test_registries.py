"""Private registries in a whole deployment: a pool waits for its credential, and nobody sees it (P10)."""

from __future__ import annotations

import pytest

from tests import registry as registries
from tests.argv import command_lines
from tests.registry import PASSWORD, USER, bcrypted
from tests.stack.conftest import eventually

LOGIN = {"username": USER, "password": PASSWORD}
WORKLOAD = {"pullPolicy": "missing", "ports": []}


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    found = registries.Registry(tmp_path_factory.mktemp("registry"), f"{USER}:{bcrypted(PASSWORD)}\n")
    found.start()
    yield found
    found.close()


@pytest.fixture
def image(private):
    private.put("app", login=LOGIN)
    yield f"{private.host}/app:1"
    registries.forget(f"{private.host}/app:1")


@pytest.mark.any_database
def test_a_pool_waits_for_its_credential_and_starts_at_once_with_it(stack, private, image):
    """None, a wrong one, the right one, by API alone; each step takes effect without a resume."""
    name = "private-registry"
    body = {"id": name, "name": name, "image": image, **WORKLOAD, "resources": {"memoryMb": 64, "tmpfsMb": 16}}
    stack.ok("POST", "workloads", body, 201)
    stack.ok("POST", "pools", {"id": name, "workloadId": name, "minSize": 1, "maxSize": 2}, 201)
    try:
        said = eventually(lambda: stack.pool_status(name)["lastError"], 60)
        assert "no basic auth credentials" in said
        assert f"No registry credential is stored for {private.host}" in said
        wrong = {"id": "ours", "registry": private.host, "username": USER, "password": "CANARY, a wrong one"}
        assert stack.ok("POST", "registry-credentials", wrong, 201)["usedBy"] == [name]
        eventually(lambda: "The registry refused the credential ours" in stack.pool_status(name)["lastError"], 60)
        assert "unauthorized" in stack.pool_status(name)["lastError"].lower()
        stack.problem("DELETE", "registry-credentials/ours", None, 409, "in_use")
        stack.ok("PUT", "registry-credentials/ours", {**wrong, **LOGIN})
        stack.wait_warm(name)
        assert stack.pool_status(name)["lastError"] is None
        held = stack.claim("ada", name)
        assert "CANARY" not in stack.exec(held["containerId"], "env; cat /proc/1/environ")
        stack.release("ada")
        told = [
            stack.call("GET", path).text for path in ("events?limit=200", "audit?limit=200", "registry-credentials")
        ]
        told += [stack.log.read_text(), stack.call("GET", "metrics").text]
        assert [one for one in told if "CANARY" in one] == []
        assert not any(b"CANARY" in one for one in command_lines())
    finally:
        stack.drop_pool(name)
        stack.call("DELETE", "registry-credentials/ours?force=true")


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    with registries.running(tmp_path_factory.mktemp("public")) as found:
        yield found


@pytest.mark.any_database
def test_a_tag_that_moved_is_rolled_to_on_request_and_only_once_it_is_healthy(stack, public):
    """A pool serves one image, whatever the tag names; a refresh rolls; a broken image does not replace it."""
    name, image = "moved-tag", f"{public.host}/moved:1"
    first = public.put("moved")
    check = {"command": ["test", "-e", "/opt/blob"], "startPeriodMs": 3000, "timeoutMs": 2000}
    limits = {"memoryMb": 64, "tmpfsMb": 16}
    body = {"id": name, "name": name, "image": image, **WORKLOAD, "healthCheck": check, "resources": limits}
    stack.ok("POST", "workloads", body, 201)
    stack.ok("POST", "pools", {"id": name, "workloadId": name, "minSize": 1, "maxSize": 4}, 201)
    try:
        stack.wait_warm(name)
        second = public.put("moved")
        stack.ok("POST", f"pools/{name}/scale", {"targetSize": 2}, 202)
        stack.wait_warm(name, 2)
        assert len({one["imageDigest"] for one in stack.containers(name)}) == 1, "one image, though the tag has moved"
        held = stack.claim("ada", name)

        stack.ok("POST", f"workloads/{name}/refresh", None, 202)
        versions = eventually(lambda: _versions(stack, name, 2), 60)
        assert [one["manifestDigest"] for one in versions] == [second, first]
        eventually(lambda: {one["workloadVersion"] for one in stack.containers(name)} == {2}, 60)
        assert stack.status("ada")["containerId"] == held["containerId"], "who holds one keeps it"
        serving = {one["imageDigest"] for one in stack.containers(name)}
        assert len(serving) == 1

        broken = public.push("boilerhouse/example-workload:1", "moved", "1")  # its health check fails: it has no blob
        stack.ok("POST", f"workloads/{name}/refresh", None, 202)
        eventually(lambda: stack.pool_status(name)["trouble"] == "roll_halted", 90)
        status = stack.ok("GET", f"workloads/{name}")["imageStatus"]
        assert (status["digest"], status["moved"]) == (broken, False)
        assert "version 2 keeps serving" in stack.pool_status(name)["lastError"]
        assert {one["imageDigest"] for one in stack.containers(name)} == serving
        stack.release("ada")
        stack.claim("bea", name)
        stack.release("bea")
    finally:
        stack.drop_pool(name)


def _versions(stack, name, count):
    items = stack.ok("GET", f"workloads/{name}/versions")["items"]
    return items if len(items) == count else None

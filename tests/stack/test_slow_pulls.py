"""Slow and failing registries in a whole deployment: other pools continue, and the pool concerned reports why it
waits."""

from __future__ import annotations

import os
import signal
import time

import pytest
import requests

from tests import registry as registries
from tests.registry import PASSWORD, USER, bcrypted
from tests.stack.conftest import eventually

COUNT = 60
"""Claims of a round: a 95th percentile of twenty is its slowest but one."""
SIZE = 6_000_000
"""What the slow line takes longer for than for a round of claims, bytes."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with registries.running(tmp_path_factory.mktemp("registry")) as found:
        yield found


def claims(stack, pool: str, count: int) -> list[float]:
    """How long each of so many claims took, s, shortest first; a warm container is there for each."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        held = stack.claim(f"ana{number}", pool)
        took.append(time.perf_counter() - began)
        assert held["source"] == "warm", held
        stack.release(f"ana{number}", discard=True)
        stack.wait_warm(pool, 3)
    return sorted(took)


def figures(took: list[float]) -> str:
    middle, high = (took[int(len(took) * share) - 1] * 1000 for share in (0.5, 0.95))
    return f"p50 {middle:.1f} ms, p95 {high:.1f} ms"


@pytest.mark.long  # four pulls of 6 MB at 32 KB/s, and two rounds of claims
def test_four_slow_pulls_stop_no_other_pool(stack, registry):
    """Claims and refill of a pool with a local image go on; what pulls says how far it is, and survives a kill."""
    local = stack.make_pool(warm=3, maxSize=6, minIdle=3)
    line = registry.line(bytes_per_second=32 * 1024)
    images, slow = [], []

    try:
        claims(stack, local, 3)
        quiet = claims(stack, local, COUNT)
        for number in range(4):
            registry.put(f"slow{number}", size=SIZE)
            images.append(f"{line.host}/slow{number}:1")
            body = {"name": f"slow{number}", "image": images[-1], "volumes": {}, "resources": {"memoryMb": 64}}
            made = stack.ok("POST", "workloads", body, 201)["id"]
            slow.append(stack.ok("POST", "pools", {"workloadId": made, "minSize": 1}, 201)["id"])

        def pulling(pool):
            return stack.ok("GET", f"pools/{pool}")["status"]["pulling"]

        eventually(lambda: all((pulling(pool) or {}).get("bytes") for pool in slow[:3]), 60)
        beside = claims(stack, local, COUNT)
        assert pulling(slow[0]), "the pulls have ended before the claims"
        print(f"\nclaims: quiet {figures(quiet)}; beside four slow pulls {figures(beside)}")
        problem = stack.problem("POST", "tenants/bob/claim?timeoutMs=1500", {"poolId": slow[0]}, 503, "pool_exhausted")
        assert "is being pulled" in problem["detail"], problem
        page = requests.get(
            f"{stack.base}/api/v1/metrics", headers={"Authorization": f"Bearer {stack.key}"}, timeout=10
        )
        assert 'boilerhouse_image_pulls{state="running"} 4.0' in page.text
        from boilerhouse.core.models import Process

        os.kill(Process.objects.get(kind="controller").pid, signal.SIGKILL)
        eventually(lambda: stack.events("pool.pulled", poolId=slow[0]), 500, 1)
        stack.wait_warm(slow[0], 1, 60)
    finally:
        for pool in [local, *slow]:
            stack.drop_pool(pool)
        for image in images:
            registries.forget(image)


@pytest.mark.long  # a pull of 6 MB at 32 KB/s, and two rounds of claims
def test_the_troubles_of_registries_stay_with_the_pools_concerned(stack, registry, tmp_path):
    """A password, a slow connection, a lost layer, an image by digest and a moved tag at once, during claims."""
    login = {"username": USER, "password": PASSWORD}
    private = registries.Registry(tmp_path / "private", f"{USER}:{bcrypted(PASSWORD)}\n")
    private.start()
    line = registry.line(bytes_per_second=32 * 1024)
    for name in ("open", "locked"):
        private.put(name, login=login)
    registry.put("slow", size=SIZE)
    registry.lose_layers("lost", registry.put("lost"))
    digest, first = registry.put("fixed"), registry.put("moved")
    images = {
        "open": f"{private.host}/open:1", "locked": f"{private.host}/locked:1", "slow": f"{line.host}/slow:1",
        "lost": f"{registry.host}/lost:1", "fixed": f"{registry.host}/fixed@{digest}", "moved": f"{registry.host}/moved:1",
    }  # fmt: skip
    key = {"id": "open", "registry": f"{private.host}/open", **login}
    local = stack.make_pool(warm=3, maxSize=6, minIdle=3)
    try:
        stack.ok("POST", "registry-credentials", key, 201)
        claims(stack, local, 3)
        quiet = claims(stack, local, COUNT)
        for name, image in images.items():
            body = {"id": name, "name": name, "image": image, "volumes": {}, "resources": {"memoryMb": 64}}
            stack.ok("POST", "workloads", body, 201)
            stack.ok("POST", "pools", {"id": name, "workloadId": name, "minSize": 1}, 201)
        eventually(lambda: (stack.pool_status("slow")["pulling"] or {}).get("bytes"), 60)
        stack.wait_warm("moved")
        second = registry.put("moved")
        stack.ok("POST", "workloads/moved/refresh", None, 202)
        beside = claims(stack, local, COUNT)
        assert stack.pool_status("slow")["pulling"], "the slow pull has ended before the claims"
        print(f"\nclaims: quiet {figures(quiet)}; beside troubles of registries {figures(beside)}")

        eventually(lambda: {one["workloadVersion"] for one in stack.containers("moved")} == {2}, 60)
        versions = stack.ok("GET", "workloads/moved/versions")["items"]
        assert [one["manifestDigest"] for one in versions] == [second, first]
        for name in ("open", "fixed", "moved"):
            stack.wait_warm(name)
            assert stack.pool_status(name)["lastError"] is None
        assert f"No registry credential is stored for {private.host}" in stack.pool_status("locked")["lastError"]
        assert "unknown blob" in stack.pool_status("lost")["lastError"]
        status = stack.pool_status(local)
        assert (status["state"], status["lastError"], status["warnings"]) == ("healthy", None, [])
        assert stack.events("pool.warning", poolId=local) == []
    finally:
        for pool in (local, *images):
            stack.drop_pool(pool)
        stack.call("DELETE", "registry-credentials/open?force=true")
        private.close()
        for image in images.values():
            registries.forget(image)

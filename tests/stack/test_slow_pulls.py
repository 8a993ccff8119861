"""Slow pulls in a whole deployment: other pools go on, the pool that waits says how far it is, a killed one is taken up."""

from __future__ import annotations

import os
import signal
import time

import pytest
import requests

from tests import registry as registries
from tests.stack.conftest import eventually


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    found = registries.Registry(tmp_path_factory.mktemp("registry"))
    found.start()
    yield found
    found.stop()


@pytest.mark.long  # four pulls of 3 MB at 32 KB/s, and two rounds of claims
def test_four_slow_pulls_stop_no_other_pool(stack, registry):
    """B35: claims and refill of a pool with a local image go on; what pulls says how far it is, and survives a kill."""
    local = stack.make_pool(warm=3, maxSize=6, minIdle=3)
    line = registry.line(bytes_per_second=32 * 1024)
    images, slow = [], []

    def claims(count: int) -> list[float]:
        took = []
        for number in range(count):
            began = time.perf_counter()
            stack.claim(f"ana{number}", local)
            took.append(time.perf_counter() - began)
            stack.release(f"ana{number}", discard=True)
            stack.wait_warm(local, 3)
        return sorted(took)

    try:
        claims(3)
        quiet = claims(20)
        for number in range(4):
            registry.put(f"slow{number}", size=3_000_000)
            images.append(f"{line.host}/slow{number}:1")
            body = {"name": f"slow{number}", "image": images[-1], "volumes": {}, "resources": {"memoryMb": 64}}
            made = stack.ok("POST", "workloads", body, 201)["id"]
            slow.append(stack.ok("POST", "pools", {"workloadId": made, "minSize": 1}, 201)["id"])

        def pulling(pool):
            return stack.ok("GET", f"pools/{pool}")["status"]["pulling"]

        eventually(lambda: all((pulling(pool) or {}).get("bytes") for pool in slow[:3]), 60)
        beside = claims(20)
        assert pulling(slow[0]), "the pulls have ended before the claims"
        p95 = lambda took: took[int(len(took) * 0.95) - 1] * 1000  # noqa: E731
        print(f"\nclaims p95: quiet {p95(quiet):.1f} ms, beside four slow pulls {p95(beside):.1f} ms")
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

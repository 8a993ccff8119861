"""Claims and releases under load: at once, by chance at a rate, through to the first answer, with state.

Latency counts from the moment a claim was due, whether earlier ones were answered or not. Every scenario checks that
each tenant got a container of its own and that none was refused; a wrong answer ends the bench.
"""

from __future__ import annotations

import http.client
import random
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from bench import refill
from bench.crud import Connection

WORKLOAD = {
    "image": "boilerhouse/example-workload:1", "pullPolicy": "never", "stopTimeoutMs": 0,
    "volumes": {"state": {"containerPath": "/state"}, "secrets": {"containerPath": "/run/secrets"}},
    "ports": [{"name": "http", "containerPort": 8080}],
    "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
}  # fmt: skip
WARM_RATE, WARM_S, HALF_S, HOLD_S = 40.0, 4.0, 60.0, 2.0
TARGETS = {
    "tenAtOnce": ("p50Ms", 80), "twentyAtOnce": ("p95Ms", 2500), "fortyPerSecond": ("p99Ms", 150),
    "halfRefillRate": ("p99Ms", 150), "restored100KB": ("p50Ms", 250),
}  # fmt: skip
LABELS = {
    "tenAtOnce": "10 claims at once on 10 warm",
    "twentyAtOnce": "20 claims at once on 10 warm",
    "hundredAtOnce": "100 claims at once on 20 warm (at most 40)",
    "fortyPerSecond": "40 claims/s for 4 s on warm ones",
    "halfRefillRate": "half the refill rate for 60 s, with releases",
    "firstAnswer": "claim to the container's first HTTP answer",
    "restored100KB": "claim with 10 files, 100 KB restored",
    "release": "release, 10 files, 100 KB saved, container gone",
}


def figures(times: list[float], **more: Any) -> dict[str, Any]:
    ordered = sorted(times)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)

    return {"n": len(ordered), "p50Ms": round(statistics.median(ordered), 1), "p95Ms": at(0.95), "p99Ms": at(0.99),
            "maxMs": at(1), **more}  # fmt: skip


class Load:
    """Claims in one pool, and what they got."""

    def __init__(self, api: Any, pool: str) -> None:
        self.api, self.pool = api, pool
        self.local = threading.local()
        self.held: dict[str, str] = {}
        self.sources: Counter[str] = Counter()
        self.lock = threading.Lock()

    def connection(self) -> Connection:
        if not hasattr(self.local, "connection"):
            self.local.connection = Connection(self.api.base, self.api.key)
            self.local.connection.ask("GET", "/api/v1/health")
        return self.local.connection

    def claim(self, tenant: str) -> dict[str, Any]:
        found: dict[str, Any] = self.connection().ask(
            "POST", f"/api/v1/tenants/{tenant}/claim?timeoutMs=60000", {"poolId": self.pool}, 201
        )
        with self.lock:
            if found["containerId"] in self.held:
                raise SystemExit(f"{found['containerId']} is held by {self.held[found['containerId']]} and {tenant}")
            self.held[found["containerId"]] = tenant
            self.sources[found["source"]] += 1
        return found

    def release(self, tenant: str) -> None:
        self.connection().ask("POST", f"/api/v1/tenants/{tenant}/release?timeoutMs=60000", {})

    def release_all(self) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(self.release, list(self.held.values())))
        self.held.clear()

    def size(self, warm: int, most: int, min_idle: int = 0) -> None:
        """Exactly ``warm`` idle ones, at most ``most`` in all."""
        path = f"pools/{self.pool}"
        self.api.call("PUT", path, {**self.api.call("GET", path), "minSize": 0, "maxSize": most, "minIdle": min_idle})
        self.api.call("POST", f"{path}/scale", {"targetSize": warm}, (202,))
        refill.wait_size(self.pool, max(warm, min_idle))
        refill.wait_idle(self.pool, max(warm, min_idle))
        time.sleep(1)

    def at_once(self, count: int) -> list[float]:
        """``count`` claims of new tenants at the same moment."""
        ready = threading.Barrier(count)

        def one(_: int) -> float:
            self.connection()
            ready.wait()
            began = time.perf_counter()
            self.claim(f"l-{secrets.token_hex(6)}")
            return (time.perf_counter() - began) * 1000

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(one, range(count)))

    def by_chance(self, rate: float, seconds: float, then: Callable[[str], None] | None = None) -> list[float]:
        """Claims of new tenants by a Poisson process; ``then`` is done after each, in a thread of its own."""
        due, at = [], 0.0
        while (at := at + random.expovariate(rate)) < seconds:
            due.append(at)
        lanes, times = 48, list[float]()
        ready = threading.Barrier(lanes + 1)
        began = [0.0]
        after = ThreadPoolExecutor(32)

        def lane() -> None:
            self.connection()
            ready.wait()
            ready.wait()
            while True:
                with self.lock:
                    if not due:
                        return
                    planned = due.pop(0)
                time.sleep(max(0.0, began[0] + planned - time.perf_counter()))
                tenant = f"l-{secrets.token_hex(6)}"
                self.claim(tenant)
                took = (time.perf_counter() - began[0] - planned) * 1000
                with self.lock:
                    times.append(took)
                if then:
                    after.submit(then, tenant).add_done_callback(lambda done: done.result())

        threads = [threading.Thread(target=lane) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        ready.wait()
        began[0] = time.perf_counter()
        ready.wait()
        for thread in threads:
            thread.join()
        after.shutdown(wait=True)
        return times


def measure(api: Any, s3: Any, runtime: Any, *, rate: float, quick: bool = False) -> dict[str, Any]:
    """All scenarios; ``rate`` is the refill rate that was measured, in containers per second."""
    api.call("POST", "workloads", {"id": "load", "name": "load", **WORKLOAD}, (201,))
    api.call("POST", "pools", {"id": "load", "workloadId": "load", "minSize": 0, "maxSize": 10, "minIdle": 0})
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    policy = {"onClaim": True, "onRelease": True}
    sink = s3.sink("load/${tenantId}/")
    api.call("POST", "sync-specs", {"poolId": "load", "mappings": [mapping], "sink": sink, "policy": policy})
    load, found = Load(api, "load"), dict[str, Any]()
    for name, warm, most, count, rounds in (
        ("tenAtOnce", 10, 10, 10, 1 if quick else 5),
        ("twentyAtOnce", 10, 20, 20, 1 if quick else 3),
        ("hundredAtOnce", 20, 40, 40 if quick else 100, 0 if quick else 1),
    ):
        times: list[float] = []
        load.sources.clear()
        for _ in range(rounds):
            load.size(warm, most)
            times += _many_at_once(load, count, most)
            load.release_all()
        if times:
            found[name] = figures(times, sources=dict(load.sources))
    found |= _at_a_rate(load, rate, quick)
    found |= _with_state(load, runtime, 3 if quick else 10)
    load.size(0, 1)
    return found


def _many_at_once(load: Load, count: int, most: int) -> list[float]:
    """More claims than the pool may ever hold are served as those before them give back."""
    if count <= most:
        return load.at_once(count)
    stop = threading.Event()

    def give_back() -> None:
        while not stop.is_set():
            with load.lock:
                container, tenant = next(iter(load.held.items()), (None, None))
            if tenant and container:
                load.release(tenant)
                with load.lock:
                    load.held.pop(container, None)
            else:
                time.sleep(0.05)

    givers = [threading.Thread(target=give_back) for _ in range(4)]
    for giver in givers:
        giver.start()
    try:
        return load.at_once(count)
    finally:
        stop.set()
        for giver in givers:
            giver.join()


def _at_a_rate(load: Load, rate: float, quick: bool) -> dict[str, Any]:
    found = {}
    warm = 60 if quick else 200
    load.sources.clear()
    load.size(warm, warm)
    times = load.by_chance(WARM_RATE, 1.0 if quick else WARM_S)
    if set(load.sources) - {"warm"}:
        raise SystemExit(f"not only warm claims: {load.sources}")
    found["fortyPerSecond"] = figures(times)
    load.release_all()
    if not quick:
        load.sources.clear()
        load.size(0, 60, min_idle=20)

        def hold_and_leave(tenant: str) -> None:
            time.sleep(HOLD_S)
            load.release(tenant)

        times = load.by_chance(rate / 2, HALF_S, hold_and_leave)
        found["halfRefillRate"] = figures(times, perSecond=round(rate / 2, 1), sources=dict(load.sources))
        load.held.clear()
    return found


def _with_state(load: Load, runtime: Any, rounds: int) -> dict[str, Any]:
    """One client: to the first answer, with state restored, and the release that saved it."""
    first, restored, released, bare = [], [], [], []
    load.size(2, 4, min_idle=2)
    for _ in range(rounds):
        tenant = f"s-{secrets.token_hex(6)}"
        began = time.perf_counter()
        claimed = load.claim(tenant)
        _ask_container(claimed["endpoints"][0])
        first.append((time.perf_counter() - began) * 1000)
        script = "for n in 0 1 2 3 4 5 6 7 8 9; do head -c 10000 /dev/urandom > /state/f$n; done"
        path = f"/api/v1/containers/{claimed['containerId']}/exec"
        load.connection().ask("POST", path, {"command": ["sh", "-c", script]})
        began = time.perf_counter()
        load.release(tenant)
        released.append((time.perf_counter() - began) * 1000)
        load.held.clear()
        refill.wait_idle(load.pool, 2)
        began = time.perf_counter()
        again = load.claim(tenant)
        restored.append((time.perf_counter() - began) * 1000)
        if again["restored"] != {"files": 10, "bytes": 100_000}:
            raise SystemExit(f"not what was saved: {again['restored']}")
        load.release(tenant)
        load.held.clear()
        refill.wait_idle(load.pool, 2)
        bare.append(_bare_end(runtime, load.pool))
    return {
        "firstAnswer": figures(first),
        "restored100KB": figures(restored),
        "release": figures(released, bareStopAndRemoveMs=round(statistics.median(bare), 1)),
    }


def _ask_container(endpoint: dict[str, Any]) -> None:
    parts = urlsplit(endpoint["url"])
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", "/")
    if connection.getresponse().status != 200:
        raise SystemExit("the container did not answer")
    connection.close()


def _bare_end(runtime: Any, pool: str) -> float:
    """Stop and remove one container by plain calls, in milliseconds."""
    from pools import volumes

    ((container_id, plan),) = refill.plans(pool, 1)
    runtime.create(plan)
    runtime.start(plan.name)
    began = time.perf_counter()
    runtime.stop(plan.name, 0)
    runtime.remove(plan.name)
    took = (time.perf_counter() - began) * 1000
    volumes.wipe(container_id)
    return took


def table(found: dict[str, Any]) -> list[str]:
    rows = [f"{'claims and releases':<50}{'n':>6}{'p50':>10}{'p95':>10}{'p99':>10}  target"]
    for name, label in LABELS.items():
        if one := found.get(name):
            verdict = ""
            if name in TARGETS:
                which, most = TARGETS[name]
                verdict = f"{which[:3]} ≤ {most} ms: {'met' if one[which] <= most else 'not met'}"
            rows.append(f"{label:<50}{one['n']:>6}{one['p50Ms']:>10}{one['p95Ms']:>10}{one['p99Ms']:>10}  {verdict}")
    return rows

"""Who asks, and when: many at the same moment, or by chance at a rate (an open loop), and tenants that claim.

A time counts from the moment a request was due, whether earlier ones were answered or not. Threads that ask have a
connection, and whatever else they warm up, before the first is due. They have no priority over what they measure: so
does a real client on the same machine.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from bench import refill
from bench.server import EXAMPLE, Server

Act = Callable[[], object]
MAPPING = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
LANES = 48
STALE_S = 30


class Connection:
    """One kept-alive connection; raises what is not the expected status."""

    def __init__(self, base: str, key: str) -> None:
        parts = urlsplit(base)
        assert parts.hostname
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=90)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.used_at = time.monotonic()

    def ask(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.send(method, path, json.dumps(body) if body is not None else None, self.headers)
        content = answer.read()
        if answer.status != expect:
            raise SystemExit(f"{method} {path} answered {answer.status}: {content[:300]!r}")
        return json.loads(content) if content else None

    def send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The answer, of any status, whose body is to be read before the next request."""
        if time.monotonic() - self.used_at > STALE_S:
            self.http.close()  # the server may have closed it, or be about to; the next request opens it again
        self.used_at = time.monotonic()
        self.http.request(method, path, body, headers)
        return self.http.getresponse()


def at_once(count: int, prepare: Callable[[], Act]) -> list[float]:
    """Milliseconds of ``count`` acts that begin at the same moment, each in a thread that has prepared its own."""
    ready = threading.Barrier(count)

    def one(_: int) -> float:
        act = prepare()
        ready.wait()
        began = time.perf_counter()
        act()
        return (time.perf_counter() - began) * 1000

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def by_chance(
    rate: float, seconds: float, prepare: Callable[[], Act], *, lanes: int = LANES, windows: int = 1
) -> list[list[float]]:
    """A Poisson process of ``rate`` acts per second; milliseconds of each, in equal windows of when they were due.

    An act that returns False is not counted.
    """
    due, at = [], 0.0
    while (at := at + random.expovariate(rate)) < seconds:
        due.append(at)
    times: list[tuple[float, float]] = []
    began = [0.0]
    taking = threading.Lock()
    ready = threading.Barrier(lanes, lambda: began.__setitem__(0, time.perf_counter()))

    def lane() -> None:
        act = prepare()
        ready.wait()
        while True:
            with taking:
                if not due:
                    return
                planned = due.pop(0)
            time.sleep(max(0.0, began[0] + planned - time.perf_counter()))
            if act() is not False:
                times.append((planned, (time.perf_counter() - began[0] - planned) * 1000))

    together(lane, lanes)
    return [
        [ms for planned, ms in times if int(planned / seconds * windows) == number] for number in range(windows)
    ]  # fmt: skip


def together(work: Callable[[], None], count: int) -> None:
    """``work`` in ``count`` threads until all have ended; raises what one of them raised."""
    with ThreadPoolExecutor(count) as threads:
        for one in [threads.submit(work) for _ in range(count)]:
            one.result()


class Tenants:
    """New tenants of one pool with state in S3: what they hold, and that nobody else holds it."""

    def __init__(self, server: Server, pool: str, *, interval_ms: int | None = None) -> None:
        self.api, self.server, self.pool = server.api, server, pool
        self.api.call("POST", "workloads", {"id": pool, "name": pool, **EXAMPLE}, (201,))
        sizes = {"minSize": 0, "maxSize": 1, "minIdle": 0}
        self.api.call("POST", "pools", {"id": pool, "workloadId": pool, **sizes}, (201,))
        policy = {"onClaim": True, "onRelease": True, **({"intervalMs": interval_ms} if interval_ms else {})}
        sink = server.s3.sink(f"{pool}/${{tenantId}}/")
        spec = {"poolId": pool, "mappings": [MAPPING], "sink": sink, "policy": policy}
        self.spec_id = self.api.call("POST", "sync-specs", spec, (201,))["id"]
        self.held: dict[str, str] = {}
        self.sources: Counter[str] = Counter()
        self._lock, self._local = threading.Lock(), threading.local()

    def connection(self) -> Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = Connection(self.api.base, self.api.key)
            self._local.connection.ask("GET", "/api/v1/health")
        found: Connection = self._local.connection
        return found

    def claim(self, tenant: str | None = None, **body: Any) -> dict[str, Any]:
        """Ends the bench when somebody else holds the container that was given."""
        tenant = tenant or f"t-{secrets.token_hex(6)}"
        path = f"/api/v1/tenants/{tenant}/claim?timeoutMs=60000"
        found: dict[str, Any] = self.connection().ask("POST", path, {"poolId": self.pool, **body}, 201)
        with self._lock:
            if found["containerId"] in self.held:
                raise SystemExit(f"{found['containerId']} is held by {self.held[found['containerId']]} and {tenant}")
            self.held[found["containerId"]] = tenant
            self.sources[found["source"]] += 1
        return found

    def prepare(self) -> Act:
        self.connection()
        return self.claim

    def release(self, container: str | None = None, *, discard: bool = False) -> None:
        """This one, or any that is held.

        Its place among the held is given up first: after the answer the container may be another's already.
        """
        with self._lock:
            tenant = self.held.pop(container) if container else self.held.popitem()[1]
        path = f"/api/v1/tenants/{tenant}/release?timeoutMs=60000"
        self.connection().ask("POST", path, {"discard": True} if discard else {})

    def release_all(self) -> None:
        """All that are held, unsaved; the pool starts no others in their place."""
        if not self.held:
            return
        self.api.call("POST", f"pools/{self.pool}/pause")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(partial(self.release, discard=True), list(self.held)))
        self.api.call("POST", f"pools/{self.pool}/scale", {"targetSize": 0}, (202,))
        self.api.call("POST", f"pools/{self.pool}/resume")

    def expect_warm(self) -> None:
        """Ends the bench when a claim since the last look was not served by a warm container."""
        if set(self.sources) - {"warm"}:
            raise SystemExit(f"not only warm claims: {dict(self.sources)}")
        self.sources.clear()

    def size(self, warm: int, most: int, min_idle: int = 0) -> None:
        """Exactly ``warm`` idle ones, at most ``most`` in all, and the engine runs as many."""
        self.scale(warm, most, min_idle)
        refill.wait_size(self.pool, max(warm, min_idle))
        refill.wait_idle(self.pool, max(warm, min_idle))
        self.check_population()
        time.sleep(1)

    def scale(self, warm: int, most: int, min_idle: int = 0) -> None:
        path = f"pools/{self.pool}"
        self.api.call("PUT", path, {**self.api.call("GET", path), "minSize": 0, "maxSize": most, "minIdle": min_idle})
        self.api.call("POST", f"{path}/scale", {"targetSize": warm}, (202,))

    def names(self) -> list[str]:
        """What the engine calls the pool's containers, by its rows."""
        from pools import lifecycle
        from pools.models import Container

        return [
            lifecycle.runtime_name(pk)
            for pk in Container.objects.filter(pool_id=self.pool).values_list("pk", flat=True)
        ]

    def check_population(self) -> None:
        """Ends the bench unless the engine runs exactly the containers that rows name."""
        from pools import host, lifecycle

        rows = set(self.names())
        labels = {**host.labels(), lifecycle.POOL_LABEL: self.pool}
        seen = {one.handle.name for one in self.server.runtime.list(labels) if one.is_running}
        if rows != seen:
            raise SystemExit(f"{self.pool}: {len(rows)} rows, {len(seen)} containers, {len(rows ^ seen)} differ")

    def end(self) -> None:
        """Nothing is held and nothing runs."""
        self.release_all()
        self.scale(0, 1)
        refill.wait_size(self.pool, 0)
        self.check_population()

"""CRUD over HTTP: saturating connections and an open loop while a pool refills, beside an empty Django view."""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

SATURATE_S, OPEN_S, RATE = 8.0, 20.0, 30.0
REFILL = 16
TARGETS_MS = {"open": 50, "saturated10": 120}


class Connection:
    """One kept-alive connection; raises what is not the expected status."""

    def __init__(self, base: str, key: str) -> None:
        parts = urlsplit(base)
        assert parts.hostname
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        self.http.request(method, path, json.dumps(body) if body is not None else None, self.headers)
        answer = self.http.getresponse()
        content = answer.read()
        if answer.status != expect:
            raise SystemExit(f"{method} {path} answered {answer.status}: {content[:300]!r}")
        return json.loads(content) if content else None


def crud(connection: Connection, own: str, turn: int) -> None:
    """One request of a cycle: create, read, list, change, read …, delete."""
    path = f"/api/v1/workloads/{own}"
    body = {"id": own, "name": own, "image": "i", "environment": {"TURN": str(turn)}}
    match turn % 8:
        case 0:
            connection.ask("POST", "/api/v1/workloads", body, 201)
        case 3:
            connection.ask("PUT", path, body)
        case 5:
            connection.ask("GET", "/api/v1/workloads?limit=20")
        case 7:
            connection.ask("DELETE", path, expect=204)
        case _:
            connection.ask("GET", path)


def together(work: Callable[[], None], count: int) -> None:
    """``work`` in ``count`` threads until all have ended; raises what one of them raised."""
    with ThreadPoolExecutor(count) as threads:
        for one in [threads.submit(work) for _ in range(count)]:
            one.result()


def saturate(base: str, key: str, connections: int, act: Callable[[Connection, str, int], None]) -> list[float]:
    """Each connection asks again as soon as it is answered; milliseconds per request, the first second apart."""
    times: list[float] = []
    began = time.monotonic()

    def work() -> None:
        connection, own, turn = Connection(base, key), f"crud-{secrets.token_hex(5)}", 0
        while time.monotonic() - began < SATURATE_S or turn % 8:
            started = time.perf_counter()
            act(connection, own, turn)
            if time.monotonic() - began > 1:
                times.append((time.perf_counter() - started) * 1000)
            turn += 1

    together(work, connections)
    return times


def open_loop(base: str, key: str, act: Callable[[Connection, str, int], None]) -> list[float]:
    """Requests come by chance, ``RATE`` a second, whether earlier ones are answered or not; waiting counts.

    The lanes begin at different places of their cycles: in step they would all write at once, and then all read.
    """
    due, at = [], 0.0
    while at < OPEN_S:
        at += random.expovariate(RATE)
        due.append(at)
    lanes = 24
    times: list[float] = []
    began = [0.0]
    taking, ready = threading.Lock(), threading.Barrier(lanes, lambda: began.__setitem__(0, time.perf_counter()))
    numbers = iter(range(lanes))

    def work() -> None:
        connection, own, turn = Connection(base, key), f"open-{secrets.token_hex(5)}", 0
        with taking:
            ahead = next(numbers) % 8
        for turn in range(ahead):
            act(connection, own, turn)
        turn = ahead
        ready.wait()
        while True:
            with taking:
                if not due:
                    return
                planned = due.pop(0)
            time.sleep(max(0.0, began[0] + planned - time.perf_counter()))
            act(connection, own, turn)
            times.append((time.perf_counter() - began[0] - planned) * 1000)
            turn += 1

    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # clients have processors of their own; threads inherit it
    try:
        together(work, lanes)
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    return times


def empty(connection: Connection, _own: str, _turn: int) -> None:
    connection.ask("GET", "/health")


def figures(times: list[float], seconds: float) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "n": len(ordered),
        "perSecond": round(len(ordered) / seconds, 1),
        "p50Ms": round(statistics.median(ordered), 2),
        "p99Ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
    }


def measure(api: Any) -> dict[str, Any]:
    """All of it, against a server whose throttle is off."""
    found: dict[str, Any] = {}
    for connections in (10, 50):
        for name, act in (("crud", crud), ("empty", empty)):
            times = saturate(api.base, api.key, connections, act)
            found[f"{name}{connections}"] = figures(times, SATURATE_S - 1)
    found["openQuiet"] = figures(open_loop(api.base, api.key, crud), OPEN_S)
    found["openEmpty"] = figures(open_loop(api.base, api.key, empty), OPEN_S)
    name = f"crud-{secrets.token_hex(4)}"
    workload = {
        "id": name, "name": name, "image": "boilerhouse/example-workload:1", "pullPolicy": "never", "stopTimeoutMs": 0,
        "volumes": {"state": {"containerPath": "/state"}}, "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
    }  # fmt: skip
    api.call("POST", "workloads", workload)
    api.call("POST", "pools", {"id": name, "workloadId": name, "minSize": 0, "maxSize": REFILL})
    over = threading.Event()

    def refill() -> None:
        """Fill and empty the pool again and again."""
        connection = Connection(api.base, api.key)
        while not over.is_set():
            for wanted in (REFILL, 0):
                connection.ask("POST", f"/api/v1/pools/{name}/scale", {"targetSize": wanted}, 202)
                while not over.is_set():
                    if connection.ask("GET", f"/api/v1/pools/{name}")["status"]["size"] == wanted:
                        break
                    time.sleep(0.5)

    filler = threading.Thread(target=refill)
    filler.start()
    time.sleep(1)
    try:
        found["openEmptyRefill"] = figures(open_loop(api.base, api.key, empty), OPEN_S)
        found["open"] = figures(open_loop(api.base, api.key, crud), OPEN_S)
    finally:
        over.set()
        filler.join()
        api.call("DELETE", f"pools/{name}?force=true")
    return {**found, "targetsP99Ms": TARGETS_MS}


def table(found: dict[str, Any]) -> list[str]:
    rows = [f"{'CRUD over HTTP':<50}{'p50':>10}{'p99':>10}{'per s':>10}{'ratio p50':>11}"]

    def row(label: str, name: str, bare: str) -> str:
        one, lone = found[name], found[bare]
        ratio = one["p50Ms"] / lone["p50Ms"]
        return f"{label:<50}{one['p50Ms']:>10}{one['p99Ms']:>10}{one['perSecond']:>10}{ratio:>11.1f}"

    for connections in (10, 50):
        rows.append(row(f"{connections} saturating connections", f"crud{connections}", f"empty{connections}"))
        rows.append(row("  an empty Django view", f"empty{connections}", f"empty{connections}"))
    rows.append(row(f"open loop, {RATE:.0f}/s", "openQuiet", "openEmpty"))
    rows.append(row(f"open loop, {RATE:.0f}/s, while a pool refills", "open", "openEmptyRefill"))
    rows.append(row("  an empty Django view, open loop", "openEmpty", "openEmpty"))
    rows.append(row("  the same while a pool refills", "openEmptyRefill", "openEmptyRefill"))
    for name, measured in (("open", "open"), ("saturated10", "crud10")):
        target = found["targetsP99Ms"][name]
        met = "met" if found[measured]["p99Ms"] <= target else "not met"
        label = "open loop while a pool refills" if name == "open" else "10 connections"
        rows.append(f"target p99, {label}: ≤ {target} ms: {met}")
    return rows

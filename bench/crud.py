"""CRUD over HTTP: saturating connections and an open loop while a pool refills, beside an empty Django view."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import figures
from bench.load import Act, Connection, by_chance, together
from bench.server import Api, Server

SATURATE_S, WARM_UP_S, OPEN_S, QUIET_S, RATE, LANES = 5.0, 1.0, 20.0, 5.0, 30.0, 24
REFILL = 16

Request = Callable[[Connection, str, int], None]


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


def empty(connection: Connection, _own: str, _turn: int) -> None:
    connection.ask("GET", "/health")


def measure(server: Server, *, all_of_it: bool = True) -> dict[str, Any]:
    """All of it, against a server whose throttle is off."""
    api = server.api
    found: dict[str, Any] = {}
    found["saturated10"] = figures.beside(*(_saturate(api, 10, act) for act in (crud, empty)))
    if all_of_it:
        found["openQuiet"] = figures.beside(*(figures.of(_open_loop(api, act, QUIET_S)) for act in (crud, empty)))
    with _refilling(api):
        lone = figures.of(_open_loop(api, empty, OPEN_S / 2))
        found["openRefill"] = figures.beside(figures.of(_open_loop(api, crud, OPEN_S)), lone)
    return found


def _saturate(api: Api, connections: int, act: Request) -> dict[str, Any]:
    """Each connection asks again as soon as it is answered; milliseconds per request, the first second apart."""
    times: list[float] = []
    began = time.monotonic()

    def work() -> None:
        connection, own, turn = Connection(api.base, api.key), f"crud-{secrets.token_hex(5)}", 0
        while time.monotonic() - began < SATURATE_S or turn % 8:
            started = time.perf_counter()
            act(connection, own, turn)
            if time.monotonic() - began > WARM_UP_S:
                times.append((time.perf_counter() - started) * 1000)
            turn += 1

    together(work, connections)
    return figures.of([times], perSecond=round(len(times) / (SATURATE_S - WARM_UP_S), 1))


def _open_loop(api: Api, act: Request, seconds: float) -> list[list[float]]:
    """The lanes begin at different places of their cycles: in step they would all write at once, and then all read."""
    numbers = itertools.count()

    def prepare() -> Act:
        connection, own, ahead = Connection(api.base, api.key), f"open-{secrets.token_hex(5)}", next(numbers) % 8
        turns = itertools.count(ahead)
        for turn in range(ahead):
            act(connection, own, turn)
        return lambda: act(connection, own, next(turns))

    return by_chance(RATE, seconds, prepare, lanes=LANES, windows=4)


@contextmanager
def _refilling(api: Api) -> Iterator[None]:
    """Meanwhile a pool is filled and emptied again and again."""
    name = f"crud-{secrets.token_hex(4)}"
    workload = {
        "id": name, "name": name, "image": "boilerhouse/example-workload:1", "pullPolicy": "never", "stopTimeoutMs": 0,
        "volumes": {"state": {"containerPath": "/state"}}, "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
    }  # fmt: skip
    api.call("POST", "workloads", workload)
    api.call("POST", "pools", {"id": name, "workloadId": name, "minSize": 0, "maxSize": REFILL})
    over = threading.Event()

    def refill() -> None:
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
        yield
    finally:
        over.set()
        filler.join()
        api.call("DELETE", f"pools/{name}?force=true")

"""Refill: how fast a pool fills beside bare create + start + the same probe, and what claims feel meanwhile."""

from __future__ import annotations

import dataclasses
import ipaddress
import secrets
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from bench import figures
from bench.server import EXAMPLE, Server

COUNT, ROUNDS, PARALLEL = 16, 3, 4
WORKLOAD = {**EXAMPLE, "healthCheck": {"command": ["true"]}}


def product(api: Any, pool: str, count: int) -> float:
    """Seconds from the request that scales the pool until ``count`` are idle; the pool is empty again afterwards."""
    began = time.perf_counter()
    api.call("POST", f"pools/{pool}/scale", {"targetSize": count}, (202,))
    wait_idle(pool, count)
    took = time.perf_counter() - began
    api.call("POST", f"pools/{pool}/scale", {"targetSize": 0}, (202,))
    wait_size(pool, 0)
    return took


def wait_idle(pool: str, count: int, seconds: float = 120) -> None:
    from pools.models import Container

    _until(lambda: Container.objects.idle().filter(pool_id=pool).count() >= count, seconds)


def wait_size(pool: str, count: int, seconds: float = 120) -> None:
    from pools.models import Container

    _until(lambda: Container.objects.filter(pool_id=pool).count() == count, seconds)


def _until(check: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit("the pool did not get its size in time")
        time.sleep(0.02)


def plans(pool: str, count: int) -> Iterator[Any]:
    """What the product creates for this pool, under names and addresses that it does not use, without its labels."""
    from pools import host, lifecycle, name_resolution, volumes
    from pools.models import Container, Pool
    from pools.runtime import get_runtime

    network = host.ensure_network()
    version = Pool.objects.get(pk=pool).workload.latest
    image = get_runtime().find_image(version.spec.image)
    top = ipaddress.ip_network(network.subnet).broadcast_address
    for number in range(count):
        address = str(top - 1 - number)
        row = Container(pk=uuid4(), pool_id=pool, version=version, uid=1_300_000 + number, address=address)
        volumes.prepare(row.pk, row.uid, version.spec)
        name_resolution.write(volumes.home(row.pk), row, version.spec, lifecycle.hostname(row.pk), {})
        plan = lifecycle.plan_of(row, version.spec, network.name, image)
        yield row.pk, dataclasses.replace(plan, name=f"bench-{row.pk}", labels={})


def bare(runtime: Any, pool: str, count: int) -> float:
    """Seconds for the same creates, starts and probes by plain calls at the engine, as many at once."""
    from pools import volumes

    made = list(plans(pool, count))

    def one(plan: Any) -> None:
        runtime.create(plan)
        runtime.start(plan.name)
        while runtime.exec(plan.name, ("true",), 5000).exit_code != 0:
            time.sleep(0.05)

    began = time.perf_counter()
    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(one, [plan for _, plan in made]))
    took = time.perf_counter() - began
    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(runtime.remove, [plan.name for _, plan in made]))
    for container_id, _ in made:
        volumes.wipe(container_id)
    return took


def measure(server: Server, rounds: int = ROUNDS) -> dict[str, Any]:
    """Rounds of both, one after the other, so that a busy machine slows both."""
    api, runtime = server.api, server.runtime
    api.call("POST", "workloads", {"id": "refill", "name": "refill", **WORKLOAD}, (201,))
    api.call("POST", "pools", {"id": "refill", "workloadId": "refill", "maxSize": COUNT})
    product(api, "refill", 4)
    ours, lone = [], []
    for _ in range(rounds):
        ours.append(COUNT / product(api, "refill", COUNT))
        lone.append(COUNT / bare(runtime, "refill", COUNT))
    share = statistics.median(a / b for a, b in zip(ours, lone, strict=True))
    return {
        "count": COUNT,
        "parallel": PARALLEL,
        "perSecond": [round(value, 2) for value in ours],
        "barePerSecond": [round(value, 2) for value in lone],
        "share": round(share, 3),
        "targetShare": 0.9,
    }


def claims_meanwhile(server: Server) -> dict[str, Any]:
    """Warm claims of one pool, 10 a second, while another pool fills."""
    from pools.models import Container

    warm, api = 40, server.api
    api.call("POST", "pools", {"id": "warm", "workloadId": "refill", "minSize": warm, "maxSize": warm, "minIdle": 0})
    wait_idle("warm", warm)
    time.sleep(1)
    api.call("POST", "pools/refill/scale", {"targetSize": COUNT}, (202,))
    found: list[float] = []
    while len(found) < warm and Container.objects.idle().filter(pool_id="refill").count() < COUNT:
        began = time.perf_counter()
        claimed = api.call("POST", f"tenants/w-{secrets.token_hex(6)}/claim", {"poolId": "warm"}, (201,))
        took = (time.perf_counter() - began) * 1000
        if claimed["source"] != "warm":
            raise SystemExit(f"not a warm claim: {claimed}")
        found.append(took)
        time.sleep(max(0, 0.1 - took / 1000))
    for pool in ("warm", "refill"):
        api.call("DELETE", f"pools/{pool}?force=true")
    wait_size("warm", 0)
    return figures.of([found])

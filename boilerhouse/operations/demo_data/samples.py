"""Samples of pools and containers: dense in the last hour, thinner in the week before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from boilerhouse.operations.demo_data.catalogue import MB, POOLS, WORKLOADS, DemoPool
from boilerhouse.operations.demo_data.history import History
from boilerhouse.operations.demo_data.rows import Rows
from pools.models import Container, ContainerUsage, PoolUsage
from pools.states import ContainerState

DENSE_S = 15
"""As the controller samples."""
OF_POOLS = ((timedelta(hours=1), DENSE_S), (timedelta(hours=24), 300), (timedelta(days=7), 1800))
OF_CONTAINERS = OF_POOLS[:2]
REFILL = timedelta(seconds=20)
"""How long a pool lacks the container that a claim took."""
LIMITS = {workload.id: workload for workload in WORKLOADS}


def write(rows: Rows, history: History) -> None:
    for pool in POOLS:
        _of_pool(rows, history, pool)
    for container in rows.of(Container):
        if container.state in (ContainerState.IDLE, ContainerState.CLAIMED):
            _of_container(rows, container)


def _times(rows: Rows, spans: tuple[tuple[timedelta, int], ...], since: datetime) -> Iterator[datetime]:
    """Oldest first."""
    at = max(since, rows.now - spans[-1][0])
    while at <= rows.now:
        yield at
        step = next(seconds for span, seconds in spans if rows.now - at <= span)
        at += timedelta(seconds=step)


def _of_pool(rows: Rows, history: History, pool: DemoPool) -> None:
    periods, chance = history.claimed_between(pool.id), rows.random
    workload = LIMITS[pool.workload]
    for at in _times(rows, OF_POOLS, rows.now - timedelta(days=rows.days)):
        claimed = sum(start <= at < end for start, end in periods)
        being_replaced = sum(timedelta(0) <= at - start < REFILL for start, _ in periods)
        idle = max(0, min(pool.max_size - claimed, pool.idle - being_replaced))
        busy = 0.22 + 0.1 * math.sin(at.timestamp() / 900)
        rows.add(
            PoolUsage, pool_id=pool.id, at=at, idle=idle, claimed=claimed, size=claimed + idle, waiting=0,
            desired_size=max(pool.min_size, claimed + pool.min_idle),
            cpu_cores=round(workload.cpus * (claimed * busy + idle * 0.004) * chance.uniform(0.85, 1.15), 3),
            memory_bytes=round(workload.memory_mb * MB * (0.45 * claimed + 0.12 * idle) * chance.uniform(0.97, 1.03)),
            disk_bytes=pool.state_bytes * claimed,
        )  # fmt: skip


def _of_container(rows: Rows, container: Container) -> None:
    chance, workload = rows.random, LIMITS[container.version.workload_id]
    is_claimed = container.state == ContainerState.CLAIMED
    share, memory = (0.25, 0.45) if is_claimed else (0.004, 0.12)
    cpu_ns, before, phase = 0, container.created_at, chance.uniform(0, 6)
    for at in _times(rows, OF_CONTAINERS, container.created_at + timedelta(seconds=2)):
        wave = 1 + 0.7 * math.sin(at.timestamp() / 240 + phase) + chance.gauss(0, 0.2)
        busy = workload.cpus * share * max(0.02, wave)
        cpu_ns += round((at - before).total_seconds() * busy * 1e9)
        memory = min(0.92, max(0.05, memory + chance.gauss(0, 0.004)))
        rows.add(
            ContainerUsage, container_id=container.pk, at=at, cpu_ns=cpu_ns, cores=round(busy, 3),
            pids=9 if is_claimed else 4, memory_bytes=round(workload.memory_mb * MB * memory),
            disk_bytes=container.disk_bytes,
        )  # fmt: skip
        before = at

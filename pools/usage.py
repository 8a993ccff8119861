"""Containers' resource use: cpu, memory and pids from cgroup files, read in 0.1 ms each (the engine's API takes 1 s).

Disk use is the last measurement: from the file system of a container with a disk limit, or from the walk that detects
activity and watches limits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from pools import quota
from pools.models import Container, ContainerUsage, Pool, PoolUsage
from pools.nodes import node_of
from pools.states import ContainerState

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_ns: int
    memory_bytes: int
    pids: int


def read(runtime_id: str, root: Path = CGROUP) -> Sample | None:
    """The current counters of a running container; None if it has no cgroup (it has ended)."""
    try:
        if (root / "cgroup.controllers").exists():
            return _read_v2(runtime_id, root)
        return _read_v1(runtime_id, root)
    except (FileNotFoundError, OSError, ValueError):
        return None


def _read_v1(runtime_id: str, root: Path) -> Sample | None:
    def value(controller: str, name: str) -> int:
        for parent in (f"docker/{runtime_id}", f"system.slice/docker-{runtime_id}.scope"):
            path = root / controller / parent / name
            if path.exists():
                return int(path.read_text())
        raise FileNotFoundError(name)

    memory = value("memory", "memory.usage_in_bytes")
    return Sample(value("cpuacct", "cpuacct.usage"), memory, value("pids", "pids.current"))


def _read_v2(runtime_id: str, root: Path) -> Sample | None:
    for parent in (f"system.slice/docker-{runtime_id}.scope", f"docker/{runtime_id}"):
        group = root / parent
        if group.is_dir():
            usage = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            memory, pids = (int((group / name).read_text()) for name in ("memory.current", "pids.current"))
            return Sample(int(usage["usage_usec"]) * 1000, memory, pids)
    return None


RUNNING = (ContainerState.IDLE, ContainerState.CLAIMED)
STANDS = 3
"""A sample counts as the present use for this many intervals; then its node has lost its workers."""


def sample() -> int:
    """Sample every running container of this node. Returns how many."""
    now = timezone.now()
    here = [row for row in Container.objects.filter(state__in=RUNNING) if node_of(row).is_here]
    before = _newest(here, now)
    samples: list[ContainerUsage] = []
    measured: list[Container] = []
    for container in here:
        used = quota.used_bytes(node_of(container).volumes.home(container.pk))
        if used is not None and used != container.disk_bytes:
            container.disk_bytes = used
            measured.append(container)
        if (usage := read(container.runtime_id)) is not None:
            samples.append(_sampled(container, usage, before.get(container.pk), now))
    with transaction.atomic():
        ContainerUsage.objects.bulk_create(samples)
        if measured:
            Container.objects.bulk_update(measured, ["disk_bytes"])
    return len(samples)


def _sampled(container: Container, usage: Sample, before: ContainerUsage | None, now: datetime) -> ContainerUsage:
    cores = None
    if before is not None and now > before.at:
        cores = max(0, usage.cpu_ns - before.cpu_ns) / 1e9 / (now - before.at).total_seconds()
    return ContainerUsage(
        container_id=container.pk, at=now, cpu_ns=usage.cpu_ns, memory_bytes=usage.memory_bytes, cores=cores,
        pids=usage.pids, disk_bytes=container.disk_bytes,
    )  # fmt: skip


def _newest(containers: Sequence[Container], now: datetime) -> dict[UUID, ContainerUsage]:
    """The last sample of each of these containers, whichever process took it; none that is too old."""
    since = now - STANDS * timedelta(seconds=float(settings.BOILERHOUSE_SAMPLE_EVERY_S))
    rows = ContainerUsage.objects.filter(container_id__in=[row.pk for row in containers], at__gt=since)
    return {row.container_id: row for row in rows.order_by("at")}


def sample_pools() -> None:
    """Add up each pool's containers by their newest samples, of whichever node."""
    now = timezone.now()
    containers = list(Container.objects.only("pk", "pool_id", "state"))
    running = [row for row in containers if row.state in RUNNING]
    newest = _newest(running, now)
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for container in containers:
        states[container.pool_id][container.state] += 1
    used: dict[str, list[ContainerUsage]] = defaultdict(list)
    for container in running:
        if container.pk in newest:
            used[container.pool_id].append(newest[container.pk])
    PoolUsage.objects.bulk_create(
        PoolUsage(
            pool=pool, at=now, idle=states[pool.pk][ContainerState.IDLE],
            claimed=states[pool.pk][ContainerState.CLAIMED], size=sum(states[pool.pk].values()), waiting=pool.waiting,
            desired_size=pool.desired_size(states[pool.pk][ContainerState.CLAIMED]),
            cpu_cores=round(sum(one.cores or 0.0 for one in used[pool.pk]), 3),
            memory_bytes=sum(one.memory_bytes for one in used[pool.pk]),
            disk_bytes=sum(one.disk_bytes or 0 for one in used[pool.pk]),
        )
        for pool in Pool.objects.all()
    )  # fmt: skip


def forget_old() -> int:
    """Delete samples past their retention. Returns how many."""
    now = timezone.now()
    old = now - timedelta(seconds=int(settings.BOILERHOUSE_USAGE_RETENTION_S))
    deleted = ContainerUsage.objects.filter(at__lt=old).delete()[0]
    old = now - timedelta(seconds=int(settings.BOILERHOUSE_POOL_USAGE_RETENTION_S))
    return deleted + PoolUsage.objects.filter(at__lt=old).delete()[0]

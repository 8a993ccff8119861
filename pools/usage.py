"""Containers' resource use: cpu, memory and pids from cgroup files, read in 0.1 ms each (the engine's API takes 1 s).

Disk use is the last measurement: from the file system of a container with a disk limit, or from the walk that detects
activity and watches limits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

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


_before: dict[str, tuple[Any, int]] = {}
"""Per engine id: time and CPU time of the last sample; used only for the rate."""


def sample() -> int:
    """Sample every running container of this node and every pool. Returns the number of containers."""
    now = timezone.now()
    samples: list[ContainerUsage] = []
    cores: dict[str, float] = defaultdict(float)
    memory: Counter[str] = Counter()
    disk: Counter[str] = Counter()
    states: dict[str, Counter[str]] = defaultdict(Counter)
    measured: list[Container] = []
    for container in Container.objects.all():
        states[container.pool_id][container.state] += 1
        node = node_of(container)
        if container.state not in (ContainerState.IDLE, ContainerState.CLAIMED) or not node.is_here:
            continue
        used = quota.used_bytes(node.volumes.home(container.pk))
        if used is not None and used != container.disk_bytes:
            container.disk_bytes = used
            measured.append(container)
        usage = read(container.runtime_id)
        if usage is None:
            continue
        before = _before.get(container.runtime_id)
        _before[container.runtime_id] = (now, usage.cpu_ns)
        used_cores = None
        if before and now > before[0]:
            used_cores = max(0, usage.cpu_ns - before[1]) / 1e9 / (now - before[0]).total_seconds()
            cores[container.pool_id] += used_cores
        memory[container.pool_id] += usage.memory_bytes
        disk[container.pool_id] += container.disk_bytes or 0
        samples.append(
            ContainerUsage(
                container_id=container.pk, at=now, cpu_ns=usage.cpu_ns, memory_bytes=usage.memory_bytes,
                cores=used_cores, pids=usage.pids, disk_bytes=container.disk_bytes,
            )
        )  # fmt: skip
    for runtime_id in [key for key, (at, _) in _before.items() if at != now]:
        del _before[runtime_id]
    with transaction.atomic():
        ContainerUsage.objects.bulk_create(samples)
        PoolUsage.objects.bulk_create(
            PoolUsage(
                pool=pool, at=now, idle=states[pool.pk][ContainerState.IDLE],
                claimed=states[pool.pk][ContainerState.CLAIMED], size=sum(states[pool.pk].values()),
                waiting=pool.waiting, desired_size=pool.desired_size(states[pool.pk][ContainerState.CLAIMED]),
                cpu_cores=round(cores[pool.pk], 3), memory_bytes=memory[pool.pk], disk_bytes=disk[pool.pk],
            )
            for pool in Pool.objects.all()
        )  # fmt: skip
        if measured:
            Container.objects.bulk_update(measured, ["disk_bytes"])
    return len(samples)


def forget_old() -> int:
    """Delete samples past their retention. Returns how many."""
    now = timezone.now()
    old = now - timedelta(seconds=int(settings.BOILERHOUSE_USAGE_RETENTION_S))
    deleted = ContainerUsage.objects.filter(at__lt=old).delete()[0]
    old = now - timedelta(seconds=int(settings.BOILERHOUSE_POOL_USAGE_RETENTION_S))
    return deleted + PoolUsage.objects.filter(at__lt=old).delete()[0]

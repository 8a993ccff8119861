"""What this machine has and does now, and the images on it: as an operator looks at one node."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from django.db.models import Count, F, Max

from boilerhouse.core.deployment import data_dir, node_id, ram_dir
from pools.errors import ImageMissing
from pools.models import Container, Workload, WorkloadVersion
from pools.runtime import get_runtime

LOOK_S = 0.2
"""How long processors are watched to say how busy they are."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Something of which a part is used, in bytes."""

    used: int
    whole: int

    @property
    def free(self) -> int:
        return self.whole - self.used

    @property
    def percent(self) -> int:
        return round(100 * self.used / self.whole) if self.whole else 0


@dataclass(frozen=True, slots=True)
class Now:
    """The machine at this moment."""

    cpus: int
    cpu_percent: int
    load: float
    """Processes that run or want to, on average over the last minute."""
    memory: Amount
    disk: Amount
    """The file system of the data directory."""
    ram: Amount | None
    """The file system of secrets; None before the first container."""
    containers: dict[str, int]
    """Containers of this node by state."""


def now() -> Now:
    """Takes a fifth of a second. Raises OSError."""
    busy = _cpu_percent()
    states = Container.objects.filter(node_id=node_id()).values_list("state").annotate(n=Count("pk")).order_by("state")
    ram = ram_dir()
    return Now(
        os.cpu_count() or 1, busy, os.getloadavg()[0], _memory(), _disk(data_dir()),
        _disk(ram) if ram.is_dir() else None, dict(states.values_list("state", "n")),
    )  # fmt: skip


def _disk(path: Path) -> Amount:
    usage = shutil.disk_usage(path)
    return Amount(usage.total - usage.free, usage.total)


def _memory() -> Amount:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    whole, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return Amount(whole - free, whole)


def _cpu_percent() -> int:
    before = _ticks()
    time.sleep(LOOK_S)
    after = _ticks()
    whole = after[1] - before[1]
    return round(100 * (after[0] - before[0]) / whole) if whole > 0 else 0


def _ticks() -> tuple[int, int]:
    """Busy and all clock ticks of all processors since the start of the machine."""
    with open("/proc/stat") as file:
        values = [int(value) for value in file.readline().split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)


@dataclass(slots=True)
class ImageUse:
    """An image that a workload names or a container of this node runs."""

    name: str
    id: str = ""
    """Empty if it is not on this node."""
    size_bytes: int = 0
    workloads: set[str] = field(default_factory=set)
    containers: int = 0
    """How many containers of this node run it."""


def images() -> list[ImageUse]:
    """The largest first, then those that are not on this node. Raises EngineUnavailable."""
    newest = Workload.objects.annotate(newest=Max("versions__number")).values_list("pk", "newest")
    uses: dict[tuple[str, str], ImageUse] = {}
    versions = WorkloadVersion.objects.in_bulk()
    by_name = {(version.workload_id, version.number): version for version in versions.values()}
    for key in newest:
        if (version := by_name.get(key)) is not None:
            _use(uses, version.spec.image, version.image_digest).workloads.add(version.workload_id)
    running = Container.objects.filter(node_id=node_id()).values_list("version_id", "image_digest")
    for version_id, digest, count in running.annotate(n=Count("pk"), v=F("version_id")).values_list(
        "version_id", "image_digest", "n"
    ):
        version = versions[version_id]
        use = _use(uses, version.spec.image, digest or version.image_digest)
        use.workloads.add(version.workload_id)
        use.containers += count
    return sorted(_by_image(uses).values(), key=lambda use: (not use.id, -use.size_bytes, use.name))


def _use(uses: dict[tuple[str, str], ImageUse], name: str, digest: str) -> ImageUse:
    return uses.setdefault((name, digest), ImageUse(name))


def _by_image(uses: dict[tuple[str, str], ImageUse]) -> dict[str, ImageUse]:
    """The images at the engine, each once, however many names lead to it."""
    merged: dict[str, ImageUse] = {}
    runtime = get_runtime()
    missing: dict[str, ImageUse] = defaultdict(lambda: ImageUse(""))
    for (name, digest), use in uses.items():
        try:
            image = runtime.find_image(digest or name)
        except ImageMissing:
            removed = missing[name]
            removed.name, removed.containers = name, removed.containers + use.containers
            removed.workloads |= use.workloads
            continue
        image_use = merged.setdefault(image.id, ImageUse(name, image.id, image.size_bytes))
        image_use.workloads |= use.workloads
        image_use.containers += use.containers
    return {**merged, **missing}

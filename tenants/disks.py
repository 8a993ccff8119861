"""Disk use of claimed containers: measured, and limited where no file system does it and where the node's disk runs
low.

A thread of the controller measures them one after another, mostly idle. Tenants above a limit are saved and released.
When the node's disk is low and still filling, the fastest-growing tenant is released too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog
from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import QuerySet

from boilerhouse.core import compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.deployment import node_id
from boilerhouse.process.steps import steps
from pools import health_reports, host, quota, reserve, unlinked_files, volumes
from pools.errors import DirectoryGone
from pools.models import Container
from pools.nodes import node_of
from pools.quota import Limit
from pools.spec import WorkloadSpec
from pools.states import Fault
from tenants import releases
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason, ReleaseStep

log = structlog.get_logger("boilerhouse.controller")

EVERY_S, LOW_EVERY_S, LOOK_S, REST_LOOK_S = 10.0, 1.0, 1.0, 3.0
"""How often a container is measured, also while the disk is low, and whether one is due, also while none is in use."""
REST = 9
"""The pause after a measurement, as a multiple of its duration: at most a tenth of one core. None while the disk is
low."""
DEAR = 20
"""The minimum interval of a container, as a multiple of its duration, so that one with many files does not delay
others."""
LONGEST_S = 30.0
"""A measurement that takes longer counts as exceeding the limit."""
LEAST_GROWTH = 1 << 20
WORTH_NOTING = 1 << 16
"""A smaller change is not stored: with SQLite, claims would wait for it."""
STOPS_WITHIN_S = 10.0
"""How long to wait for a released container to end before the next one is released."""
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """The last measurement of a container."""

    at: float
    """Time by the monotonic clock."""
    took_s: float
    bytes: int
    growth: int = 0
    """Growth in bytes since the previous measurement."""
    since_s: float = 0

    def beyond(self, before: Measured | None) -> Measured:
        """The same, with the growth since another measurement; all of a new container is growth."""
        was, at = (before.bytes, before.at) if before else (0, self.at)
        return replace(self, growth=self.bytes - was, since_s=self.at - at)


def measure(container: Container, spec: WorkloadSpec, most: Limit | None) -> volumes.Walked:
    """The container's disk use; a walk that exceeds ``most`` ends there. Raises DirectoryGone."""
    directories, container_id = node_of(container).volumes, container.pk
    used = quota.used_bytes(directories.home(container_id))
    if used is not None:
        return volumes.Walked(bytes=used)
    bounds = volumes.WalkBounds(
        entries=most.files if most else int(settings.BOILERHOUSE_MAX_SAVE_FILES),
        bytes=most.bytes if most else volumes.ANY_SIZE,
        seconds=LONGEST_S,
    )
    names = [volume.name for volume in spec.volumes if volume.name != "secrets"]
    walk = directories.walk(container_id, names, bounds)
    unlinked_bytes, are_all = unlinked_files.held_bytes(container.runtime_id, directories.home(container_id))
    walk.bytes += unlinked_bytes
    walk.is_complete &= are_all
    return walk


def excess(walk: volumes.Walked, limit: Limit) -> str:
    """Why the use exceeds the limit, as text; empty if it does not."""
    if walk.bytes > limit.bytes:
        return f"The container uses at least {walk.bytes >> 20} MiB on disk; {limit.name} allows {limit.mb}."
    if walk.entries > limit.files:
        return f"The container has at least {walk.entries} files; {limit.name} allows {limit.files}."
    if not walk.is_complete:
        deep = volumes.MAX_WALK_DEPTH
        return (
            f"The container's disk use cannot be measured: directories are more than {deep} levels deep, or"
            f" counting its {walk.entries} or more files, or its open ones, takes too long. This counts as"
            f" exceeding {limit.name}."
        )
    return ""


def check(assignment_id: UUID) -> volumes.Walked | None:
    """Measure the tenant's container, and release the tenant if it exceeds a limit that no file system enforces.

    None if the container was released meanwhile or is on another node. Raises DirectoryGone: then nothing is known and
    nothing is decided.
    """
    rows = Assignment.objects.filter(pk=assignment_id, state=AssignmentState.ASSIGNED)
    row = rows.select_related("version", "container").first()
    if row is None or row.version is None or row.container is None:
        return None
    node = node_of(row)
    if not node.is_here:
        return None
    container_id, spec = row.held_container, row.version.spec
    limit = quota.limit_of(spec.resources)
    try:
        walk = measure(row.container, spec, limit)
    except DirectoryGone:
        if rows.exists():
            raise
        return None
    is_new = row.container.disk_bytes is None or abs(walk.bytes - row.container.disk_bytes) >= WORTH_NOTING
    if is_new and not reserve.is_needed():
        Container.objects.filter(pk=container_id).update(disk_bytes=walk.bytes)
    if limit is None or quota.used_bytes(node.volumes.home(container_id)) is not None:
        return walk
    if words := excess(walk, limit):
        release(assignment_id, words)
    return walk


def release(assignment_id: UUID, words: str) -> bool:
    """Save and release the tenant for its disk use; ``words`` is the message for its events. False if another was
    first."""
    row = Assignment.objects.filter(pk=assignment_id, state=AssignmentState.ASSIGNED).first()
    if row is None:
        return False
    health_reports.report_fault(row.held_container, Fault.DISK, f"{words} It is saved and released.")
    return releases.fence(Assignment.objects.filter(pk=assignment_id), reason=ReleaseReason.DISK)


def _rows() -> QuerySet[Assignment]:
    """This node's tenants."""
    return Assignment.objects.filter(state=AssignmentState.ASSIGNED, container__in=Container.objects.here())


@compiled.cached
def _any_held(_node: str) -> Compiled:
    return compiled.selection(_rows().order_by().values_list("pk")[:1])


class DiskWatch:
    """Measures this node's claimed containers while ``is_watching`` returns True."""

    def __init__(self, is_watching: Callable[[], bool], stop: threading.Event) -> None:
        self._is_watching, self._stop = is_watching, stop
        self._measured: dict[UUID, Measured] = {}
        self._known: dict[UUID, float] = {}
        """When each was first seen claimed, by the monotonic clock: a container is not measured while many claims are
        in progress."""
        self._free_mb: int | None = None
        """The free space at the last look, while it is below the floor."""
        self._before_low: dict[UUID, Measured] = {}
        """The last measurements before the disk became low."""
        self._released: tuple[UUID, float] | None = None
        """The last tenant that was released because of the floor, and when."""

    def start(self) -> None:
        threading.Thread(target=self._forever, name="disk_watch", daemon=True).start()

    def _forever(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while not self._stop.wait(LOOK_S if self._known else REST_LOOK_S):
                if not self._is_watching():
                    self._measured.clear()
                    continue
                if not steps.attempt("disk_watch", self._turn):
                    connection.close()
        finally:
            connection.close()

    def _turn(self) -> None:
        close_old_connections()
        self.look()

    def look(self) -> None:
        """Measure the containers that are due; while the node's disk is low, all, and release the fastest-growing one
        if it still fills."""
        in_use = dict(_rows().values_list("pk", "container_ref")) if _any_held(node_id()).exists() else {}
        self._measured = {pk: measurement for pk, measurement in self._measured.items() if pk in in_use}
        self._known = {pk: self._known.get(pk, time.monotonic()) for pk in in_use}
        is_low = host.disk_is_low()
        if not is_low:
            reserve.keep()
            self._before_low = dict(self._measured)
        for pk in self._due(in_use, LOW_EVERY_S if is_low else EVERY_S):
            if self._stop.is_set() or not self._is_watching():
                return
            steps.attempt("measure_disk", partial(self._measure, pk))
        if is_low:
            self._keep_floor(in_use)
        else:
            self._free_mb = None

    def _due(self, in_use: Iterable[UUID], every_s: float) -> list[UUID]:
        now = time.monotonic()

        def is_due(pk: UUID) -> bool:
            last = self._measured.get(pk)
            if last is None:
                return now - self._known[pk] >= every_s
            return now - last.at >= max(every_s, DEAR * last.took_s)

        def cost(pk: UUID) -> float:
            return self._measured[pk].took_s if pk in self._measured else 0.0

        return sorted(filter(is_due, in_use), key=cost)

    def _measure(self, pk: UUID) -> None:
        began, before = time.monotonic(), self._measured.get(pk)
        measurement = check(pk)
        took_s = time.monotonic() - began
        if measurement is not None:
            growth = measurement.bytes - before.bytes if before else 0
            self._measured[pk] = Measured(began, took_s, measurement.bytes, growth, began - before.at if before else 0)
        if self._free_mb is None:
            self._stop.wait(REST * took_s)

    def _keep_floor(self, in_use: Iterable[UUID]) -> None:
        free_mb, before = host.free_disk_mb(), self._free_mb
        self._free_mb = free_mb
        is_full = reserve.is_needed()
        if not is_full and (before is None or free_mb >= before):
            return
        if self._is_one_ending():
            return
        grown = {pk: self._measured[pk] for pk in in_use if pk in self._measured}
        if is_full:  # no growth is possible any more, so compare by past growth
            grown = {pk: measurement.beyond(self._before_low.get(pk)) for pk, measurement in grown.items()}
        worst = max(grown, key=lambda pk: grown[pk].growth, default=None)
        if worst is None or grown[worst].growth < LEAST_GROWTH:
            log.warning("disk fills up, but not with tenants' volumes", free_mb=free_mb)
            return
        measurement, self._released = grown[worst], (worst, time.monotonic())
        if is_full:
            reserve.give()
        release(
            worst,
            f"Only {free_mb} MiB of the node's disk are free (BOILERHOUSE_DISK_FLOOR_MB is"
            f" {settings.BOILERHOUSE_DISK_FLOOR_MB}), and less and less. This tenant's use grows the fastest: by"
            f" {measurement.growth >> 20} MiB within {measurement.since_s:.0f} s.",
        )

    def _is_one_ending(self) -> bool:
        if self._released is None or time.monotonic() - self._released[1] > STOPS_WITHIN_S:
            return False
        stopping = Assignment.objects.filter(state=AssignmentState.RELEASING, step=ReleaseStep.STOPPING)
        return stopping.filter(pk=self._released[0]).exists()

"""Executes pulls: takes a requested one, follows it to its end, and records progress and result.

One pull at a time of an image, a limited number per node, and at most half of them from one registry, so a slow one
leaves capacity to others. There is no deadline; a pull ends when it makes no progress (ADR 35).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Set
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from boilerhouse.core import compiled
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.deployment import node_id
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Deployment
from boilerhouse.process import processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues.tasks import enqueue
from pools import image_pulls, pull_errors, references, registry_logins
from pools.errors import EngineUnavailable
from pools.instruments import IMAGE_PULL_SECONDS, IMAGE_PULLS
from pools.models import Container, ImagePull
from pools.nodes import node_of
from pools.pull_errors import PullFailed, PullFault
from pools.runtime import get_runtime
from pools.runtime.base import Pull, PullProgress
from pools.states import PULLING, ContainerState, PullState

log = structlog.get_logger(__name__)

TELL_AT_MOST_S, TELL_FIRST_S = 5.0, 0.5
"""Progress is recorded less often the longer a pull takes, and not at all if there is nothing to fetch."""
_SPEED_S = 10.0
_KEEP = timedelta(hours=1)


def _requested(node: str) -> QuerySet[ImagePull]:
    """The node's pulls that have not ended."""
    return ImagePull.objects.filter(node_id=node, state__in=PULLING)


def is_any_requested() -> bool:
    """Whether this node has a pull that has not ended."""
    return _any_requested(node_id()).exists()


@compiled.cached
def _any_requested(node: str) -> Compiled:
    return compiled.selection(_requested(node).order_by().values_list("pk")[:1])


def take(taken_ids: Set[int]) -> ImagePull | None:
    """Take this node's oldest requested pull that no living process executes; None without one, or without a free slot.
    ``taken_ids`` are those of this process."""
    rows = _requested(node_id())
    if not rows.exists():
        return None
    with recording():
        Deployment.objects.select_for_update(no_key=True).get()  # one process at a time counts
        me, living, running = processes.current(), processes.living(), Counter[str]()
        free = []
        for row in rows.order_by("asked_at", "pk"):
            is_mine = row.owner == me and row.pk in taken_ids
            if is_mine or (row.owner in living and row.owner != me):
                running[_registry(row)] += 1
            else:
                free.append(row)
        most = int(settings.BOILERHOUSE_PARALLEL_PULLS)
        for row in free if running.total() < most else ():
            if running[_registry(row)] < max(1, most // 2):
                mine = ImagePull.objects.filter(pk=row.pk, owner=row.owner)
                if not mine.transition(PullState(row.state), PullState.RUNNING, owner=me, started_at=Now()):
                    continue  # it has just ended
                row.refresh_from_db()
                return row
    return None


def _registry(row: ImagePull) -> str:
    return references.parse(row.image).registry


class PullRun:
    """One pull of this process. ``moved_at`` and ``is_in_line`` may be read by other threads."""

    def __init__(self, row: ImagePull) -> None:
        self.row, self.reference = row, references.parse(row.image)
        self.moved_at = self._began = self._told_at = time.monotonic()
        self._progress = PullProgress()
        self._speed = (self._began, 0)
        self._per_second = 0.0
        self._has_told = False
        self._given_up: PullFault | None = None
        self._pull: Pull | None = None

    @property
    def is_in_line(self) -> bool:
        return self._progress.is_in_line

    def give_up(self, *, is_stalled: bool) -> None:
        """Abort it: it made no progress for too long, or is no longer needed."""
        self._given_up = PullFault.STALLED if is_stalled else PullFault.UNWANTED
        if self._pull is not None:
            self._pull.close()

    def run(self) -> None:
        """Pull to the end and record the result."""
        failure: PullFailed | None = None
        try:
            login = registry_logins.login_for(self.reference)
            patience_s = float(settings.BOILERHOUSE_TRANSFER_STALL_S)
            self._pull = get_runtime().pull(self.reference, login, patience_s)
            for progress in self._pull:
                self._hear(progress)
        except PullFailed as error:
            failure = error
        except EngineUnavailable as error:
            failure = self._broken_off() or PullFailed(error.detail, PullFault.ENGINE_DOWN)
        except DATABASE_LOST:
            raise
        except Exception as error:  # whatever failed, the row must not stay "running" under a living owner
            detail = error.detail if isinstance(error, BoilerhouseError) else type(error).__name__
            log.exception("pull failed unexpectedly", image=self.row.image)
            failure = PullFailed(f"Image {self.row.image} cannot be pulled: {detail}")
        self._finish(failure)

    def _broken_off(self) -> PullFailed | None:
        if self._given_up is None:
            return None
        words = "it is no longer needed"
        if self._given_up == PullFault.STALLED:
            words = f"{self.reference.registry} has sent nothing for {settings.BOILERHOUSE_TRANSFER_STALL_S} s"
        return pull_errors.pull_failed(self.reference, words, self._given_up)

    def _hear(self, progress: PullProgress) -> None:
        self.moved_at, self._progress = time.monotonic(), progress
        elapsed = self.moved_at - self._began
        if self.moved_at - self._told_at < min(TELL_AT_MOST_S, max(TELL_FIRST_S, elapsed / 60)):
            return
        self._told_at, self._has_told = self.moved_at, True
        state = self._shown()
        try:
            self._tell(state)
        except DATABASE_LOST:
            connection.close()  # the engine pulls without it

    def _tell(self, progress: dict[str, Any]) -> None:
        with recording():
            ImagePull.objects.filter(pk=self.row.pk, owner=processes.current()).update(progress=progress)
            for pool_id in self._pools():
                emit("pool.pulling", pool_id=pool_id, image=self.row.image, **progress)

    def _pools(self) -> list[str]:
        waiting = Container.objects.filter(pull=self.row, state=ContainerState.STARTING)
        return list(waiting.order_by("pool").values_list("pool", flat=True).distinct())

    def _shown(self) -> dict[str, Any]:
        now = self._progress
        began, before = self._speed
        if (seconds := time.monotonic() - began) >= 1:
            self._per_second = (now.bytes - before) / seconds
        if seconds >= _SPEED_S:
            self._speed = (time.monotonic(), now.bytes)
        total = now.estimated_bytes
        remaining = max(0, total - now.bytes)
        return {
            "phase": "extracting" if now.is_extracting else "downloading",
            "bytes": now.bytes,
            "totalBytes": now.known_bytes if now.is_size_known else None,
            "percent": round(100 * now.bytes / total, 1) if total else None,
            "bytesPerSecond": round(self._per_second),
            "etaMs": round(1000 * remaining / self._per_second) if self._per_second >= 1 and total else None,
            "layers": now.layers,
            "layersDone": now.layers_done,
        }

    def _finish(self, failure: PullFailed | None) -> None:
        """Record the result, and resume the waiting starts, which read it from the row."""
        ms = round((time.monotonic() - self._began) * 1000)
        result = failure.fault.value if failure else "done"
        changes: dict[str, Any] = {"error": "", "fault": ""}
        if failure is not None:
            changes = {"error": failure.detail, "fault": failure.fault}
        if failure is None and self._progress.digest:
            changes["digest"] = self._progress.digest
        with recording():
            mine = ImagePull.objects.select_for_update(no_key=True).filter(pk=self.row.pk, owner=processes.current())
            pull = mine.filter(state=PullState.RUNNING).first()
            if pull is None:
                return  # another process took it over, and records it
            ended = PullState.FAILED if failure else PullState.DONE
            mine.transition(PullState.RUNNING, ended, owner=None, finished_at=Now(), **changes)
            for pk in Container.objects.filter(pull=pull, state=ContainerState.STARTING).values_list("pk", flat=True):
                node_of(pull).queue.put("pool", "pools.tasks.create_container", pk)
            if failure is None:
                if fetched := self._progress.bytes:
                    payload: dict[str, Any] = {"durationMs": ms, "bytes": fetched, "digest": self._progress.digest}
                    for pool_id in self._pools():
                        emit("pool.pulled", pool_id=pool_id, image=pull.image, **payload)
                for pool_id in image_pulls.clear_failures(pull):
                    enqueue("pool", "pools.tasks.refill", pool_id)
        IMAGE_PULLS.labels(result).inc()
        IMAGE_PULL_SECONDS.observe(ms / 1000)
        log.info("image pulled" if failure is None else "image not pulled", image=self.row.image, result=result, ms=ms)


def forget_old() -> int:
    """Delete rows of pulls that ended an hour ago and that nothing refers to; return how many."""
    old = ImagePull.objects.exclude(state__in=PULLING).filter(waiting=None, pools=None)
    return old.filter(finished_at__lt=Now() - _KEEP).delete()[0]

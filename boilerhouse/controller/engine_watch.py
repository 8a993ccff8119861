"""Follows the engine's events and reconciles: at start, on each reconnect, when an event requires it, and every few
seconds.

It runs in its own threads beside the controller's steps, so an engine that hangs blocks nothing else. Events only make
reconciliation faster; the engine's list of containers is authoritative.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import structlog
from django.conf import settings
from django.db import close_old_connections, connection

from boilerhouse.process.steps import steps
from pools import health_reports, host, lifecycle, reconcile
from pools.errors import EngineUnavailable, EngineUnsupported
from pools.models import Container, Pool
from pools.runtime import get_runtime
from pools.runtime.base import EngineEvent
from pools.states import ContainerState, Trouble
from tenants import upkeep

log = structlog.get_logger("boilerhouse.controller")

DOWN_EVERY_S, OOM_WITHIN_S = 1.0, 10.0


def _turn(target: Callable[[], None]) -> None:
    close_old_connections()
    target()


class EngineWatch:
    """Reconciles this node's rows with its engine while ``is_watching`` returns True."""

    def __init__(self, is_watching: Callable[[], bool], stop: threading.Event) -> None:
        self._is_watching, self._stop = is_watching, stop
        self._due = threading.Event()
        self._is_down = False
        self._oom: dict[str, float] = {}

    def start(self) -> None:
        for target in (self._listen, self._reconcile):
            threading.Thread(target=self._forever, args=(target,), name=target.__name__, daemon=True).start()

    def _forever(self, target: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                if not self._is_watching():
                    self._stop.wait(0.2)
                    continue
                if not steps.attempt(f"engine{target.__name__}", partial(_turn, target)):
                    connection.close()
                    self._stop.wait(0.5)
        finally:
            connection.close()

    def _listen(self) -> None:
        """Follow the stream until it ends, which it does without an error if the engine stops."""
        events = get_runtime().events(host.labels())
        self._due.set()  # open the stream before listing, so that no event is missed
        try:
            for event in events:
                if not self._is_watching():
                    return
                close_old_connections()
                self._handle(event)
        finally:
            self._due.set()
        self._stop.wait(0.5)

    def _handle(self, event: EngineEvent) -> None:
        try:
            container_id = UUID(event.labels.get(lifecycle.CONTAINER_LABEL, ""))
        except ValueError:
            return
        if event.kind == "oom":
            self._oom = {k: at for k, at in self._oom.items() if time.monotonic() - at < OOM_WITHIN_S}
            self._oom[event.runtime_id] = time.monotonic()
            return
        rows = Container.objects.filter(pk=container_id, state__in=[ContainerState.IDLE, ContainerState.CLAIMED])
        if not rows.exists():
            return  # a start or a removal; the process that does it knows the result
        if event.kind == "health":
            health_reports.report_health(container_id, event.health)
            upkeep.release_unhealthy()
        else:
            was_oom = time.monotonic() - self._oom.get(event.runtime_id, -OOM_WITHIN_S) < OOM_WITHIN_S
            if reconcile.look_at(container_id, is_oom=was_oom and event.exit_code == 137):
                upkeep.release_dead()

    def _reconcile(self) -> None:
        self._due.wait(DOWN_EVERY_S if self._is_down else settings.BOILERHOUSE_RECONCILE_EVERY_S)
        self._due.clear()
        if not self._is_watching():
            return
        close_old_connections()
        try:
            healed = reconcile.heal(upkeep.held_containers())
        except EngineUnavailable as error:
            self._is_down = True
            start = " Start it (systemctl start docker); the pool then recovers by itself."
            reconcile.engine_is_down(error.detail + ("" if isinstance(error, EngineUnsupported) else start))
            return
        if self._is_down or Pool.objects.filter(trouble=Trouble.ENGINE_DOWN).exists():
            reconcile.engine_is_back()
        self._is_down = False
        upkeep.release_dead()
        if healed:
            log.info("reconciled", healed=healed)

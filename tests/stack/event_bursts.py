"""Bursts of events, and the web process that sends them to its clients."""

from __future__ import annotations

from typing import Any

from boilerhouse.core.events import emit


def emit_events(pool: str, count: int = 1, **more: Any) -> None:
    for number in range(count):
        emit("pool.scaled", pool_id=pool, number=number, **more)


def web_pid(stack: Any) -> int:
    from boilerhouse.core.models import Process
    from boilerhouse.process import processes

    living = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WEB)
    return int(living.latest("started_at").pid)

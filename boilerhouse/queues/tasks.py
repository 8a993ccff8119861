"""The interface to django-q2: how tasks are enqueued, and how their errors are handled.

django-q2 only transports messages: a message carries ids, and the row is authoritative. Enqueueing in the transaction
that changes the row makes the ORM broker an outbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import structlog
from django_q.tasks import async_task

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.process import ownership
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues.broker import Broker
from boilerhouse.telemetry import tracing
from boilerhouse.telemetry.instruments import TASK_SECONDS, TASKS

log = structlog.get_logger(__name__)
P = ParamSpec("P")
_joining: set[str] = set()


def enqueue(queue: str, function: str, *ids: Any, node: str | None = None, after_s: float = 0.0) -> None:
    """Put ``function(*ids)`` on ``queue``; it is visible to workers when the transaction commits.

    With ``node``, it waits for a worker of that node, however long; without, any worker takes it. No worker takes it
    before ``after_s`` seconds have passed: a task can reschedule itself instead of blocking its worker.
    """
    origin: dict[str, Any] = {"asked_by": context.request_id()} if context.request_id() else {}
    if trace := tracing.carrier():
        origin["trace"] = trace
    options: dict[str, Any] = {"save": False, "broker": Broker.to(queue, node, after_s)}
    async_task(function, *[str(value) for value in ids], **origin, cluster=queue, q_options=options)


def task(function: Callable[P, None]) -> Callable[..., None]:
    """Run the function as a task. Errors are logged by class and code only, because django-q2 stores tracebacks.

    The controller finds unfinished work from the row. Logs and events carry the id of the request that enqueued the
    task.
    """

    @wraps(function)
    def run(*args: Any, asked_by: str = "", trace: dict[str, str] | None = None) -> None:
        started, result = time.monotonic(), "failed"
        name = f"{function.__module__}.{function.__name__}"
        logs = structlog.contextvars.bound_contextvars(task=name)
        with context.acting("system", asked_by), logs, ownership.unit_of_work():
            try:
                with tracing.span(f"task {name}", trace or {}):
                    function(*args)  # type: ignore[call-arg]
            except DATABASE_LOST as error:
                log.warning("task lost the database connection", error=type(error).__name__, detail=str(error)[:300])
                ownership.give_up()
            except BoilerhouseError as error:
                log.warning("task failed", code=error.code, detail=error.detail)
            except Exception as error:
                log.error(
                    "task failed unexpectedly",
                    error=type(error).__name__,
                    where=_where(error),
                    detail=str(error)[:300],
                )
            else:
                result = "done"
                log.debug("task done", ms=round((time.monotonic() - started) * 1000))
            finally:
                TASKS.labels(name, result).inc()
                TASK_SECONDS.labels(name).observe(time.monotonic() - started)

    return run


def joins(function: Callable[..., None]) -> Callable[..., None]:
    """Let messages for the task with equal arguments join: it runs once for all that are queued when it begins.

    For a task that reads everything it needs after it has begun.
    """
    _joining.add(f"{function.__module__}.{function.__name__}")
    return function


def is_joining(function: str) -> bool:
    """Whether messages for the task of that name join. Its module must have been imported."""
    return function in _joining


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""

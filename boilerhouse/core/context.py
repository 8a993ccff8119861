"""The current actor and request id, recorded in events and logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

SYSTEM = "system"
_actor: ContextVar[str] = ContextVar("actor", default=SYSTEM)
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_queue: ContextVar[str] = ContextVar("queue", default="")


def actor() -> str:
    """``key <name>``, ``user <name>``, ``command <name>`` or ``system``."""
    return _actor.get()


def request_id() -> str:
    return _request_id.get()


def queue() -> str:
    """The queue whose task is running here; empty outside tasks."""
    return _queue.get()


def serve(queue: str) -> None:
    """Mark this thread as one that runs tasks of ``queue``."""
    _queue.set(queue)


def set_actor(value: str) -> None:
    _actor.set(value)


def for_whom(asked_by: str) -> str:
    """The actor; where that is the system, the one who asked for the work that a worker does."""
    return asked_by if actor() == SYSTEM and asked_by else actor()


@contextmanager
def acting_for(asked_by: str) -> Iterator[None]:
    """Within the block, the work is attributed to the one who asked for it; ``asked_by`` is empty if nobody did."""
    with acting(for_whom(asked_by), request_id()):
        yield


@contextmanager
def acting(actor: str, request_id: str = "") -> Iterator[None]:
    """Within the block, events and logs carry ``actor`` and ``request_id``."""
    tokens = _actor.set(actor), _request_id.set(request_id)
    try:
        with structlog.contextvars.bound_contextvars(**({"request_id": request_id} if request_id else {})):
            yield
    finally:
        _actor.reset(tokens[0])
        _request_id.reset(tokens[1])

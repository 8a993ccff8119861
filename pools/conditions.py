"""A pool's condition: reported when it begins and when it ends, and stored in the row with a message to act on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from boilerhouse.core import clock
from boilerhouse.core.events import emit
from pools.models import Pool
from pools.states import Trouble

BACKOFF_S = (1, 2, 5, 10, 30, 60)


def rests(pool: Pool) -> bool:
    """Whether the pool is in the back-off after a failed start."""
    return pool.next_start_at is not None and pool.next_start_at > clock.now()


def back_off(pool: Pool) -> dict[str, Any]:
    """The row's changes after another failed start; none during the back-off, because simultaneous failures count
    once."""
    if rests(pool):
        return {}
    delay = BACKOFF_S[min(pool.failures, len(BACKOFF_S) - 1)]
    return {"failures": pool.failures + 1, "next_start_at": clock.now() + timedelta(seconds=delay)}


def report(pool: Pool, kind: Trouble, detail: str, **changes: Any) -> None:
    """Record why the pool cannot start containers; call it in a transaction. Emits a warning if the kind is new."""
    is_new = (pool.trouble, pool.last_error) != (kind, detail)
    is_news = pool.trouble != kind or (is_new and kind in (Trouble.START_FAILED, Trouble.ROLL_HALTED))
    if pool.trouble != kind:
        changes |= {"trouble_since": clock.now()}
    if is_new or changes:
        Pool.objects.filter(pk=pool.pk).update(trouble=kind, last_error=detail, **changes)
        pool.trouble, pool.last_error = kind, detail
    if is_news:
        emit("pool.warning", pool_id=pool.pk, trouble=kind.value, detail=detail)


def clear(pool: Pool) -> None:
    """Record that the pool starts containers again: clears the condition and the back-off, and emits an event.

    A roll that was stopped is retried once, because it may have had the same cause.
    """
    if not (pool.trouble or pool.last_error or pool.failures or pool.next_start_at):
        return
    Pool.objects.filter(pk=pool.pk).update(
        trouble="", last_error="", failures=0, next_start_at=None, halted_version=None, halted_network=None
    )
    if pool.trouble:
        emit("pool.recovered", pool_id=pool.pk, trouble=pool.trouble)
    pool.trouble = pool.last_error = ""

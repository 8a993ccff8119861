"""All present causes, most urgent first."""

from __future__ import annotations

from collections.abc import Sequence

from boilerhouse.attention import pool_causes, process_causes, save_causes
from boilerhouse.attention.cause import Cause, Severity


def present(pools: Sequence[pool_causes.Row] | None = None) -> list[Cause]:
    """Everything that needs an operator now. Needs no request; reads rows only, and asks neither sink nor engine.

    ``pools``: the pools with their statuses, if the caller has them already.
    """
    causes = save_causes.present() + pool_causes.present(pool_causes.rows() if pools is None else pools)
    return ordered(causes + process_causes.present())


def ordered(causes: Sequence[Cause]) -> list[Cause]:
    """Errors first, then what has lasted longest."""
    return sorted(causes, key=lambda cause: (cause.severity != Severity.ERROR, cause.since))


def in_pool(pools: Sequence[pool_causes.Row]) -> list[Cause]:
    """What concerns these pools: their containers, and the saves of their tenants."""
    ids = {pool.pk for pool, _ in pools}
    saves = [cause for cause in save_causes.present() if ids & set(cause.pool_ids)]
    return ordered(saves + pool_causes.present(pools))


def of_saves() -> list[Cause]:
    """What concerns saves and their sinks."""
    return ordered(save_causes.present())

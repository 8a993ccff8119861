"""Level-triggered steps over assignments: each reads rows, enqueues or decides, and returns how much it did."""

from __future__ import annotations

from tenants.ttl import end_overdue
from tenants.upkeep.claims import abort_overdue_claims, resume_claims, serve_waiters
from tenants.upkeep.containers import find_lost, held_containers, is_lost, put_away, retire_unheld, thaw_forgotten
from tenants.upkeep.releases import (
    find_idle,
    release_dead,
    release_of_deleted_pools,
    release_unhealthy,
    resume_releases,
    retry_failed_saves,
)
from tenants.upkeep.retention import forget_old
from tenants.upkeep.runs import bury_dead_runs
from tenants.upkeep.sinks import probe_sink, retry_saves, retry_saves_of

__all__ = [
    "abort_overdue_claims",
    "bury_dead_runs",
    "end_overdue",
    "find_idle",
    "find_lost",
    "forget_old",
    "held_containers",
    "is_lost",
    "probe_sink",
    "put_away",
    "release_dead",
    "release_of_deleted_pools",
    "release_unhealthy",
    "resume_claims",
    "resume_releases",
    "retire_unheld",
    "retry_failed_saves",
    "retry_saves",
    "retry_saves_of",
    "serve_waiters",
    "thaw_forgotten",
]

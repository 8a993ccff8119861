"""Tasks of claims, releases and manual syncs."""

from __future__ import annotations

from uuid import UUID

from boilerhouse.core.tasks import task
from tenants import claims, manual, releases


@task
def prepare(assignment_id: str, generation: str) -> None:
    claims.prepare(UUID(assignment_id), int(generation))


@task
def finish_release(assignment_id: str) -> None:
    releases.finish(UUID(assignment_id))


@task
def manual_sync(assignment_id: str, generation: str) -> None:
    manual.run_queued(UUID(assignment_id), int(generation))

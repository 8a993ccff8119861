"""Tasks of claims, releases and syncs."""

from __future__ import annotations

from uuid import UUID

from boilerhouse.core.tasks import task
from tenants import backups, erasing, idle, preparing, releases, syncs, upkeep


@task
def prepare(assignment_id: str, generation: str, asked: str = "0") -> None:
    preparing.prepare(UUID(assignment_id), int(generation), int(asked))


@task
def finish_release(assignment_id: str) -> None:
    releases.finish(UUID(assignment_id))


@task
def run_syncs() -> None:
    syncs.run_next()


@task
def check_idle(assignment_id: str, generation: str) -> None:
    idle.check(UUID(assignment_id), int(generation))


@task
def put_away(container_id: str) -> None:
    upkeep.put_away(UUID(container_id))


@task
def probe_sink(spec_id: str, why: str = "") -> None:
    upkeep.probe_sink(spec_id, why)


@task
def retry_saves(spec_id: str) -> None:
    upkeep.retry_saves(spec_id)


@task
def put_back(run_id: str) -> None:
    backups.put_back(UUID(run_id))


@task
def erase(run_id: str) -> None:
    erasing.erase(UUID(run_id))


@task
def forget_old() -> None:
    upkeep.forget_old()

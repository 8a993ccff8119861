"""Tasks of the ``pool`` queue: short, repeatable, driven by the row."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.conf import settings

from boilerhouse.process.steps import each
from boilerhouse.queues.tasks import joins, task
from pools import dry_runs, freezer, lifecycle, node_reports, nodes, packet_filter, sizing, tags, usage, volumes
from pools.volumes import staged_restores


@joins
@task
def refill(pool_id: str) -> None:
    sizing.refill(pool_id)


@task
@nodes.on_its_node("pool")
def create_container(container_id: str) -> None:
    lifecycle.start_container(UUID(container_id))


@task
@nodes.on_its_node("pool")
def destroy_container(container_id: str) -> None:
    lifecycle.destroy_container(UUID(container_id))


@task
def remove_orphan(name: str, container_id: str) -> None:
    lifecycle.remove_orphan(name, None if container_id == "none" else UUID(container_id))


@task
def remove_leftover(name: str) -> None:
    lifecycle.remove_leftover(name)


@task
@nodes.on_its_node("pool")
def wipe_stray(container_id: str) -> None:
    lifecycle.wipe_stray(UUID(container_id))


@task
@nodes.on_its_node("pool")
def thaw(container_id: str) -> None:
    freezer.thaw_forgotten(UUID(container_id))


@task
def apply_packet_filter() -> None:
    packet_filter.apply_asked()


@task
def refresh_names() -> None:
    packet_filter.refresh_names()


@task
def keep_packet_filter() -> None:
    packet_filter.keep()


@joins
@task
def report_node() -> None:
    node_reports.report()


@joins
@task
def sample_usage() -> None:
    usage.sample()


@task
def look_at_tags() -> None:
    tags.look_around()


def _empty_trash() -> int:
    return volumes.empty_trash(int(settings.BOILERHOUSE_DISCARD_RETENTION_S))


TIDYING: list[Callable[[], int]] = [volumes.sweep_snapshots, _empty_trash, staged_restores.tidy, dry_runs.sweep]


@task
def tidy() -> None:
    each(TIDYING, lambda tidied: tidied())

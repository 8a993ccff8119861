"""Tasks on the ``pool`` queue: short, repeatable, decided by the row."""

from __future__ import annotations

from uuid import UUID

from boilerhouse.core.tasks import task
from pools import services


@task
def refill(pool_id: str) -> None:
    services.refill(pool_id)


@task
def create_container(container_id: str) -> None:
    services.start_container(UUID(container_id))


@task
def destroy_container(container_id: str) -> None:
    services.destroy_container(UUID(container_id))

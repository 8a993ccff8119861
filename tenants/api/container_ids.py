"""Container ids in paths."""

from __future__ import annotations

from uuid import UUID

from pools.errors import ContainerNotFound
from pools.models import Container


def id_of(container_id: str) -> UUID:
    """The id of an existing container. Raises ContainerNotFound."""
    try:
        pk = UUID(container_id)
    except ValueError:
        raise ContainerNotFound(f"No container {container_id[:60]}.") from None
    if not Container.objects.filter(pk=pk).exists():
        raise ContainerNotFound(f"No container {pk}.")
    return pk

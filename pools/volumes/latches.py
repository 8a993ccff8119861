"""The latch: records durably which claim a container serves, before the first byte of its data is written."""

from __future__ import annotations

import json
import os
from uuid import UUID

from pools.errors import DirtyContainer
from pools.volumes.handles import directory_gone
from pools.volumes.paths import home


def latch(container_id: UUID, tenant_id: str, generation: int) -> None:
    """Record permanently and durably that the container belongs to this tenant, before its first byte (hazards.md#a1).

    Repeating it for the same claim is harmless. Raises DirtyContainer if the latch names another claim.
    """
    path = home(container_id) / "claimed"
    content = _latch_of(tenant_id, generation)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        if read_latch(container_id) != content:
            raise DirtyContainer from error
        return
    except FileNotFoundError as error:
        raise directory_gone(path.parent) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_latch(container_id: UUID) -> str | None:
    """The latch's content; None if the container has never held a tenant's data."""
    try:
        return (home(container_id) / "claimed").read_text()
    except FileNotFoundError:
        return None


def _latch_of(tenant_id: str, generation: int) -> str:
    return json.dumps({"tenantId": tenant_id, "generation": generation})


def is_anothers(container_id: UUID, tenant_id: str, generation: int) -> bool:
    """Whether the container has served another claim than this one, whose state in it may be unsaved."""
    return read_latch(container_id) not in (None, _latch_of(tenant_id, generation))


def tenant_of(container_id: UUID) -> str:
    """The tenant in the container's latch; empty if it has none."""
    try:
        return str(json.loads(read_latch(container_id) or "{}").get("tenantId", ""))
    except ValueError:
        return ""  # a power failure before its content reached the disk

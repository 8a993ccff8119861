"""The latch: whose claim a container has seen, written before the first byte of it."""

from __future__ import annotations

import json
import os
from uuid import UUID

from pools.errors import DirtyContainer
from pools.volumes.handles import gone
from pools.volumes.paths import home


def latch(container_id: UUID, tenant_id: str, generation: int) -> None:
    """Mark the container as this tenant's for ever, durably, before its first byte (hazards.md#a1).

    Doing it twice for the same claim is fine. Raises DirtyContainer when another claim was there.
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
        raise gone(path.parent) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_latch(container_id: UUID) -> str | None:
    """What the latch holds, None if the container never saw a tenant."""
    try:
        return (home(container_id) / "claimed").read_text()
    except FileNotFoundError:
        return None


def _latch_of(tenant_id: str, generation: int) -> str:
    return json.dumps({"tenantId": tenant_id, "generation": generation})


def is_anothers(container_id: UUID, tenant_id: str, generation: int) -> bool:
    """Whether the container has seen another claim than this one, whose state may be unsaved in it."""
    return read_latch(container_id) not in (None, _latch_of(tenant_id, generation))


def tenant_of(container_id: UUID) -> str:
    """Whose the container is by its latch; empty if it never saw a tenant."""
    try:
        return str(json.loads(read_latch(container_id) or "{}").get("tenantId", ""))
    except ValueError:
        return ""  # a power cut before its content reached the disk

"""The return of a node that was declared lost: it removes its old containers, and keeps what they hold (ADR 100)."""

from __future__ import annotations

from uuid import UUID

import structlog

from boilerhouse.core import node_loss
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from boilerhouse.process.steps import each
from pools import freezer, host, lifecycle
from pools.models import Container
from pools.nodes import here
from pools.runtime.base import Observed
from tenants.models import Assignment

log = structlog.get_logger(__name__)


def clean(epoch: int) -> bool:
    """Remove every container of the deployment from this node, which was declared lost; then it is active again.

    Tenants hold none of them: each was settled elsewhere. The directories of those that held a tenant's data stay, the
    others are wiped. Returns False, and changes nothing, if the node is not lost in this epoch or has rows left. Raises
    the engine's errors; the node then stays lost, and the controller has this repeated.
    """
    rows = Node.objects.filter(pk=here().id, epoch=epoch, state=NodeState.LOST)
    if not rows.exists() or Container.objects.here().exists():
        return False
    listed = host.of_this_node(here().runtime.list(host.labels()))
    each(listed, _remove)
    needed = _needed()
    directories = [one for one in here().volumes.on_disk() if one not in needed]
    kept = each(directories, _keep_or_wipe)
    if not rows.exists() or host.of_this_node(here().runtime.list(host.labels())):
        return False
    log.warning("node cleaned after its loss", containers=len(listed), kept=kept)
    return node_loss.end(here().id, containers=len(listed), kept=kept)


def _remove(observed: Observed) -> int:
    """SIGKILL reaches a frozen process only when it is thawed, and ends it before it runs again."""
    freezer.end(observed.handle.runtime_id)
    lifecycle.remove_at_engine(here(), observed.handle.name)
    return 1


def _needed() -> set[UUID]:
    """Directories of failed saves, which are retried from now on."""
    rows = Assignment.objects.live().filter(directory_node=here().id).exclude(container_ref=None)
    return {ref for ref in rows.values_list("container_ref", flat=True) if ref}


def _keep_or_wipe(container_id: UUID) -> int:
    """1 if it has held a tenant's data: its directory stays, and its uid with it. Its addresses are free."""
    here().host.release_addresses(container_id)
    if here().volumes.read_latch(container_id) is not None:
        return 1
    lifecycle.wipe(here(), container_id)
    here().host.release_uid(container_id)
    return 0

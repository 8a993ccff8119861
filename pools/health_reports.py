"""Records the engine's reports on containers in rows: health, faults, deaths.

It is called for an event of the engine or by a reconcile; repetition changes nothing. Pools handle idle containers
themselves; for claimed ones they leave the fault in the row, which ``tenants`` reads.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from boilerhouse.core.events import emit, recording
from boilerhouse.queues.tasks import enqueue
from pools import health, last_output, lifecycle, stability
from pools.models import Container, Pool
from pools.nodes import find, node_of
from pools.runtime.base import Observed
from pools.services import lock_pool
from pools.states import DEADLY, ContainerHealth, ContainerState, Fault

IDLE, CLAIMED = ContainerState.IDLE, ContainerState.CLAIMED


def report_fault(
    container_id: UUID, fault: Fault, detail: str, *, exit_code: int | None = None, words: str = ""
) -> bool:
    """Record the fault of an idle or claimed container; an idle one is replaced. False if it was known.

    ``words`` are the lines of its output that explain it: they go into the private part of the event.
    """
    with recording():
        pool = _locked_pool(container_id)
        if pool is None:
            return False
        rows = Container.objects.filter(pk=container_id, state__in=[IDLE, CLAIMED]).exclude(fault__in=DEADLY)
        rows = rows.exclude(fault=fault)
        changed = rows.update(fault=fault, error=detail, health=ContainerHealth.UNHEALTHY)
        if not changed:
            return False
        container = Container.objects.get(pk=container_id)
        node = node_of(container)
        died: dict[str, Any] = {"exitCode": exit_code, "signal": last_output.signal_name(exit_code) or None}
        emit(
            "container.unhealthy", pool_id=container.pool_id, container_id=container_id,
            tenant_id=node.volumes.tenant_of(container_id), reason=fault.value, detail=detail, state=container.state,
            private={"lastWords": words} if words else None, **(died if exit_code is not None else {}),
        )  # fmt: skip
        if Container.objects.filter(pk=container_id).transition(IDLE, ContainerState.REMOVING):
            stability.note_failure(pool, container, fault, detail)
            node.queue.put("pool", "pools.tasks.destroy_container", container_id)
            enqueue("pool", "pools.tasks.refill", container.pool_id)
    return True


def report_health(container_id: UUID, health: str) -> bool:
    """Record the engine's verdict (``healthy`` or ``unhealthy``). Returns whether anything changed."""
    if health == ContainerHealth.UNHEALTHY:
        return report_fault(container_id, Fault.UNHEALTHY, _unhealthy_words(container_id))
    rows = Container.objects.filter(pk=container_id, state__in=[IDLE, CLAIMED], fault__in=["", Fault.UNHEALTHY])
    return bool(rows.exclude(health=ContainerHealth.HEALTHY).update(health=ContainerHealth.HEALTHY, fault="", error=""))


def _locked_pool(container_id: UUID) -> Pool | None:
    """The container's pool, locked before the container's row as everywhere; None if the container has no row."""
    rows = Container.objects.filter(pk=container_id, state__in=[IDLE, CLAIMED])
    pool_id = rows.values_list("pool_id", flat=True).first()
    return None if pool_id is None else lock_pool(pool_id)


def _unhealthy_words(container_id: UUID) -> str:
    """Describes the failing health check and its last output, without text that a tenant may have written."""
    observed = find(container_id).runtime.inspect(lifecycle.runtime_name(container_id))
    probed = observed.probed if observed else None
    # Read after the engine was queried: a container that is idle now had no tenant when its check ran.
    container = Container.objects.select_related("version").filter(pk=container_id).first()
    if container is None:
        return health.failing((), "", is_images=False)
    message = f"exit code {probed.exit_code}" if probed else ""
    output = last_output.line_of(probed.output.encode(errors="replace"), 300) if probed else ""
    if output and container.state == IDLE:
        message = f"{message}: {output}"
    is_images = container.version.spec.health_check is None
    return health.failing(probed.command if probed else (), message, is_images=is_images)


def withdraw_fault(container_id: UUID, fault: Fault) -> bool:
    """Clear the fault; the engine's next verdict gives the health. False if another fault was recorded."""
    rows = Container.objects.filter(pk=container_id, fault=fault)
    return bool(rows.update(fault="", error="", health=ContainerHealth.UNKNOWN))


def death_words(observed: Observed, *, is_oom: bool) -> tuple[Fault, str]:
    """The fault of a container that ended, and its description."""
    if is_oom:
        return Fault.OOM, f"The container was killed: {last_output.OOM}."
    return Fault.EXIT, f"The container's main process ended with {last_output.ended(observed)}."

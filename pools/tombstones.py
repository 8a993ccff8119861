"""What stays of a container when the engine removes it: a tombstone, the end of its log, and its last use of resources.

The log is a tenant's output: encrypted at rest, limited in bytes per container, per tenant and in total, shown only to
those who may read logs, and deleted when the tenant's state is erased. Nothing here can fail a removal, and the engine
is asked with a deadline (ADR 71).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum

from boilerhouse.core import clock, deployment_settings
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.process.outage import DATABASE_LOST
from pools.host.identity import runtime_name
from pools.models import Container, ContainerUsage, LastOutput, Tombstone

if TYPE_CHECKING:
    from pools.nodes import NodeAccess

log = structlog.get_logger(__name__)

LINES, LINES_BYTES = 500, 64 * 1024
"""How much of the end of a log is kept."""
WITHIN_S = 1.0
"""How long the engine may take for each answer; it is about to be asked to remove the container anyway."""
SAMPLES, SAMPLED = 120, timedelta(hours=1)
OUTPUTS_PER_TENANT = 20
OUTPUTS_PER_POOL = 50
"""The same for containers of a pool that never held a tenant's data."""
AT_ONCE = 500


def take(node: NodeAccess, container_id: UUID) -> None:
    """Keep what is known of a container that is about to be removed. Can be repeated.

    Raises only if the database is lost. Whatever else fails is logged, and less is kept.
    """
    try:
        _take(node, container_id)
    except DATABASE_LOST:
        raise
    except Exception as error:
        log.warning("no tombstone", container=str(container_id), error=type(error).__name__, detail=str(error)[:300])


def _take(node: NodeAccess, container_id: UUID) -> None:
    container = Container.objects.select_related("version").filter(pk=container_id).first()
    if container is None or LastOutput.objects.filter(pk=container_id).exists():
        return
    ended, lines = _at_engine(node, container_id)
    usage = _usage(container_id)
    tenant_id = node.volumes.tenant_of(container_id)
    with transaction.atomic():
        # Otherwise another process has completed the removal, and the tenant may have been erased since.
        if not Container.objects.select_for_update().filter(pk=container_id).exists():
            return
        _write(container, tenant_id=tenant_id, **ended)
        if lines is None:
            return  # the removal is repeated when the engine answers again
        stored = _pack(lines)
        about = {"log": stored, "usage": usage, "size": _encrypted_size(stored), "at": clock.now()}
        LastOutput.objects.update_or_create(pk=container_id, defaults=about)
        _limit(container.pool_id, tenant_id)


def _at_engine(node: NodeAccess, container_id: UUID) -> tuple[dict[str, Any], str | None]:
    """How it ended, and the end of its log; None if the engine does not answer in time."""
    runtime, name = node.runtime, runtime_name(container_id)
    ended: dict[str, Any] = {}
    try:
        observed = runtime.inspect(name, WITHIN_S)
        if observed is None:
            return ended, ""
        if not observed.is_running:
            ended = {"exit_code": observed.exit_code, "is_oom_killed": observed.is_oom_killed}
        lines = runtime.logs(name, LINES, limit_bytes=LINES_BYTES, timestamps=True, timeout_s=WITHIN_S)
    except BoilerhouseError as error:
        log.info("no log kept", container=str(container_id), detail=error.detail)
        return ended, None
    return ended, lines.decode(errors="replace")


def _usage(container_id: UUID) -> list[tuple[float, int, int]]:
    rows = ContainerUsage.objects.filter(container_id=container_id, at__gte=clock.now() - SAMPLED).order_by("at")
    samples = list(rows.values_list("at", "cpu_ns", "memory_bytes"))
    step = max(1, -(-len(samples) // SAMPLES))
    return [(round(at.timestamp(), 1), cpu_ns, memory) for at, cpu_ns, memory in samples[::step]]


def _write(container: Container, **more: Any) -> None:
    spec = container.version.spec
    values = {
        "backwards": container.pk.hex[::-1],
        "pool_id": container.pool_id,
        "workload_id": container.version.workload_id,
        "version": container.version.number,
        "image": spec.image,
        "image_digest": container.image_digest,
        "node_id": container.node_id,
        "runtime_id": container.runtime_id,
        "uid": container.uid,
        "fault": container.fault,
        "error": container.error,
        "removed_by": container.removed_by,
        "disk_bytes": container.disk_bytes,
        "memory_mb": spec.resources.memory_mb,
        "cpus": spec.resources.cpus,
        "created_at": container.created_at,
        "at": clock.now(),
        **more,
    }
    Tombstone.objects.update_or_create(pk=container.pk, defaults=values)


def complete(container: Container, tenant_id: str = "") -> None:
    """Within the transaction that deletes the container's row: it is gone from now on.

    ``tenant_id``: the tenant whose data it has held, if nothing was taken from it before.
    """
    if not Tombstone.objects.filter(pk=container.pk).update(at=clock.now(), removed_by=container.removed_by):
        _write(container, tenant_id=tenant_id)


def _limit(pool_id: str, tenant_id: str) -> None:
    """Keep the newest outputs of the tenant, or of the pool's containers without one."""
    rows, most = LastOutput.objects.filter(tombstone__tenant_id=tenant_id), OUTPUTS_PER_TENANT
    if not tenant_id:
        rows, most = rows.filter(tombstone__pool_id=pool_id), OUTPUTS_PER_POOL
    _delete(rows.order_by("-at", "-pk").values_list("pk", flat=True)[most : most + AT_ONCE])


def _delete(pks: Any) -> int:
    return LastOutput.objects.filter(pk__in=list(pks)).delete()[0]


def _pack(lines: str) -> str:
    return base64.b85encode(zlib.compress(lines.encode(), 6)).decode() if lines else ""


def _encrypted_size(text: str) -> int:
    return len(text) * 4 // 3 + 120


def log_of(tombstone: Tombstone) -> bytes:
    """The end of its log in the engine's format, each line with its time; empty if none was kept."""
    output = LastOutput.objects.filter(pk=tombstone.pk).first()
    return zlib.decompress(base64.b85decode(output.log)) if output and output.log else b""


def usage_of(tombstone: Tombstone) -> list[tuple[datetime, int, int]]:
    """Its last samples: time, CPU time in ns since its start, bytes of memory."""
    rows = LastOutput.objects.filter(pk=tombstone.pk).values_list("usage", flat=True).first() or []
    return [(datetime.fromtimestamp(at, clock.now().tzinfo), cpu_ns, memory) for at, cpu_ns, memory in rows]


def ending_with(text: str, most: int) -> list[UUID]:
    """The newest removed containers whose id ends with these hexadecimal digits."""
    rows = Tombstone.objects.filter(backwards__startswith=text[::-1])
    return list(rows.order_by("-at").values_list("pk", flat=True)[:most])


def forget_tenant(tenant_id: str) -> None:
    """Delete what is kept of every container that has held the tenant's data."""
    rows = Tombstone.objects.filter(tenant_id=tenant_id)
    ContainerUsage.objects.filter(container_id__in=rows.values("pk")).delete()
    rows.delete()


def forget_old() -> int:
    """Delete tombstones older than the retention of events, and the oldest outputs above the limit of their size.
    Returns how many rows."""
    old = clock.now() - timedelta(seconds=deployment_settings.current().retention_s["events"])
    deleted = sum(
        Tombstone.objects.filter(pk__in=pks).delete()[0] for pks in _parts(Tombstone.objects.filter(at__lt=old))
    )
    return deleted + _keep_within(settings.BOILERHOUSE_LAST_OUTPUTS_MAX_BYTES)


def _parts(rows: QuerySet[Tombstone]) -> Iterator[list[UUID]]:
    """In batches, so that no transaction is long."""
    while pks := list(rows.order_by("at").values_list("pk", flat=True)[:AT_ONCE]):
        yield pks


def _keep_within(most: int) -> int:
    over, deleted = (LastOutput.objects.aggregate(n=Sum("size"))["n"] or 0) - most, 0
    while over > 0:
        oldest = list(LastOutput.objects.order_by("at").values_list("pk", "size")[:AT_ONCE])
        chosen = []
        for pk, size in oldest:
            if over <= 0:
                break
            chosen.append(pk)
            over -= size
        if not chosen:
            break
        deleted += _delete(chosen)
    return deleted

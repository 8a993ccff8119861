"""Idle release: a tenant without activity for the pool's ``idleTimeoutMs`` is saved and released.

Activity is an API call for the tenant, a heartbeat, or a changed file. Files are checked only once, by a worker, when
the deadline has passed (hazards.md#b7); a change extends the deadline.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from boilerhouse.core import clock
from boilerhouse.process.steps import earlier, later
from pools import volumes
from pools.errors import DirectoryGone
from pools.models import Container
from pools.nodes import node_of
from pools.spec import WorkloadSpec
from tenants import errors, releases
from tenants.models import Assignment
from tenants.states import AssignmentState, ReleaseReason

SLACK = timedelta(seconds=5)
"""Activity is recorded at most once in this time, so the deadline may be that much later than shown."""


def due_at(assignment: Assignment) -> datetime | None:
    """When the tenant will be released without further activity; None means never."""
    timeout_ms = assignment.pool.idle_timeout_ms
    if not timeout_ms or assignment.state != AssignmentState.ASSIGNED or assignment.last_activity_at is None:
        return None
    return later(assignment.last_activity_at, timeout_ms)


def inactive(pool_id: str, timeout_ms: int) -> QuerySet[Assignment]:
    """The pool's tenants without activity for so long; their files may still have changed."""
    rows = Assignment.objects.filter(pool_id=pool_id, state=AssignmentState.ASSIGNED)
    return rows.filter(last_activity_at__lt=earlier(clock.now(), timeout_ms))


def note_activity(container_id: UUID) -> None:
    """Record an API call for the container's tenant, at most once in five seconds."""
    now = clock.now()
    rows = Assignment.objects.filter(container_ref=container_id, state=AssignmentState.ASSIGNED)
    rows.filter(last_activity_at__lt=now - SLACK).update(last_activity_at=now)


def heartbeat(tenant_id: str) -> None:
    """Record that the tenant is active. Raises NothingHeld."""
    rows = Assignment.objects.filter(tenant_id=tenant_id, state=AssignmentState.ASSIGNED)
    if not rows.update(last_activity_at=clock.now()):
        raise errors.NothingHeld


def _measure(rows: QuerySet[Assignment], assignment: Assignment, spec: WorkloadSpec) -> volumes.Walked | None:
    """Walk the container's volumes and record their size and last change; None if the tenant was released meanwhile.

    Raises DirectoryGone: the tenant's activity is then unknown, and nothing is decided.
    """
    container_id = assignment.held_container
    try:
        names = [volume.name for volume in spec.volumes if volume.name != "secrets"]
        walk = node_of(assignment).volumes.walk(container_id, names)
    except DirectoryGone:
        if rows.exists():
            raise
        return None
    Container.objects.filter(pk=container_id).update(disk_bytes=walk.bytes)
    return walk


def check(assignment_id: UUID, generation: int) -> bool:
    """Release an assignment whose deadline has passed, unless its files changed since. Returns whether it did."""
    rows = Assignment.objects.filter(pk=assignment_id, generation=generation, state=AssignmentState.ASSIGNED)
    assignment = rows.select_related("pool", "version", "container").first()
    if assignment is None or assignment.version is None or assignment.last_activity_at is None:
        return False
    if not node_of(assignment).is_here:
        return False
    walk = _measure(rows, assignment, assignment.version.spec)
    if walk is None:
        return False
    changed_at = min(clock.of_host(walk.newest_change), clock.now())
    if changed_at > assignment.last_activity_at:
        rows.filter(last_activity_at__lt=changed_at).update(last_activity_at=changed_at)
    timeout_ms = assignment.pool.idle_timeout_ms
    if not timeout_ms:
        return False
    # One statement decides against a concurrent heartbeat or call.
    overdue = rows.filter(last_activity_at__lt=earlier(clock.now(), timeout_ms))
    return releases.fence(overdue, reason=ReleaseReason.IDLE)

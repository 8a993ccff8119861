"""A tenant's own network policy, which narrows the pool's: set by the claim or while the container runs."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import F

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from pools import firewall, packet_filter
from pools.egress import Egress
from pools.models import Container
from tenants import errors, validation
from tenants.models import Assignment
from tenants.states import AssignmentState


@dataclass(frozen=True, slots=True)
class Change:
    """A requested policy; it is in force when the container's row has reached ``asked``."""

    container_id: UUID
    asked: int


def enforce(assignment: Assignment) -> None:
    """Apply the claim's policy; the container has none of the tenant's data yet. Raises HostNotReady."""
    _set(assignment.held_container, assignment.egress)
    packet_filter.apply()


def _set(container_id: UUID, egress: dict[str, Any] | None) -> None:
    Container.objects.filter(pk=container_id).update(egress=egress, egress_asked=F("egress_asked") + 1)


def find_assignment(tenant_id: str, *, is_locked: bool = False) -> Assignment:
    """The tenant's assignment, locked if ``is_locked``. Raises NotAssigned."""
    validation.check_tenant_id(tenant_id)
    rows = Assignment.objects.select_related("container", "pool", "version")
    if is_locked:
        rows = rows.select_for_update(of=("self",), no_key=True)
    assignment = rows.filter(tenant_id=tenant_id, state=AssignmentState.ASSIGNED, container__isnull=False).first()
    if assignment is None:
        raise errors.NotAssigned
    return assignment


def begin(tenant_id: str, policy: Egress, *, by_tenant: bool) -> Change:
    """Change the policy of the tenant's running container. Raises NotAssigned, and Invalid if it is too wide.

    A key of the tenant's own must stay within the policy that other keys have set.
    """
    with recording():
        assignment = find_assignment(tenant_id, is_locked=True)
        assert assignment.version is not None
        bound = assignment.egress_bound if by_tenant else None
        validation.check_egress(policy, assignment.pool, assignment.version.spec, "", bound)
        if not by_tenant:
            bound = policy.to_json()
        if (assignment.egress, assignment.egress_bound) == (policy.to_json(), bound):
            return _change(assignment)
        Assignment.objects.filter(pk=assignment.pk).update(egress=policy.to_json(), egress_bound=bound)
        _set(assignment.held_container, policy.to_json())
        before, after = {"egress": assignment.egress}, {"egress": policy.to_json()}
        audit.record("tenant.network", tenant_id, **audit.changes(before, after))
        firewall.ask()
        return _change(assignment)


def _change(assignment: Assignment) -> Change:
    requested = Container.objects.values_list("egress_asked", flat=True).get(pk=assignment.held_container)
    return Change(assignment.held_container, requested)


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these changes are in force, or concern containers that no longer exist."""
    changes = [key for key in keys if isinstance(key, Change)]
    ids = [change.container_id for change in changes]
    in_force = dict(Container.objects.filter(pk__in=ids).values_list("pk", "egress_in_force"))
    return {item for item in changes if in_force.get(item.container_id, item.asked) >= item.asked}

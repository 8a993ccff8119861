"""The transfer target of an assignment."""

from __future__ import annotations

from pools.nodes import node_of
from syncing.targets import TransferTarget
from tenants.models import Assignment


def target_of(assignment: Assignment, lock: int, *, is_stopped: bool) -> TransferTarget:
    """The assignment's container in the form that ``syncing`` needs; ``lock`` is the descriptor of its held file
    lock."""
    assert assignment.version is not None
    assert assignment.uid is not None
    spec = assignment.version.spec
    return TransferTarget(
        assignment.held_container, spec.owner(assignment.uid), assignment.pool_id, spec, assignment.tenant_id,
        assignment.generation, lock, node_of(assignment), is_stopped=is_stopped,
    )  # fmt: skip

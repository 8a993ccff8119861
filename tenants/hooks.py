"""Hooks that run inside a claimed container before its state is saved; a save continues if they fail."""

from __future__ import annotations

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit
from pools.nodes import node_of
from pools.spec import Hook
from tenants.models import Assignment


def run_before_save(assignment: Assignment, name: str, hook: Hook | None) -> None:
    """Run the hook ``name`` and wait until it ends; a failure is reported by a ``pool.warning`` event."""
    if hook is None:
        return
    try:
        container = assignment.held_container
        result = node_of(assignment).commands.run(container, hook.command, hook.timeout_ms, limit_bytes=4000)
        failure = f"exit code {result.exit_code}" if result.exit_code else ""
        if result.refusal:
            failure += f": {result.refusal}"
    except BoilerhouseError as error:
        failure = error.detail
    if failure:
        detail = f"{name} failed ({failure}); the save continues."
        emit("pool.warning", pool_id=assignment.pool_id, tenant_id=assignment.tenant_id, detail=detail)

"""Commands and logs in a container while a tenant holds it; only of this tenant's container."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections

from boilerhouse.core import audit
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.events import recording
from pools import errors as pool_errors
from pools import lifecycle
from pools.models import Container
from pools.nodes import node_of
from pools.runtime.base import Executed, LogStream, Terminal
from tenants import errors, idle, validation
from tenants.models import Assignment
from tenants.states import AssignmentState

LOG_BYTES = 1 << 20
SHELL = ("sh", "-c", "exec $(command -v bash || echo sh)")
MIN_REASON, MAX_REASON = 3, 500

_commands: Counter[UUID] = Counter()
_counting = threading.Lock()


def held_by(tenant_id: str) -> UUID:
    """The container that the tenant uses. Raises Invalid, Releasing, NotAssigned."""
    validation.check_tenant_id(tenant_id)
    live = Assignment.objects.live().filter(tenant_id=tenant_id)
    state, container = live.values_list("state", "container_ref").first() or (None, None)
    if state == AssignmentState.RELEASING:
        raise errors.Releasing
    if state != AssignmentState.ASSIGNED or container is None:
        raise errors.NotAssigned
    return container


def run(container_id: UUID, command: tuple[str, ...], timeout_ms: int, stdin: bytes | None) -> Executed:
    """Run a command in a claimed container and wait until it ends; the audit log records a digest of its words.

    Raises NotClaimed, Releasing, TooManyCommands, NotRunning, EngineUnavailable, ExecTimedOut, OtherNode.
    """
    row = claimed(container_id)
    with one_more(container_id):
        return _run(row, container_id, command, timeout_ms, stdin)


def _run(
    row: Assignment, container_id: UUID, command: tuple[str, ...], timeout_ms: int, stdin: bytes | None
) -> Executed:
    idle.note_activity(container_id)
    with recording():
        digest = hashlib.sha256(json.dumps(command).encode()).hexdigest()
        about = {"tenantId": row.tenant_id, "generation": row.generation, "commandSha256": digest}
        audit.record("container.exec", container_id, after=about)
    try:
        return node_of(row).commands.run(
            container_id, command, timeout_ms, stdin=stdin, limit_bytes=settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES
        )
    except pool_errors.ContainerMissing as error:
        raise pool_errors.NotRunning from error


@contextmanager
def one_more(container_id: UUID) -> Iterator[None]:
    """Count a command of the container while it runs: one tenant's commands must not use all threads (P14)."""
    with _counting:
        if _commands[container_id] >= settings.BOILERHOUSE_EXEC_PARALLEL:
            raise errors.TooManyCommands
        _commands[container_id] += 1
    try:
        yield
    finally:
        with _counting:
            _commands[container_id] -= 1
            if not _commands[container_id]:
                del _commands[container_id]


def open_terminal(container_id: UUID, reason: str, columns: int, rows: int) -> Terminal:
    """A shell in a claimed container for a person; the audit log records the user and the reason.

    Raises TerminalsOff, Invalid without a reason, NotClaimed, Releasing, NotRunning, EngineUnavailable, OtherNode.
    """
    if not settings.BOILERHOUSE_TERMINAL:
        raise errors.TerminalsOff
    reason = reason.strip()[:MAX_REASON]
    if len(reason) < MIN_REASON:
        raise Invalid(FieldError("/reason", f"Give a reason of at least {MIN_REASON} characters.", "required"))
    row = claimed(container_id)
    idle.note_activity(container_id)
    with recording():
        about = {"tenantId": row.tenant_id, "generation": row.generation, "reason": reason}
        audit.record("container.terminal", container_id, after=about)
    try:
        return node_of(row).commands.open_terminal(container_id, SHELL, columns, rows)
    except pool_errors.ContainerMissing as error:
        raise pool_errors.NotRunning from error


def is_claimed(container_id: UUID) -> bool:
    """Whether the tenant still uses it; terminals are closed when that ends."""
    return Assignment.objects.filter(container_ref=container_id, state=AssignmentState.ASSIGNED).exists()


def claimed(container_id: UUID, *more: str) -> Assignment:
    """The assignment of a container of this node that a tenant uses, with its container and ``more`` relations.

    Raises NotClaimed, Releasing, OtherNode.
    """
    assignments = Assignment.objects.select_related("container", *more).filter(container_ref=container_id)
    row = assignments.filter(state=AssignmentState.ASSIGNED).first()
    if row is None:
        if assignments.filter(state=AssignmentState.RELEASING).exists():
            raise errors.Releasing
        raise pool_errors.NotClaimed
    node_of(row).check()
    return row


def logs(container: Container, tail: int, since: float | None, *, timestamps: bool = False) -> bytes:
    """The last lines of the container's log, 1 MiB at most. Raises EngineUnavailable, ContainerMissing, OtherNode."""
    return node_of(container).runtime.logs(
        lifecycle.runtime_name(container.pk), tail, since, LOG_BYTES, timestamps=timestamps
    )


def follow_logs(container: Container, tail: int, since: float | None, *, timestamps: bool = False) -> LogStream:
    """The same, followed by new output until the container ends."""
    runtime, name = node_of(container).runtime, lifecycle.runtime_name(container.pk)
    if runtime.inspect(name) is None:  # with a deadline, which the stream does not have
        raise pool_errors.ContainerMissing(f"The engine has no container {name}.")
    return runtime.follow_logs(name, tail, since, timestamps=timestamps)


def is_held(tenant_id: str, generation: int) -> bool:
    """Whether this claim of the tenant still lives; for threads that do not serve a request."""
    close_old_connections()
    rows = Assignment.objects.filter(tenant_id=tenant_id, generation=generation, state=AssignmentState.ASSIGNED)
    return rows.exists()

"""Commands in a container of this node: by its guest agent, or by the engine where that does not answer."""

from __future__ import annotations

from uuid import UUID

import structlog

from pools import errors, guest
from pools.guest.connections import NoAgent
from pools.host.identity import runtime_name
from pools.runtime import get_runtime
from pools.runtime.base import Executed, Terminal

log = structlog.get_logger(__name__)


def run(
    container_id: UUID,
    command: tuple[str, ...],
    timeout_ms: int,
    stdin: bytes | None = None,
    limit_bytes: int = 1 << 20,
) -> Executed:
    """Run a command and wait until it ends; of each stream the first ``limit_bytes`` are kept. It runs at most once.

    Raises as ``ContainerRuntime.exec``, and CommandLost if the connection to the guest agent breaks in the middle.
    """
    name = runtime_name(container_id)
    try:
        return guest.run(container_id, command, timeout_ms, stdin, limit_bytes)
    except NoAgent as error:
        log.debug("command goes by the engine", container=str(container_id), detail=str(error))
    except errors.CommandLost:
        if _has_ended(name):
            raise errors.NotRunning("The container ended while the command ran.") from None
        raise
    return get_runtime().exec(name, command, timeout_ms, stdin=stdin, limit_bytes=limit_bytes)


def _has_ended(name: str) -> bool:
    try:
        observed = get_runtime().inspect(name)
    except errors.EngineUnavailable:
        return False  # nobody knows
    return observed is None or not observed.is_running


def open_terminal(container_id: UUID, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
    """Run a command on a terminal. Raises NotRunning, ContainerMissing."""
    try:
        return guest.open_terminal(container_id, command, columns, rows)
    except (NoAgent, OSError) as error:
        log.debug("terminal goes by the engine", container=str(container_id), detail=str(error))
    return get_runtime().terminal(runtime_name(container_id), command, columns, rows)

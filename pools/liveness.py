"""Whether a container of this node runs: by its guest agent, else by the engine."""

from __future__ import annotations

from uuid import UUID

import structlog

from pools.guest import connections
from pools.host.identity import runtime_name
from pools.runtime import get_runtime

log = structlog.get_logger(__name__)

AGENT_S = 0.25
"""How long the agent may take. It answers in less than a millisecond, unless its container is frozen."""


def is_running(container_id: UUID, timeout_s: float) -> bool:
    """Whether the container runs now. The agent is its process 1, so an agent that answers is proof (ADR 104).

    Raises EngineUnavailable if neither the agent nor the engine answers.
    """
    try:
        connection = connections.connect(container_id, within_s=min(AGENT_S, timeout_s))
    except connections.NoAgent as error:
        log.debug("container checked by the engine", container=str(container_id), detail=str(error))
        observed = get_runtime().inspect(runtime_name(container_id), timeout_s=timeout_s)
        return observed is not None and observed.is_running
    connection.socket.close()
    return True

"""Where the guest agent and its socket are: on this host, and in the container."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from boilerhouse.core import deployment
from pools.runtime.base import Mount
from pools.spec import Owner

INSIDE = "/.boilerhouse"
"""The directory in the container in which both are mounted."""
AGENT, RUN = f"{INSIDE}/agent", f"{INSIDE}/run"
SOCKET = "socket"


def run_dir(container_id: UUID) -> Path:
    """The directory of the container's socket, in RAM beside its secrets, with which it is removed."""
    return deployment.ram_dir() / str(container_id) / "run"


def prepare(container_id: UUID, owner: Owner) -> None:
    """Create the directory of the socket for the container's user, until ``seal`` closes it."""
    prepare_at(run_dir(container_id), owner)


def prepare_at(directory: Path, owner: Owner) -> None:
    if not directory.exists():
        directory.mkdir(parents=True, mode=0o700)
        os.chown(directory, *owner)


def binds(container_id: UUID, agent: Path | None) -> tuple[Mount, ...]:
    """Mounts in addition to the volumes."""
    return binds_at(run_dir(container_id), agent)


def binds_at(directory: Path, agent: Path | None) -> tuple[Mount, ...]:
    if agent is None:
        return ()
    return Mount(str(agent), AGENT, read_only=True), Mount(str(directory), RUN, read_only=False)


def command_line(command: tuple[str, ...]) -> tuple[str, ...]:
    """What the engine starts so that the agent is process 1 and ``command`` its child."""
    return (AGENT, "init", f"{RUN}/{SOCKET}", "--", *command)

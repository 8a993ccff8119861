"""The guest agent: process 1 of a container (``guest/``), and this host's side of it.

It runs commands at a fortieth of the price of the engine's exec: the agent forks them from process 1, so that they have
the container's user, namespaces, limits and seccomp profile because they inherit them. docs/guest-agent.md describes
the protocol. What the agent answers counts as the tenant's own output: nothing here acts on a path or a process id that
it names, and its frames, bytes and time are bounded.

Where a container has no agent, or its agent does not answer before it was asked to run anything, callers use the
engine.
"""

from __future__ import annotations

from pools.guest.binary import agent_for, installed
from pools.guest.commands import run, run_at
from pools.guest.paths import binds, binds_at, command_line, prepare, prepare_at
from pools.guest.sealing import seal, seal_at
from pools.guest.terminals import open_terminal

__all__ = [
    "agent_for", "binds", "binds_at", "command_line", "installed", "open_terminal", "prepare", "prepare_at", "run",
    "run_at", "seal", "seal_at",
]  # fmt: skip

"""Whether an engine's configuration allows Boilerhouse to run containers.

Files that a container writes must belong to its uid on this host, its limits must be enforced, and this host's firewall
must protect its network. An engine without one of these is refused before a container is created.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pools.errors import HostNotReady
from pools.runtime.base import Capabilities, ContainerRuntime

CACHED_FOR_S = 60.0
_cached: WeakKeyDictionary[ContainerRuntime, tuple[float, Capabilities]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an engine cannot be used, and the remedy."""

    detail: str
    todo: str


def cached_capabilities(runtime: ContainerRuntime) -> Capabilities:
    """The engine's capabilities; read again after a minute. Raises EngineUnavailable."""
    at, can = _cached.get(runtime, (0.0, None))
    if can is None or time.monotonic() - at > CACHED_FOR_S:
        can = runtime.capabilities()
        _cached[runtime] = (time.monotonic(), can)
    return can


def check(runtime: ContainerRuntime) -> None:
    """Check that containers may be created by this engine. Raises HostNotReady, EngineUnavailable."""
    if not any(objections(cached_capabilities(runtime))):
        return
    _cached.pop(runtime, None)  # the engine may just have been fixed
    problems = list(objections(cached_capabilities(runtime)))
    if problems:
        raise HostNotReady(" ".join(f"{objection.detail} {objection.todo}" for objection in problems))


def objections(can: Capabilities) -> Iterator[Objection]:
    """All reasons against an engine."""
    if can.is_rootless:
        yield Objection(
            "The container engine runs rootless: its users are not this host's, so containers could not use their"
            " state and secrets, and this host's firewall does not protect its network.",
            "Use the system's engine (DOCKER_HOST=unix:///var/run/docker.sock).",
        )
    elif can.remaps_users:
        yield Objection(
            "The container engine remaps container users (userns-remap), so containers could not use their state"
            " and secrets.",
            'Remove "userns-remap" from /etc/docker/daemon.json and restart the engine. Boilerhouse gives each'
            " container its own uid.",
        )
    if can.cannot_limit:
        yield Objection(
            f"The container engine cannot limit {', '.join(can.cannot_limit)}: the cgroup controller is missing.",
            "Enable the controller on this host (cgroup v2, or the controllers of v1; `docker info` shows what is"
            " missing).",
        )
    if can.firewall not in ("", "iptables", "iptables+firewalld"):
        yield Objection(
            f"The container engine's firewall backend is {can.firewall}, which has no DOCKER-USER chain for"
            " Boilerhouse's rules.",
            'Set {"firewall-backend": "iptables"} in /etc/docker/daemon.json and restart the engine.',
        )

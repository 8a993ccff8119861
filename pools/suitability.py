"""Whether an engine can run our containers at all, by how it was set up.

What a container writes must be its own uid's on this host, its limits must hold, and this host's firewall must stand
before its network. An engine that takes one of these away is refused before a container is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pools.errors import HostNotReady
from pools.runtime.base import Capabilities, ContainerRuntime

KNOWN_FOR_S = 60.0
_known: WeakKeyDictionary[ContainerRuntime, tuple[float, Capabilities]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an engine cannot be used, and what to do."""

    detail: str
    todo: str


def known(runtime: ContainerRuntime) -> Capabilities:
    """What the engine can do; asked again after a minute. Raises EngineUnavailable."""
    at, can = _known.get(runtime, (0.0, None))
    if can is None or time.monotonic() - at > KNOWN_FOR_S:
        can = runtime.capabilities()
        _known[runtime] = (time.monotonic(), can)
    return can


def check(runtime: ContainerRuntime) -> None:
    """Return if containers may be made by this engine. Raises HostNotReady, EngineUnavailable."""
    if not any(objections(known(runtime))):
        return
    _known.pop(runtime, None)  # it may have been set right a moment ago
    found = list(objections(known(runtime)))
    if found:
        raise HostNotReady(" ".join(f"{one.detail} {one.todo}" for one in found))


def objections(can: Capabilities) -> Iterator[Objection]:
    """Every reason against an engine."""
    if can.is_rootless:
        yield Objection(
            "The container engine runs rootless: its users are not this host's, so a container could not use its own"
            " state and secrets, and this host's firewall does not stand before its network.",
            "Use the system's engine (DOCKER_HOST=unix:///var/run/docker.sock).",
        )
    elif can.remaps_users:
        yield Objection(
            "The container engine maps containers' users to others (userns-remap): a container could not use its own"
            " state and secrets.",
            'Take "userns-remap" out of /etc/docker/daemon.json and restart the engine; Boilerhouse gives each'
            " container a uid of its own.",
        )
    if can.cannot_limit:
        yield Objection(
            f"The container engine cannot limit {', '.join(can.cannot_limit)}: it has no such cgroup controller.",
            "Enable it on this host (cgroup v2, or the controllers of v1; `docker info` names what is missing).",
        )
    if can.firewall not in ("", "iptables", "iptables+firewalld"):
        yield Objection(
            f"The container engine's firewall backend is {can.firewall}, which has no chain DOCKER-USER for our rules.",
            'Set {"firewall-backend": "iptables"} in /etc/docker/daemon.json and restart the engine.',
        )

"""Which node gets a new container: a pure function of what nodes have, what the container needs and the pool's rules.

It never moves a container. Where nothing fits, it says why, with the number of nodes for each reason (ADR 93).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pools.capacity import Promised


class Strategy(StrEnum):
    SPREAD = "spread"
    """The node with the least promised, in relation to what it has."""
    BINPACK = "binpack"
    """The node with the most promised that still has room, so that others stay empty."""


class Reason(StrEnum):
    """Why a node does not get the container: the first that applies, in this order."""

    SILENT = "silent"
    CORDONED = "cordoned"
    LABELS = "labels"
    RUNTIME = "runtime"
    ENGINE = "engine"
    DISK = "disk"
    FULL = "full"
    MEMORY = "memory"
    CPUS = "cpus"


WORDS: dict[Reason, tuple[str, str]] = {
    Reason.SILENT: ("has no running worker", "have no running worker"),
    Reason.CORDONED: ("is cordoned", "are cordoned"),
    Reason.LABELS: ("has other labels", "have other labels"),
    Reason.RUNTIME: ("lacks the runtime", "lack the runtime"),
    Reason.ENGINE: ("has an engine that does not answer", "have an engine that does not answer"),
    Reason.DISK: ("has too little disk", "have too little disk"),
    Reason.FULL: ("has maxPerNode containers of the pool", "have maxPerNode containers of the pool"),
    Reason.MEMORY: ("has too little memory", "have too little memory"),
    Reason.CPUS: ("has too few processors", "have too few processors"),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pool asks of nodes."""

    strategy: Strategy = Strategy.SPREAD
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have, with these values."""
    max_per_node: int | None = None
    """At most so many containers of the pool on a node, in whatever state."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Rules:
        data = data or {}
        return cls(
            Strategy(data.get("strategy", Strategy.SPREAD)), data.get("selector") or {}, data.get("max_per_node")
        )


@dataclass(frozen=True, slots=True)
class Need:
    """What one container asks of its node."""

    promised: Promised
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the decision sees it. What no worker has reported yet is None."""

    id: str
    is_alive: bool = True
    is_cordoned: bool = False
    is_here: bool = False
    """Whether the deciding process runs there."""
    has_engine: bool = True
    has_disk: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    runtimes: frozenset[str] = frozenset()
    """Empty if they are not known."""
    cpus: int | None = None
    memory_mb: int | None = None
    overcommit: float | None = None
    """Bounds what is promised to this multiple of what the node has; None: it is not bounded."""
    promised: Promised = field(default_factory=Promised)
    of_pool: int = 0
    """Containers of the pool there."""

    @property
    def share(self) -> float:
        """The promised part of the scarcer of memory and processors; nothing known counts as fully promised."""
        if not self.memory_mb or not self.cpus:
            return 1.0
        return max(self.promised.memory_mb / self.memory_mb, self.promised.cpus / self.cpus)


@dataclass(frozen=True, slots=True)
class Refused:
    """No node fits."""

    counts: Mapping[Reason, int]

    @property
    def is_only_disk(self) -> bool:
        return set(self.counts) == {Reason.DISK}

    def words(self) -> str:
        reasons = [f"{count} {WORDS[reason][count > 1]}" for reason in Reason if (count := self.counts.get(reason))]
        return f"No node can take another container: {', '.join(reasons) or 'there is none'}."


def refusal(node: Candidate, need: Need, rules: Rules) -> Reason | None:
    """Why the node cannot take the container; None if it can."""
    if not node.is_alive:
        return Reason.SILENT
    if node.is_cordoned:
        return Reason.CORDONED
    if any(node.labels.get(name) != value for name, value in rules.selector.items()):
        return Reason.LABELS
    if need.runtime and node.runtimes and need.runtime not in node.runtimes:
        return Reason.RUNTIME
    if not node.has_engine:
        return Reason.ENGINE
    if not node.has_disk:
        return Reason.DISK
    if rules.max_per_node is not None and node.of_pool >= rules.max_per_node:
        return Reason.FULL
    return _beyond(node, node.promised + need.promised)


def _beyond(node: Candidate, promised: Promised) -> Reason | None:
    if node.overcommit is None:
        return None
    if node.memory_mb and promised.memory_mb > node.memory_mb * node.overcommit:
        return Reason.MEMORY
    if node.cpus and promised.cpus > node.cpus * node.overcommit:
        return Reason.CPUS
    return None


def choose(nodes: Iterable[Candidate], need: Need, rules: Rules) -> Candidate | Refused:
    """The node for a container with this need. Equal ones are told apart by the pool's containers there, then the
    deciding process's own node, then the id."""
    counts = Counter[Reason]()
    fit: list[Candidate] = []
    for node in nodes:
        if (reason := refusal(node, need, rules)) is None:
            fit.append(node)
        else:
            counts[reason] += 1
    if not fit:
        return Refused(counts)
    sign = -1 if rules.strategy == Strategy.BINPACK else 1
    return min(fit, key=lambda node: (sign * node.share, sign * node.of_pool, not node.is_here, node.id))

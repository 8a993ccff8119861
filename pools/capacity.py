"""What containers are promised on each node, computed from their rows: a counter would drift."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Count

from pools.models import Container, WorkloadVersion


@dataclass(frozen=True, slots=True)
class Promised:
    """The sum of what containers may use: all of a node, until each is gone."""

    containers: int = 0
    cpus: float = 0.0
    memory_mb: int = 0

    def __add__(self, other: Promised) -> Promised:
        return Promised(self.containers + other.containers, self.cpus + other.cpus, self.memory_mb + other.memory_mb)


def of_version(version: WorkloadVersion, count: int = 1) -> Promised:
    """What so many containers of the version are promised."""
    resources = version.spec.resources
    return Promised(count, count * resources.cpus, count * resources.memory_mb)


def promised() -> defaultdict[str, Promised]:
    """Nodes → what their containers are promised. Takes two queries, however many containers there are."""
    found: defaultdict[str, Promised] = defaultdict(Promised)
    rows = Container.objects.order_by().values_list("node_id", "version_id").annotate(n=Count("pk"))
    counts = list(rows)
    versions = WorkloadVersion.objects.in_bulk({version_id for _, version_id, _ in counts})
    for node_id, version_id, count in counts:
        if (version := versions.get(version_id)) is not None:  # else its containers ended meanwhile
            found[node_id] += of_version(version, count)
    return found

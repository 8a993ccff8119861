"""Types of events in words, and the details of an event as labels and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.db.models import Q

from boilerhouse.core.events import ROUTINE
from boilerhouse.core.models import Event
from boilerhouse.core.words import spaced
from boilerhouse.dashboard.templatetags.ui import REASONS, duration_ms, size

LABELS = {
    "container.created": "Container starting",
    "container.ready": "Container ready",
    "container.claimed": "Claimed",
    "container.claim_failed": "Claim failed",
    "container.released": "Released",
    "container.destroyed": "Container removed",
    "container.unhealthy": "Container unhealthy",
    "container.failed": "Container failed to start",
    "container.release_failed": "State not saved",
    "container.lost": "Container lost with its node",
    "sync.started": "Sync started",
    "sync.progress": "Sync progress",
    "sync.completed": "Saved or restored",
    "sync.failed": "Sync failed",
    "sync.cancelled": "Sync cancelled",
    "pool.pulling": "Image pull progress",
    "pool.pulled": "Image pulled",
    "pool.scaled": "Pool changed",
    "pool.warning": "Pool warning",
    "pool.recovered": "Pool recovered",
    "workload.updated": "Workload changed",
    "node.silent": "Node silent",
    "node.returned": "Node returned",
    "node.lost": "Node lost",
    "node.draining": "Node draining",
    "node.drained": "Node drained",
    "node.removed": "Node removed",
    "node.thawed": "Containers of a node were frozen",
    "node.cordoned": "Node cordoned",
    "node.uncordoned": "Node uncordoned",
    "node.joined": "Node joined",
}
"""What each type is called in filters and details. The search for text finds events by these words, too."""

PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "containers": ("Containers", ("container.",)),
    "sync": ("Sync", ("sync.",)),
    "pools": ("Pools", ("pool.", "workload.", "node.")),
}
"""Parts of the list, each with the beginnings of its types. ``people`` is another: what users did."""

_WORDS = {
    "latencyMs": "Took", "durationMs": "Took", "sentBytes": "Sent", "bytes": "State size", "runId": "Run",
    "specId": "Sync spec", "workloadId": "Workload", "detail": "Detail", "code": "Error code",
    "targetSize": "Target size", "desiredSize": "Desired size", "ageMs": "Age", "exitCode": "Exit code",
}  # fmt: skip
_HIDDEN = {"generation"}
"""A number for programs, by which they tell the claims of a tenant apart."""


def label(event_type: str) -> str:
    return LABELS.get(event_type, event_type)


def part(name: str) -> Q:
    """The events of a part. By their beginnings and not by a list of types, which would be read and sorted whole."""
    condition = Q()
    for beginning in PARTS[name][1]:
        condition |= Q(type__startswith=beginning)
    return condition


def types_called(words: str) -> list[str]:
    """Types whose name or label contains the words."""
    words = words.lower()
    return [name for name, text in LABELS.items() if words in name or words in text.lower()]


def choices() -> list[tuple[str, str]]:
    """Types to filter by, by their words; what is routine is last."""
    return sorted(LABELS.items(), key=lambda item: (item[0] in ROUTINE, item[1]))


def facts(event: Event) -> Iterator[tuple[str, str]]:
    """The event's payload: a label and a text for each value that is not empty."""
    for name, value in event.payload.items():
        if value in (None, "", [], {}) or name in _HIDDEN:
            continue
        yield _WORDS.get(name) or spaced(name).capitalize(), _text(name, value)


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.endswith("Ms"):
            return duration_ms(value)
        return size(int(value)) if name.lower().endswith("bytes") else f"{value:,}"
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ", ".join(map(str, value))
    if name == "reason":
        return REASONS.get(str(value), str(value))
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)

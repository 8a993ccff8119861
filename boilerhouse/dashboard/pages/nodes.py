"""The nodes of the deployment: what each has and is promised, and which get new containers."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from boilerhouse.core import node_changes, node_loss
from boilerhouse.core.deployment import node_id as id_of_this_node
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from boilerhouse.dashboard import consequences
from boilerhouse.dashboard.access import action, page
from boilerhouse.dashboard.listing import Choice, Listing
from boilerhouse.operations.node_report import Amount
from pools import capacity
from pools.capacity import Promised

_MB = 1 << 20
STATES = [(NodeState.ACTIVE.value, "active"), (NodeState.SILENT.value, "silent"), (NodeState.LOST.value, "lost")]


@dataclass(frozen=True, slots=True)
class Line:
    """A node of the list."""

    node: Node
    promised: Promised
    is_this: bool
    """Whether the web process that answers is there."""

    @property
    def disk(self) -> Amount | None:
        """None before the first report."""
        whole, free = self.node.disk_mb, self.node.disk_free_mb
        return None if whole is None or free is None else Amount((whole - free) * _MB, whole * _MB)

    @property
    def promised_bytes(self) -> int:
        return self.promised.memory_mb * _MB

    @property
    def memory_bytes(self) -> int | None:
        return None if self.node.memory_mb is None else self.node.memory_mb * _MB

    @property
    def labels(self) -> list[str]:
        return [f"{name}={value}" if value else name for name, value in sorted(self.node.labels.items())]


@page()
def node_list(request: HttpRequest) -> HttpResponse:
    rows = Listing(
        request,
        Node.objects.all(),
        choices=[Choice("state", "state", "state", STATES)],
        search=["id", "name"],
        sorts={"id": "pk", "heartbeat": "heartbeat_at"},
        default="id",
    )
    promised, this = capacity.promised(), id_of_this_node()
    lines = [Line(node, promised[node.pk], node.pk == this) for node in rows]
    return render(request, "pages/nodes.html", {"section": "nodes", "list": rows, "lines": lines})


@action()
def cordon(request: HttpRequest, node_id: str) -> str:
    node_changes.cordon(node_id)
    return f"{node_id} gets no new containers. What it has stays."


@action(asks=consequences.drain_node)
def drain(request: HttpRequest, node_id: str) -> str:
    node_changes.drain(node_id)
    return f"{node_id} is draining. Its tenants are being saved and released."


@action(asks=consequences.declare_node_lost)
def declare_lost(request: HttpRequest, node_id: str) -> str:
    node_loss.declare(node_id, is_off=True)
    return f"{node_id} is lost. Its tenants claim elsewhere."


@action()
def uncordon(request: HttpRequest, node_id: str) -> str:
    node_changes.uncordon(node_id)
    return f"{node_id} gets new containers again."

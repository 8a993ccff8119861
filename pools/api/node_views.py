"""Endpoints of nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.core import node_changes, node_loss
from boilerhouse.core.models import Node
from pools import capacity
from pools.api.node_fields import CordonInput, DrainInput, LostInput, NodeInput, NodeOutput, render_node

SETTINGS = {"labels", "overcommit"}
"""What ``PUT`` changes; its ETag says nothing of what the node's worker reports all the time."""
VOLATILE = frozenset(NodeOutput().fields) - SETTINGS


def _show(node_id: str) -> dict[str, Any]:
    return _render(node_changes.find(node_id))


def _render(node: Node) -> dict[str, Any]:
    return render_node(node, capacity.promised()[node.pk])


class NodeListView(ApiView):
    volatile = VOLATILE

    @operation(
        operation_id="listNodes",
        summary="List nodes",
        parameters=[query("state"), LIMIT, CURSOR],
        responses=page_of("NodePage", NodeOutput),
    )
    def get(self, request: Any) -> Response:
        promised = capacity.promised()
        return paginate(
            request, Node.objects.all(), lambda node: render_node(node, promised[node.pk]), {"state": "state"}
        )


class NodeView(ApiView):
    volatile = VOLATILE

    @operation(operation_id="getNode", summary="Show a node", responses=NodeOutput)
    def get(self, request: Any, node_id: str) -> Response:
        return self.with_etag(_show(node_id))

    @operation(
        operation_id="replaceNode",
        summary="Change a node's labels and overcommitment",
        description="Applies to containers that start from now on; those that are there stay.",
        request=NodeInput,
        responses=NodeOutput,
    )
    def put(self, request: Any, node_id: str) -> Response:
        self.check_match(_show(node_id))
        body = self.read(NodeInput)
        node_changes.replace(node_id, **body.validated_data, check=lambda locked: self.check_match(_render(locked)))
        return self.with_etag(_show(node_id))


class NodeCordonView(ApiView):
    volatile = VOLATILE

    @operation(
        operation_id="cordonNode",
        summary="Give a node no new containers",
        description="What it has stays and is used: idle containers are claimed, tenants keep theirs. A node that is"
        " cordoned already keeps its reason.",
        request=CordonInput,
        is_body_optional=True,
        responses=NodeOutput,
    )
    def post(self, request: Any, node_id: str) -> Response:
        node_changes.cordon(node_id, self.read(CordonInput).validated_data["reason"])
        return self.with_etag(_show(node_id))


class NodeDrainView(ApiView):
    volatile = VOLATILE

    @operation(
        operation_id="drainNode",
        summary="Empty a node",
        description="It is cordoned, its idle containers are replaced on other nodes, and its tenants are released with"
        " a save, a few at a time, from `afterMs` on. `drainedAt` is set when it has no container any more. `uncordon`"
        " ends it.",
        request=DrainInput,
        is_body_optional=True,
        responses=NodeOutput,
    )
    def post(self, request: Any, node_id: str) -> Response:
        body = self.read(DrainInput).validated_data
        node_changes.drain(node_id, body["reason"], after=timedelta(milliseconds=body["after_ms"]))
        return self.with_etag(_show(node_id))


class NodeLostView(ApiView):
    volatile = VOLATILE

    @operation(
        operation_id="declareNodeLost",
        summary="Declare a node lost",
        description="For a machine that does not come back soon. Its tenants can claim elsewhere at once, and get what"
        " they last saved. Say isOff only if nothing runs there any more: a container that still runs would make two"
        " for one tenant.",
        request=LostInput,
        problems={409: "node_alive node_may_run"},
        responses=NodeOutput,
    )
    def post(self, request: Any, node_id: str) -> Response:
        body = self.read(LostInput).validated_data
        node_loss.declare(node_id, body["reason"], is_off=body["is_off"])
        return self.with_etag(_show(node_id))


class NodeUncordonView(ApiView):
    volatile = VOLATILE

    @operation(operation_id="uncordonNode", summary="Give a node new containers again", responses=NodeOutput)
    def post(self, request: Any, node_id: str) -> Response:
        node_changes.uncordon(node_id)
        return self.with_etag(_show(node_id))

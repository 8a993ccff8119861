"""Orders of other nodes: what a node's own web process does at once, on behalf of the one that has the request.

Only the server of other nodes has these addresses (``web.node_server``); anywhere else, nothing is there.
"""

from __future__ import annotations

import json
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from boilerhouse.core import context
from boilerhouse.core.errors import Elsewhere
from boilerhouse.web import node_calls
from tenants import commands, preparation
from tenants.api import claim_commands


@csrf_exempt  # nodes have no sessions
@require_POST
def take_claim(request: HttpRequest, assignment_id: UUID) -> HttpResponse:
    """Finish a pending claim of a container of this node, or pass it to a worker here: 204. 409 if it is not pending,
    or another process has it."""
    if not node_calls.is_node_server:
        raise Http404
    try:
        generation = int(json.loads(request.body)["generation"])
    except (ValueError, KeyError, TypeError):
        return HttpResponse(status=400)
    return HttpResponse(status=204 if preparation.take_order(assignment_id, generation) else 409)


take_claim.lane = "claim"  # type: ignore[attr-defined]


@csrf_exempt
@require_POST
def run_first_command(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """Run the first command of a claim in its container, and answer what the claim's answer says of it. 409 if the
    container is not here."""
    if not node_calls.is_node_server:
        raise Http404
    try:
        order = json.loads(request.body)
        command_id, actor, wish = str(order["commandId"]), str(order["actor"]), commands.Wish.from_json(order["wish"])
    except (ValueError, KeyError, TypeError):
        return HttpResponse(status=400)
    try:
        with context.acting(actor, context.request_id()):
            return JsonResponse(claim_commands.run_here(container_id, command_id, wish))
    except Elsewhere:
        return HttpResponse(status=409)


run_first_command.lane = "slow"  # type: ignore[attr-defined]

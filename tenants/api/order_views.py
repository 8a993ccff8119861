"""Orders of other nodes: what a node's own web process does at once, on behalf of the one that has the request.

Only the server of other nodes has these addresses (``web.node_server``); anywhere else, nothing is there.
"""

from __future__ import annotations

import json
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from boilerhouse.web import node_calls
from tenants import preparation


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

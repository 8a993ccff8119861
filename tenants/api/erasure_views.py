"""Delete a tenant's state for good: erase it at the sinks, or accept that it has vanished from them."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.process import budgets
from tenants import state_erasure
from tenants.api.waiting import TIMEOUT, Awaited, WaitingView, patience, timeout_ms

DEFAULT_ERASE_MS = 60_000


class ForgottenOutput(ApiSerializer):
    forgotten = serializers.IntegerField(help_text="The number of saved locations that are now expected to be empty")


class StateView(WaitingView):
    @operation(
        operation_id="eraseTenantState",
        acts="Deletes files of this node; workers erase the rest. A repeated request joins it.",
        problems={409: "held restoring_backup out_of_reach", 502: "erase_failed"},
        summary="Erase the tenant's state",
        description="Erases the state at every sink, including backups, and discarded state on this"
        " node. The next claim starts empty. The tenant must hold nothing (409 `held`)."
        " 204: everything is erased. 202: not finished within `timeoutMs`; repeat the"
        " request to keep waiting. 502 `erase_failed`: a sink refused; repeat the request"
        " to continue.",
        parameters=[TIMEOUT],
        responses={204: None, 202: None},
    )
    def delete(self, request: Any, tenant_id: str) -> HttpResponse:
        return self.answer(request, partial(self._begin, request, tenant_id))

    def _begin(self, request: Any, tenant_id: str) -> Awaited:
        until = time.time() + timeout_ms(request, DEFAULT_ERASE_MS) / 1000
        erasure = state_erasure.begin(tenant_id)
        owners = budgets.owners(request.auth, budgets.tenant(tenant_id))

        def settle() -> Response | None:
            return Response(status=204) if state_erasure.settle(erasure) else None

        key = (erasure.tenant_id, erasure.generation)
        return Awaited(
            key, state_erasure.settled, settle, patience(until, owners), owners, lambda: Response(status=202)
        )


class ForgetStateView(ApiView):
    admin_only = True
    tenant_scoped = False

    @operation(
        operation_id="forgetTenantState",
        problems={409: "not_missing held"},
        summary="Let the next claim start empty",
        description="Allowed after a claim failed with `state_missing` or `state_moved` (otherwise"
        " 409 `not_missing`). The records of saved state are kept.",
        request=None,
        responses=ForgottenOutput,
    )
    def post(self, request: Any, tenant_id: str) -> Response:
        return Response({"forgotten": state_erasure.forget_state(tenant_id)})

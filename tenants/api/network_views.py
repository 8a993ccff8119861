"""The network policy of a tenant's running container."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework.response import Response

from boilerhouse.api.schema import operation
from boilerhouse.core.models import Role
from boilerhouse.process import budgets
from pools.api.network_fields import EgressField
from pools.egress import Egress
from tenants import networks
from tenants.api.serializers import NetworkOutput, render_network
from tenants.api.waiting import Awaited, WaitingView, check_room

WAIT_S = 5.0
"""How long a response waits for the packet filter, which takes milliseconds; "inForce" reports the result."""


class NetworkView(WaitingView):
    @operation(
        operation_id="getTenantNetwork",
        problems={409: "not_assigned"},
        summary="Show where the tenant's container may send packets",
        responses=NetworkOutput,
    )
    def get(self, request: Any, tenant_id: str) -> Response:
        return Response(render_network(networks.find_assignment(tenant_id)))

    @operation(
        operation_id="setTenantNetwork",
        acts="A worker changes the packet filter. A repeated request with the same policy changes nothing.",
        problems={409: "not_assigned"},
        summary="Change where the tenant's running container may send packets",
        description="The policy must be within the pool's policy and lasts until the tenant is"
        " released. A key of role `tenant` must stay within a policy that a key of"
        " another role set. Connections that the policy closes end. The answer comes when"
        " the policy is in force.",
        request=EgressField,
        responses=NetworkOutput,
    )
    def put(self, request: Any, tenant_id: str) -> HttpResponse:
        return self.answer(request, partial(self._begin, request, tenant_id))

    def _begin(self, request: Any, tenant_id: str) -> Awaited:
        body = self.read(EgressField)
        owners = budgets.owners(request.auth, budgets.tenant(tenant_id))
        check_room(owners)
        policy, by_tenant = Egress.from_json(body.validated_data), request.auth.role == Role.TENANT
        change, until = networks.begin(tenant_id, policy, by_tenant=by_tenant), time.time() + WAIT_S

        def shown() -> Response:
            return Response(render_network(networks.find_assignment(tenant_id)))

        def settle() -> Response | None:
            return shown() if networks.settled({change}) else None

        return Awaited(change, networks.settled, settle, until, owners, shown)

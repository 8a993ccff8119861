"""Links to ports of tenants' containers through the gateway."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.api.serializers import ApiSerializer
from tenants.gateway import links, passes

DEFAULT_S = 3600


class PortLinkInput(ApiSerializer):
    expires_in_s = serializers.IntegerField(min_value=1, max_value=passes.MAX_S, default=DEFAULT_S)


class PortLinkOutput(ApiSerializer):
    url = serializers.CharField()
    expires_at = serializers.DateTimeField()


class PortLinkView(ApiView):
    @operation(
        operation_id="signPortLink",
        problems={404: "port_not_found", 409: "not_assigned releasing gateway_off"},
        summary="Sign a link to a port",
        description="A URL that a browser opens without a key: the gateway exchanges it for a cookie of this"
        " port's host name. Both end when the link expires, and within five seconds after the key that made it is"
        " revoked.",
        request=PortLinkInput,
        is_body_optional=True,
        responses={201: PortLinkOutput},
    )
    def post(self, request: Any, tenant_id: str, port: str) -> Response:
        lasts_s = self.read(PortLinkInput).validated_data["expires_in_s"]
        link = links.make(tenant_id, port, lasts_s, request.auth.pk)
        return Response(PortLinkOutput(link).data, status=201)

"""Endpoints by which further machines join: tokens for admins, and the call of the machine itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of
from boilerhouse.core import node_tokens
from boilerhouse.core.models import NodeToken
from pools.api.node_join_fields import (
    NewNodeTokenOutput,
    NodeJoinInput,
    NodeMembershipOutput,
    NodeTokenInput,
    NodeTokenOutput,
    render_token,
)


class NodeTokenListView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listNodeTokens",
        summary="List tokens for machines that join",
        description="Includes those that were used or have expired, for 30 days.",
        parameters=[LIMIT, CURSOR],
        responses=page_of("NodeTokenPage", NodeTokenOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, NodeToken.objects.all(), render_token, {})

    @operation(
        operation_id="createNodeToken",
        summary="Create a token with which one machine can join",
        description="`token` is shown once; only its hash is stored. It is used once, by `manage.py join` on the new"
        " machine, which gets all keys of the deployment: handle the token as you would handle these. 409"
        " `one_machine_only` on SQLite.",
        request=NodeTokenInput,
        is_body_optional=True,
        problems={409: "one_machine_only"},
        responses={201: NewNodeTokenOutput},
    )
    def post(self, request: Any) -> Response:
        ttl = timedelta(milliseconds=self.read(NodeTokenInput).validated_data["ttl_ms"])
        row, token = node_tokens.create(ttl)
        return Response({**render_token(row), "token": token}, status=201)


class NodeTokenView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="revokeNodeToken",
        summary="Revoke a token for machines that join",
        description="409 if a machine has joined with it.",
        problems={409: "node_token_ended"},
        responses={204: None},
    )
    def delete(self, request: Any, token_id: str) -> Response:
        node_tokens.revoke(token_id)
        return Response(status=204)


class NodeJoinView(ApiView):
    is_public = True

    @operation(
        operation_id="joinNode",
        summary="Make a machine a node of the deployment",
        description="For `manage.py join`. The token in the body is the permission, and is used up. The answer contains"
        " all keys of the deployment. If the call is refused, the token can still be used.",
        request=NodeJoinInput,
        problems={
            403: "bad_node_token",
            409: "node_token_ended one_machine_only wrong_deployment other_release clock_skew node_is_at_work",
            429: "budget_exceeded",
        },
        auth=[],
        responses=NodeMembershipOutput,
    )
    def post(self, request: Any) -> Response:
        from boilerhouse.core import node_joins  # certificates take eight megabytes, and are needed on such a day only

        body = dict(self.read(NodeJoinInput).validated_data)
        membership = node_joins.join(body.pop("token"), node_joins.Machine(**body))
        return Response(NodeMembershipOutput(membership).data, headers={"Cache-Control": "no-store"})

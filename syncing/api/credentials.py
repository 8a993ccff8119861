"""Credentials: write-only secrets that sync specs name."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.core.api.pagination import check_parameters, paginate
from boilerhouse.core.api.schema import CURSOR, LIMIT, page_of
from boilerhouse.core.api.serializers import ApiSerializer
from pools.api.serializers import slug
from pools.api.views import same_id
from syncing import credentials
from syncing.models import Credential


class CredentialInput(ApiSerializer):
    read_only_ignored = frozenset({"usedBy", "createdAt"})

    id = serializers.CharField(required=False, validators=[slug])
    name = serializers.CharField(max_length=200)
    access_key_id = serializers.CharField(max_length=200)
    secret_access_key = serializers.CharField(max_length=500, write_only=True, trim_whitespace=False)


class CredentialOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    access_key_id = serializers.CharField()
    used_by = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()


def render_credential(credential: Credential) -> dict[str, Any]:
    return {
        "id": credential.pk,
        "name": credential.name,
        "accessKeyId": credential.secret["accessKeyId"],
        "usedBy": sorted(spec.pk for spec in credential.syncspec_set.all()),
        "createdAt": credential.created_at,
    }


def _fields(data: dict[str, Any]) -> dict[str, str]:
    return {name: data[name] for name in ("name", "access_key_id", "secret_access_key")}


class CredentialListView(APIView):
    admin_only = True
    viewer_may_read = False
    problem_codes = ("409",)

    @extend_schema(
        operation_id="listCredentials",
        summary="List credentials",
        parameters=[LIMIT, CURSOR],
        responses=page_of("CredentialPage", CredentialOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Credential.objects.prefetch_related("syncspec_set"), render_credential, {})

    @extend_schema(
        operation_id="createCredential",
        summary="Store a credential",
        description="The secret is encrypted and never shown again. Sync specs name it as `sink.credentialId`.",
        request=CredentialInput,
        responses={201: CredentialOutput},
    )
    def post(self, request: Any) -> Response:
        check_parameters(request, ())
        body = CredentialInput(data=request.data)
        body.is_valid(raise_exception=True)
        made = credentials.create(id=body.validated_data.get("id"), **_fields(body.validated_data))
        return Response(render_credential(credentials.find(made.pk)), status=201)


class CredentialView(APIView):
    admin_only = True
    viewer_may_read = False
    problem_codes = ("409",)

    @extend_schema(
        operation_id="replaceCredential",
        summary="Rotate a credential",
        description="Transfers that run go on with the old one; all later ones use the new one at once.",
        request=CredentialInput,
        responses=CredentialOutput,
    )
    def put(self, request: Any, credential_id: str) -> Response:
        check_parameters(request, ())
        credential = credentials.find(credential_id)
        body = CredentialInput(data=request.data)
        body.is_valid(raise_exception=True)
        data = dict(body.validated_data)
        same_id(data, credential_id)
        credentials.replace(credential, **_fields(data))
        return Response(render_credential(credentials.find(credential_id)))

    @extend_schema(
        operation_id="deleteCredential", summary="Delete a credential that no spec uses", responses={204: None}
    )
    def delete(self, request: Any, credential_id: str) -> Response:
        check_parameters(request, ())
        credentials.delete(credentials.find(credential_id))
        return Response(status=204)

"""Endpoints of credentials."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of
from boilerhouse.core.ids import check_same_id
from syncing import credentials
from syncing.api.credentials import CredentialInput, CredentialOutput, render_credential
from syncing.models import Credential


def _fields(data: dict[str, Any]) -> dict[str, str]:
    return {name: data[name] for name in ("name", "access_key_id", "secret_access_key")}


class CredentialListView(ApiView):
    admin_only = True
    volatile = frozenset({"usedBy"})
    viewer_may_read = False

    @operation(
        operation_id="listCredentials",
        summary="List credentials",
        parameters=[LIMIT, CURSOR],
        responses=page_of("CredentialPage", CredentialOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Credential.objects.prefetch_related("syncspec_set"), render_credential, {})

    @operation(
        operation_id="createCredential",
        problems={409: "id_taken"},
        summary="Store a credential",
        description="The secret is encrypted and never shown again. Sync specs refer to the"
        " credential by `sink.credentialId`.",
        request=CredentialInput,
        responses={201: CredentialOutput},
    )
    def post(self, request: Any) -> Response:
        body = self.read(CredentialInput)
        credential = credentials.create(id=body.validated_data.get("id"), **_fields(body.validated_data))
        return self.with_etag(render_credential(credentials.find(credential.pk)), 201)


class CredentialView(ApiView):
    admin_only = True
    volatile = frozenset({"usedBy"})
    viewer_may_read = False

    @operation(operation_id="getCredential", summary="Show a credential", responses=CredentialOutput)
    def get(self, request: Any, credential_id: str) -> Response:
        return self.with_etag(render_credential(credentials.find(credential_id)))

    @operation(
        operation_id="replaceCredential",
        summary="Rotate a credential",
        description="Running transfers continue with the old secret; all later ones use the new one.",
        request=CredentialInput,
        responses=CredentialOutput,
    )
    def put(self, request: Any, credential_id: str) -> Response:
        credential = credentials.find(credential_id)
        self.check_match(render_credential(credential))
        body = self.read(CredentialInput)
        data = dict(body.validated_data)
        check_same_id(data, credential_id)
        credentials.replace(
            credential, check=lambda locked: self.check_match(render_credential(locked)), **_fields(data)
        )
        return self.with_etag(render_credential(credentials.find(credential_id)))

    @operation(
        operation_id="deleteCredential",
        problems={409: "in_use"},
        summary="Delete a credential that no spec uses",
        responses={204: None},
    )
    def delete(self, request: Any, credential_id: str) -> Response:
        credentials.delete(credentials.find(credential_id))
        return Response(status=204)

"""Endpoints of registry credentials."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import boolean, paginate
from boilerhouse.api.schema import CURSOR, LIMIT, flag, operation, page_of
from boilerhouse.core.ids import check_same_id
from pools import registry_credentials
from pools.api.registry_credentials import (
    RegistryCredentialInput,
    RegistryCredentialOutput,
    find_and_render,
    render_registry_credential,
    same_registry,
    secret_of,
)
from pools.models import RegistryCredential


class RegistryCredentialListView(ApiView):
    admin_only = True
    volatile = frozenset({"usedBy"})
    viewer_may_read = False

    @operation(
        operation_id="listRegistryCredentials",
        summary="List credentials for registries",
        parameters=[LIMIT, CURSOR],
        responses=page_of("RegistryCredentialPage", RegistryCredentialOutput),
    )
    def get(self, request: Any) -> Response:
        users = registry_credentials.users()
        return paginate(
            request,
            RegistryCredential.objects.all(),
            lambda row: render_registry_credential(row, users.get(row.pk, [])),
            {},
        )

    @operation(
        operation_id="createRegistryCredential",
        problems={409: "id_taken registry_taken"},
        summary="Store a credential for a registry",
        description="Images at this registry and path are pulled with it; of several matches, the"
        " longest path wins. The secret is encrypted and never shown again. Pools that"
        " could not start retry immediately.",
        request=RegistryCredentialInput,
        responses={201: RegistryCredentialOutput},
    )
    def post(self, request: Any) -> Response:
        data = self.read(RegistryCredentialInput).validated_data
        credential = registry_credentials.create(
            id=data.get("id"), name=data.get("name") or data["registry"], registry=data["registry"],
            secret=secret_of(data),
        )  # fmt: skip
        return self.with_etag(find_and_render(credential.pk), 201)


class RegistryCredentialView(ApiView):
    admin_only = True
    volatile = frozenset({"usedBy"})
    viewer_may_read = False

    @operation(
        operation_id="getRegistryCredential",
        summary="Show a credential for a registry",
        responses=RegistryCredentialOutput,
    )
    def get(self, request: Any, registry_credential_id: str) -> Response:
        return self.with_etag(find_and_render(registry_credential_id))

    @operation(
        operation_id="replaceRegistryCredential",
        summary="Rotate a credential for a registry",
        description="The next pull uses it. Pools that could not start retry immediately. `registry` cannot change.",
        request=RegistryCredentialInput,
        responses=RegistryCredentialOutput,
    )
    def put(self, request: Any, registry_credential_id: str) -> Response:
        credential = registry_credentials.find(registry_credential_id)
        self.check_match(render_registry_credential(credential, ()))
        data = dict(self.read(RegistryCredentialInput).validated_data)
        check_same_id(data, registry_credential_id)
        same_registry(data, credential)
        registry_credentials.replace(
            credential,
            name=data.get("name") or credential.name,
            secret=secret_of(data),
            check=lambda locked: self.check_match(render_registry_credential(locked, ())),
        )
        return self.with_etag(find_and_render(registry_credential_id))

    @operation(
        operation_id="deleteRegistryCredential",
        problems={409: "in_use"},
        summary="Delete a credential for a registry",
        parameters=[flag("force", "Delete it even if images of workloads are pulled with it.")],
        responses={204: None},
    )
    def delete(self, request: Any, registry_credential_id: str) -> Response:
        credential = registry_credentials.find(registry_credential_id)
        registry_credentials.delete(credential, force=boolean(request, "force"))
        return Response(status=204)

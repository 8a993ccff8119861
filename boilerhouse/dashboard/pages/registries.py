"""Settings: registry credentials."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.errors import Conflict
from boilerhouse.core.models import Role
from boilerhouse.dashboard import consequences
from boilerhouse.dashboard.access import action, form_page, page
from boilerhouse.dashboard.forms import ApiForm
from pools import registry_credentials
from pools.api.registry_credentials import (
    RegistryCredentialInput,
    find_and_render,
    render_registry_credential,
    secret_of,
)
from pools.models import RegistryCredential

LABELS = {
    "id": ("Id", "Shown in pull errors. Leave empty to derive it from the name"),
    "name": ("Name", "A label. Leave empty to use the registry"),
    "registry": ("Registry", "As in image names: registry.example.com:5000, docker.io, or with a path, ghcr.io/acme"),
    "username": ("User name", "For the account or the access token"),
    "password": ("Password or access token", "Stored encrypted; never shown again"),
    "identityToken": ("Identity token", "Instead of both, if the registry issues one"),
}
SECRETS = ["password", "identityToken"]


def new_form() -> ApiForm:
    return ApiForm(RegistryCredentialInput, list(LABELS), LABELS, {}, secrets=SECRETS)


def rotation_form(credential: RegistryCredential) -> ApiForm:
    names = ["name", "username", *SECRETS]
    values = {"name": credential.name, "username": credential.secret.get("username")}
    return ApiForm(RegistryCredentialInput, names, LABELS, values, secrets=SECRETS)


def _list_page(request: HttpRequest, form: ApiForm, status: int = 200) -> HttpResponse:
    users = registry_credentials.users()
    rows = [
        render_registry_credential(credential, users[credential.pk])
        for credential in RegistryCredential.objects.order_by("registry")
    ]
    context = {"section": "registries", "rows": rows, "form": form}
    return render(request, "pages/registries.html", context, status=status)


@page(Role.ADMIN)
def _list(request: HttpRequest) -> HttpResponse:
    return _list_page(request, new_form())


@action(Role.ADMIN)
def _create(request: HttpRequest) -> HttpResponse:
    form = new_form()
    data = form.read(request.POST)
    if data is not None:
        try:
            credential = registry_credentials.create(
                id=data.get("id"), name=data.get("name") or data["registry"], registry=data["registry"],
                secret=secret_of(data),
            )  # fmt: skip
        except Conflict as error:
            form.add(error)
        else:
            messages.success(
                request, f"Credential {credential.pk} stored. Images from {credential.registry} are pulled with it."
            )
            return HttpResponseRedirect(reverse("registries"), status=303)
    return _list_page(request, form, 422)


registry_list = form_page(_list, _create)


def _rotation_page(request: HttpRequest, form: ApiForm, credential: dict[str, Any], status: int = 200) -> HttpResponse:
    context = {"section": "registries", "credential": credential, "form": form}
    return render(request, "pages/registry_credential.html", context, status=status)


@page(Role.ADMIN)
def _rotation(request: HttpRequest, registry_credential_id: str) -> HttpResponse:
    credential = find_and_render(registry_credential_id)
    return _rotation_page(request, rotation_form(registry_credentials.find(registry_credential_id)), credential)


@action(Role.ADMIN)
def _rotate(request: HttpRequest, registry_credential_id: str) -> HttpResponse:
    credential = registry_credentials.find(registry_credential_id)
    form = rotation_form(credential)
    data = form.read(request.POST, registry=credential.registry)
    if data is None:
        return _rotation_page(request, form, find_and_render(registry_credential_id), 422)
    registry_credentials.replace(credential, name=data.get("name") or credential.name, secret=secret_of(data))
    messages.success(
        request, f"Credential {registry_credential_id} replaced. The next pull from {credential.registry} uses it."
    )
    return HttpResponseRedirect(reverse("registries"), status=303)


rotate_registry = form_page(_rotation, _rotate)


@action(Role.ADMIN, asks=consequences.delete_registry_credential)
def delete_registry(request: HttpRequest, registry_credential_id: str) -> str:
    registry_credentials.delete(registry_credentials.find(registry_credential_id))
    return f"Credential {registry_credential_id} deleted."

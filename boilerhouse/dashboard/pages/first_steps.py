"""What the buttons of the first steps do, and a claim from a page."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.models import Role
from boilerhouse.dashboard import api_calls, config_fields
from boilerhouse.dashboard.access import action, form_page, page, slow
from boilerhouse.dashboard.config_fields import ConfigField
from boilerhouse.operations import example
from pools.models import Pool
from pools.services import find_pool
from tenants import claims
from tenants.validation import Claim

TIMEOUT_MS = 60_000
MAX_JSON = 200_000


@slow
@action(acts="Builds the image at the engine if it is missing; the objects are created in one transaction.")
def load_example(request: HttpRequest) -> str:
    results = example.load()
    objects = [f"{result.kind} {result.id}" for result in results if result.outcome != "unchanged"]
    return f"Created: {', '.join(objects)}." if objects else "The example is already loaded."


@slow
@action(acts="Asks the sink first; the sync spec is created in one transaction.")
def use_built_in_s3(request: HttpRequest, pool_id: str) -> str:
    return f"{example.save_to_embedded_s3(find_pool(pool_id))} saves the state of {pool_id} to the built-in S3."


# A claim -----------------------------------------------------------------------------------------------


def _form(
    request: HttpRequest, pool: Pool, fields: list[ConfigField], *, tenant_id: str, text: str, errors: list[FieldError]
) -> HttpResponse:
    schema = pool.serving_version.spec.config_schema
    config, _ = config_fields.read(fields, request.POST) if errors else (config_fields.sample(schema) or {}, [])
    by_name = {f"/config/{one.name}": one for one in fields}
    for error in errors:
        if error.pointer in by_name:
            by_name[error.pointer].error = error.detail
    context: dict[str, Any] = {
        "pool": pool, "fields": fields, "tenant_id": tenant_id, "text": text, "has_schema": schema is not None,
        "tenant_error": next((error.detail for error in errors if error.pointer == "/tenantId"), ""),
        "errors": [error for error in errors if error.pointer not in by_name and error.pointer != "/tenantId"],
        "is_wrong": bool(errors),
        "same_by": api_calls.spell(request, [api_calls.claim(tenant_id or "alice", pool.pk, config or None)]),
    }  # fmt: skip
    answer = render(request, "pages/claim.html", context, status=422 if errors else 200)
    answer["Cache-Control"] = "no-store"
    return answer


@page(Role.OPERATOR)
def _ask(request: HttpRequest, pool_id: str) -> HttpResponse:
    pool = find_pool(pool_id)
    fields = config_fields.of_schema(pool.serving_version.spec.config_schema)
    return _form(request, pool, fields, tenant_id=request.GET.get("tenant", "")[:128], text="{}", errors=[])


@action(acts="A worker takes and fills the container; the tenant's page shows each step.")
def _claim(request: HttpRequest, pool_id: str) -> HttpResponse:
    """Claim as the API does with ``wait: false``, and go to the tenant's page."""
    pool = find_pool(pool_id)
    fields = config_fields.of_schema(pool.serving_version.spec.config_schema)
    tenant_id, text = request.POST.get("tenant", "").strip(), request.POST.get("config", "{}")[:MAX_JSON]
    config, errors = config_fields.read(fields, request.POST) if fields else _json(text)
    if not tenant_id:
        errors.append(FieldError("/tenantId", "Enter the tenant's id.", "required"))
    if not errors:
        try:
            begun = claims.begin(Claim(tenant_id, pool_id, config or None, wait=False, timeout_ms=TIMEOUT_MS))
        except Invalid as error:
            errors = [FieldError(wrong.pointer or "/tenantId", wrong.detail, wrong.code) for wrong in error.errors]
        except BoilerhouseError as error:
            errors = [FieldError("", error.detail, error.code)]
    if errors:
        return _form(request, pool, fields, tenant_id=tenant_id, text=text, errors=errors)
    if begun.is_new:
        messages.success(request, f"Claiming a container of {pool_id} for {tenant_id}.")
    else:
        messages.warning(request, f"{tenant_id} already has a container of {pool_id}. Nothing was changed.")
    return HttpResponseRedirect(reverse("tenant", args=[tenant_id]), status=303)


def _json(text: str) -> tuple[dict[str, Any], list[FieldError]]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        return {}, [FieldError("/config", f"Not JSON: {str(error)[:200]}", "malformed")]
    if not isinstance(value, dict):
        return {}, [FieldError("/config", "A config must be a JSON object: { … }.", "invalid")]
    return value, []


claim = slow(form_page(_ask, _claim))

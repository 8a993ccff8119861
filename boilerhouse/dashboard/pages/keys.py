"""Settings: API keys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.api.key_fields import ApiKeyInput
from boilerhouse.core import api_keys
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.models import ApiKey, Role
from boilerhouse.dashboard import api_calls, config_fields, consequences, forms
from boilerhouse.dashboard.access import action, form_page, page
from boilerhouse.dashboard.forms import ApiForm
from boilerhouse.dashboard.listing import Choice, Listing
from pools.models import Pool

LABELS = {
    "name": ("Name", "The program that uses the key; shown in logs and changes"),
    "role": ("Role", "Viewers read, operators act, admins also manage users, keys and settings"),
    "tenantIds": ("Tenants", "The ids that the key may act for, separated by spaces"),
    "expiresAt": ("Expires", "Until then, programs have to change to a new key"),
}
ROLES = [(str(value), str(label)) for value, label in Role.choices]
LIVES = (("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year"), ("never", "Never"), ("on", "On a date"))
DEFAULT_LIFE = "90"
OVERLAPS = (
    ("0", "Now"), ("3600", "In 1 hour"), ("86400", "In 1 day"), ("604800", "In 7 days"), ("2592000", "In 30 days"),
)  # fmt: skip
SOON = timedelta(days=7)
"""A key that expires earlier than this from now is marked."""


def _form() -> ApiForm:
    return ApiForm(
        ApiKeyInput, list(LABELS), LABELS, {"role": Role.OPERATOR.value}, {"role": ROLES}, lists=["tenantIds"]
    )


def _expiry(posted: Mapping[str, str]) -> str:
    """What the form chose, as the API takes it; empty for never. Raises Invalid."""
    life = posted.get("life", "never")
    if life == "never":
        return ""
    if life in ("30", "90", "365"):
        return (timezone.now() + timedelta(days=int(life))).isoformat()
    try:
        day = date.fromisoformat(posted.get("day", "").strip())
    except ValueError:
        raise Invalid(FieldError("/expiresAt", "Enter a date, such as 2027-01-31.", "malformed")) from None
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


def _read(form: ApiForm, posted: Mapping[str, str]) -> dict[str, Any] | None:
    """The validated input of the form; None if there are errors, which it then shows."""
    values = {name: posted.get(name, "") for name in ("name", "role")}
    if values["role"] == Role.TENANT:
        values["tenantIds"] = posted.get("tenantIds", "")
    wrong: Invalid | None = None
    try:
        values["expiresAt"] = _expiry(posted)
    except Invalid as error:
        wrong = error
    data = form.read(values)
    if wrong is not None:
        form.add(wrong)
        return None
    return data


def _key_page(request: HttpRequest, form: ApiForm, status: int = 200, **more: Any) -> HttpResponse:
    now = timezone.now()
    rows = Listing(
        request,
        ApiKey.objects.all(),
        choices=[Choice("role", "role", "role", ROLES)],
        search=["name", "id"],
        sorts={"name": "name", "made": "created_at", "used": "last_used_at", "expires": "expires_at"},
        default="-made",
    )
    context = {
        "section": "keys", "list": rows, "form": form, "form_id": secrets.token_urlsafe(12), "soon": now + SOON,
        "lives": LIVES, "life": request.POST.get("life", DEFAULT_LIFE), "day": request.POST.get("day", "")[:20],
        "today": now.date().isoformat(), **more,
    }  # fmt: skip
    return render(request, "pages/keys.html", context, status=status)


@page(Role.ADMIN)
def _keys(request: HttpRequest) -> HttpResponse:
    return _key_page(request, _form())


def _sent_before(request: HttpRequest) -> HttpResponse:
    messages.warning(request, "This form was sent before. No other key was created.")
    return HttpResponseRedirect(reverse("settings-keys"), status=303)


def _example(request: HttpRequest, key: ApiKey) -> api_calls.Spelled:
    """A call that this key may make: a claim, if there is a pool to claim from."""
    pool = Pool.objects.select_related("workload", "good_version").order_by("created_at").first()
    if pool is None or key.role == Role.VIEWER:
        return api_calls.spell(request, [api_calls.stats()])
    tenant = key.tenant_ids[0] if key.tenant_ids else api_calls.TENANT
    config = config_fields.sample(pool.serving_version.spec.config_schema)
    return api_calls.spell(request, [api_calls.claim(tenant, pool.pk, config)])


def _shown_once(request: HttpRequest, row: ApiKey, key: str, old: ApiKey | None = None) -> HttpResponse:
    answer = _key_page(request, _form(), made=row, key=key, old=old, example=_example(request, row))
    answer["Cache-Control"] = "no-store"
    return answer


@action(Role.ADMIN)
def _create(request: HttpRequest) -> HttpResponse:
    form = _form()
    data = _read(form, request.POST)
    if data is None:
        return _key_page(request, form, 422)
    if not forms.is_first(request):
        return _sent_before(request)
    row, key = api_keys.create_key(
        name=data["name"], role=Role(data["role"]), tenant_ids=data.get("tenant_ids"), expires_at=data.get("expires_at")
    )
    return _shown_once(request, row, key)


keys = form_page(_keys, _create)


def _rotation_page(request: HttpRequest, key_id: str) -> HttpResponse:
    old = ApiKey.objects.filter(pk=key_id).first()
    if old is None:
        raise api_keys.ApiKeyNotFound(f"No API key {key_id[:60]}.")
    newest = api_keys.newest_of(old)
    life = newest.expires_at - newest.created_at if newest.expires_at else None
    context = {
        "section": "keys", "old": old, "newest": newest, "overlaps": OVERLAPS, "overlap": "86400", "life": life,
        "form_id": secrets.token_urlsafe(12),
    }  # fmt: skip
    return render(request, "pages/key_rotation.html", context)


@page(Role.ADMIN)
def _rotation(request: HttpRequest, key_id: str) -> HttpResponse:
    return _rotation_page(request, key_id)


@action(Role.ADMIN)
def _rotate(request: HttpRequest, key_id: str) -> HttpResponse:
    overlap = request.POST.get("overlap", "")
    if overlap not in dict(OVERLAPS):
        raise Invalid(FieldError("/overlap", "Choose when the old key ends."))
    if not forms.is_first(request):
        return _sent_before(request)
    row, key = api_keys.rotate_key(key_id, overlap=timedelta(seconds=int(overlap)))
    return _shown_once(request, row, key, ApiKey.objects.get(pk=key_id))


rotate = form_page(_rotation, _rotate)


@action(Role.ADMIN, asks=consequences.revoke_key)
def revoke_key(request: HttpRequest, key_id: str) -> str:
    api_keys.revoke_key(key_id)
    return "Key revoked. Its open connections are closed."

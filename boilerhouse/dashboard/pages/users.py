"""Settings: who may sign in, with which role."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer, LineField
from boilerhouse.attention.words import count
from boilerhouse.core import users
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.models import Role
from boilerhouse.core.roles import RANK, role_of
from boilerhouse.dashboard import consequences
from boilerhouse.dashboard.access import action, form_page, page
from boilerhouse.dashboard.forms import ApiForm
from boilerhouse.dashboard.listing import Listing
from boilerhouse.dashboard.pages.account import shown_sessions
from boilerhouse.operations.login_tokens import login_tokens

ROLES = (
    (Role.VIEWER.value, "Viewer: sees everything except logs, keys, credentials and changes"),
    (Role.OPERATOR.value, "Operator: also reads logs and acts on pools, tenants and workloads"),
    (Role.ADMIN.value, "Admin: also manages users, keys, credentials and settings"),
)
LABELS = {
    "name": ("User name", "Letters, digits and @ . + - _. Cannot be changed later"),
    "role": ("Role", "Can be changed at any time"),
}


class InvitationInput(ApiSerializer):
    name = LineField(max_length=150)
    role = serializers.ChoiceField([role.value for role in RANK])


def _form() -> ApiForm:
    return ApiForm(InvitationInput, list(LABELS), LABELS, {"role": Role.VIEWER.value}, {"role": list(ROLES)})


def _list_page(request: HttpRequest, form: ApiForm, status: int = 200) -> HttpResponse:
    rows = Listing(
        request,
        users.staff().prefetch_related("groups"),
        search=["username"],
        sorts={"name": "username", "used": "last_login"},
        default="name",
    )
    context = {"section": "users", "list": rows, "rows": [(user, role_of(user)) for user in rows], "form": form}
    return render(request, "pages/users.html", context, status=status)


@page(Role.ADMIN)
def _list(request: HttpRequest) -> HttpResponse:
    return _list_page(request, _form())


@action(Role.ADMIN)
def _invite(request: HttpRequest) -> HttpResponse:
    form = _form()
    data = form.read(request.POST)
    if data is None:
        return _list_page(request, form, 422)
    try:
        invitation = users.invite(data["name"], Role(data["role"]))
    except Invalid as error:
        form.add(error)
        return _list_page(request, form, 422)
    return _with_link(request, invitation)


user_list = form_page(_list, _invite)


@page(Role.ADMIN)
def user(request: HttpRequest, user_id: int) -> HttpResponse:
    return render(request, "pages/user.html", _shown(users.find(user_id)))


def _shown(row: User) -> dict[str, Any]:
    role = role_of(row) or next((item for item in RANK if row.groups.filter(name=item.value).exists()), Role.VIEWER)
    return {
        "section": "users", "shown": row, "role": role.value, "roles": ROLES,
        "has_password": row.has_usable_password(), "sessions": shown_sessions(row, None),
    }  # fmt: skip


def _with_link(request: HttpRequest, row: User) -> HttpResponse:
    """The user's page with a link that sets a password. It is shown once."""
    uid = urlsafe_base64_encode(force_bytes(row.pk))
    path = reverse("set-password", args=[uid, login_tokens.make_token(row)])
    context = {**_shown(users.find(row.pk)), "link": request.build_absolute_uri(path)}
    context["link_s"] = settings.PASSWORD_RESET_TIMEOUT
    answer = render(request, "pages/user.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@action(Role.ADMIN)
def set_role(request: HttpRequest, user_id: int) -> str:
    value = request.POST.get("role", "")
    if value not in dict(ROLES):
        raise Invalid(FieldError("/role", "Choose viewer, operator or admin."))
    users.set_role(user_id, Role(value))
    return f"{users.find(user_id)} is now {value}."


@action(Role.ADMIN, asks=consequences.disable_user)
def disable(request: HttpRequest, user_id: int) -> str:
    users.disable(user_id)
    return f"{users.find(user_id)} is disabled."


@action(Role.ADMIN)
def enable(request: HttpRequest, user_id: int) -> str:
    users.enable(user_id)
    return f"{users.find(user_id)} can sign in again."


@action(Role.ADMIN, asks=consequences.end_user_sessions)
def end_sessions(request: HttpRequest, user_id: int) -> str:
    return f"{count(users.end_sessions(user_id), 'session')} ended."


@action(Role.ADMIN, asks=consequences.require_new_password)
def new_password(request: HttpRequest, user_id: int) -> HttpResponse:
    row = users.require_new_password(user_id)
    if row.pk == request.user.pk:
        messages.warning(request, "You are signed out everywhere. Copy the link before you leave this page.")
    return _with_link(request, row)

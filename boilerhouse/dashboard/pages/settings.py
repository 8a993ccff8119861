"""Settings: API keys, sink credentials and deployment settings."""

from __future__ import annotations

import platform
import sys
from typing import Any

import django
from django.conf import settings
from django.contrib import messages
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.api.settings_fields import SettingsInput, render_settings
from boilerhouse.controller import retention
from boilerhouse.core import deployment_settings
from boilerhouse.core.errors import Conflict, Invalid, PreconditionFailed
from boilerhouse.core.models import Deployment, FailingStep, Process, Role
from boilerhouse.dashboard import conflicts, consequences, questions
from boilerhouse.dashboard.access import action, form_page, page
from boilerhouse.dashboard.documents import Document
from boilerhouse.dashboard.forms import ApiForm, check_version, version_of
from boilerhouse.dashboard.questions import ANSWER, Question
from boilerhouse.dashboard.sections import deployment as sections
from boilerhouse.process import processes
from pools import host
from syncing import credentials
from syncing.api.credentials import CredentialInput, render_credential
from syncing.models import Credential

CREDENTIAL_LABELS = {
    "id": ("Id", "Used by sync specs. Leave empty to derive it from the name"),
    "name": ("Name", "A label"),
    "accessKeyId": ("Access key id", "Or the user name of a WebDAV server"),
    "secretAccessKey": ("Secret access key", "Stored encrypted; never shown again"),
}


def credential_form() -> ApiForm:
    return ApiForm(CredentialInput, list(CREDENTIAL_LABELS), CREDENTIAL_LABELS, {}, secrets=["secretAccessKey"])


@page()
def about(request: HttpRequest) -> HttpResponse:
    deployment, living = Deployment.objects.first(), processes.living()
    rows = list(Process.objects.order_by("kind", "name", "pk"))
    context: dict[str, Any] = {
        "section": "about", "deployment": deployment, "processes": [row for row in rows if row.pk in living],
        "ended": [row for row in rows if row.pk not in living],
        "failing_steps": FailingStep.objects.order_by("name"),
        "python": sys.version.split()[0], "django": django.get_version(),
        "database": connection.vendor, "system": platform.platform(terse=True),
        "data_dir": settings.BOILERHOUSE_DATA_DIR,
    }  # fmt: skip
    return render(request, "pages/about.html", context)


def _credential_page(request: HttpRequest, form: ApiForm, status: int = 200) -> HttpResponse:
    rows = [
        render_credential(credential)
        for credential in Credential.objects.prefetch_related("syncspec_set").order_by("pk")
    ]
    return render(
        request, "pages/credentials.html", {"section": "credentials", "rows": rows, "form": form}, status=status
    )


@page(Role.ADMIN)
def _credentials(request: HttpRequest) -> HttpResponse:
    return _credential_page(request, credential_form())


@action(Role.ADMIN)
def _create_credential(request: HttpRequest) -> HttpResponse:
    form = credential_form()
    data = form.read(request.POST)
    if data is not None:
        try:
            credential = credentials.create(
                id=data.get("id"), name=data["name"], access_key_id=data["access_key_id"],
                secret_access_key=data["secret_access_key"],
            )  # fmt: skip
        except Conflict as error:
            form.add(error)
        else:
            messages.success(request, f"Credential {credential.pk} stored.")
            return HttpResponseRedirect(reverse("credentials"), status=303)
    return _credential_page(request, form, 422)


credential_list = form_page(_credentials, _create_credential)


def rotation_form(credential: Credential) -> ApiForm:
    values = {"name": credential.name, "accessKeyId": credential.secret["accessKeyId"]}
    names = ["name", "accessKeyId", "secretAccessKey"]
    return ApiForm(CredentialInput, names, CREDENTIAL_LABELS, values, secrets=["secretAccessKey"])


def _rotation_page(request: HttpRequest, credential: Credential, form: ApiForm, status: int = 200) -> HttpResponse:
    context = {"section": "credentials", "credential": render_credential(credential), "form": form}
    return render(request, "pages/credential.html", context, status=status)


@page(Role.ADMIN)
def _rotation(request: HttpRequest, credential_id: str) -> HttpResponse:
    credential = credentials.find(credential_id)
    return _rotation_page(request, credential, rotation_form(credential))


@action(Role.ADMIN)
def _rotate(request: HttpRequest, credential_id: str) -> HttpResponse:
    credential = credentials.find(credential_id)
    form = rotation_form(credential)
    data = form.read(request.POST)
    if data is None:
        return _rotation_page(request, credential, form, 422)
    values = {name: data[name] for name in ("name", "access_key_id", "secret_access_key")}
    credentials.replace(credential, **values)
    messages.success(request, f"Credential {credential_id} replaced. Its sinks are probed again.")
    return HttpResponseRedirect(reverse("credentials"), status=303)


rotate_credential = form_page(_rotation, _rotate)


@action(Role.ADMIN, asks=consequences.delete_credential)
def delete_credential(request: HttpRequest, credential_id: str) -> str:
    credentials.delete(credentials.find(credential_id))
    return f"Credential {credential_id} deleted."


def _deployment_page(request: HttpRequest, document: Document, mark: str, **more: Any) -> HttpResponse:
    context = {"section": "deployment", "document": document, "seen": mark, "network": host.network_name(), **more}
    return render(request, "pages/deployment.html", context, status=document.status)


@page(Role.ADMIN)
def _deployment(request: HttpRequest) -> HttpResponse:
    stored = render_settings(deployment_settings.current())
    document = Document(stored, sections.sections, tab=request.GET.get("tab", "form"))
    return _deployment_page(request, document, version_of(stored))


@action(Role.ADMIN)
def _save_deployment(request: HttpRequest) -> HttpResponse:
    mark = request.POST.get("seen", "")
    document = Document.posted(request.POST, sections.sections)
    if (keeps_mine := conflicts.wish(request)) is not None:
        theirs = render_settings(deployment_settings.current())
        document.combine(theirs, keeps_mine=keeps_mine)
        return _deployment_page(request, document, version_of(theirs), is_combined=True)
    body = document.read(SettingsInput) if document.do == "save" else None
    if body is not None:
        submitted = body.to_settings()
        if question := _asks_first(request, submitted):
            return questions.show(request, question, origin=request.path)
        try:
            deployment_settings.replace(submitted, lambda locked: check_version(mark, render_settings(locked)))
        except PreconditionFailed:
            theirs = render_settings(deployment_settings.current())
            document.meet(theirs, *conflicts.last_change("settings", "settings"))
        except Invalid as error:
            document.add(error)
        else:
            messages.success(request, "Settings saved. Running containers are not changed.")
            return HttpResponseRedirect(reverse("settings-deployment"), status=303)
    return _deployment_page(request, document, mark)


def _asks_first(request: HttpRequest, submitted: deployment_settings.DeploymentSettings) -> Question | None:
    """The question if a shorter retention deletes something now, unless it has been answered."""
    before = deployment_settings.current().retention_s
    shorter = {kind: seconds for kind, seconds in submitted.retention_s.items() if seconds < before[kind]}
    counts = {kind: number for kind, number in retention.doomed(shorter).items() if number}
    if not counts:
        return None
    posted = [(name, str(value)) for name, values in request.POST.lists() for value in values]
    question = consequences.shorter_retention(counts, [(name, value) for name, value in posted if name not in ANSWER])
    if request.POST.get("asked") != question.kind:
        return question
    questions.check_typed(question, request)
    return None


deployment = form_page(_deployment, _save_deployment)

"""Access to pages: the API's roles, assigned by the Django groups ``admin``, ``operator`` and ``viewer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError, Conflict, Invalid, NotFound, TooMany
from boilerhouse.core.models import Role
from boilerhouse.core.roles import reaches, role_of
from boilerhouse.process import budgets
from boilerhouse.web import connections, transport

View = Callable[..., HttpResponse]
Action = Callable[..., str | HttpResponse]


def signed_in(user: Any, session_key: str | None, least: Role) -> bool:
    """Whether a long-lived connection may stay open: the session is valid and the user still has the role."""
    if not user.is_authenticated or not Session.objects.filter(pk=session_key).exists():
        return False
    fresh = get_user_model().objects.filter(pk=user.pk).first()
    return fresh is not None and reaches(role_of(fresh), least)


def may(request: HttpRequest, least: Role) -> bool:
    return reaches(getattr(request, "role", None), least)


def slow(view: View) -> View:
    """A view that waits for the engine or a sink: it uses separate threads, of which each user gets a part."""

    @wraps(view)
    def waits(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return view(request, *args, **kwargs)
        try:
            with budgets.slow.enter(budgets.user(request.user.get_username())):
                return view(request, *args, **kwargs)
        except TooMany as error:
            values = {"title": "Too many requests", "detail": error.detail}
            answer = render(request, "refused.html", values, status=429)
            answer["Retry-After"] = str(error.retry_after)
            return answer

    waits.lane = "slow"  # type: ignore[attr-defined]
    return waits


def _guarded(view: View, least: Role) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        connections.vouch(request)
        request.role = role_of(request.user)  # type: ignore[attr-defined]
        if not may(request, least):
            return render(request, "403.html", {"least": least.value}, status=403)
        with context.acting(f"user {request.user.get_username()}", getattr(request, "request_id", "")):
            try:
                return view(request, *args, **kwargs)
            except NotFound as error:
                return render(request, "404.html", {"detail": error.detail}, status=404)

    return guarded


def page(least: Role = Role.VIEWER) -> Callable[[View], View]:
    """A page for staff of at least this role.

    Its refresh, at the same URL, is a part of the page: ``Vary`` keeps the two apart in a browser's cache.
    """

    def decorate(view: View) -> View:
        return require_safe(vary_on_headers("HX-Request", "HX-Target")(_guarded(view, least)))

    return decorate


def action(least: Role = Role.OPERATOR) -> Callable[[Action], View]:
    """The action of a form: the view returns a message, which the page shows; an error is shown there too."""

    def decorate(view: Action) -> View:
        @wraps(view)
        def act(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                outcome = view(request, *args, **kwargs)
            except NotFound:
                raise
            except BoilerhouseError as error:
                messages.error(request, _why(error), extra_tags=getattr(request, "request_id", ""))
                return back(request)
            if isinstance(outcome, HttpResponse):
                return outcome
            messages.success(request, outcome)
            return back(request)

        return require_POST(_guarded(act, least))

    return decorate


def require_typed(request: HttpRequest, name: str, done: str) -> None:
    """Raise Conflict unless the form's ``typed`` is ``name``: irreversible actions are confirmed this way."""
    if request.POST.get("typed") != name:
        raise Conflict(f"Confirmation did not match {name}; nothing was {done}.")


def _why(error: BoilerhouseError) -> str:
    if isinstance(error, Invalid):
        return " ".join(item.detail for item in error.errors) or error.detail
    return error.detail


def back(request: HttpRequest) -> HttpResponseRedirect:
    """Redirect to the form's page, or to its ``next``."""
    targets = (request.POST.get("next", ""), request.headers.get("Referer", ""))
    destination = next(
        filter(None, (transport.path_of_ours(target, request) for target in targets)), reverse("overview")
    )
    return HttpResponseRedirect(destination, status=303)

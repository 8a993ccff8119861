"""Pages that span the apps."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.tokens import default_token_generator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme, urlsafe_base64_decode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from boilerhouse.dashboard.access import page
from boilerhouse.dashboard.context import THEMES, TIMES
from boilerhouse.dashboard.overview import overview as read_overview

YEAR_S = 365 * 24 * 3600


def health_alias(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok"})


@page()
def overview(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/overview.html", read_overview())


def _choose(request: HttpRequest, name: str, offered: tuple[str, ...]) -> HttpResponse:
    """Back to where it was chosen, which then looks so, for a year in this browser."""
    target = request.headers.get("Referer", "/")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
        target = "/"
    response = HttpResponseRedirect(target)
    chosen = request.POST.get(name, "")
    if chosen in offered:
        response.set_cookie(name, chosen, max_age=YEAR_S, samesite="Lax", httponly=True, secure=request.is_secure())
    return response


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    return _choose(request, "theme", THEMES)


@require_POST
def set_times(request: HttpRequest) -> HttpResponse:
    return _choose(request, "times", TIMES)


def too_many_failures(request: HttpRequest, *_: object, **__: object) -> HttpResponse:
    """What somebody sees who has guessed too often; pages and admin alike."""
    context = {"cooloff_s": settings.BOILERHOUSE_LOGIN_COOLOFF_S}
    answer = render(request, "registration/locked.html", context, status=429)
    answer["Retry-After"] = str(settings.BOILERHOUSE_LOGIN_COOLOFF_S)
    return answer


@never_cache
@require_GET
def one_time_login(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Log the link's user in; the token dies with the login."""
    model = get_user_model()
    try:
        user = model.objects.filter(pk=int(urlsafe_base64_decode(uid).decode())).first()
    except ValueError:
        user = None
    if user is None or not user.is_active or not default_token_generator.check_token(user, token):
        return render(request, "registration/link_used.html", status=410)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("overview")

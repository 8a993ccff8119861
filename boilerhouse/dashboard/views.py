"""Pages that span the apps."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model, login
from django.contrib.auth import views as auth
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import REASON_MALFORMED_REFERER, REASON_NO_CSRF_COOKIE, REASON_NO_REFERER
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.http import urlsafe_base64_decode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from boilerhouse.dashboard import first_steps
from boilerhouse.dashboard.access import changing, page
from boilerhouse.dashboard.context import THEMES, TIMES
from boilerhouse.dashboard.overview import overview as read_overview
from boilerhouse.operations.login_tokens import login_tokens
from boilerhouse.web import transport

YEAR_S = 365 * 24 * 3600
SIGNED_IN_BY_LINK = "signed_in_by_link"


def health_alias(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok"})


@page()
def overview(request: HttpRequest) -> HttpResponse:
    context = {**read_overview(request), "first": first_steps.of_deployment(request)}
    name = "first_steps" if context["first"] and not context["rows"] else "overview"
    return render(request, f"dashboard/{name}.html", context)


def _choose(request: HttpRequest, name: str, offered: tuple[str, ...]) -> HttpResponse:
    """Redirect to the page where the theme was chosen, and remember it in this browser for a year."""
    target = transport.path_of_ours(request.headers.get("Referer", ""), request)
    response = HttpResponseRedirect(target or reverse("overview"))
    chosen = request.POST.get(name, "")
    if chosen in offered:
        response.set_cookie(
            name,
            chosen,
            max_age=YEAR_S,
            samesite="Lax",
            httponly=True,
            secure=request.is_secure(),
            path=settings.SESSION_COOKIE_PATH,
        )
    return response


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page for a form that failed the CSRF check, with the reason and the remedy."""
    title = "The form was rejected"
    return render(request, "refused.html", {"title": title, "detail": _why_refused(request, reason)}, status=403)


def _why_refused(request: HttpRequest, reason: str) -> str:
    origin = request.META.get("HTTP_ORIGIN", "") or transport.origin_of(request.META.get("HTTP_REFERER", ""))
    if origin and (why := transport.why_not_ours(origin, request)):
        return why
    if reason in (REASON_NO_REFERER, REASON_MALFORMED_REFERER):
        return "Your browser sent neither Origin nor Referer. Allow one of them for this site."
    if reason == REASON_NO_CSRF_COOKIE:
        return (
            "Your browser sent no cookie back. Allow cookies for this site, and sign in at the address at which you"
            f" opened it{', by https' if settings.BOILERHOUSE_HTTPS else ''}."
        )
    return "The page was loaded before you signed in. Nothing was changed. Go back, reload the page and try again."


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    return _choose(request, "theme", THEMES)


@require_POST
def set_times(request: HttpRequest) -> HttpResponse:
    return _choose(request, "times", TIMES)


class SignIn(auth.LoginView):
    lane = "sign-in"

    def form_valid(self, form: Any) -> HttpResponse:
        self.request.session.pop(SIGNED_IN_BY_LINK, None)
        return super().form_valid(form)


class ChangePassword(auth.PasswordChangeView):
    """Asks for the old password, unless the user has none or has signed in with a one-time link."""

    lane = "sign-in"
    success_url = reverse_lazy("account")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return changing(request, partial(super().post, request, *args, **kwargs))

    def get_form_class(self) -> Any:
        by_link = self.request.session.get(SIGNED_IN_BY_LINK)
        has_password = (
            get_user_model().objects.get_by_natural_key(self.request.user.get_username()).has_usable_password()
        )
        return PasswordChangeForm if has_password and not by_link else SetPasswordForm

    def form_valid(self, form: Any) -> HttpResponse:
        self.request.session.pop(SIGNED_IN_BY_LINK, None)
        return super().form_valid(form)


class SetPassword(auth.PasswordResetConfirmView):
    """What an invitation leads to: it sets a password and signs in. The link works until a password is set."""

    lane = "sign-in"
    template_name = "registration/set_password.html"
    token_generator = login_tokens
    post_reset_login = True
    post_reset_login_backend = "django.contrib.auth.backends.ModelBackend"

    def get_user(self, uidb64: str) -> Any:
        user = super().get_user(uidb64)
        return user if user is not None and user.is_active and user.is_staff else None

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return changing(request, partial(super().post, request, *args, **kwargs))

    def get_success_url(self) -> str:
        return reverse("overview")

    def render_to_response(self, context: dict[str, Any], **response: Any) -> Any:
        if not self.validlink:
            return render(self.request, "registration/link_used.html", status=410)
        return super().render_to_response(context, **response)


def admin_login(request: HttpRequest) -> HttpResponse:
    """Its form is that of the dashboard; who sends Django's own is judged in the same way."""
    if request.method == "POST":
        return admin.site.login(request)
    return redirect_to_login(transport.path_of_ours(request.GET.get("next", ""), request) or reverse("admin:index"))


admin_login.lane = "sign-in"  # type: ignore[attr-defined]


def too_many_failures(request: HttpRequest, *_: object, **__: object) -> HttpResponse:
    """The page after too many failed logins; the same for pages and the admin."""
    context = {"cooloff_s": settings.BOILERHOUSE_LOGIN_COOLOFF_S}
    answer = render(request, "registration/locked.html", context, status=429)
    answer["Retry-After"] = str(settings.BOILERHOUSE_LOGIN_COOLOFF_S)
    return answer


@never_cache
@require_safe
def one_time_login(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Log the link's user in; the login invalidates the token. A HEAD, as sent by message previews, does nothing."""
    if request.method == "HEAD":
        answer = HttpResponse()
    elif _log_in_once(request, uid, token):
        answer = redirect("overview")
    else:
        answer = render(request, "registration/link_used.html", status=410)
    answer["Referrer-Policy"] = "no-referrer"
    return answer


def _log_in_once(request: HttpRequest, uid: str, token: str) -> bool:
    try:
        user_id = int(urlsafe_base64_decode(uid).decode())
    except ValueError:
        return False
    # Of several concurrent requests, the first changes what the others' tokens are checked against.
    with transaction.atomic():
        user = get_user_model().objects.select_for_update().filter(pk=user_id, is_active=True).first()
        if user is None or not login_tokens.check_token(user, token):
            return False
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        request.session[SIGNED_IN_BY_LINK] = True
    return True

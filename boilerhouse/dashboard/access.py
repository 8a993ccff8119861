"""Access to pages: the API's roles, assigned by the Django groups ``admin``, ``operator`` and ``viewer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from boilerhouse.core import context
from boilerhouse.core.all_or_nothing import all_or_nothing
from boilerhouse.core.errors import BoilerhouseError, Elsewhere, Invalid, NotFound, TooMany
from boilerhouse.core.models import Role, Session
from boilerhouse.core.roles import reaches, role_of
from boilerhouse.dashboard import page_sections, questions
from boilerhouse.dashboard.questions import Question
from boilerhouse.process import budgets
from boilerhouse.web import connections, transport
from boilerhouse.web.problems import naming_node, status_of

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
            return _refusal(request, error)

    waits.lane = "slow"  # type: ignore[attr-defined]
    return waits


def _guarded(view: View, least: Role) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return _to_login(request)
        connections.vouch(request)
        request.role = role_of(request.user)  # type: ignore[attr-defined]
        if not may(request, least):
            return render(request, "403.html", {"least": least.value}, status=403)
        with context.acting(f"user {request.user.get_username()}", getattr(request, "request_id", "")):
            try:
                if any("\0" in str(value) for value in kwargs.values()):
                    raise NotFound("There is no such page.")  # no id contains NUL, and PostgreSQL rejects it
                return view(request, *args, **kwargs)
            except (NotFound, Invalid) as error:  # invalid is only what the URL says: forms show their own errors
                return render(request, "404.html", {"detail": error.detail}, status=404)
            except BoilerhouseError as error:
                return _refusal(request, error)

    return guarded


def _to_login(request: HttpRequest) -> HttpResponse:
    """To the login page and back. A browser that still sends a session's cookie learns that the session has ended."""
    answer = redirect_to_login(request.get_full_path())
    if request.COOKIES.get(settings.SESSION_COOKIE_NAME):
        answer["Location"] += "&ended=1"
    return answer


def _refusal(request: HttpRequest, error: BoilerhouseError) -> HttpResponse:
    """The page of an error that a page does not show itself, such as an engine that does not answer."""
    title = "Too many requests" if isinstance(error, TooMany) else "This page cannot be shown now"
    values = {"title": title, "detail": error.detail}
    answer = render(request, "refused.html", values, status=status_of(error))
    if error.retry_after is not None:
        answer["Retry-After"] = str(error.retry_after)
    return naming_node(answer, error)


def _in_sections(view: View) -> View:
    @wraps(view)
    def shown(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        is_page = response.status_code == 200 and response.get("Content-Type", "").startswith("text/html")
        return page_sections.mark(request, response) if is_page else response

    return shown


def page(least: Role = Role.VIEWER) -> Callable[[View], View]:
    """A page for staff of at least this role.

    Its refresh, at the same URL, is a part of the page: ``Vary`` keeps the two apart in a browser's cache.
    """

    def decorate(view: View) -> View:
        varies = vary_on_headers("HX-Request", "HX-Target", page_sections.UNTOUCHED)
        guarded = require_safe(varies(_in_sections(_guarded(view, least))))
        guarded.is_page = True  # type: ignore[attr-defined]
        return guarded

    return decorate


def action(
    least: Role = Role.OPERATOR, *, acts: str = "", asks: Callable[..., Question] | None = None
) -> Callable[[Action], View]:
    """The action of a form: the view returns a message, which the page shows; an error is shown there too.

    The view, with the page that it renders, is one transaction: if it raises or answers with an error, nothing has
    changed. Unless ``acts`` says why it cannot be (ADR 67).

    With ``asks``, a GET of the same URL is answered with that question, and the action runs only on its confirmation.
    What is not there any more is said on the page that has the button; without such a page, it is 404.
    """

    def decorate(view: Action) -> View:
        @wraps(view)
        def act(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            run = partial(view, request, *args, **kwargs)
            try:
                if asks is not None:
                    question = asks(request, *args, **kwargs)
                    if request.method != "POST":
                        return questions.show(request, question)
                    if note := questions.check(question, request):
                        return questions.show(request, question, note=note, status=409)
                    questions.check_typed(question, request)
                outcome = run() if acts else changing(request, run)
            except Elsewhere:
                raise
            except BoilerhouseError as error:
                if questions.is_dialog(request):
                    return questions.refuse(request, _why(error), status_of(error))
                if isinstance(error, NotFound) and not questions.origin_of(request):
                    raise
                messages.error(request, _why(error), extra_tags=getattr(request, "request_id", ""))
                return back(request)
            if isinstance(outcome, HttpResponse):
                return outcome
            messages.success(request, outcome)
            return back(request)

        guarded = _guarded(act, least)
        guarded.acts = acts  # type: ignore[attr-defined]
        guarded.asks = asks  # type: ignore[attr-defined]
        guarded.is_action = True  # type: ignore[attr-defined]
        if asks is None:
            return require_POST(guarded)
        return require_http_methods(["GET", "HEAD", "POST"])(vary_on_headers("HX-Target")(guarded))

    return decorate


def script(least: Role = Role.OPERATOR) -> Callable[[View], View]:
    """A view for the script of a page: an error is JSON with ``detail`` and ``code``, which the script shows.

    A signed-out user gets 401. The script would follow a redirect to the login page and take it for success.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def answers(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                return view(request, *args, **kwargs)
            except BoilerhouseError as error:
                return naming_node(_json_error(_why(error), error.code, status_of(error)), error)

        guarded = _guarded(answers, least)

        @wraps(view)
        def known(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return _json_error("You are signed out. Sign in again, and repeat this.", "unauthenticated", 401)
            return guarded(request, *args, **kwargs)

        return known

    return decorate


def _json_error(detail: str, code: str, status: int) -> HttpResponse:
    return JsonResponse({"detail": detail, "code": code}, status=status)


def form_page(show: View, submit: View, **fixed: Any) -> View:
    """A page with a form that is submitted to the page's URL; ``fixed`` are arguments that the URL lacks."""

    def either(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        view = submit if request.method == "POST" else show
        return view(request, **kwargs, **fixed)

    either.acts = submit.acts  # type: ignore[attr-defined]
    return either


class _IsError(Exception):
    """Rolls back an action that answered with an error."""

    def __init__(self, response: Any) -> None:
        self.response = response


def changing(request: HttpRequest, run: Callable[[], Any]) -> Any:
    """What the view returns, rendered. If it is an error, or the view raises, there is no change and no message."""
    try:
        with all_or_nothing():
            outcome = run()
            if not getattr(outcome, "is_rendered", True):
                outcome.render()
            if getattr(outcome, "status_code", 200) >= 400:
                raise _IsError(outcome)
    except _IsError as error:
        _forget_messages(request)
        return error.response
    except BaseException:
        _forget_messages(request)
        raise
    return outcome


def _forget_messages(request: HttpRequest) -> None:
    """Those of this request, which say what was rolled back; earlier ones are still to be shown."""
    messages.get_messages(request)._queued_messages.clear()  # type: ignore[union-attr]


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

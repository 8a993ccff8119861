"""Questions before actions that others feel or that cannot be undone.

An action's own URL answers a GET with its question. The page then asks with the state of that moment: a text that was
rendered with the page would describe an older one. A page opens the question as a dialog; without scripts it is a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from boilerhouse.core.errors import Conflict
from boilerhouse.dashboard import api_calls
from boilerhouse.web import transport

ANSWER = ("csrfmiddlewaretoken", "asked", "typed", "next")
"""What a confirmation adds to the form that was asked about."""
MANY = 5
"""An action on more objects at once wants their number typed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what the action will do if it is confirmed now."""

    title: str
    text: str
    verb: str
    kind: str = ""
    """What the action will do, where that depends on the state: an answer to another kind of question does nothing."""
    typed: str = ""
    """What must be typed to confirm; empty if a click is enough."""
    fields: Sequence[tuple[str, str]] = ()
    """Values that the confirmation submits."""


def show(
    request: HttpRequest, question: Question, *, note: str = "", status: int = 200, origin: str = ""
) -> HttpResponse:
    """The question, as a dialog for an open page and as a page otherwise. Cancelling leads to ``origin``; without one,
    to the page that asked."""
    values = {
        "question": question, "url": request.path, "note": note,
        "next": origin or origin_of(request) or reverse("overview"),
        "same_by": api_calls.of_action(request, question.fields),
        "is_dialog": is_dialog(request),
    }  # fmt: skip
    name = "question" if values["is_dialog"] else "question_page"
    answer = render(request, f"pages/{name}.html", values, status=status)
    answer["Cache-Control"] = "no-store"
    return answer


def is_dialog(request: HttpRequest) -> bool:
    """Whether an open page asks for the question, and will show the answer as a dialog."""
    return bool(request.htmx.target == "question")  # type: ignore[attr-defined]


def refuse(request: HttpRequest, why: str, status: int) -> HttpResponse:
    """The dialog that says why there is nothing to confirm. A redirect would be followed unseen, with its message."""
    answer = render(request, "pages/question_refused.html", {"why": why}, status=status)
    answer["Cache-Control"] = "no-store"
    return answer


def check(question: Question, request: HttpRequest) -> str:
    """Why the submitted confirmation does not answer this question; empty if it does."""
    if "asked" in request.POST and request.POST["asked"] != question.kind:
        return "Something has changed since you were asked. Nothing was done."
    return ""


def check_typed(question: Question, request: HttpRequest) -> None:
    """Raise Conflict unless what had to be typed was typed."""
    if question.typed and request.POST.get("typed", "").strip() != question.typed:
        raise Conflict(f"Confirmation did not match {question.typed}; nothing was done.")


def origin_of(request: HttpRequest) -> str:
    """The page that asked: the form's ``next``, or the page that has the form; empty if there is none."""
    targets = (request.POST.get("next", ""), request.headers.get("Referer", ""))
    paths = (transport.path_of_ours(target, request) for target in targets)
    return next((path for path in paths if path and path.partition("?")[0] != request.path), "")

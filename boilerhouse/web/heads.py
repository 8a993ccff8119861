"""What a request's head says of its body: whether it is read, before any of it is.

A body costs memory, and anybody can send one. So no body is read that no view would look at (no such path, no such
method, no key), none that is too large, and only the beginning of one whose sender is not known to us yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import Error, close_old_connections
from django.urls import Resolver404, resolve

if TYPE_CHECKING:
    from boilerhouse.process.budgets import Hold, Owner

MAX_BODY_BYTES = 1024 * 1024
UNKNOWN_BODY_BYTES = 16 * 1024
"""What is read of a body whose sender has shown no living key and no session; claims and sign-ins are smaller."""


class Refusal(StrEnum):
    """Why a request's body is not read, or not to its end."""

    UNREAD = "unread"
    """No view would read it: the request is answered as if it had none, and its connection closed."""
    NO_KEY = "no_key"
    """Its key opens nothing."""
    TOO_LARGE = "too_large"
    UNKNOWN = "unknown"
    """It is larger than what is read from somebody who has not signed in."""
    TOO_SLOW = "too_slow"
    TOO_MANY = "too_many"
    """Too many bodies are on their way from one address."""
    SHARE_USED_UP = "share_used_up"
    """Bodies of the same tenant or key take as much memory as they may."""
    NO_MEMORY = "no_memory"
    """All bodies together do."""


@dataclass(frozen=True)
class Head:
    method: str
    path: str
    """Below BOILERHOUSE_BASE_PATH, not quoted."""
    authorization: str
    cookies: str

    @cached_property
    def view(self) -> Any:
        """Found once: whoever answers the request asks for it again."""
        return view_of(self.path)

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/")

    @property
    def key(self) -> str:
        scheme, _, key = self.authorization.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""


def judge(head: Head, length: int | None) -> Refusal | None:
    """Whether a body of so many bytes (None: not told) is refused at once. It asks no database."""
    if length is not None and length > MAX_BODY_BYTES:
        return Refusal.TOO_LARGE
    view = head.view
    if view is None:
        return Refusal.UNREAD
    from boilerhouse.core import api_keys  # the server is made before the models are
    from boilerhouse.web import throttling

    is_long = length is None or length > UNKNOWN_BODY_BYTES
    if is_long and throttling.pauses.of(head.authorization, time.monotonic()):
        return Refusal.UNREAD  # it is refused whatever it brings

    view_class = getattr(view, "view_class", None)
    if view_class is None or not head.is_api:
        return None
    method = head.method.lower()
    has_method = method in view_class.http_method_names and hasattr(view_class, method)
    may_come = getattr(view_class, "is_public", False) or api_keys.is_well_formed(head.key)
    return None if has_method and may_come else Refusal.UNREAD


def view_of(path: str) -> Any:
    """The view that answers the path; None where nothing but "not found" does."""
    try:
        view = resolve(path).func
    except Resolver404:
        return None
    return None if getattr(view, "answers_nothing", False) else view


def admit(head: Head, length: int) -> Hold | Refusal:
    """A place in memory for a body beyond UNKNOWN_BODY_BYTES, or why it is not read on.

    It asks the database who sends it, in a thread of its own.
    """
    from boilerhouse.process import budgets

    close_old_connections()
    try:
        owners = _owners(head)
    except Error:  # the database is away: whoever answers the request says so
        owners = None
    if owners is None:
        return Refusal.NO_KEY if head.is_api else Refusal.UNKNOWN
    try:
        return budgets.bodies.enter(*owners, amount=length)
    except budgets.BudgetExceeded:
        return Refusal.SHARE_USED_UP
    except budgets.TooManyBodies:
        return Refusal.NO_MEMORY


def _owners(head: Head) -> tuple[Owner, ...] | None:
    """Whose body it is; None of somebody we do not know."""
    from boilerhouse.core import api_keys
    from boilerhouse.process import budgets

    if head.is_api:
        key = api_keys.find_key(head.key)
        return None if key is None else budgets.owners(key)
    user_id = _user_of(head.cookies)
    return None if user_id is None else (budgets.user(user_id),)


def _user_of(cookies: str) -> str | None:
    """Of a living session."""
    try:
        found = SimpleCookie(cookies).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return None
    store = import_module(settings.SESSION_ENGINE).SessionStore
    return None if found is None else store(found.value).get("_auth_user_id")

"""What a request's head says of its body: whether it is read, before any of it is.

A body costs memory, and anybody can send one. So no body is read that no view would look at (no such path, no such
method, no key), none that is too large, and only the beginning of one whose sender is not known to us yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import Error, close_old_connections
from django.urls import Resolver404, resolve

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


def refusal_of_stranger(head: Head) -> Refusal | None:
    """Whether the rest of a body beyond UNKNOWN_BODY_BYTES is refused; it asks the database, in a thread of its own."""
    from boilerhouse.core import api_keys

    close_old_connections()
    try:
        if head.is_api:
            return None if api_keys.find_key(head.key) else Refusal.NO_KEY
        return None if _has_session(head.cookies) else Refusal.UNKNOWN
    except Error:  # the database is away: whoever answers the request says so
        return Refusal.NO_KEY if head.is_api else Refusal.UNKNOWN


def _has_session(cookies: str) -> bool:
    try:
        found = SimpleCookie(cookies).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return False
    store = import_module(settings.SESSION_ENGINE).SessionStore
    return found is not None and "_auth_user_id" in store(found.value)

"""Decides from a request's head whether its body is read, before any of it is.

A body uses memory, and anybody can send one. So no body is read that no view would use (unknown path or method, invalid
key) or that is too large, and only the beginning of one from an unauthenticated sender.
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
"""The part of a body that is read from a sender without a valid key or session; claims and logins are smaller."""


class Refusal(StrEnum):
    """Why a request's body is not read, or not completely."""

    UNREAD = "unread"
    """No view would read it: the request is answered as if it had none, and its connection closed."""
    NO_KEY = "no_key"
    """Its key is invalid."""
    TOO_LARGE = "too_large"
    UNKNOWN = "unknown"
    """It is larger than allowed before login."""
    TOO_SLOW = "too_slow"
    TOO_MANY = "too_many"
    """Too many bodies are arriving from one address."""
    SHARE_USED_UP = "share_used_up"
    """Bodies of the same tenant or key have reached their memory limit."""
    NO_MEMORY = "no_memory"
    """All bodies together have reached the memory limit."""


@dataclass(frozen=True)
class Head:
    method: str
    path: str
    """The path below BOILERHOUSE_BASE_PATH, unquoted."""
    authorization: str
    cookies: str

    @cached_property
    def view(self) -> Any:
        """Computed once, because answering the request needs it again."""
        return view_of(self.path)

    @property
    def is_streamed(self) -> bool:
        """Whether the view reads the body while it arrives, whatever its length (``web.body_streams``)."""
        view = self.view
        return self.method in getattr(getattr(view, "view_class", view), "streamed_methods", ())

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/")

    @property
    def key(self) -> str:
        scheme, _, key = self.authorization.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""


def judge(head: Head, length: int | None) -> Refusal | None:
    """Whether a body of this length (None: unknown) is refused immediately. Makes no query."""
    if length is not None and length > MAX_BODY_BYTES and not head.is_streamed:
        return Refusal.TOO_LARGE
    view = head.view
    if view is None:
        return Refusal.UNREAD
    from boilerhouse.core import api_keys  # the server is loaded before the models
    from boilerhouse.web import throttling

    is_long = length is None or length > UNKNOWN_BODY_BYTES
    if is_long and throttling.pauses.of(head.authorization, time.monotonic()):
        return Refusal.UNREAD  # it is refused whatever its body is

    view_class = getattr(view, "view_class", None)
    if view_class is None or not head.is_api:
        return None
    method = head.method.lower()
    has_method = method in view_class.http_method_names and hasattr(view_class, method)
    may_come = getattr(view_class, "is_public", False) or api_keys.is_well_formed(head.key)
    return None if has_method and may_come else Refusal.UNREAD


def view_of(path: str) -> Any:
    """The view that answers the path; None if only "not found" does."""
    try:
        view = resolve(path).func
    except Resolver404:
        return None
    return None if getattr(view, "answers_nothing", False) else view


def shown_path(path: str) -> str:
    """The path for the log: by its pattern if it has a token, because that is a permission."""
    try:
        match = resolve(path)
    except Resolver404:
        return path
    return f"/{match.route}" if "token" in match.kwargs else path


def admit(head: Head, length: int) -> Hold | Refusal:
    """Reserves memory for a body beyond UNKNOWN_BODY_BYTES, or returns why the rest is not read.

    A body that its view reads while it arrives takes a place among transfers instead.

    It identifies the sender with a query, in a separate thread.
    """
    from boilerhouse.process import budgets

    close_old_connections()
    try:
        owners = _owners(head)
    except Error:  # the database is unavailable, which the response will report
        owners = None
    if owners is None:
        return Refusal.NO_KEY if head.is_api else Refusal.UNKNOWN
    try:
        if head.is_streamed:
            return budgets.transfers.enter(*owners)
        return budgets.bodies.enter(*owners, amount=length)
    except budgets.BudgetExceeded:
        return Refusal.SHARE_USED_UP
    except (budgets.TooManyBodies, budgets.TooManyTransfers):
        return Refusal.NO_MEMORY


def _owners(head: Head) -> tuple[Owner, ...] | None:
    """The owners of the body; None for an unauthenticated sender."""
    from boilerhouse.core import api_keys
    from boilerhouse.process import budgets

    named = getattr(getattr(head.view, "view_class", None), "owners_of_head", None)
    if named is not None:  # the path itself shows who may do it
        owners: tuple[Owner, ...] | None = named(head.path)
        return owners
    if head.is_api:
        key = api_keys.find_key(head.key)
        return None if key is None else budgets.owners(key)
    user_id = _user_of(head.cookies)
    return None if user_id is None else (budgets.user(user_id),)


def _user_of(cookies: str) -> str | None:
    """The user of a valid session."""
    try:
        cookie = SimpleCookie(cookies).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return None
    store = import_module(settings.SESSION_ENGINE).SessionStore
    return None if cookie is None else store(cookie.value).get("_auth_user_id")

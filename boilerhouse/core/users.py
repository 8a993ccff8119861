"""People: who may sign in, with which role, and their sessions. Every change is in the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from boilerhouse.core import audit
from boilerhouse.core.errors import Conflict, FieldError, Invalid, NotFound
from boilerhouse.core.events import recording, wake
from boilerhouse.core.models import Role, Session
from boilerhouse.core.roles import RANK, role_of


class UserNotFound(NotFound):
    """No such user."""

    code = "user_not_found"


class SessionNotFound(NotFound):
    """No such session; it may have ended."""

    code = "session_not_found"


class LastAdmin(Conflict):
    """This is the only admin who can sign in. Make another user an admin first."""

    code = "last_admin"


def staff() -> QuerySet[User]:
    """All users that may have a role, with ``living``, the number of their sessions."""
    alive = Q(sessions__expire_date__gt=timezone.now())
    return User.objects.filter(is_staff=True).annotate(living=Count("sessions", filter=alive)).order_by("username")


def find(user_id: int) -> User:
    """Raises UserNotFound."""
    user = staff().filter(pk=user_id).first()
    if user is None:
        raise UserNotFound(f"There is no user {user_id}.")
    return user


def invite(name: str, role: Role) -> User:
    """Create a user without a password, who can sign in by a one-time link. Raises Invalid."""
    user = User(username=User.normalize_username(name.strip()), is_staff=True)
    user.set_unusable_password()
    try:
        user.full_clean()
    except ValidationError as error:
        raise Invalid(*(FieldError("/name", text, "invalid") for text in error.messages)) from error
    with recording():
        user.save()
        _put_in_group(user, role)
        audit.record("user.invite", user.get_username(), after={"role": role.value})
    return user


def set_role(user_id: int, role: Role) -> None:
    """Raises UserNotFound, LastAdmin. What the role no longer permits ends within seconds."""

    def change(user: User) -> None:
        before = role_of(user)
        if role != Role.ADMIN:
            user.is_superuser = False
            user.save(update_fields=["is_superuser"])
        _put_in_group(user, role)
        audit.record("user.role", user.get_username(), before={"role": before}, after={"role": role.value})

    _change(user_id, change)


def disable(user_id: int) -> None:
    """The user can no longer sign in, and their sessions end. Raises UserNotFound, LastAdmin."""

    def change(user: User) -> None:
        user.is_active = False
        user.save(update_fields=["is_active"])
        audit.record("user.disable", user.get_username(), after={"sessions": _end(user)})

    _change(user_id, change)


def enable(user_id: int) -> None:
    """Raises UserNotFound."""

    def change(user: User) -> None:
        user.is_active = True
        user.save(update_fields=["is_active"])
        audit.record("user.enable", user.get_username())

    _change(user_id, change)


def require_new_password(user_id: int) -> User:
    """The old password no longer works and the user's sessions end. A one-time link lets them set another.

    Raises UserNotFound.
    """

    def change(user: User) -> None:
        user.set_unusable_password()
        user.save(update_fields=["password"])
        audit.record("user.reset_password", user.get_username(), after={"sessions": _end(user)})

    return _change(user_id, change)


def end_sessions(user_id: int, *, keep: str | None = None) -> int:
    """End all sessions of the user except the one with the key ``keep``. Returns how many. Raises UserNotFound."""
    ended = 0

    def change(user: User) -> None:
        nonlocal ended
        ended = _end(user, keep)
        audit.record("user.end_sessions", user.get_username(), after={"sessions": ended})

    _change(user_id, change)
    return ended


def end_session(user_id: int, handle: str) -> None:
    """End one session of the user, named by its handle. Raises UserNotFound, SessionNotFound."""

    def change(user: User) -> None:
        row = next((row for row in living_sessions(user) if handle_of(row.session_key) == handle), None)
        if row is None:
            raise SessionNotFound
        row.delete()
        audit.record("user.end_sessions", user.get_username(), before={"address": row.address}, after={"sessions": 1})

    _change(user_id, change)


def living_sessions(user: User) -> QuerySet[Session]:
    """The user's sessions that have not expired, last used first."""
    return Session.objects.filter(user=user, expire_date__gt=timezone.now()).order_by("-seen_at", "pk")


def handle_of(session_key: str) -> str:
    """Names a session on pages and in URLs. The key itself is what signs a browser in."""
    return hashlib.sha256(f"session {session_key}".encode()).hexdigest()[:20]


def _change(user_id: int, change: Callable[[User], Any]) -> User:
    """Change a user; afterwards there is still an admin, however many change each other at once."""
    with recording():
        Group.objects.select_for_update().get_or_create(name=Role.ADMIN.value)
        user = find(user_id)
        was_admin = user.is_active and role_of(user) == Role.ADMIN
        change(user)
        if was_admin and not _admins().exists():
            raise LastAdmin
        wake()
    return user


def _admins() -> QuerySet[User]:
    """Who can sign in as an admin."""
    is_admin = Q(is_superuser=True) | Q(groups__name=Role.ADMIN.value)
    return User.objects.filter(is_admin, is_active=True, is_staff=True)


def _put_in_group(user: User, role: Role) -> None:
    user.groups.remove(*Group.objects.filter(name__in=[item.value for item in RANK]))
    user.groups.add(Group.objects.get_or_create(name=role.value)[0])


def _end(user: User, keep: str | None = None) -> int:
    return living_sessions(user).exclude(pk=keep or "").delete()[0]

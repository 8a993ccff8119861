"""Roles of people: the same as those of API keys, assigned by Django groups of the same names."""

from __future__ import annotations

from typing import Any

from boilerhouse.core.models import Role

RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


def role_of(user: Any) -> Role | None:
    """The user's role; None for users that are not staff. Superusers are admins, staff without a group are viewers."""
    if not user.is_authenticated or not user.is_active or not user.is_staff:
        return None
    if user.is_superuser:
        return Role.ADMIN
    names = {group.name for group in user.groups.all()}  # prefetched where many users are listed
    return next((role for role in (Role.ADMIN, Role.OPERATOR) if role.value in names), Role.VIEWER)


def reaches(role: Role | None, least: Role) -> bool:
    return role is not None and RANK[role] >= RANK[least]

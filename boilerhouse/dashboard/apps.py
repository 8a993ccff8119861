from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate

OURS = ("core", "pools", "syncing", "tenants", "notifications")
FOR_ADMINS = frozenset({
    "apikey", "auditentry", "credential", "registrycredential", "session", "settings", "idempotencyrecord",
    "target", "delivery", "incident",
})  # fmt: skip
"""Models that pages and the API show only to admins."""


def make_groups(**_: Any) -> None:
    """The groups that assign roles to staff exist from the start, with view permissions in the admin."""
    from django.contrib.auth.models import Group, Permission

    from boilerhouse.core.models import Role
    from boilerhouse.core.roles import RANK

    views = Permission.objects.filter(content_type__app_label__in=OURS, codename__startswith="view_")
    for role in RANK:
        group = Group.objects.get_or_create(name=role.value)[0]
        rows = views if role == Role.ADMIN else views.exclude(content_type__model__in=FOR_ADMINS)
        group.permissions.add(*rows)


class DashboardConfig(AppConfig):
    name = "boilerhouse.dashboard"
    label = "dashboard"

    def ready(self) -> None:
        from boilerhouse.dashboard import sign_ins

        user_logged_in.connect(sign_ins.remember)
        # Only apps with models receive the signal; this is the last one, when all permissions exist.
        post_migrate.connect(make_groups, sender=apps.get_app_config("tenants"))

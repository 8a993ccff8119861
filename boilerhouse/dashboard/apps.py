from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate

OURS = ("core", "pools", "syncing", "tenants")
FOR_ADMINS = frozenset({"apikey", "auditentry", "credential", "registrycredential", "settings", "idempotencyrecord"})
"""What the pages and the API show to admins only."""


def make_groups(**_: Any) -> None:
    """The groups that give staff a role exist from the start, and may look at the admin as at the pages."""
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
        # Django tells only apps with models; this is the last one, when the rights of all exist.
        post_migrate.connect(make_groups, sender=apps.get_app_config("tenants"))

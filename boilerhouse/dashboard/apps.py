from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


def make_groups(**_: Any) -> None:
    """The groups that give staff a role exist from the start."""
    from django.contrib.auth.models import Group

    from boilerhouse.dashboard.access import RANK

    for role in RANK:
        Group.objects.get_or_create(name=role.value)


class DashboardConfig(AppConfig):
    name = "boilerhouse.dashboard"
    label = "dashboard"

    def ready(self) -> None:
        post_migrate.connect(make_groups, sender=self)

"""The queued tasks."""

from __future__ import annotations

from django_q.models import OrmQ


def queued_tasks(function: str) -> int:
    """How many messages for this function (``tenants.tasks.run_syncs``) wait in the queues of the database."""
    return sum(message.task["func"] == function for message in OrmQ.objects.all())

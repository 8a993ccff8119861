"""Tasks on the ``sync`` queue."""

from __future__ import annotations

from django.db import transaction

from boilerhouse.queues import slow_work
from boilerhouse.queues.tasks import enqueue, task
from syncing import backups, places, sinks
from syncing.models import SyncSpec

EXPIRE_AGAIN_S = 60
"""The delay before the next attempt if work with the sink already has its maximum of workers."""


def warm() -> None:
    """Load at start what the first task would otherwise load."""
    sinks.warm()


@task
def expire_backups(spec_id: str) -> None:
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is None:
        return
    with slow_work.entered_for([places.far_end(spec)]) as may_begin:
        if may_begin:
            backups.expire(spec)
            return
    with transaction.atomic():
        enqueue("sync", "syncing.tasks.expire_backups", spec_id, after_s=EXPIRE_AGAIN_S)

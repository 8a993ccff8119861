"""Tasks on the ``sync`` queue."""

from __future__ import annotations

from django.db import transaction

from boilerhouse.queues import slow_work
from boilerhouse.queues.tasks import enqueue, task
from syncing import backups, places, sinks
from syncing.models import SyncSpec

EXPIRE_AGAIN_S = 60
"""Where work with the sink holds as many workers as it may, its backups wait so long."""


def warm() -> None:
    """What a worker would otherwise do in its first task."""
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

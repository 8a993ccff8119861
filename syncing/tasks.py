"""Tasks on the ``sync`` queue."""

from __future__ import annotations

from boilerhouse.core.tasks import task
from syncing import backups
from syncing.models import SyncSpec


def before_fork() -> None:
    """What each process of a queue would otherwise do in its first task."""
    from syncing.sinks import s3_access

    s3_access.warm()


@task
def expire_backups(spec_id: str) -> None:
    spec = SyncSpec.objects.select_related("credential").filter(pk=spec_id).first()
    if spec is not None:
        backups.expire(spec)

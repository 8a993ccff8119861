"""Retention: deletes events, audit entries, stored responses and sessions that have expired."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from boilerhouse.core import deployment_settings
from boilerhouse.core.models import AuditEntry, Deployment, Event, Session
from boilerhouse.web import idempotency
from syncing.models import Backup, SinkProbe, SyncRun

AT_ONCE = 1000


_AGES = {
    "events": (Event, "created_at"), "runs": (SyncRun, "finished_at"), "probes": (SinkProbe, "at"),
    "backups": (Backup, "created_at"), "audit": (AuditEntry, "at"),
}  # fmt: skip
"""What each retention deletes, and by which time."""


def doomed(retention_s: Mapping[str, int]) -> dict[str, int]:
    """How many rows of each kind are older than this retention would allow. A few of them are kept nevertheless: the
    newest sync run of each tenant, and backups that an unfinished save needs."""
    now = timezone.now()
    counts = {}
    for kind, seconds in retention_s.items():
        model, field = _AGES[kind]
        counts[kind] = model._default_manager.filter(**{f"{field}__lt": now - timedelta(seconds=seconds)}).count()
    return counts


def forget_old() -> int:
    """Returns how many rows were deleted."""
    retention_s, now = deployment_settings.current().retention_s, timezone.now()
    deleted = AuditEntry.objects.filter(at__lt=now - timedelta(seconds=retention_s["audit"])).delete()[0]
    deleted += Session.objects.filter(expire_date__lt=now).delete()[0]
    return deleted + idempotency.forget_old() + forget_events(timedelta(seconds=retention_s["events"]))


def forget_events(older_than: timedelta) -> int:
    """Delete events and record the highest deleted id. Readers behind that id are told to start again."""
    rows = Event.objects.filter(created_at__lt=timezone.now() - older_than).order_by("-id")
    newest = rows.values_list("id", flat=True).first()
    deleted = 0
    while newest is not None:
        ids = list(Event.objects.filter(pk__lte=newest).order_by("id").values_list("pk", flat=True)[:AT_ONCE])
        if not ids:
            break
        with transaction.atomic():
            Deployment.objects.filter(events_forgotten_to__lt=ids[-1]).update(events_forgotten_to=ids[-1])
            deleted += Event.objects.filter(pk__in=ids).delete()[0]
    return deleted

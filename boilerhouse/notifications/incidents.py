"""Decides what is told: compares the present causes with the incidents, and creates the messages that are missing.

An incident opens when its cause has been present for the hold time, and is resolved when the cause has been absent for
as long, so a cause that flaps is told once. Messages are not decided at that moment: each look creates those that the
rows lack. So a process that dies in between loses none, and two controllers create each once.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Cause
from boilerhouse.attention.pool_causes import Row
from boilerhouse.core import clock, failpoints
from boilerhouse.notifications import messages, own_causes
from boilerhouse.notifications.models import Delivery, Incident, Mute, Target
from boilerhouse.notifications.states import RULES, DeliveryState, Moment
from boilerhouse.queues import wakeup_pipes

MAX_KEY = 200
MOST_PER_HOUR = 60
"""New causes that one target is told of in an hour. The others are told when there is room, if they still last."""
BELL = "notifications"


def key_of(cause_key: str) -> str:
    """The key as stored; one that is too long is hashed."""
    return cause_key if len(cause_key) <= MAX_KEY else hashlib.sha256(cause_key.encode()).hexdigest()


def present(pools: Sequence[Row] | None = None) -> list[Cause]:
    """Everything that needs an operator now, notifications themselves included, most urgent first.

    ``pools``: the pools with their statuses, if the caller has them already.
    """
    return causes.ordered([*causes.present(pools), *own_causes.present()])


def look() -> int:
    """Compare, and create what is missing. Returns how many messages were created."""
    targets = list(Target.objects.order_by("pk"))
    if not targets and not Incident.objects.filter(settled_at=None).exists():
        return 0
    now = clock.now()
    by_key = {key_of(cause.key): cause for cause in present() if cause.kinds & set(RULES)}
    _observe(by_key, now)
    failpoints.reach("notifications.observed")
    created = _tell(targets, now)
    if created:
        wakeup_pipes.notify(BELL)
    return created


def _hold() -> timedelta:
    return timedelta(seconds=settings.BOILERHOUSE_NOTIFICATION_HOLD_S)


def _observe(present: Mapping[str, Cause], now: datetime) -> None:
    """Bring the incidents up to date. Each change names what it starts from, so another controller's is not undone."""
    incidents = {incident.key: incident for incident in Incident.objects.filter(resolved_at=None)}
    new = [_incident(key, cause, now) for key, cause in present.items() if key not in incidents]
    Incident.objects.bulk_create(new, ignore_conflicts=True)
    for incident in [*incidents.values(), *new]:
        row = Incident.objects.filter(pk=incident.pk, resolved_at=None)
        cause = present.get(incident.key)
        if cause is None:
            _absent(incident, now)
            continue
        if incident.absent_since is not None:
            row.update(absent_since=None)
        if incident.opened_at is None and now - incident.first_seen_at >= _hold():
            row.filter(opened_at=None).update(opened_at=now, **_described(cause))
        elif (sorted(cause.kinds), list(cause.pool_ids)) != (incident.kinds, incident.pool_ids):
            row.update(kinds=sorted(cause.kinds), pool_ids=list(cause.pool_ids))


def _absent(incident: Incident, now: datetime) -> None:
    row = Incident.objects.filter(pk=incident.pk, resolved_at=None)
    if incident.opened_at is None:
        row.filter(opened_at=None).delete()
    elif incident.absent_since is None:
        row.filter(absent_since=None).update(absent_since=now)
    elif now - incident.absent_since >= _hold():
        row.filter(absent_since=incident.absent_since).update(resolved_at=now)


def _incident(key: str, cause: Cause, now: datetime) -> Incident:
    return Incident(key=key, kind=cause.kind, first_seen_at=now, **_described(cause))


def _described(cause: Cause) -> dict[str, object]:
    return {
        "kinds": sorted(cause.kinds),
        "severity": cause.severity,
        "title": messages.cut(cause.title, messages.MAX_TITLE),
        "text": messages.cut(cause.text, messages.MAX_TEXT),
        "pool_ids": list(cause.pool_ids),
        "since": cause.since,
    }


def _tell(targets: Collection[Target], now: datetime) -> int:
    """Create the missing messages of all incidents that are not settled."""
    open_ones = list(Incident.objects.filter(settled_at=None).exclude(opened_at=None).order_by("opened_at"))
    if not open_ones:
        return 0
    deliveries: dict[tuple[str, object], set[str]] = defaultdict(set)
    rows = Delivery.objects.filter(incident__in=open_ones).exclude(state=DeliveryState.CANCELLED)
    for target_id, incident_id, name, state in rows.values_list("target_id", "incident_id", "moment", "state"):
        deliveries[target_id, incident_id].add(name if state != DeliveryState.FAILED else f"{name} failed")
    muted = set(Mute.objects.filter(until__gt=now).values_list("pk", flat=True))
    used = _used(now)
    created = 0
    for incident in open_ones:
        is_waiting = False
        for target in targets:
            moment = _missing(incident, target, deliveries[target.pk, incident.pk])
            if moment is None:
                continue
            is_full = moment == Moment.OPENED and used[target.pk] >= MOST_PER_HOUR
            if incident.key in muted or target.is_muted(now) or is_full:
                is_waiting = is_waiting or moment == Moment.RESOLVED
                continue
            used[target.pk] += moment == Moment.OPENED
            created += _create(incident, target, moment, now)
        if incident.resolved_at is not None and not is_waiting:
            Incident.objects.filter(pk=incident.pk, settled_at=None).update(settled_at=now)
    return created


def _used(now: datetime) -> Counter[str]:
    """How many causes each target was told of in the last hour."""
    recent = Delivery.objects.filter(created_at__gt=now - timedelta(hours=1), moment=Moment.OPENED)
    return Counter(dict(recent.order_by().values_list("target_id").annotate(Count("pk"))))


def _missing(incident: Incident, target: Target, delivered: Collection[str]) -> Moment | None:
    """The message that the target lacks. The end is told only to those who were told of the beginning."""
    if not target.is_on or target.disabled_at is not None:
        return None
    if incident.resolved_at is not None:
        is_told = Moment.RESOLVED in delivered or f"{Moment.RESOLVED} failed" in delivered
        return Moment.RESOLVED if Moment.OPENED in delivered and not is_told else None
    if Moment.OPENED in delivered or f"{Moment.OPENED} failed" in delivered:
        return None
    is_present = incident.absent_since is None
    return Moment.OPENED if is_present and wants(target, incident) else None


def wants(target: Target, incident: Incident) -> bool:
    """Whether the target's rules include the incident. One that affects the whole deployment affects each pool."""
    is_in_scope = not target.pool_ids or not incident.pool_ids or set(target.pool_ids) & set(incident.pool_ids)
    return bool(set(target.kinds) & set(incident.kinds) and is_in_scope)


def _create(incident: Incident, target: Target, moment: Moment, now: datetime) -> int:
    """How many were created: 0 if another controller was faster."""
    payload = messages.payload(
        incident_id=incident.pk, key=incident.key, kind=incident.kind, severity=incident.severity,
        title=incident.title, text=incident.text, pool_ids=incident.pool_ids, since=incident.since,
        resolved_at=incident.resolved_at,
    )  # fmt: skip
    fresh = {"payload": payload, "created_at": now, "next_attempt_at": now, "give_up_at": give_up_at(now)}
    row, is_new = Delivery.objects.get_or_create(target=target, incident=incident, moment=moment, defaults=fresh)
    if is_new or row.state != DeliveryState.CANCELLED:
        return int(is_new)
    rows = Delivery.objects.filter(pk=row.pk)  # the target was disabled, and is enabled again
    return rows.transition(DeliveryState.CANCELLED, DeliveryState.PENDING, attempts=0, **fresh)


def give_up_at(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.BOILERHOUSE_NOTIFICATION_DEADLINE_S)

"""The users of the demo data, and the notifications that they get."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User

from boilerhouse.attention.cause import Kind, Severity
from boilerhouse.core.models import Role
from boilerhouse.notifications.messages import payload
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DEFAULT_RULES, DeliveryState, Moment, TargetKind
from boilerhouse.operations.demo_data.catalogue import REFUSAL
from boilerhouse.operations.demo_data.rows import Rows

USERS = (("kim", Role.OPERATOR, 0.3), ("lee", Role.VIEWER, 47))
"""Name, role, and the hours since the last sign-in."""
HELD_MIN = 1
"""Minutes that a cause lasts before a notification of it is sent."""
TOLD = (
    (Kind.SINK_DOWN, Severity.ERROR, "build-cache cannot save", REFUSAL, "build-workers", 24.0, None),
    (Kind.SAVE_OVERDUE, Severity.WARNING, "Saves of agents-state are overdue", "No complete save for 1 h 4 min.",
     "browser-agents", 1_700.0, 1_655.0),
    (Kind.DISK_LOW, Severity.ERROR, "The disk of this node is nearly full", "4 % of 200 GB are free.", "",
     3_100.0, 3_020.0),
)  # fmt: skip
"""Kind, severity, title, text, pool, and how many minutes ago it began and ended."""


def write(rows: Rows) -> dict[str, list[str]]:
    """Create users, targets and their log. Returns the ids of what was created by model; a user who exists stays."""
    users = [user for name, role, hours in USERS if (user := _user(rows, name, role, hours))]
    targets = [
        _target(rows, "on-call", "On call", TargetKind.WEBHOOK, "https://hooks.example.com", DEFAULT_RULES),
        _target(rows, "platform-chat", "Platform chat", TargetKind.SLACK, "https://chat.example.com", list(Kind)),
    ]
    for target in targets:
        Delivery.objects.bulk_create(_log(rows, target))
    return {"auth.User": [str(user.pk) for user in users], Target._meta.label: [target.pk for target in targets]}


def _user(rows: Rows, name: str, role: Role, hours: float) -> User | None:
    user, is_new = User.objects.get_or_create(
        username=name,
        defaults={
            "is_staff": True,
            "password": "!",  # matches no password
            "date_joined": rows.now - timedelta(days=90),
            "last_login": rows.now - timedelta(hours=hours),
        },
    )
    if is_new:
        user.groups.add(Group.objects.get(name=role.value))
    return user if is_new else None


def _target(rows: Rows, id: str, name: str, kind: TargetKind, host: str, kinds: Any) -> Target:
    secret = {"url": f"{host}/{rows.hex(12)}", "signing": []}
    return Target.objects.create(
        id=id, name=name, kind=kind, secret=secret, destination=host, kinds=list(kinds),
        last_delivered_at=rows.now - timedelta(minutes=23), created_at=rows.now - timedelta(days=40),
        updated_at=rows.now - timedelta(days=40),
    )  # fmt: skip


def _log(rows: Rows, target: Target) -> list[Delivery]:
    deliveries = []
    for kind, severity, title, text, pool, began, ended in TOLD:
        for moment, minutes in ((Moment.OPENED, began), (Moment.RESOLVED, ended)):
            if minutes is None:
                continue
            at = rows.now - timedelta(minutes=minutes - HELD_MIN)
            about = payload(
                incident_id=None, key=f"demo:{kind}", kind=kind, severity=severity, title=title, text=text,
                pool_ids=[pool] if pool else [], since=rows.now - timedelta(minutes=began),
                resolved_at=at if moment == Moment.RESOLVED else None,
            )  # fmt: skip
            deliveries.append(
                Delivery(
                    id=rows.uuid(at),
                    target=target,
                    moment=moment,
                    payload=about,
                    state=DeliveryState.DELIVERED,
                    attempts=1 + (rows.random.random() < 0.2),
                    status_code=204,
                    duration_ms=rows.random.randrange(60, 320),
                    created_at=at,
                    next_attempt_at=at,
                    last_attempt_at=at,
                    delivered_at=at,
                    give_up_at=at + timedelta(days=1),
                )
            )
    return deliveries

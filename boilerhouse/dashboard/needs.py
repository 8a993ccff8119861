"""Causes as the pages show them: where the object is, and the buttons that cure it.

A button that others would feel asks first, through the question of its own action. A retry can be repeated, so it does
not ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from boilerhouse.attention import causes, pool_causes
from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.attention.words import count
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import may
from boilerhouse.dashboard.templatetags.ui import short
from boilerhouse.notifications import mutes as muted_causes
from boilerhouse.notifications.incidents import key_of
from boilerhouse.notifications.models import Mute
from pools.models import Pool, PoolStatus
from syncing.sink_words import Remedy

PAGES = {
    Thing.SYNC_SPEC: "sync-spec", Thing.POOL: "pool", Thing.TENANT: "tenant", Thing.CONTAINER: "container",
}  # fmt: skip
PROCESSES = frozenset({Kind.NODE_LOST, Kind.CONTROLLER_LOST, Kind.QUEUE_UNSERVED, Kind.STEP_FAILING})
STARTS = frozenset({Kind.POOL_CANNOT_START, Kind.POOL_UNSTABLE, Kind.ROLL_HALTED})
NODE_WIDE = frozenset({Kind.ENGINE_GONE, Kind.HOST_NOT_READY, Kind.DISK_LOW})
MUTES = (("3600", "1 hour"), ("28800", "8 hours"), ("86400", "1 day"), ("604800", "7 days"))
"""How long notifications of a cause can be muted: seconds, label."""
SHOWN = 8
"""How many are shown at once; the rest can be opened."""


@dataclass(frozen=True, slots=True)
class Button:
    """One way to cure a cause."""

    verb: str
    icon: str
    url: str
    kind: str = "link"
    """``link``; ``post``, which acts at once; ``ask``, which opens a question."""
    key: str = ""
    """Submitted as ``key``."""


@dataclass(frozen=True, slots=True)
class Need:
    """A cause with its links and buttons for one reader on one page."""

    cause: Cause
    link: str
    """The page of the object; empty on that page itself."""
    buttons: list[Button]
    mutes: Sequence[tuple[str, str]] = ()
    """How long the reader may mute notifications of it."""
    mute: Mute | None = None
    """Who has muted notifications of it, and until when."""

    @property
    def tone(self) -> str:
        return "error" if self.cause.severity == Severity.ERROR else "warn"

    @property
    def parts(self) -> tuple[str, str]:
        """The title before and after the subject."""
        before, _, after = self.cause.what.partition("{}")
        return before, after

    @property
    def subject(self) -> str:
        return short(self.cause.subject)

    @property
    def is_named(self) -> bool:
        """Whether the subject is an id, and not a word of the sentence."""
        return self.cause.kind not in NODE_WIDE | {Kind.CONTROLLER_LOST, Kind.BACKUP_MISSING}

    @property
    def anchor(self) -> str:
        """The element's id, so that a refresh finds it again."""
        return f"need-{hashlib.sha256(self.cause.key.encode()).hexdigest()[:10]}"


def of(present: Sequence[Cause], request: HttpRequest) -> list[Need]:
    """The causes for whoever sends this request."""
    mutes = MUTES if may(request, Role.OPERATOR) else ()
    muted = muted_causes.muted() if present else {}
    return [
        Need(cause, _link(cause, request), _buttons(cause, request), mutes, muted.get(key_of(cause.key)))
        for cause in present
    ]


def of_pool(request: HttpRequest, pool: Pool, status: PoolStatus) -> list[Need]:
    """What concerns one pool, its containers and the saves of its tenants."""
    return of(causes.in_pool([(pool, status)]), request)


def of_pools(request: HttpRequest, pools: Sequence[pool_causes.Row]) -> list[Need]:
    """What keeps these pools from starting or serving containers."""
    return of(causes.ordered(pool_causes.present(pools)), request)


def of_spec(request: HttpRequest, spec_id: str) -> list[Need]:
    """What keeps a sync spec from saving."""
    return of([cause for cause in causes.of_saves() if spec_id in cause.spec_ids], request)


def of_tenant(request: HttpRequest, tenant_id: str) -> list[Need]:
    """What keeps a tenant's state from being saved."""
    return of([cause for cause in causes.of_saves() if tenant_id in (*cause.unsaved, *cause.overdue)], request)


def _link(cause: Cause, request: HttpRequest) -> str:
    if cause.kind in PROCESSES:
        link = reverse("settings")
    elif cause.kind in NODE_WIDE | {Kind.BACKUP_MISSING}:
        return ""
    elif cause.kind == Kind.NOTIFICATION_DISABLED:
        return reverse("notification", args=[cause.subject]) if may(request, Role.ADMIN) else ""
    else:
        link = reverse(PAGES[cause.thing], args=[cause.subject])
    return "" if link == request.path else link


def _buttons(cause: Cause, request: HttpRequest) -> list[Button]:
    if cause.kind in PROCESSES:
        return [Button("Show processes", "i-activity", reverse("settings"))]
    if not may(request, Role.OPERATOR):
        return []
    buttons = _of_saves(cause, request) + _of_pools(cause)
    return [button for button in buttons if button.url != request.path]


def _of_saves(cause: Cause, request: HttpRequest) -> list[Button]:
    buttons = []
    spec_id = cause.spec_ids[0] if cause.spec_ids else ""
    if spec_id and cause.remedy == Remedy.CREDENTIAL:
        if cause.credential_id and may(request, Role.ADMIN):
            url = reverse("credential", args=[cause.credential_id])
            buttons.append(Button("Change credential", "i-key-round", url))
        elif not cause.credential_id:
            buttons.append(Button("Change the keys", "i-key-round", reverse("edit-spec", args=[spec_id])))
    elif spec_id and cause.remedy == Remedy.SPEC:
        buttons.append(Button("Edit sync spec", "i-settings", reverse("edit-spec", args=[spec_id])))
    if cause.kind == Kind.SINK_DOWN and request.path != reverse("sync-spec", args=[spec_id]):  # it has its own button
        buttons.append(Button("Check the sink", "i-rotate-cw", reverse("sync-probe", args=[spec_id]), "post"))
    if cause.unsaved:
        many = len(cause.unsaved)
        verb = "Retry save" if many == 1 else f"Retry {count(many, 'save')}"
        buttons.append(Button(verb, "i-rotate-cw", reverse("need-retry"), "post", cause.key))
    if cause.kind == Kind.SAVE_OVERDUE:
        buttons.append(Button("Save now", "i-arrow-down-up", reverse("sync-trigger", args=[spec_id]), "ask"))
    return buttons


def _of_pools(cause: Cause) -> list[Button]:
    pool_id = cause.pool_ids[0] if cause.pool_ids else ""
    match cause.kind:
        case Kind.POOL_CANNOT_START if not cause.workload_id:  # no node fits: a start is tried all the time
            placement = f"{reverse('pool', args=[pool_id])}?tab=configuration#fplacementnodeselector"
            return [
                Button("Show nodes", "i-hard-drive", reverse("nodes")),
                Button("Change placement", "i-settings", placement),
            ]
        case kind if kind in STARTS:
            edit = Button("Edit workload", "i-settings", f"{reverse('edit-workload', args=[cause.workload_id])}#fimage")
            verb = "Retry the roll" if kind == Kind.ROLL_HALTED else "Start now"
            return [edit, Button(verb, "i-play", reverse("need-start"), "post", cause.key)]
        case kind if kind in NODE_WIDE:
            show = Button("Show node", "i-hard-drive", reverse("node"))
            return [show, Button("Try again", "i-play", reverse("need-start"), "post", cause.key)]
        case Kind.BACKUP_MISSING:
            return [Button("Show backups", "i-hard-drive", reverse("node"))]
        case Kind.POOL_EXHAUSTED:
            size = f"{reverse('pool', args=[pool_id])}?tab=configuration"
            return [Button("Change its size", "i-settings", size)]
        case Kind.POOL_PAUSED:
            return [Button("Resume", "i-play", reverse("pool-resume", args=[pool_id]), "post")]
        case Kind.IMAGE_STALE:
            refresh = reverse("workload-refresh", args=[cause.workload_id])
            return [Button("Refresh image", "i-rotate-cw", refresh, "ask")]
        case Kind.CONTAINER_UNHEALTHY if cause.thing == Thing.CONTAINER:
            release = reverse("container-remove", args=[cause.subject])
            return [Button("Save and release", "i-upload", release, "ask")]
    return []

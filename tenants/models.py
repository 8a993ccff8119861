"""Who holds what."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from boilerhouse.core import clock
from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from pools.models import Container, Pool, WorkloadVersion
from syncing.errors import DirectoryMissing
from tenants.states import LIVE, TRANSITIONS, AssignmentState, ReleaseReason, ReleaseStep, Source


class Tenant(models.Model):
    """Whoever claims; its generation grows with each claim and never goes back."""

    id = models.CharField(max_length=128, primary_key=True)
    generation = models.BigIntegerField(default=0)
    busy_run = models.UUIDField(null=True, blank=True)
    """The last of the runs that work at the sinks for it (``sink_runs``); no claim begins before they have ended."""
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.id


_NEXT_GENERATION = """
INSERT INTO {table} (id, generation, created_at) VALUES (%s, %s, {now})
ON CONFLICT (id) DO UPDATE SET generation = {greatest}({table}.generation + 1, excluded.generation)
RETURNING generation, busy_run
"""


def next_generation(tenant_id: str) -> tuple[int, UUID | None]:
    """Make the tenant's row if there is none; raise its generation above the last one and the clock (hazards.md#a2).

    One statement, which also locks the row until the caller's transaction ends. Returns it, and the run
    at the sinks that must end first if there is one.
    """
    now = clock.now()
    on_postgresql = connection.vendor == "postgresql"
    sql = _NEXT_GENERATION.format(
        table=Tenant._meta.db_table,
        greatest="GREATEST" if on_postgresql else "MAX",
        now="now()" if on_postgresql else "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [tenant_id, int(now.timestamp() * 1_000_000)])
        generation, busy_run = cursor.fetchone()
        return int(generation), UUID(str(busy_run)) if busy_run else None


CLEARED: dict[str, None] = {"config": None, "metadata": None, "secrets": None}
"""What a tenant sent with its claim is of no use once that is over, and may be a megabyte each."""


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete without reading secrets: a row whose key is gone can be deleted, too."""
        return models.QuerySet.delete(self.only("pk"))

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def live(self) -> AssignmentQuerySet:
        return self.filter(state__in=LIVE)

    def transition(self, source: AssignmentState, target: AssignmentState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``; return how many moved. The verdict of every race."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        if target == AssignmentState.ENDED:
            changes |= CLEARED
        return self.filter(state=source).update(state=target, state_changed_at=Now(), **changes)

    def waiting(self, pool_id: str) -> AssignmentQuerySet:
        """Claims that wait for a container, first come first."""
        rows = self.filter(pool_id=pool_id, state=AssignmentState.PENDING, container=None, container_ref=None)
        return rows.order_by("created_at", "id")


class Assignment(models.Model):
    """A tenant holds a container, or wants one, or is giving it back."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="assignments")
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="assignments")
    generation = models.BigIntegerField()
    state = models.CharField(max_length=16, choices=AssignmentState, default=AssignmentState.PENDING)
    container = models.ForeignKey(
        Container, on_delete=models.SET_NULL, null=True, blank=True, related_name="assignments"
    )
    container_ref = models.UUIDField(null=True, blank=True)
    """The container's id, also when its row is gone: its directories are named by it."""
    directory_node = models.CharField(max_length=64, default="", db_default="", blank=True)
    """The node that has the directories of a failed save, whose container's row is gone."""
    version = models.ForeignKey(WorkloadVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    uid = models.PositiveIntegerField(null=True, blank=True)
    source = models.CharField(max_length=10, choices=Source, default=Source.WARM)
    config = models.JSONField(null=True, blank=True)
    secrets = EncryptedJSONField(null=True, blank=True)
    """Only while pending: erased by the statement that makes the assignment ``assigned`` or gives it up."""
    metadata = models.JSONField(null=True, blank=True)
    egress = models.JSONField(null=True, blank=True)
    """What narrows the pool's network policy for this tenant; null: nothing."""
    egress_bound = models.JSONField(null=True, blank=True)
    """What the tenant's own keys stay within: the policy that somebody else set last; null: the pool's."""
    endpoints = models.JSONField(default=list)
    restored = models.JSONField(null=True, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    outcome = models.CharField(max_length=32, default="", blank=True)
    """Why it ended: the code of the claim's error, ``released`` or ``discarded``."""
    outcome_detail = models.TextField(default="", blank=True)
    reason = models.CharField(max_length=16, choices=ReleaseReason, default="", blank=True)
    """What the release was for."""
    step = models.CharField(max_length=12, choices=ReleaseStep, default="", blank=True)
    was_assigned = models.BooleanField(default=False)
    """Only then is there anything to save."""
    save_all = models.BooleanField(null=True, default=None)
    """The release's ``sync``: null = specs with onRelease, true = every upload, false = none."""
    discard = models.BooleanField(default=False)
    attempt = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    owner = models.UUIDField(null=True, blank=True)
    deadline = models.DateTimeField()
    waits = models.BooleanField(default=True, db_default=True)
    """Whether somebody waits for the claim. If not, the deadline moves with whatever of its restore moves."""
    created_at = models.DateTimeField(default=timezone.now)
    state_changed_at = models.DateTimeField(default=timezone.now)
    assigned_at = models.DateTimeField(null=True, blank=True)
    last_activity_at = models.DateTimeField(null=True, blank=True)
    last_turn_at = models.DateTimeField(null=True, blank=True)
    """When a worker last took up a sync of it: the next turn is that of whoever had none for longest."""
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = AssignmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant"], condition=~Q(state="ended"), name="one_live_assignment_per_tenant"
            ),
            models.UniqueConstraint(
                fields=["container_ref"],
                condition=Q(container_ref__isnull=False) & ~Q(state="ended"),
                name="one_live_assignment_per_container",
            ),
            models.CheckConstraint(condition=Q(state__in=AssignmentState.values), name="assignment_state_known"),
            models.CheckConstraint(
                condition=Q(state="pending") | Q(secrets__isnull=True), name="secrets_only_while_pending"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "state_changed_at"]),
            models.Index(fields=["pool", "state", "created_at"], name="assignment_waiting"),
            models.Index(fields=["tenant", "created_at"]),
            models.Index(fields=["ended_at"], name="assignment_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.state}"

    @property
    def whereabouts(self) -> str:
        """Where the state of a failed save is, as a sentence for people."""
        if self.outcome == DirectoryMissing.code:
            return "Nothing was deleted: mount or restore the directory, or discard the state."
        return "The state is kept on the node."

    @property
    def node(self) -> str:
        """Where what it holds is; empty while it holds nothing."""
        return self.container.node_id if self.container else self.directory_node

    @property
    def held_container(self) -> UUID:
        assert self.container_ref is not None
        return self.container_ref


class Death(models.Model):
    """How a tenant's container ended by itself, and what it said last."""

    assignment = models.OneToOneField(Assignment, on_delete=models.CASCADE, related_name="death")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="deaths")
    container_ref = models.UUIDField(db_index=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    exit_code = models.IntegerField(null=True)
    detail = models.TextField()
    words = EncryptedJSONField()
    """The lines of its output that say why; empty where none are known."""
    log = EncryptedJSONField()
    """The end of its log, each line with its moment."""

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.at:%Y-%m-%d %H:%M:%S}"

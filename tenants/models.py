"""Tenants and their assignments."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from boilerhouse.core import clock
from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from pools.models import Container, Pool, WorkloadVersion
from syncing.errors import DirectoryMissing
from tenants.gateway import hosts
from tenants.states import LIVE, TRANSITIONS, AssignmentState, ReleaseReason, ReleaseStep, Source


class Tenant(models.Model):
    """A tenant; its generation increases with each claim and never decreases."""

    id = models.CharField(max_length=128, primary_key=True)
    generation = models.BigIntegerField(default=0)
    busy_run = models.UUIDField(null=True, blank=True)
    """The last of the runs that work at the sinks for it (``sink_runs``); no claim starts before they have ended."""
    created_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now, db_default=Now())
    """When it last claimed, was active or was released; while it has a container, up to a minute late."""
    saved_at = models.DateTimeField(null=True, blank=True)
    saved_bytes = models.PositiveBigIntegerField(default=0, db_default=0)
    """Its last complete save and the size of its saved state, for sorting; up to a minute late (``standing``)."""
    host_label = models.CharField(max_length=20, null=True, blank=True, unique=True)
    """Its part of the gateway's host names, made with its first claim; null: made by an earlier version."""

    class Meta:
        indexes = [
            models.Index(fields=["seen_at", "id"], name="tenant_seen"),
            models.Index(fields=["saved_bytes", "id"], name="tenant_size"),
        ]

    def __str__(self) -> str:
        return self.id


_NEXT_GENERATION = """
INSERT INTO {table} (id, generation, created_at, seen_at, saved_bytes, host_label) VALUES (%s, %s, {now}, {now}, 0, %s)
ON CONFLICT (id) DO UPDATE SET
    generation = {greatest}({table}.generation + 1, excluded.generation), seen_at = excluded.seen_at,
    host_label = COALESCE({table}.host_label, excluded.host_label)
RETURNING generation, host_label, busy_run
"""


def next_generation(tenant_id: str) -> tuple[Tenant, UUID | None]:
    """Create the tenant's row if necessary; raise its generation above the last one and the clock (hazards.md#a2).

    One statement, which also locks the row until the caller's transaction ends. Returns the tenant with its generation
    and host label alone, and the run at the sinks that must end first, if any.
    """
    now = clock.now()
    on_postgresql = connection.vendor == "postgresql"
    sql = _NEXT_GENERATION.format(
        table=Tenant._meta.db_table,
        greatest="GREATEST" if on_postgresql else "MAX",
        now="now()" if on_postgresql else "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [tenant_id, int(now.timestamp() * 1_000_000), hosts.new_label()])
        generation, label, busy_run = cursor.fetchone()
    tenant = Tenant(id=tenant_id, generation=int(generation), host_label=label)
    return tenant, UUID(str(busy_run)) if busy_run else None


CLEARED: dict[str, None] = {"config": None, "metadata": None, "secrets": None}
"""Large columns that are only needed while a claim is pending, up to a megabyte each."""


NODE_LOST = "node_lost"
"""The outcome of what a lost node ended."""
WITHOUT_CONTAINER = (AssignmentState.RELEASE_FAILED, AssignmentState.ENDED)


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete without reading secrets: a row can be deleted even if its key is lost."""
        return models.QuerySet.delete(self.only("pk"))

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def live(self) -> AssignmentQuerySet:
        return self.filter(state__in=LIVE)

    def transition(self, source: AssignmentState, target: AssignmentState, **changes: Any) -> int:
        """Move matching rows from ``source`` to ``target``; returns how many moved. This decides every race."""
        assert target in TRANSITIONS[source], f"{source} -> {target}"
        if target == AssignmentState.ENDED:
            changes |= CLEARED
        if target in WITHOUT_CONTAINER:
            changes["held_until"] = Coalesce("held_until", Now())
        return self.filter(state=source).update(state=target, state_changed_at=Now(), **changes)

    def waiting(self, pool_id: str) -> AssignmentQuerySet:
        """Claims that wait for a container, in order."""
        rows = self.filter(pool_id=pool_id, state=AssignmentState.PENDING, container=None, container_ref=None)
        return rows.order_by("created_at", "id")


class Assignment(models.Model):
    """A tenant's use of a container: waiting for it, using it, or being released from it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="assignments")
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="assignments")
    generation = models.BigIntegerField()
    state = models.CharField(max_length=16, choices=AssignmentState, default=AssignmentState.PENDING)
    container = models.ForeignKey(
        Container, on_delete=models.SET_NULL, null=True, blank=True, related_name="assignments"
    )
    container_ref = models.UUIDField(null=True, blank=True)
    """The container's id, kept after its row is deleted, because the directories are named by it."""
    directory_node = models.CharField(max_length=64, default="", db_default="", blank=True)
    """The node that has the directories of a failed save, after the container's row is deleted."""
    version = models.ForeignKey(WorkloadVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    uid = models.PositiveIntegerField(null=True, blank=True)
    source = models.CharField(max_length=10, choices=Source, default=Source.WARM)
    config = models.JSONField(null=True, blank=True)
    secrets = EncryptedJSONField(null=True, blank=True)
    """Only while pending: the statement that assigns or aborts the claim erases it."""
    metadata = models.JSONField(null=True, blank=True)
    egress = models.JSONField(null=True, blank=True)
    """The policy that narrows the pool's for this tenant; null: none."""
    egress_bound = models.JSONField(null=True, blank=True)
    """The limit for the tenant's own keys: the policy that another key set last; null: the pool's."""
    endpoints = models.JSONField(default=list)
    restored = models.JSONField(null=True, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    outcome = models.CharField(max_length=32, default="", blank=True)
    """The outcome: the code of the claim's error, ``released`` or ``discarded``."""
    outcome_detail = models.TextField(default="", blank=True)
    reason = models.CharField(max_length=16, choices=ReleaseReason, default="", blank=True)
    """The reason of the release."""
    claimed_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    released_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who asked for the claim and for the release, as in events; workers do both later. Empty: an earlier version."""
    step = models.CharField(max_length=12, choices=ReleaseStep, default="", blank=True)
    was_assigned = models.BooleanField(default=False)
    """Otherwise there is nothing to save."""
    save_all = models.BooleanField(null=True, default=None)
    """The release's ``sync``: null = specs with onRelease, true = every upload, false = none."""
    discard = models.BooleanField(default=False)
    attempt = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    owner = models.UUIDField(null=True, blank=True)
    deadline = models.DateTimeField()
    waits = models.BooleanField(default=True, db_default=True)
    """Whether a client waits for the claim. If not, progress of its restore extends the deadline."""
    created_at = models.DateTimeField(default=timezone.now)
    state_changed_at = models.DateTimeField(default=timezone.now)
    assigned_at = models.DateTimeField(null=True, blank=True)
    last_activity_at = models.DateTimeField(null=True, blank=True)
    last_turn_at = models.DateTimeField(null=True, blank=True)
    """When a worker last started a sync of it; the tenant that has waited longest is next."""
    ends_at = models.DateTimeField(null=True, blank=True)
    """When the controller releases it, however active it is (``ttl``); null: never."""
    end_discards = models.BooleanField(default=False, db_default=False)
    """Whether that release discards the state instead of saving it."""
    ended_at = models.DateTimeField(null=True, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    """Since when its container is gone. A failed save ends the use of a container, but not the assignment."""
    counted_to = models.DateTimeField(null=True, blank=True)
    """To when its use is in the tenant's usage; null: nothing is yet."""
    counted_cpu_ns = models.PositiveBigIntegerField(null=True, blank=True)
    """The container's CPU time, since its start, of the last sample that was counted."""
    is_counted = models.BooleanField(default=False, db_default=False)
    """Whether all of its use is."""

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
            models.Index(
                fields=["ends_at"], condition=Q(ends_at__isnull=False, state="assigned"), name="assignment_ends"
            ),
            models.Index(
                fields=["id"], condition=Q(is_counted=False, assigned_at__isnull=False), name="assignment_uncounted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.state}"

    @property
    def whereabouts(self) -> str:
        """Where the state of a failed save is, as a sentence for people."""
        if self.outcome == DirectoryMissing.code:
            return "Nothing was deleted: mount or restore the directory, or discard the state."
        if self.outcome == NODE_LOST:
            return f"The state is on node {self.directory_node}, which is lost; it is saved when the node is back."
        return "The state is kept on the node."

    @property
    def node_id(self) -> str:
        """The node of its container or directories; empty if it has neither."""
        return self.container.node_id if self.container else self.directory_node

    @property
    def held_container(self) -> UUID:
        assert self.container_ref is not None
        return self.container_ref


class Death(models.Model):
    """How a tenant's container ended by itself, and its last output."""

    assignment = models.OneToOneField(Assignment, on_delete=models.CASCADE, related_name="death")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="deaths")
    container_ref = models.UUIDField(db_index=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    exit_code = models.IntegerField(null=True)
    detail = models.TextField()
    words = EncryptedJSONField()
    """The lines of its output that explain it; empty if there are none."""
    log = EncryptedJSONField()
    """The end of its log, each line with its time."""

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.at:%Y-%m-%d %H:%M:%S}"

"""Sync specs, credentials, runs, and records of saves."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, Now
from django.utils import timezone

from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from pools.models import Pool
from syncing import locations, sinks
from syncing.querysets import SyncRunQuerySet
from syncing.sinks import Sink
from syncing.states import Direction, Mode, PlaceState, Quiesce, SyncRunState, Trigger


class Credential(models.Model):
    """Access to a sink, stored encrypted and referenced by its id."""

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    secret = EncryptedJSONField()
    """``{accessKeyId, secretAccessKey}``; never shown."""
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.id


class SyncSpec(models.Model):
    """What to copy between a pool's containers and a sink, and when."""

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="sync_specs")
    version = models.PositiveIntegerField(default=1)
    sink = models.JSONField()
    """The sink without its secrets, with the API's names."""
    sink_secrets = EncryptedJSONField(null=True, blank=True)
    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, null=True, blank=True)
    on_claim = models.BooleanField(default=False)
    on_release = models.BooleanField(default=False)
    interval_ms = models.PositiveBigIntegerField(null=True, blank=True)
    allow_manual_trigger = models.BooleanField(default=True)
    quiesce = models.CharField(max_length=16, choices=Quiesce, default=Quiesce.FREEZE)
    sink_health = models.JSONField(default=dict)
    """``{state, checkedAt, code?, detail?}`` of the last probe."""
    place = models.JSONField(default=dict, db_default=Value({}, models.JSONField()), blank=True)
    """``{spelled, id, others, addresses}`` as determined by ``places``, for the sink in this spelling."""
    place_state = models.CharField(
        max_length=16, choices=PlaceState, default=PlaceState.UNASKED, db_default=PlaceState.UNASKED, blank=True
    )
    place_detail = models.TextField(default="", db_default="", blank=True)
    """Why nothing is transferred, if so."""
    located_at = models.DateTimeField(default=timezone.now, db_default=Now())
    """Since when its locations are unchanged: of two overlapping specs, the earlier one continues."""
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(quiesce__in=Quiesce.values), name="quiesce_known")]

    def __str__(self) -> str:
        return self.id

    def resolved_sink(self) -> Sink:
        """The sink with its secrets. Transfers use ``places.sink_of``."""
        secrets: dict[str, Any] = (self.credential.secret if self.credential else self.sink_secrets) or {}
        return sinks.resolve(self.sink, secrets)

    @property
    def prefix(self) -> str:
        """The prefix that the sink itself adds to every sink path."""
        return sinks.prefix(self.sink)


class SinkPlace(models.Model):
    """The place that a spelling of a sink led to at the last check; several spellings may be one place."""

    name = models.TextField(unique=True)
    """Endpoint and bucket, as in ``SavedState.place`` and ``Backup.place``."""
    place_id = models.CharField(max_length=64, db_index=True)
    seen_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class SyncMapping(models.Model):
    """One directory of the container and its location at the sink."""

    spec = models.ForeignKey(SyncSpec, on_delete=models.CASCADE, related_name="mappings")
    position = models.PositiveSmallIntegerField()
    container_path = models.CharField(max_length=400)
    pattern = models.CharField(max_length=200, default="", blank=True)
    """Empty: everything."""
    sink_path = models.CharField(max_length=400, default="", blank=True)
    direction = models.CharField(max_length=16, choices=Direction)
    mode = models.CharField(max_length=8, choices=Mode)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["spec", "position"], name="mapping_position_once"),
            models.CheckConstraint(condition=Q(direction__in=Direction.values), name="mapping_direction_known"),
            models.CheckConstraint(condition=Q(mode__in=Mode.values), name="mapping_mode_known"),
        ]

    def __str__(self) -> str:
        return f"{self.spec_id}: {self.container_path}"

    @property
    def template(self) -> str:
        return locations.join(self.spec.prefix, self.sink_path)

    def location(self, tenant_id: str) -> str:
        return locations.resolve(self.template, tenant_id)

    @property
    def restores(self) -> bool:
        return self.direction in (Direction.DOWNLOAD, Direction.BIDIRECTIONAL)

    @property
    def uploads(self) -> bool:
        return self.direction in (Direction.UPLOAD, Direction.BIDIRECTIONAL)


class SyncRun(models.Model):
    """One execution: spec x tenant x direction, with one step (one rclone) per mapping."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    spec = models.ForeignKey(SyncSpec, on_delete=models.CASCADE, related_name="runs")
    tenant_id = models.CharField(max_length=128)
    container_id = models.UUIDField(null=True, blank=True)
    """None for the restore of a backup, which happens at the sink."""
    generation = models.BigIntegerField()
    direction = models.CharField(max_length=16, choices=Direction)
    trigger = models.CharField(max_length=16, choices=Trigger)
    state = models.CharField(max_length=16, choices=SyncRunState, default=SyncRunState.QUEUED)
    steps = models.JSONField(default=list)
    progress = models.JSONField(default=dict)
    deleted = models.PositiveIntegerField(default=0)
    deletes = models.CharField(max_length=16, default="", blank=True)
    """``withheld`` if an upload in mode sync kept files that it had not restored."""
    skipped = models.JSONField(default=list)
    retries = models.PositiveSmallIntegerField(default=0)
    """How often one of its transfers was retried."""
    error_code = models.CharField(max_length=32, default="", blank=True)
    error_detail = models.TextField(default="", blank=True)
    owner = models.UUIDField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    asked_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    cancelled_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who asked for the run and for its end, as in events. Empty: nobody, or an earlier version."""
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = SyncRunQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=SyncRunState.values), name="run_state_known"),
            models.CheckConstraint(condition=Q(trigger__in=Trigger.values), name="run_trigger_known"),
        ]
        indexes = [
            models.Index(fields=["tenant_id", "created_at"]),
            models.Index(fields=["tenant_id", "state", "finished_at"]),
            models.Index(fields=["state", "created_at"]),
            models.Index(fields=["spec", "created_at"]),
            models.Index(fields=["created_at", "id"]),
            models.Index(fields=["finished_at", "id"]),
        ]

    def __str__(self) -> str:
        return f"{self.direction} {self.tenant_id} {self.state}"

    @property
    def sent_bytes(self) -> int:
        """What was transferred; ``progress["bytes"]`` is the size of the state, most of which may be at the sink
        already."""
        return int(self.progress.get("sentBytes", self.progress.get("bytes", 0)))


def sent() -> Cast:
    """A run's transferred bytes, for queries. Runs of earlier versions know only the size of the state."""
    texts = (KeyTextTransform(name, "progress") for name in ("sentBytes", "bytes"))
    return Cast(Coalesce(*texts), models.BigIntegerField())


def bytes_moved(runs: models.QuerySet[SyncRun]) -> int:
    """The sum of what these runs transferred, computed by the database."""
    return runs.aggregate(total=models.Sum(sent()))["total"] or 0


class MappingRestore(models.Model):
    """Proof that a generation restored a mapping: only then may its upload delete at the sink (hazards.md#c3)."""

    tenant_id = models.CharField(max_length=128)
    generation = models.BigIntegerField()
    mapping = models.ForeignKey(SyncMapping, on_delete=models.CASCADE)
    location = models.TextField()
    pattern = models.CharField(max_length=200, default="", blank=True)
    spec_version = models.PositiveIntegerField()
    marker_run = models.CharField(max_length=36, default="", blank=True)
    """The run in the marker at that time; a save is refused if the marker has changed since (hazards.md#c8)."""
    files = models.PositiveIntegerField()
    bytes = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "generation", "mapping"], name="one_restore_per_mapping")
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.location}"


class SavedStateQuerySet(models.QuerySet["SavedState"]):
    def current(self) -> SavedStateQuerySet:
        """Without records that an admin has marked as forgotten because they vanished from their sink."""
        return self.filter(forgotten_at=None)


class SavedState(models.Model):
    """The last complete save of a tenant's mapping; a copy of the sink's marker (hazards.md#c2)."""

    tenant_id = models.CharField(max_length=128)
    mapping = models.ForeignKey(SyncMapping, on_delete=models.SET_NULL, null=True)
    place = models.TextField()
    """Endpoint and bucket."""
    location = models.TextField()
    container_path = models.CharField(max_length=400)
    pool_id = models.CharField(max_length=63)
    generation = models.BigIntegerField()
    run_id = models.UUIDField()
    files = models.PositiveIntegerField()
    bytes = models.PositiveBigIntegerField()
    marker_bytes = models.PositiveBigIntegerField(default=0)
    """What a claim has to read first, in bytes; 0 if an older version saved."""
    saved_at = models.DateTimeField(default=timezone.now)
    forgotten_at = models.DateTimeField(null=True, blank=True)
    """Since when nothing is expected there any more; the row is kept as a record."""

    objects = SavedStateQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant_id", "place", "location"],
                condition=Q(forgotten_at__isnull=True),
                name="one_saved_state_per_location",
            )
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.location}"


class Backup(models.Model):
    """What one attempt of a save overwrote or deleted at the sink; kept there until its retention is over."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.CharField(max_length=128)
    spec = models.ForeignKey(SyncSpec, on_delete=models.CASCADE, related_name="backups")
    place = models.TextField()
    """Endpoint and bucket."""
    location = models.TextField()
    """The original location of its files."""
    backup = models.TextField()
    """Their location now."""
    container_path = models.CharField(max_length=400)
    files = models.PositiveIntegerField()
    bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["tenant_id", "created_at"])]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.backup}"


class SinkProbe(models.Model):
    """One probe of a spec's sink: the history of its health."""

    spec = models.ForeignKey(SyncSpec, on_delete=models.CASCADE, related_name="probes")
    at = models.DateTimeField(default=timezone.now)
    is_healthy = models.BooleanField()
    code = models.CharField(max_length=32, default="", blank=True)
    detail = models.TextField(default="", blank=True)
    duration_ms = models.PositiveIntegerField()

    class Meta:
        indexes = [models.Index(fields=["spec", "at"])]

    def __str__(self) -> str:
        return f"{self.spec_id} {self.at}"

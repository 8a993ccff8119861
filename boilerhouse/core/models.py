"""Models of the whole deployment: its identity, processes, leases, events and API keys."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models import Q, Value
from django.utils import timezone

from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from boilerhouse.core.querysets import NodeQuerySet
from boilerhouse.core.states import NodeState

MS_PER_HOUR = 3_600_000
NS_PER_HOUR = 3600 * 10**9
BYTE_S_PER_GB_HOUR = 3600 * 10**9


class Deployment(models.Model):
    """The one row that identifies the deployment. Its id is also in the data directory and in all labels."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    deployment_id = models.CharField(max_length=16, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    events_forgotten_to = models.BigIntegerField(default=0)
    """The highest id of the events that retention has deleted."""
    backed_up_at = models.DateTimeField(null=True, blank=True)
    """When the last backup of its rows was complete, wherever it was written."""

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_deployment")]

    def __str__(self) -> str:
        return self.deployment_id


class Node(models.Model):
    """A data directory with its engine. Its containers, their directories and their locks exist only there."""

    id = models.CharField(max_length=64, primary_key=True)
    """As stored in ``node-id`` in the data directory."""
    name = models.CharField(max_length=64)
    """The machine's name when a process last registered there."""
    state = models.CharField(max_length=6, choices=NodeState, default=NodeState.ACTIVE)
    heartbeat_at = models.DateTimeField(default=timezone.now)
    """The last heartbeat of one of its workers, by the database's clock."""
    epoch = models.PositiveIntegerField(default=0, db_default=0)
    """How often it was declared lost. What belongs to an earlier epoch is not valid any more."""
    lost_at = models.DateTimeField(null=True, blank=True)
    """When it was last declared lost, by the database's clock; null: never."""
    lost_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who declared that, as in events."""
    lost_reason = models.CharField(max_length=500, default="", db_default="", blank=True)
    leased_since = models.DateTimeField(null=True, blank=True)
    """Since when its fence runs (``pools.fencing``); null: it has none."""
    leased_at = models.DateTimeField(null=True, blank=True)
    """When its fence last renewed its lease, by the database's clock."""
    fence_address = models.CharField(max_length=100, default="", db_default="", blank=True)
    """Where other nodes ask its fence, as ``host:port``; empty: nowhere."""
    fence_peers = models.JSONField(default=list, db_default=Value([], models.JSONField()), blank=True)
    """The nodes by whose word its fence judges an outage."""
    cordoned_at = models.DateTimeField(null=True, blank=True)
    """Since then it gets no new containers; null: it does. Its state says whether it is alive, whatever this says."""
    cordoned_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who cordoned it, as in events."""
    cordon_reason = models.CharField(max_length=500, default="", db_default="", blank=True)
    drains_at = models.DateTimeField(null=True, blank=True)
    """From when its tenants are released, by the database's clock; null: it is not drained."""
    drained_at = models.DateTimeField(null=True, blank=True)
    """When it had no container any more."""
    labels = models.JSONField(default=dict, db_default=Value({}, models.JSONField()), blank=True)
    """What operators say of it: names and values."""
    overcommit = models.FloatField(null=True, blank=True)
    """Its containers may be promised this multiple of its memory and processors; null: any amount."""
    version = models.CharField(max_length=40, default="", db_default="", blank=True)
    """The Boilerhouse release of its worker. This and the following are what the worker last reported."""
    arch = models.CharField(max_length=40, default="", db_default="", blank=True)
    """As the kernel names it, such as ``x86_64``."""
    cpus = models.PositiveIntegerField(null=True, blank=True)
    memory_mb = models.PositiveBigIntegerField(null=True, blank=True)
    disk_mb = models.PositiveBigIntegerField(null=True, blank=True)
    """The size of the file system of the containers' directories."""
    disk_free_mb = models.PositiveBigIntegerField(null=True, blank=True)
    runtimes = models.JSONField(default=list, db_default=Value([], models.JSONField()), blank=True)
    """The runtimes of its engine, such as ``runc``."""
    engine_version = models.CharField(max_length=60, default="", db_default="", blank=True)
    engine_error = models.CharField(max_length=500, default="", db_default="", blank=True)
    """Why its engine does not answer; empty if it does."""
    engine_down_since = models.DateTimeField(null=True, blank=True)
    """When it stopped to answer; null while it does."""
    reported_at = models.DateTimeField(null=True, blank=True)
    """When the worker last reported, by the database's clock; null if it never has."""
    watcher = models.UUIDField(null=True, blank=True)
    """The controller's process that compares it with its engine (``controller.node_watch``)."""
    watched_until = models.DateTimeField(null=True, blank=True)
    """Until then no other does, by the database's clock."""
    address = models.CharField(max_length=280, default="", db_default="", blank=True)
    """Host and port at which it listens for other nodes; empty if it does not."""
    certificate_sha256 = models.CharField(max_length=64, default="", db_default="", blank=True)
    """The fingerprint of the certificate with which it calls other nodes; empty if it has none."""
    certificate_expires_at = models.DateTimeField(null=True, blank=True)
    joined_at = models.DateTimeField(null=True, blank=True)
    """When it last joined by a token; null if it has been there from the beginning."""
    created_at = models.DateTimeField(default=timezone.now)

    objects = NodeQuerySet.as_manager()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(state__in=NodeState.values), name="node_state_known")]

    def __str__(self) -> str:
        return self.id

    @property
    def is_cordoned(self) -> bool:
        return self.cordoned_at is not None

    @property
    def is_draining(self) -> bool:
        return self.drains_at is not None

    @property
    def is_lost(self) -> bool:
        return self.state == NodeState.LOST


class CertificateAuthority(models.Model):
    """The one row of the authority that signs nodes' certificates. Made when the first node needs one."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    certificate = models.TextField()
    """In PEM. Nodes trust what it has signed."""
    key = EncryptedJSONField()
    """The private key, in PEM."""
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "certificate authority"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_certificate_authority")]

    def __str__(self) -> str:
        return "certificate authority"


class NodeToken(models.Model):
    """Lets one machine join the deployment, once. The token itself is shown once and stored only as a hash."""

    id = models.CharField(max_length=16, primary_key=True)
    """The public part of the token."""
    token_hash = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=160)
    """Who made it, as in events."""
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.CharField(max_length=64, default="", blank=True)
    """The id of the node that joined."""

    class Meta:
        indexes = [models.Index(fields=["expires_at"])]

    def __str__(self) -> str:
        return self.id


class Process(models.Model):
    """A running process. Operations name it as their owner and are taken over when it is dead."""

    class Kind(models.TextChoices):
        WEB = "web"
        WORKER = "worker"
        CONTROLLER = "controller"
        COMMAND = "command"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=16, choices=Kind)
    name = models.CharField(max_length=64, default="")
    node = models.ForeignKey(Node, on_delete=models.CASCADE, null=True, related_name="processes")
    """Null for processes of versions before nodes had rows."""
    pid_space = models.CharField(max_length=64, db_column="node")
    """The pid namespace in which the pid is valid, together with ``boot_id``; the column that older versions call node.
    """
    boot_id = models.CharField(max_length=36)
    pid = models.PositiveIntegerField()
    pid_started = models.BigIntegerField()
    """Start time of the pid in clock ticks since boot, which tells a reused pid from the original."""
    started_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "processes"
        indexes = [models.Index(fields=["heartbeat_at"])]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["web", "worker", "controller", "command"]), name="process_kind_known"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}@{self.node_id}"


class Lease(models.Model):
    """A named right that one process holds until ``expires_at`` (database clock)."""

    CONTROLLER: ClassVar[str] = "controller"
    """The right to run the controller's steps."""

    name = models.CharField(max_length=32, primary_key=True)
    holder = models.UUIDField(null=True)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class QueueHealth(models.Model):
    """When a queue last served a task. A hung worker accepts messages without serving them."""

    name = models.CharField(max_length=32, primary_key=True)
    served_at = models.DateTimeField(default=timezone.now)
    is_warned = models.BooleanField(default=False)

    class Meta:
        verbose_name_plural = "queue health"

    def __str__(self) -> str:
        return self.name


class FailingStep(models.Model):
    """A step of the controller or of a watcher that keeps failing. The row is deleted when the step succeeds."""

    name = models.CharField(max_length=64, primary_key=True)
    error = models.CharField(max_length=100)
    """The exception's class."""
    detail = models.TextField(default="", blank=True)
    since = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.name}: {self.error}"


class Event(models.Model):
    """An event, in order of id. Written only by ``core.events.emit``."""

    id = models.BigAutoField(primary_key=True)
    type = models.CharField(max_length=40)
    pool_id = models.CharField(max_length=63, default="", blank=True)
    container_id = models.CharField(max_length=36, default="", blank=True)
    tenant_id = models.CharField(max_length=128, default="", blank=True)
    actor = models.CharField(max_length=160)
    request_id = models.CharField(max_length=64, default="", blank=True)
    is_routine = models.BooleanField(default=False, db_default=False)
    """Whether feeds hide it: starts, progress, and saves that had nothing to send."""
    payload = models.JSONField(default=dict)
    private = EncryptedJSONField(null=True)
    """The part of the payload that only those who may read logs see; usually none."""
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["tenant_id", "id"]),
            models.Index(fields=["pool_id", "id"]),
            models.Index(fields=["type", "id"]),
            models.Index(fields=["container_id", "id"]),
            models.Index(fields=["created_at"]),
            # Few events are not routine, and nearly all pages show only those.
            models.Index(fields=["id"], condition=Q(is_routine=False), name="event_news"),
            models.Index(fields=["pool_id", "id"], condition=Q(is_routine=False), name="event_news_of_pool"),
            models.Index(fields=["tenant_id", "id"], condition=Q(is_routine=False), name="event_news_of_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.type}"


class TenantUsage(models.Model):
    """What a tenant has used on a day or in a month of UTC. Written only by ``core.tenant_usage.add``."""

    class Period(models.TextChoices):
        DAY = "day"
        MONTH = "month"

    tenant_id = models.CharField(max_length=128)
    period = models.CharField(max_length=5, choices=Period)
    start = models.DateField()
    """The day, or the first day of the month."""
    held_ms = models.PositiveBigIntegerField(default=0, db_default=0)
    """How long it had a container."""
    cpu_ns = models.PositiveBigIntegerField(default=0, db_default=0)
    memory_byte_s = models.PositiveBigIntegerField(default=0, db_default=0)
    """Bytes of memory in use, times the seconds for which they were."""
    sent_bytes = models.PositiveBigIntegerField(default=0, db_default=0)
    """Transferred to sinks by saves."""
    received_bytes = models.PositiveBigIntegerField(default=0, db_default=0)
    """Transferred from sinks by restores."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "period", "start"], name="one_usage_per_tenant_and_period")
        ]
        indexes = [models.Index(fields=["period", "start", "held_ms", "id"], name="usage_by_hours")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.start}"

    @property
    def held_hours(self) -> float:
        return self.held_ms / MS_PER_HOUR

    @property
    def cpu_hours(self) -> float:
        return self.cpu_ns / NS_PER_HOUR

    @property
    def memory_gb_hours(self) -> float:
        """GB of 1,000,000,000 bytes."""
        return self.memory_byte_s / BYTE_S_PER_GB_HOUR


class Role(models.TextChoices):
    """What an API key may do."""

    ADMIN = "admin"
    """May do everything."""
    OPERATOR = "operator"
    """May do everything except manage keys, credentials and settings."""
    VIEWER = "viewer"
    """May read; no logs, no exec, no keys."""
    TENANT = "tenant"
    """May use only ``/tenants/{own}/…`` and their events."""


class ApiKey(models.Model):
    """A key of the REST API. The key itself is shown once and stored only as a hash."""

    id = models.CharField(max_length=16, primary_key=True)
    """The public part of the key, between ``bh_`` and the secret."""
    name = models.CharField(max_length=100)
    role = models.CharField(max_length=16, choices=Role)
    tenant_ids = models.JSONField(default=list, blank=True)
    key_hash = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    replaced_by = models.CharField(max_length=16, default="", db_default="", blank=True)
    """The id of the key that replaced this one in a rotation."""

    class Meta:
        verbose_name = "API key"
        constraints = [models.CheckConstraint(condition=Q(role__in=Role.values), name="api_key_role_known")]

    def __str__(self) -> str:
        return f"{self.name} (bh_{self.id}…)"

    @property
    def is_living(self) -> bool:
        """Whether the key is valid: neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class Session(AbstractBaseSession):
    """A browser's session. Its columns say whose it is and from where, so that people can end theirs."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="sessions")
    """Null before the sign-in."""
    started_at = models.DateTimeField(default=timezone.now)
    """When the user signed in."""
    seen_at = models.DateTimeField(default=timezone.now)
    """The last request, to the minute."""
    address = models.CharField(max_length=64, default="", blank=True)
    """The client's address at the sign-in."""
    agent = models.CharField(max_length=300, default="", blank=True)
    """What the browser said it is at the sign-in."""

    class Meta(AbstractBaseSession.Meta):
        abstract = False

    @classmethod
    def get_session_store_class(cls) -> Any:
        from boilerhouse.core.sessions import SessionStore

        return SessionStore


class AuditEntry(models.Model):
    """A change, recorded in the transaction that made it. Contains no secrets."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=160)
    """``key <name>``, ``user <name>``, ``command <name>`` or ``system``."""
    request_id = models.CharField(max_length=64, default="", blank=True)
    action = models.CharField(max_length=40)
    """``<kind>.<verb>``, e.g. ``pool.scale``."""
    kind = models.CharField(max_length=20)
    object_id = models.CharField(max_length=128)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["at"]), models.Index(fields=["kind", "object_id", "at"])]

    def __str__(self) -> str:
        return f"{self.action} {self.object_id} by {self.actor}"


class IdempotencyRecord(models.Model):
    """The response to a request with an ``Idempotency-Key``, or a record that the request is in progress."""

    id = models.CharField(max_length=64, primary_key=True)
    """HMAC of API key, method, path and Idempotency-Key."""
    body = models.CharField(max_length=64)
    """HMAC of query and body."""
    owner = models.UUIDField(null=True)
    """The process that handles the request; null once ``answer`` is set."""
    answer = EncryptedJSONField(null=True)
    key_id = models.CharField(max_length=16, default="")
    """The key whose quota it counts against, if any."""
    tenant_id = models.CharField(max_length=160, default="")
    """The tenant concerned, or ``container <id>``; empty if none."""
    is_tenants = models.BooleanField(default=False)
    """Whether the tenant's own key sent the request."""
    size = models.IntegerField(default=0)
    """Approximate size of the row in bytes."""
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            models.Index(fields=["created_at", "size"]),
            models.Index(fields=["key_id", "created_at", "size"]),
            models.Index(fields=["tenant_id", "is_tenants", "created_at", "size"]),
        ]

    def __str__(self) -> str:
        return self.id[:12]


class Settings(models.Model):
    """The one row of the settings that admins can change at run time; the environment sets their limits."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    values = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "settings"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_settings_row")]

    def __str__(self) -> str:
        return "settings"

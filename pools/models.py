"""Workloads, pools and their containers."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.utils import timezone

from boilerhouse.core.errors import FieldError
from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.ids import uuid7
from boilerhouse.core.models import Node
from pools import image_warnings, mounts, references
from pools.egress import DEFAULT, Egress
from pools.querysets import ContainerQuerySet, HostLeaseQuerySet, ImagePullQuerySet, PoolQuerySet
from pools.spec import WorkloadSpec
from pools.states import DEADLY, PULLING, ContainerHealth, ContainerState, Fault, PoolState, PullState, Trouble

SHOWN_OF_LATEST = (
    "number", "spec_json", "image_volumes", "image_digest", "manifest_digest", "tag_digest", "tag_asked_at",
    "tag_error", "refresh_asked_at",
)  # fmt: skip


def has_moved(tag: str, manifest: str, image: str) -> bool:
    """Whether the image that the tag now names (``tag``) differs from the version's."""
    return bool(tag) and tag not in (manifest, image)


class WorkloadQuerySet(models.QuerySet["Workload"]):
    def with_latest(self) -> WorkloadQuerySet:
        """Annotate the newest version: ``latest_number``, ``latest_spec_json`` and the status of its image.

        In the same statement, so that no version can be created in between.
        """
        newest = WorkloadVersion.objects.filter(workload=OuterRef("pk")).order_by("-number")
        return self.annotate(**{f"latest_{name}": Subquery(newest.values(name)[:1]) for name in SHOWN_OF_LATEST})


class Workload(models.Model):
    """How to run one kind of container; each change is a new version."""

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = WorkloadQuerySet.as_manager()

    def __str__(self) -> str:
        return self.id

    @property
    def latest(self) -> WorkloadVersion:
        return self.versions.order_by("-number")[0]


class WorkloadVersion(models.Model):
    """One immutable version of a workload's spec."""

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    spec_json = models.JSONField()
    image_digest = models.CharField(max_length=100, default="", blank=True)
    """The id of the image that its containers run, set when one became healthy or when the previous version ran the
    same image."""
    manifest_digest = models.CharField(max_length=150, default="", db_default="", blank=True)
    """The image's digest in the registry; empty if it came from none."""
    tag_digest = models.CharField(max_length=150, default="", db_default="", blank=True)
    """What its tag named at the last check: a manifest, or the id of an image that only this machine has."""
    tag_asked_at = models.DateTimeField(null=True, blank=True)
    tag_error = models.TextField(default="", db_default="", blank=True)
    """Why the last check failed."""
    refresh_asked_at = models.DateTimeField(null=True, blank=True)
    """When a refresh was requested; null while none is pending."""
    image_volumes = models.JSONField(null=True, blank=True)
    """The VOLUMEs that its image declared when it was last inspected; null before."""
    created_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who made it, as in events; empty if a release before this field did."""
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workload", "number"], name="workload_version_once")]

    def __str__(self) -> str:
        return f"{self.workload_id} v{self.number}"

    @property
    def spec(self) -> WorkloadSpec:
        return WorkloadSpec.from_json(self.spec_json)

    def images(self) -> list[tuple[str, int]]:
        """The number of warm and claimed containers of the version by image."""
        warm = Container.objects.filter(version=self, state__in=[ContainerState.IDLE, ContainerState.CLAIMED])
        return list(warm.values_list("image_digest").annotate(n=Count("pk")).order_by("image_digest"))

    def pins_for(self, spec: WorkloadSpec) -> dict[str, str]:
        """Image data that the next version with this spec inherits: all, unless the image's name changes."""
        if self.spec.image != spec.image:
            return {}
        return {"image_digest": self.image_digest, "manifest_digest": self.manifest_digest}

    @property
    def pinned_image(self) -> str:
        """The name of the version's image in the registry; empty if it came from none."""
        return f"{references.parse(self.spec.image).name}@{self.manifest_digest}" if self.manifest_digest else ""

    @property
    def is_moved(self) -> bool:
        """Whether the tag named another image at the last check."""
        return has_moved(self.tag_digest, self.manifest_digest, self.image_digest)


class RegistryCredential(models.Model):
    """Access to a registry or to a path in it; stored encrypted, selected by an image's name."""

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    registry = models.CharField(max_length=300, unique=True)
    """``host[:port][/path]``, as spelled by ``registry_logins.places``."""
    secret = EncryptedJSONField()
    """``{username, password}`` or ``{identityToken}``; never shown."""
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.id


class ImagePull(models.Model):
    """The state of pulling an image onto a node: one row and one pull at a time, however many pools need it."""

    node = models.ForeignKey(Node, models.CASCADE, db_column="node", db_index=False, related_name="image_pulls")
    image = models.CharField(max_length=500)
    state = models.CharField(max_length=7, choices=PullState, default=PullState.WAITING)
    owner = models.UUIDField(null=True, blank=True)
    """The process that pulls (``core.Process``), so that another takes over when it is dead."""
    asked_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    wanted_until = models.DateTimeField(null=True, blank=True)
    """Until then the pull continues although no start waits for it: a dry run needs it."""
    progress = models.JSONField(default=dict, blank=True)
    """The progress as the API shows it."""
    digest = models.CharField(max_length=200, default="", blank=True)
    """The image's digest in the registry at the last pull."""
    error = models.TextField(default="", blank=True)
    """Why the last pull failed, until one succeeds."""
    fault = models.CharField(max_length=16, default="", blank=True)
    """The kind of that failure (``pull_errors.PullFault``)."""

    objects = ImagePullQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["node", "image"], name="one_pull_per_image"),
            models.CheckConstraint(condition=Q(state__in=PullState.values), name="image_pull_state_known"),
        ]

    def __str__(self) -> str:
        return self.image

    @property
    def is_under_way(self) -> bool:
        return self.state in PULLING

    def rendered_progress(self) -> dict[str, Any]:
        """The progress as a pool's status shows it."""
        return {"image": self.image, "state": self.state, "startedAt": self.started_at, **self.progress}

    def words(self) -> str:
        """The progress as a sentence."""
        state = self.progress
        if self.state == PullState.WAITING:
            return f"Image {self.image} is waiting for other pulls"
        if state.get("phase") == "extracting":
            return f"Image {self.image} has been downloaded and is being unpacked"
        percent, eta = state.get("percent"), state.get("etaMs")
        progress = f": {percent} %" if percent is not None else ""
        progress += f", about {round(eta / 1000)} s left" if eta is not None else ""
        return f"Image {self.image} is being pulled{progress}"


@dataclass(frozen=True, slots=True)
class Template:
    """What a container is created from: when a pool's template changes, its containers are rolled."""

    version_id: int
    network: Any


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool's counts and the state that follows from them."""

    size: int
    idle: int
    claimed: int
    starting: int
    removing: int
    unhealthy: int
    release_failed: int
    waiting: int
    target_size: int
    desired_size: int
    state: PoolState
    trouble: str | None
    last_error: str | None
    warnings: list[FieldError]
    pulling: dict[str, Any] | None
    """The progress of the image pull that its starts wait for."""


class Pool(models.Model):
    """A set of containers of one workload, kept warm."""

    class OnUnhealthy(models.TextChoices):
        REPORT = "report"
        RELEASE = "release"

    id = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    workload = models.ForeignKey(Workload, on_delete=models.PROTECT, related_name="pools")
    min_size = models.PositiveIntegerField(default=0)
    max_size = models.PositiveIntegerField(default=10)
    min_idle = models.PositiveIntegerField(default=0)
    target_size = models.PositiveIntegerField(default=0)
    idle_timeout_ms = models.PositiveBigIntegerField(default=0)
    on_unhealthy = models.CharField(max_length=8, choices=OnUnhealthy, default=OnUnhealthy.REPORT)
    network = models.JSONField(null=True, blank=True)
    """The network settings that containers are created with; a change is rolled out."""
    egress = models.JSONField(null=True, blank=True)
    """Where they may send packets (``pools.egress.Egress``); a change takes effect immediately. Null: the default."""
    placement = models.JSONField(null=True, blank=True)
    """Which nodes its new containers may be on (``pools.placement.Rules``); null: any."""
    is_paused = models.BooleanField(default=False)
    is_draining = models.BooleanField(default=False)
    is_deleting = models.BooleanField(default=False)
    deleted_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who asked for the deletion, as in events; it goes on until its tenants are released."""
    last_error = models.TextField(default="", blank=True)
    trouble = models.CharField(max_length=16, choices=Trouble, default="", blank=True)
    """The kind of condition that ``last_error`` describes."""
    trouble_since = models.DateTimeField(null=True, blank=True)
    """When a condition of that kind began; only meaningful while there is one."""
    good_version = models.ForeignKey(
        WorkloadVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    """The last version of which a container became healthy; it serves until a newer one does."""
    good_network = models.JSONField(null=True, blank=True)
    halted_version = models.ForeignKey(
        WorkloadVersion, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    """The version whose roll stopped because its first container did not become healthy."""
    halted_network = models.JSONField(null=True, blank=True)
    bare_volumes = models.JSONField(default=list, blank=True)
    """The VOLUMEs of the serving version's image without a volume of the workload."""
    failed_pull = models.ForeignKey(ImagePull, on_delete=models.SET_NULL, null=True, blank=True, related_name="pools")
    """The pull whose failure affects the pool: an older image serves, or the roll to another image has stopped."""
    moved_to = models.CharField(max_length=150, default="", db_default="", blank=True)
    """The image that the tag now names, if it differs from the one that its containers run."""
    waiting = models.PositiveIntegerField(default=0)
    """Claims that wait for a container; recounted by ``tenants`` whenever that changes."""
    release_failed = models.PositiveIntegerField(default=0)
    """Assignments whose last save failed; counted like ``waiting``."""
    failures = models.PositiveIntegerField(default=0)
    """Consecutive failed starts; the back-off grows with it."""
    next_start_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = PoolQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(min_size__lte=F("max_size")), name="pool_min_within_max"),
            models.CheckConstraint(condition=Q(max_size__gte=1), name="pool_max_positive"),
            models.CheckConstraint(condition=Q(trouble="") | Q(trouble__in=Trouble.values), name="pool_trouble_known"),
            models.CheckConstraint(condition=Q(on_unhealthy__in=["report", "release"]), name="pool_on_unhealthy_known"),
        ]

    def __str__(self) -> str:
        return self.id

    def desired_size(self, claimed: int, target_size: int | None = None) -> int:
        """The desired number of containers, given how many are claimed; waiting claims count as idle containers.

        ``target_size`` replaces the pool's own, to preview a change.
        """
        target = self.target_size if target_size is None else target_size
        size = max(target, self.min_size, claimed + max(self.min_idle, self.waiting))
        return min(self.max_size, size)

    def held_count(self) -> int:
        """How many tenants have a container of it, or state whose last save failed."""
        return self.containers.filter(state=ContainerState.CLAIMED).count() + self.release_failed

    @property
    def whole_network(self) -> dict[str, Any] | None:
        """Its network settings in the API's format."""
        if self.egress is None:
            return self.network
        return {**(self.network or {}), "egress": self.egress}

    @property
    def policy(self) -> Egress:
        return DEFAULT if self.egress is None else Egress.from_json(self.egress)

    @property
    def cannot_start(self) -> bool:
        """Whether no container can be started now. After a halted roll, the last good version still can."""
        return bool(self.last_error) and self.trouble != Trouble.ROLL_HALTED

    @property
    def newest_template(self) -> Template:
        """What new containers are created from."""
        versions = WorkloadVersion.objects.filter(workload=self.workload_id).order_by("-number")
        return Template(versions.values_list("pk", flat=True)[0], self.network)  # without the spec, which may be large

    @property
    def good(self) -> Template | None:
        return Template(self.good_version_id, self.good_network) if self.good_version_id else None

    @property
    def halted(self) -> Template | None:
        return Template(self.halted_version_id, self.halted_network) if self.halted_version_id else None

    @property
    def stale_image(self) -> str:
        """Why an older image is used because the newest could not be pulled; empty if that is not so."""
        if self.failed_pull is None or self.trouble == Trouble.ROLL_HALTED:
            return ""
        return image_warnings.stale(self.failed_pull.error)

    @property
    def pull(self) -> ImagePull | None:
        """The pull that its starts wait for."""
        return ImagePull.objects.filter(waiting__pool=self, waiting__state=ContainerState.STARTING).first()

    @property
    def serving_version(self) -> WorkloadVersion:
        """The version that claims eventually get: the last good one, at first the latest."""
        return self.good_version or self.workload.latest

    def status(self) -> PoolStatus:
        """The pool's status; the row must come from ``with_counts()``."""
        counts = {state: int(getattr(self, f"{state.value}_count")) for state in ContainerState}
        idle, claimed = counts[ContainerState.IDLE], counts[ContainerState.CLAIMED]
        starting = counts[ContainerState.STARTING]
        removing = counts[ContainerState.REMOVING] + counts[ContainerState.FAILED]
        size = starting + idle + claimed + removing
        unhealthy = int(self.unhealthy_count)  # type: ignore[attr-defined]
        desired = self.desired_size(claimed)
        if self.is_draining or self.is_deleting:
            state = PoolState.DRAINING
        elif self.is_paused:
            state = PoolState.PAUSED
        elif self.cannot_start and not idle:
            state = PoolState.ERROR
        elif not idle and size >= self.max_size:
            state = PoolState.EXHAUSTED
        elif unhealthy or self.last_error or starting + idle + claimed < desired:
            state = PoolState.DEGRADED
        else:
            state = PoolState.HEALTHY
        pull = self.pull if self.pull_count else None  # type: ignore[attr-defined]
        return PoolStatus(
            size, idle, claimed, starting, removing, unhealthy, self.release_failed, self.waiting,
            self.target_size, desired, state,
            self.trouble or None, self.last_error or None, self._warnings(),
            pull.rendered_progress() if pull is not None and pull.is_under_way else None,
        )  # fmt: skip

    def _warnings(self) -> list[FieldError]:
        strays = int(self.stray_count)  # type: ignore[attr-defined]
        warnings = mounts.warnings(self.bare_volumes)
        warnings += [FieldError("/image", stale, "image_stale")] if (stale := self.stale_image) else []
        warnings += [image_warnings.moved(self.moved_to)] if self.moved_to else []
        warnings += self._unresolved() + self._without_ipv6()
        return warnings + ([image_warnings.mixed(strays)] if strays else [])

    def _unresolved(self) -> list[FieldError]:
        """The names in its policy that resolve to nothing, or not completely."""
        names = self.policy.names
        rows = ResolvedName.objects.filter(name__in=names).exclude(error="").order_by("name") if names else []
        return [FieldError("/network/egress/allow", f"{row.name}: {row.error}", "name_unresolved") for row in rows]

    def _without_ipv6(self) -> list[FieldError]:
        """Entries of its policy without effect, since the deployment's containers have no IPv6 any more."""
        if settings.BOILERHOUSE_IPV6_SUBNET:
            return []
        detail = "is closed: this deployment's containers have no IPv6 (BOILERHOUSE_IPV6_SUBNET)."
        return [
            FieldError("/network/egress/allow", f"{entry} {detail}", "no_ipv6")
            for entry in self.policy.allow
            if entry.is_ipv6
        ]


def random_nonce() -> str:
    return uuid.uuid4().hex


class Container(models.Model):
    """A Docker container of a pool. Its name, labels and directories are derived from its id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="containers")
    version = models.ForeignKey(WorkloadVersion, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=ContainerState, default=ContainerState.STARTING)
    health = models.CharField(max_length=10, choices=ContainerHealth, default=ContainerHealth.UNKNOWN)
    node = models.ForeignKey(Node, models.PROTECT, db_column="node", db_index=False, related_name="containers")
    runtime_id = models.CharField(max_length=64, default="", blank=True)
    nonce = models.CharField(max_length=32, default=random_nonce, editable=False)
    """Also on the container's label: a container of a restored or reset database is not mistaken for ours."""
    uid = models.PositiveIntegerField()
    address = models.GenericIPAddressField(null=True, blank=True)
    host_ports = models.JSONField(default=dict, blank=True)
    error = models.TextField(default="", blank=True)
    pull = models.ForeignKey(ImagePull, on_delete=models.SET_NULL, null=True, blank=True, related_name="waiting")
    """The pull that its start waits or waited for."""
    fault = models.CharField(max_length=10, choices=Fault, default="", blank=True)
    """What went wrong with it after it was idle; ``error`` describes it."""
    network = models.JSONField(null=True, blank=True)
    """The pool's network settings when it was created."""
    egress = models.JSONField(null=True, blank=True)
    """The policy that narrows the pool's for the assigned tenant."""
    egress_asked = models.PositiveIntegerField(default=0, db_default=0)
    egress_in_force = models.PositiveIntegerField(default=0, db_default=0)
    """The number of times that ``egress`` or the pool's was set, and which of these is in force."""
    image_digest = models.CharField(max_length=100, default="", blank=True)
    disk_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    """What its volumes contained at the last measurement."""
    removed_by = models.CharField(max_length=160, default="", db_default="", blank=True)
    """Who asked for the removal, as in events; empty if nobody did."""
    keep_until = models.DateTimeField(null=True, blank=True)
    """Until then the row stays even if the engine has no container: a timed-out create may still complete
    (hazards.md#d6)."""
    owner = models.UUIDField(null=True, blank=True)
    """The process that works on it (``core.Process``), so that another takes over when it is dead."""
    created_at = models.DateTimeField(default=timezone.now)
    state_changed_at = models.DateTimeField(default=timezone.now)

    objects = ContainerQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=ContainerState.values), name="container_state_known"),
            models.CheckConstraint(condition=Q(health__in=ContainerHealth.values), name="container_health_known"),
            models.CheckConstraint(condition=Q(fault="") | Q(fault__in=Fault.values), name="container_fault_known"),
            models.UniqueConstraint(
                fields=["address"], condition=Q(address__isnull=False), name="one_container_per_address"
            ),
        ]
        indexes = [models.Index(fields=["pool", "state", "state_changed_at"], name="container_take")]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def template(self) -> Template:
        return Template(self.version_id, self.network)

    @property
    def narrowing(self) -> Egress | None:
        return None if self.egress is None else Egress.from_json(self.egress)

    @property
    def policy_names(self) -> frozenset[str]:
        """The names in the policies that apply to it."""
        narrowing = self.narrowing
        return self.pool.policy.names | (narrowing.names if narrowing else frozenset())

    @property
    def waits_for_pull(self) -> bool:
        """Whether its start waits for an image pull; no process works on it until then."""
        return self.state == ContainerState.STARTING and self.pull_id is not None and self.owner is None

    @property
    def is_dead(self) -> bool:
        return self.fault in DEADLY

    def endpoints(self) -> list[dict[str, Any]]:
        """The addresses of the container's ports, in the API's format."""
        endpoints: list[dict[str, Any]] = []
        for port in self.version.spec.ports:
            endpoint: dict[str, Any] = {
                "name": port.name, "host": self.address, "port": port.container_port, "access": port.access,
            }  # fmt: skip
            if port.protocol == "tcp" and self.address:
                endpoint["url"] = f"http://{self.address}:{port.container_port}"
            if published := self.published(port.name):
                endpoint["hostAddress"], endpoint["hostPort"] = published
                if port.protocol == "tcp":
                    endpoint["hostUrl"] = "http://{}:{}".format(*published)
            if self.address or published:
                endpoints.append(endpoint)
        return endpoints

    def published(self, name: str) -> tuple[str, int] | None:
        """The node's address and port of this port, if it is published."""
        match self.host_ports.get(name):
            case str(place):
                host, _, port = place.rpartition(":")
                return host, int(port)
            case int(port):  # of a container started when all ports were published on 127.0.0.1
                return "127.0.0.1", port
        return None


class Tombstone(models.Model):
    """What is known of a container that the engine no longer has; kept as long as events."""

    id = models.UUIDField(primary_key=True, editable=False)
    """The container's."""
    backwards = models.CharField(max_length=32, db_index=True, editable=False)
    """The digits of its id from the last to the first: people search for the end of an id."""
    pool_id = models.CharField(max_length=63)
    workload_id = models.CharField(max_length=63)
    version = models.PositiveIntegerField()
    image = models.CharField(max_length=500)
    image_digest = models.CharField(max_length=100, default="", blank=True)
    """Empty if it never became ready."""
    node_id = models.CharField(max_length=64)
    runtime_id = models.CharField(max_length=64, default="", blank=True, db_index=True)
    uid = models.PositiveIntegerField()
    tenant_id = models.CharField(max_length=128, default="", blank=True)
    """The tenant whose data it has held; empty if it never held any."""
    exit_code = models.IntegerField(null=True, blank=True)
    """Null if it was running when it was removed, or the engine did not say."""
    is_oom_killed = models.BooleanField(default=False)
    fault = models.CharField(max_length=10, choices=Fault, default="", blank=True)
    error = models.TextField(default="", blank=True)
    removed_by = models.CharField(max_length=160, default="", blank=True)
    disk_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    memory_mb = models.PositiveIntegerField()
    cpus = models.FloatField()
    """Its limits."""
    created_at = models.DateTimeField()
    at = models.DateTimeField(default=timezone.now, db_index=True)
    """When it was removed."""

    class Meta:
        indexes = [
            models.Index(fields=["tenant_id", "at"], name="tombstone_of_tenant"),
            models.Index(fields=["pool_id", "at"], name="tombstone_of_pool"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def was_ready(self) -> bool:
        """Whether its health check has passed once."""
        return bool(self.image_digest)


class LastOutput(models.Model):
    """The end of a removed container's log and its last use of resources; kept apart, because it is large."""

    tombstone = models.OneToOneField(Tombstone, on_delete=models.CASCADE, primary_key=True, related_name="output")
    log = EncryptedJSONField()
    """Its last lines, each with its time, compressed (``pools.tombstones``): a tenant's output, like a live log."""
    usage = models.JSONField(default=list)
    """Samples as [Unix seconds, CPU time in ns, bytes of memory]."""
    size = models.PositiveIntegerField()
    """About how many bytes of ``log`` are stored."""
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["at", "size"], name="last_output_size")]

    def __str__(self) -> str:
        return str(self.pk)


class HostLease(models.Model):
    """A uid, address or published port of this host in use. Addresses and ports are quarantined after use
    (hazards.md#i2)."""

    resource = models.CharField(max_length=64, primary_key=True)
    """``uid 200001``, ``10.64.0.5`` or ``127.0.0.2:20001``"""
    container_id = models.UUIDField()
    """The container that uses it."""
    node = models.ForeignKey(Node, models.PROTECT, db_column="node", db_index=False, null=True, related_name="leases")
    """Null if a version before nodes had rows wrote the lease."""
    released_at = models.DateTimeField(null=True)
    """Since when it is quarantined; null while in use."""

    objects = HostLeaseQuerySet.as_manager()

    def __str__(self) -> str:
        return self.resource


class HostCounter(models.Model):
    """How far a resource has been assigned. Uids and addresses are assigned round robin, so that each is reused as late
    as possible (hazards.md#i1, hazards.md#i2)."""

    class Of(models.TextChoices):
        UID = "uid"
        """The next uid to try."""
        ADDRESS = "address"
        """The offset in the subnet of the last assigned address."""

    name = models.CharField(max_length=7, primary_key=True, choices=Of)
    position = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(name__in=["uid", "address"]), name="host_counter_known")
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.position}"


class ContainerUsage(models.Model):
    """A sample of a container's resource use; kept for hours, for its charts."""

    container_id = models.UUIDField()
    at = models.DateTimeField()
    cpu_ns = models.PositiveBigIntegerField()
    """CPU time since its start; the difference of two samples is the use between them."""
    cores = models.FloatField(null=True)
    """The use since the sample before; null for the first."""
    memory_bytes = models.PositiveBigIntegerField()
    pids = models.PositiveIntegerField()
    disk_bytes = models.PositiveBigIntegerField(null=True)

    class Meta:
        indexes = [models.Index(fields=["container_id", "at"]), models.Index(fields=["at"])]

    def __str__(self) -> str:
        return f"{self.container_id} {self.at:%H:%M:%S}"


class PoolUsage(models.Model):
    """A sample of a pool's containers and their resource use; kept for days, for its charts."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="usage")
    at = models.DateTimeField()
    idle = models.PositiveIntegerField()
    claimed = models.PositiveIntegerField()
    size = models.PositiveIntegerField()
    waiting = models.PositiveIntegerField()
    desired_size = models.PositiveIntegerField()
    cpu_cores = models.FloatField()
    memory_bytes = models.PositiveBigIntegerField()
    disk_bytes = models.PositiveBigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["pool", "at"]), models.Index(fields=["at"])]

    def __str__(self) -> str:
        return f"{self.pool_id} {self.at:%H:%M:%S}"


class NetworkReport(models.Model):
    """The last failure to set a node's packet filter."""

    node = models.OneToOneField(Node, models.CASCADE, db_column="node", primary_key=True, related_name="network_report")
    problem = models.TextField(default="", blank=True)
    """Empty while every rule is in force."""
    changed_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.node_id}: {self.problem or 'in force'}"


class ResolvedName(models.Model):
    """The addresses of a name in a network policy, according to this node's resolvers."""

    node = models.ForeignKey(Node, models.CASCADE, db_column="node", db_index=False, related_name="resolved_names")
    name = models.CharField(max_length=253)
    addresses = models.JSONField(default=dict)
    """Address → when an answer last contained it (ISO 8601)."""
    error = models.TextField(default="", blank=True)
    """The problem with the last answer."""
    next_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "name"], name="one_row_per_resolved_name")]

    def __str__(self) -> str:
        return self.name

"""Serializers of workloads, pools and containers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import empty

from boilerhouse.api.schema import Problem
from boilerhouse.api.serializers import ApiSerializer, LineField, NumberField, ObjectField, StringMapField, nested
from boilerhouse.core import deployment_settings
from boilerhouse.core.bounds import MAX_MB, TEN_YEARS_MS
from boilerhouse.core.errors import FieldError
from boilerhouse.core.ids import SLUG
from boilerhouse.core.text import has_control
from pools import image_warnings, mounts, permissions, references, schemas
from pools.api import engine_fields as asks
from pools.api import process_fields, user_fields
from pools.api.network_fields import PoolNetworkField
from pools.api.placement_fields import PlacementField, render_placement
from pools.models import Container, Pool, Workload, WorkloadVersion, has_moved
from pools.spec import (
    BUILT_IN_VARIABLES,
    RESERVED_VOLUME_NAMES,
    STANDARD_VOLUMES,
    User,
    Volume,
    WorkloadSpec,
    variables_of,
)
from pools.states import ContainerHealth, ContainerState, PoolState, Trouble

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}\Z")
MAX_VARIABLE_BYTES = 131_071
"""MAX_ARG_STRLEN of Linux, without the NUL at the end."""


def slug(value: str) -> None:
    if not SLUG.match(value) or value.endswith("\n"):
        raise ValidationError("Use 1 to 63 of a-z, 0-9 and -, not starting with -.", code="invalid")


def absolute_path(value: str) -> None:
    if not mounts.is_normal(value):
        raise ValidationError("Must be an absolute, normalized path such as /state, but not /.", code="invalid")


@extend_schema_field({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"})
class IdField(LineField):
    """An id that the client may choose."""

    default_validators = [slug]

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)


@extend_schema_field({"type": "string", "pattern": r"^(/[^/\x00-\x1f\x7f-\x9f]+)+$", "maxLength": mounts.MAX_PATH})
class PathField(LineField):
    """An absolute path in a container."""

    default_validators = [absolute_path]

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=mounts.MAX_PATH, trim_whitespace=False, **options)


def json_schema(value: Any) -> None:
    if problem := schemas.problem(value):
        raise ValidationError(_nested(problem.pointer, ErrorDetail(problem.detail, problem.code)))


def _nested(pointer: str, detail: ErrorDetail) -> Any:
    """The error of a nested field: each pointer begins with its parent's."""
    errors: Any = [detail]
    for name in reversed(pointer.split("/")[1:]):
        errors = {name.replace("~1", "/").replace("~0", "~"): errors}
    return errors


class CommandField(serializers.ListField):
    child = serializers.CharField(trim_whitespace=False, allow_blank=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_empty=options.pop("allow_empty", False), max_length=200, **options)


class VolumeField(ApiSerializer):
    container_path = PathField()
    mode = serializers.ChoiceField(["rw", "ro"], default="rw")


class SecretsVolumeField(ApiSerializer):
    container_path = PathField()
    mode = serializers.ChoiceField(["ro"], default="ro")


class CustomVolumeField(VolumeField):
    name = LineField(trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not NAME.match(attrs["name"]) or attrs["name"] in RESERVED_VOLUME_NAMES:
            raise ValidationError(
                {"name": ErrorDetail("Use 1 to 31 of a-z, 0-9 and -; reserved names are not allowed.", "invalid")}
            )
        return attrs


def flat_volumes(volumes: dict[str, Any]) -> list[dict[str, Any]]:
    """The validated ``volumes`` in the form of a spec: one list, each with its name."""
    standard = [{"name": name, **volumes[name]} for name in STANDARD_VOLUMES if name in volumes]
    return standard + [dict(volume) for volume in volumes.get("custom", [])]


class VolumesField(ApiSerializer):
    state = VolumeField(required=False)
    secrets = SecretsVolumeField(required=False)
    comm = VolumeField(required=False)
    custom = CustomVolumeField(many=True, required=False)


ACCESSES = ["private", "public", "internal"]


class PortField(ApiSerializer):
    name = LineField(max_length=31)
    container_port = serializers.IntegerField(min_value=1, max_value=65535)
    protocol = serializers.ChoiceField(["tcp", "udp"], default="tcp")
    publish = serializers.BooleanField(default=False)
    access = serializers.ChoiceField(
        ACCESSES, default="private",
        help_text="Who reaches it through the gateway: with a key or a link, everybody, or nobody.",
    )  # fmt: skip


class HealthCheckField(ApiSerializer):
    command = CommandField()
    interval_ms = serializers.IntegerField(min_value=500, max_value=3_600_000, default=30_000)
    timeout_ms = serializers.IntegerField(min_value=100, max_value=60_000, default=5_000)
    retries = serializers.IntegerField(min_value=1, max_value=100, default=3)
    start_period_ms = serializers.IntegerField(min_value=0, max_value=600_000, default=60_000)


class HealthCheckChoice(HealthCheckField):
    """The workload's own health check, ``"image"`` for that of its image, or null for none."""

    default_error_messages = {
        "invalid": 'Must be a health check, "image" for the image\'s HEALTHCHECK, or null for none.',
    }

    def run_validation(self, data: Any = empty) -> Any:
        return data if data == process_fields.IMAGES_OWN else super().run_validation(data)


class HealthCheckSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Documents the other values of ``HealthCheckChoice``."""

    target_class = HealthCheckChoice

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        own = auto_schema.resolve_serializer(HealthCheckField(), direction).ref
        return {"oneOf": [{"type": "string", "const": process_fields.IMAGES_OWN}, own]}


class ResourcesField(ApiSerializer):
    cpus = NumberField(min_value=0.01, max_value=1024, default=1)
    memory_mb = serializers.IntegerField(min_value=6, max_value=4_194_304, default=512)
    pids_limit = serializers.IntegerField(min_value=1, max_value=4_194_304, default=256)
    tmpfs_mb = serializers.IntegerField(min_value=1, max_value=1_048_576, default=64)
    disk_mb = serializers.IntegerField(min_value=1, max_value=MAX_MB, required=False, allow_null=True, default=None)
    shm_mb = serializers.IntegerField(
        min_value=1,
        max_value=asks.MAX_MEMORY_MB,
        required=False,
        allow_null=True,
        default=None,
        help_text="The size of /dev/shm; default: the same as tmpfsMb",
    )
    gpus = asks.GpusField(required=False, allow_null=True, default=None)


class SecurityField(ApiSerializer):
    read_only_root_filesystem = serializers.BooleanField(default=True)
    run_as_user = user_fields.IdNumberField(
        required=False, allow_null=True, default=None, validators=[user_fields.a_uid],
        help_text="The older spelling of user.uid",
    )  # fmt: skip
    network_mode = LineField(default="bridge", max_length=63)
    runtime = LineField(required=False, allow_null=True, default=None, max_length=63)

    def validate_networkMode(self, value: str) -> str:
        if value == "host" and not deployment_settings.current().allow_host_network:
            detail = "This deployment does not allow the host's network (BOILERHOUSE_ALLOW_HOST_NETWORK)."
            raise ValidationError(detail, code="not_allowed")
        networks = deployment_settings.current().allowed_networks
        if value not in ("bridge", "none", "host", *networks):
            allowed = ", ".join(("bridge", "none", *networks))
            raise ValidationError(f"This deployment allows {allowed}.", code="not_allowed")
        return value

    def validate_runtime(self, value: str | None) -> str | None:
        runtimes = deployment_settings.current().allowed_runtimes
        if value is not None and value not in runtimes:
            allowed = ", ".join(runtimes)
            raise ValidationError(f"This deployment allows the runtimes {allowed}.", code="not_allowed")
        return value


class HookField(ApiSerializer):
    command = CommandField()
    timeout_ms = serializers.IntegerField(min_value=100, max_value=600_000, default=10_000)


class HooksField(ApiSerializer):
    post_claim = HookField(required=False, allow_null=True)
    pre_release = HookField(required=False, allow_null=True)
    pre_save = HookField(required=False, allow_null=True)


@extend_schema_field({"type": "string", "maxLength": 500, "pattern": references.PATTERN})
class ImageField(LineField):
    """The name of an image, by digest or not, or the id of a local one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=500, **options)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            references.parse(text)
        except references.InvalidReference as error:
            raise ValidationError(str(error), code="invalid") from error
        return text


class WorkloadInput(ApiSerializer):
    """A workload. Only name and image are required."""

    read_only_ignored = frozenset({"version", "warnings", "imageStatus", "createdAt", "updatedAt"})

    id = IdField(required=False)
    name = LineField(max_length=200)
    image = ImageField()
    command = CommandField(required=False, allow_empty=True)
    volumes = VolumesField(required=False)
    environment = StringMapField(required=False)
    ports = PortField(many=True, required=False)
    health_check = HealthCheckChoice(required=False, allow_null=True)
    stop_timeout_ms = serializers.IntegerField(min_value=0, max_value=600_000, default=10_000)
    resources = ResourcesField(required=False)
    security = SecurityField(required=False)
    hooks = HooksField(required=False, allow_null=True)
    seed = LineField(required=False, allow_null=True, max_length=200)
    pull_policy = serializers.ChoiceField(["missing", "always", "never"], default="missing")
    image_update = serializers.ChoiceField(
        ["manual", "roll"], required=False, allow_null=True, default=None,
        help_text="What to do when the image's tag has moved; null: roll if pullPolicy is always, otherwise manual",
    )  # fmt: skip
    config_schema = ObjectField(required=False, allow_null=True, validators=[json_schema])
    entrypoint = process_fields.EntrypointField(required=False, allow_null=True)
    working_dir = process_fields.WorkingDirField(required=False, allow_null=True)
    init = process_fields.InitField(required=False)
    stop_signal = serializers.ChoiceField(process_fields.STOP_SIGNALS, required=False, allow_null=True)
    user = user_fields.UserField(required=False, allow_null=True)
    tmpfs = asks.TmpfsField(many=True, required=False, max_length=asks.MAX_TMPFS)  # type: ignore[call-arg]
    ulimits = asks.UlimitField(many=True, required=False, max_length=asks.MAX_ULIMITS)  # type: ignore[call-arg]
    devices = asks.DeviceField(many=True, required=False, max_length=asks.MAX_DEVICES)  # type: ignore[call-arg]
    extra_hosts = asks.HostsField(required=False)
    dns = asks.ResolversField(
        required=False, help_text="Resolvers instead of the node's; a pool's network.dns overrides them"
    )
    labels = asks.LabelsField(required=False)

    def validate_environment(self, value: dict[str, str]) -> dict[str, str]:
        wrong: dict[str, list[ErrorDetail]] = {}
        defined = BUILT_IN_VARIABLES | set(deployment_settings.current().variables)
        for name, text in value.items():
            if not name or "=" in name or has_control(name):
                wrong[name] = [ErrorDetail("A name must not be empty or contain = or a control character.", "invalid")]
            unknown = next((name_used for name_used in variables_of(text) if name_used not in defined), None)
            if unknown is not None:
                wrong[name] = [ErrorDetail(f"Unknown variable ${{{unknown[:100]}}}.", "unknown_variable")]
            if len(f"{name}={text}".encode()) > MAX_VARIABLE_BYTES:
                detail = f"Name and value together may have at most {MAX_VARIABLE_BYTES} bytes, the kernel's limit."
                wrong[name] = [ErrorDetail(detail, "too_large")]
        if wrong:
            raise ValidationError(wrong)
        return value

    def validate_ports(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [port["name"] for port in value]
        if len(set(names)) != len(names):
            raise ValidationError("Port names must be unique.", code="duplicate")
        return value

    def validate_volumes(self, value: dict[str, Any]) -> dict[str, Any]:
        names = [volume["name"] for volume in value.get("custom", [])]
        if len(set(names)) != len(names):
            raise ValidationError("Volume names must be unique.", code="duplicate")
        wrong = mounts.problems([Volume(**fields) for fields in flat_volumes(value)])
        if wrong:
            raise ValidationError(nested(wrong, below="/volumes"))
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        older = attrs.get("security", {}).get("run_as_user")
        uid = (attrs.get("user") or {}).get("uid")
        if None not in (older, uid) and older != uid:
            detail = f"security.runAsUser is {older} and means the same. Leave one of the two out."
            raise ValidationError({"user": {"uid": ErrorDetail(detail, "conflict")}})
        spec = self._spec(attrs)
        wrong = mounts.problems(spec.volumes, spec.tmpfs) + list(mounts.too_large(spec)) + permissions.problems(spec)
        if spec.dns and spec.security.network_mode == "none":
            wrong.append(FieldError("/dns", "A container without a network cannot use resolvers.", "not_allowed"))
        if wrong:
            raise ValidationError(nested(wrong, below=""))
        return attrs

    def to_spec(self) -> WorkloadSpec:
        """The validated body as a spec with defaults."""
        return self._spec(self.validated_data)

    def _spec(self, data: Mapping[str, Any]) -> WorkloadSpec:
        hooks = data.get("hooks") or {}
        health_check = data.get("health_check", process_fields.IMAGES_OWN)
        return WorkloadSpec.from_json(
            {
                "image": data["image"],
                "command": data.get("command", []),
                "volumes": flat_volumes(data.get("volumes", {})),
                "environment": data.get("environment", {}),
                "ports": [dict(port) for port in data.get("ports", [])],
                "health_check": None if health_check == process_fields.IMAGES_OWN else health_check,
                "is_health_check_off": health_check is None,
                "stop_timeout_ms": data["stop_timeout_ms"],
                "resources": data.get("resources", {}),
                "security": data.get("security", {}),
                "post_claim": hooks.get("post_claim"),
                "pre_release": hooks.get("pre_release"),
                "pre_save": hooks.get("pre_save"),
                "seed": data.get("seed"),
                "pull_policy": data["pull_policy"],
                "config_schema": data.get("config_schema"),
                "entrypoint": data.get("entrypoint"),
                "working_dir": data.get("working_dir"),
                "init": data.get("init", True),
                "stop_signal": data.get("stop_signal"),
                "image_update": data.get("image_update"),
                "user": data.get("user"),
                "tmpfs": [dict(item) for item in data.get("tmpfs", [])],
                "ulimits": [dict(item) for item in data.get("ulimits", [])],
                "devices": [dict(item) for item in data.get("devices", [])],
                "extra_hosts": data.get("extra_hosts", {}),
                "dns": data.get("dns", []),
                "labels": data.get("labels", {}),
            }
        )


class WarningOutput(ApiSerializer):
    code = serializers.CharField()
    detail = serializers.CharField()
    pointer = serializers.CharField(help_text="JSON Pointer into the workload")


class ImageStatusOutput(ApiSerializer):
    digest = serializers.CharField(
        allow_null=True,
        help_text="The image that containers run: its digest in the registry, or"
        " its id if the registry does not have it",
    )
    tag_digest = serializers.CharField(allow_null=True, help_text="The image that the tag named at the last check")
    moved = serializers.BooleanField(help_text="Whether that is a different image")
    checked_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="Why the last check failed")
    refreshing = serializers.BooleanField(help_text="Whether a refresh is running")


class WorkloadOutput(WorkloadInput):
    image_status = ImageStatusOutput(help_text="The status of the newest version's image")
    warnings = WarningOutput(many=True, help_text="Settings that work but may be a mistake")
    version = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ImageCountOutput(ApiSerializer):
    image_digest = serializers.CharField()
    count = serializers.IntegerField()


class WorkloadVersionOutput(ApiSerializer):
    version = serializers.IntegerField()
    image = serializers.CharField()
    image_digest = serializers.CharField(
        help_text="The id of the image that containers run; empty until one has become healthy"
    )
    manifest_digest = serializers.CharField(help_text="The image's digest in the registry; empty if it came from none")
    containers = ImageCountOutput(many=True, help_text="The number of existing containers, by the image that they run")
    spec = ObjectField(help_text="The workload as submitted")
    created_at = serializers.DateTimeField()


def render_version(version: WorkloadVersion) -> dict[str, Any]:
    body = render_spec(version.spec)
    return {
        "version": version.number,
        "image": version.spec.image,
        "imageDigest": version.image_digest,
        "manifestDigest": version.manifest_digest,
        "containers": [{"imageDigest": digest, "count": count} for digest, count in version.images()],
        "spec": body,
        "createdAt": version.created_at,
    }


def render_workload(workload: Workload) -> dict[str, Any]:
    """A workload from ``with_latest()`` in the API's format."""
    spec = WorkloadSpec.from_json(workload.latest_spec_json)  # type: ignore[attr-defined]
    status = _image_status(workload)
    return {
        "id": workload.pk,
        "name": workload.name,
        "version": workload.latest_number,  # type: ignore[attr-defined]
        **render_spec(spec),
        "imageStatus": status,
        "warnings": [
            *render_warnings(spec, workload.latest_image_volumes),  # type: ignore[attr-defined]
            *([asdict(image_warnings.moved(status["tagDigest"]))] if status["moved"] else []),
            *([asdict(image_warnings.unknown(status["error"]))] if status["error"] else []),
        ],
        "createdAt": workload.created_at,
        "updatedAt": workload.updated_at,
    }


def _image_status(workload: Any) -> dict[str, Any]:
    tag, manifest, image = workload.latest_tag_digest, workload.latest_manifest_digest, workload.latest_image_digest
    return {
        "digest": manifest or image or None,
        "tagDigest": tag or None,
        "moved": has_moved(tag, manifest, image),
        "checkedAt": workload.latest_tag_asked_at,
        "error": workload.latest_tag_error or None,
        "refreshing": workload.latest_refresh_asked_at is not None,
    }


def render_warnings(spec: WorkloadSpec, image_volumes: Sequence[str] | None) -> list[dict[str, Any]]:
    """Warnings about a spec whose image declares these VOLUMEs; none if they are unknown."""
    bare = mounts.declared(spec, image_volumes or ()).bare
    return [asdict(warning) for warning in mounts.warnings(bare)]


def render_spec(spec: WorkloadSpec) -> dict[str, Any]:
    """A spec with the API's names."""
    volumes: dict[str, Any] = {}
    for volume in spec.volumes:
        entry = {"containerPath": volume.container_path, "mode": volume.mode}
        if volume.name in STANDARD_VOLUMES:
            volumes[volume.name] = entry
        else:
            volumes.setdefault("custom", []).append({"name": volume.name, **entry})
    resources, security = spec.resources, spec.security
    hooks = {"postClaim": spec.post_claim, "preRelease": spec.pre_release, "preSave": spec.pre_save}
    return {
        "image": spec.image,
        "command": list(spec.command),
        "volumes": volumes,
        "environment": spec.environment,
        "ports": [
            {
                "name": p.name,
                "containerPort": p.container_port,
                "protocol": p.protocol,
                "publish": p.publish,
                "access": p.access,
            }
            for p in spec.ports
        ],
        "healthCheck": _render_health_check(spec),
        "stopTimeoutMs": spec.stop_timeout_ms,
        "resources": {
            "cpus": resources.cpus,
            "memoryMb": resources.memory_mb,
            "pidsLimit": resources.pids_limit,
            "tmpfsMb": resources.tmpfs_mb,
            "diskMb": resources.disk_mb,
            "shmMb": resources.shm_mb,
            "gpus": resources.gpus and {"count": resources.gpus.count or None, "ids": list(resources.gpus.ids)},
        },
        "security": {
            "readOnlyRootFilesystem": security.read_only_root_filesystem,
            "runAsUser": security.run_as_user,
            "networkMode": security.network_mode,
            "runtime": security.runtime,
        },
        "hooks": {k: {"command": list(h.command), "timeoutMs": h.timeout_ms} for k, h in hooks.items() if h} or None,
        "seed": spec.seed,
        "pullPolicy": spec.pull_policy,
        "imageUpdate": spec.image_update,
        "configSchema": spec.config_schema,
        "entrypoint": None if spec.entrypoint is None else list(spec.entrypoint),
        "workingDir": spec.working_dir,
        "init": True if spec.init else process_fields.IMAGES_OWN,
        "stopSignal": spec.stop_signal,
        "user": None if spec.user == User() else {**asdict(spec.user), "groups": list(spec.user.groups)},
        "tmpfs": [{"path": item.path, "sizeMb": item.size_mb, "exec": item.exec} for item in spec.tmpfs],
        "ulimits": [{"name": item.name, "soft": item.soft, "hard": item.hard} for item in spec.ulimits],
        "devices": [{"path": item.path, "permissions": item.permissions} for item in spec.devices],
        "extraHosts": spec.extra_hosts,
        "dns": list(spec.dns),
        "labels": spec.labels,
    }


def _render_health_check(spec: WorkloadSpec) -> dict[str, Any] | str | None:
    check = spec.health_check
    if check is None:
        return None if spec.is_health_check_off else process_fields.IMAGES_OWN
    return {
        "command": list(check.command),
        "intervalMs": check.interval_ms,
        "timeoutMs": check.timeout_ms,
        "retries": check.retries,
        "startPeriodMs": check.start_period_ms,
    }


class PoolInput(ApiSerializer):
    """A pool. Only workloadId is required."""

    read_only_ignored = frozenset({"status", "createdAt", "updatedAt"})

    id = IdField(required=False)
    name = LineField(max_length=200, required=False)
    workload_id = LineField(max_length=63)
    min_size = serializers.IntegerField(min_value=0, max_value=10_000, default=0)
    max_size = serializers.IntegerField(min_value=1, max_value=10_000, default=10)
    min_idle = serializers.IntegerField(min_value=0, max_value=10_000, required=False)
    idle_timeout_ms = serializers.IntegerField(min_value=0, max_value=TEN_YEARS_MS, default=0)
    on_unhealthy = serializers.ChoiceField(Pool.OnUnhealthy.choices, default="report")
    network = PoolNetworkField(required=False, allow_null=True)
    placement = PlacementField(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.setdefault("min_idle", min(attrs["min_size"], attrs["max_size"]))
        attrs.setdefault("network", None)
        attrs.setdefault("placement", None)
        wrong = {}
        for name, value in (("minSize", attrs["min_size"]), ("minIdle", attrs["min_idle"])):
            if value > attrs["max_size"]:
                wrong[name] = ErrorDetail(f"Must not exceed maxSize ({attrs['max_size']}).", "out_of_range")
        if wrong:
            raise ValidationError(wrong)
        return attrs


class PullOutput(serializers.Serializer[Any]):
    image = serializers.CharField()
    state = serializers.ChoiceField(["waiting", "running"], help_text="waiting: other pulls run first")
    startedAt = serializers.DateTimeField(allow_null=True)
    phase = serializers.ChoiceField(["downloading", "extracting"], required=False)
    bytes = serializers.IntegerField(
        required=False, help_text="Bytes fetched so far, of layers that were not on the node"
    )
    totalBytes = serializers.IntegerField(
        required=False, allow_null=True, help_text="Null until the size of every layer is known"
    )
    percent = serializers.FloatField(
        required=False, allow_null=True, help_text="An estimate while the size of a layer is unknown"
    )
    bytesPerSecond = serializers.IntegerField(required=False)
    etaMs = serializers.IntegerField(required=False, allow_null=True)
    layers = serializers.IntegerField(required=False)
    layersDone = serializers.IntegerField(required=False)


class PoolStatusOutput(ApiSerializer):
    size = serializers.IntegerField(help_text="starting + idle + claimed + removing")
    idle = serializers.IntegerField()
    claimed = serializers.IntegerField()
    starting = serializers.IntegerField()
    removing = serializers.IntegerField()
    unhealthy = serializers.IntegerField()
    release_failed = serializers.IntegerField()
    waiting = serializers.IntegerField()
    target_size = serializers.IntegerField()
    desired_size = serializers.IntegerField()
    state = serializers.ChoiceField([(state.value, state.value) for state in PoolState])
    trouble = serializers.ChoiceField([(one.value, one.value) for one in Trouble], allow_null=True)
    last_error = serializers.CharField(allow_null=True)
    warnings = WarningOutput(many=True, help_text="Warnings about the serving version; pointers lead into its workload")
    pulling = PullOutput(
        allow_null=True, help_text="The image that starts of the pool wait for, with the progress of the pull"
    )


class PoolOutput(ApiSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    workload_id = serializers.CharField()
    min_size = serializers.IntegerField()
    max_size = serializers.IntegerField()
    min_idle = serializers.IntegerField()
    idle_timeout_ms = serializers.IntegerField()
    on_unhealthy = serializers.CharField()
    network = PoolNetworkField(allow_null=True)
    placement = PlacementField(allow_null=True)
    status = PoolStatusOutput()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def render_pool(pool: Pool) -> dict[str, Any]:
    """A pool from ``with_counts()`` in the API's format."""
    body: dict[str, Any] = PoolOutput({**_fields(pool), "status": pool.status()}).data
    return body


def _fields(pool: Pool) -> dict[str, Any]:
    names = "id name workload_id min_size max_size min_idle idle_timeout_ms on_unhealthy created_at updated_at"
    fields = {name: getattr(pool, name) for name in names.split()}
    return {**fields, "network": pool.whole_network, "placement": render_placement(pool)}


class PoolUsageOutput(ApiSerializer):
    at = serializers.DateTimeField()
    idle = serializers.IntegerField()
    claimed = serializers.IntegerField()
    size = serializers.IntegerField()
    waiting = serializers.IntegerField()
    desired_size = serializers.IntegerField()
    cpu_cores = serializers.FloatField()
    memory_bytes = serializers.IntegerField()
    disk_bytes = serializers.IntegerField()


class ScaleInput(ApiSerializer):
    target_size = serializers.IntegerField(min_value=0, max_value=10_000)


class EndpointOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    host = serializers.CharField(allow_null=True)
    port = serializers.IntegerField()
    hostAddress = serializers.CharField(
        required=False, help_text="For a published port: the node's loopback address, different from the dashboard's."
    )
    hostPort = serializers.IntegerField(required=False)
    hostUrl = serializers.CharField(required=False)
    url = serializers.CharField(required=False)
    access = serializers.ChoiceField(ACCESSES, required=False, help_text="Who reaches it through the gateway.")
    publicUrl = serializers.CharField(
        required=False,
        help_text="Where the gateway leads to this port, from anywhere, while a tenant has the container.",
    )


class ContainerOutput(ApiSerializer):
    id = serializers.UUIDField()
    pool_id = serializers.CharField()
    workload_id = serializers.CharField(source="version.workload_id")
    workload_version = serializers.IntegerField(source="version.number")
    state = serializers.ChoiceField(ContainerState.choices)
    health = serializers.ChoiceField(ContainerHealth.choices)
    tenant_id = serializers.CharField(allow_null=True)
    node = serializers.CharField(source="node_id")
    runtime_id = serializers.CharField()
    uid = serializers.IntegerField()
    endpoints = EndpointOutput(many=True)
    fault = serializers.CharField(help_text="What is wrong with the container: exit, oom, vanished, unhealthy, disk")
    error = serializers.CharField()
    image_digest = serializers.CharField()
    disk_bytes = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    state_changed_at = serializers.DateTimeField()


def render_container(container: Container, tenant_id: str | None) -> dict[str, Any]:
    container.tenant_id = tenant_id  # type: ignore[attr-defined]
    body: dict[str, Any] = ContainerOutput(container).data
    return body


DEFAULT_EXEC_MS = 30_000
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
"""The kernel's limit for one argument, without the terminating NUL."""


class ExecInput(ApiSerializer):
    command = CommandField()
    stdin = serializers.CharField(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)
    encoding = serializers.ChoiceField(["utf-8", "base64"], default="utf-8")

    def get_fields(self) -> dict[str, Any]:
        longest = settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS
        usual = min(DEFAULT_EXEC_MS, longest)
        timeout = serializers.IntegerField(min_value=100, max_value=longest, default=usual, source="timeout_ms")
        return {**super().get_fields(), "timeoutMs": timeout}

    def validate_command(self, command: list[str]) -> list[str]:
        sizes = [len(word.encode("utf-8", "surrogatepass")) for word in command]
        highest = settings.BOILERHOUSE_EXEC_COMMAND_MAX_BYTES
        if sum(sizes) > highest:
            raise ValidationError(f"The command has {sum(sizes)} bytes; the limit is {highest}.", "too_large")
        if max(sizes) > MAX_ARGUMENT_BYTES:
            raise ValidationError(f"An argument may have at most {MAX_ARGUMENT_BYTES} bytes.", "too_large")
        return command


class ExecOutput(ApiSerializer):
    exit_code = serializers.IntegerField(
        help_text="127: the command does not exist. 126: it cannot be executed. stderr says why."
    )
    stdout = serializers.CharField()
    stderr = serializers.CharField()
    truncated = serializers.BooleanField(help_text="Whether either stream was truncated.")
    stdout_truncated = serializers.BooleanField()
    stderr_truncated = serializers.BooleanField()
    duration_ms = serializers.IntegerField()


class ExecProblem(Problem):
    """A command that did not end in time, with its output so far."""

    stdout = serializers.CharField(required=False)
    stderr = serializers.CharField(required=False)
    stdoutTruncated = serializers.BooleanField(required=False)
    stderrTruncated = serializers.BooleanField(required=False)

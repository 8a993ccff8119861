"""A workload's spec as frozen values; JSON is read and written only through ``WorkloadSpec``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self

BUILT_IN_VARIABLES = frozenset({"CONTAINER_ID", "POOL_ID", "WORKLOAD_ID"})
STANDARD_VOLUMES = ("state", "secrets", "comm")
RESERVED_VOLUME_NAMES = frozenset({"state", "secrets", "comm", "claimed", "lock", "staging", "disk", "disk-img"})


class Owner(NamedTuple):
    """The owner of a container's processes and files, in numbers of this host, as ``os.chown`` takes them."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    container_path: str
    mode: str
    """``rw`` or ``ro``"""

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.container_path)


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    container_port: int
    protocol: str = "tcp"
    publish: bool = False
    access: str = "private"
    """Who reaches it through the gateway: ``private`` (with a credential), ``public``, ``internal`` (nobody)."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    command: tuple[str, ...]
    interval_ms: int = 30_000
    timeout_ms: int = 5_000
    retries: int = 3
    start_period_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Gpus:
    count: int = 1
    """-1: all of the node. 0 if ``ids`` selects them."""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    cpus: float = 1.0
    memory_mb: int = 512
    pids_limit: int = 256
    tmpfs_mb: int = 64
    disk_mb: int | None = None
    shm_mb: int | None = None
    """The size of /dev/shm; None: as large as ``tmpfs_mb``."""
    gpus: Gpus | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        gpus = data.get("gpus")
        return cls(**{**data, "gpus": Gpus(gpus["count"], tuple(gpus["ids"])) if gpus else None})


@dataclass(frozen=True, slots=True)
class MemoryMount:
    """A RAM directory that the workload requests."""

    path: str
    size_mb: int
    exec: bool = False
    """Whether programs may run from it."""


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int
    """-1: no limit."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the node, under the same path in the container."""

    path: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Security:
    read_only_root_filesystem: bool = True
    run_as_user: int | None = None
    """The older spelling of ``user.uid``."""
    network_mode: str = "bridge"
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """The user of the container's processes."""

    uid: int | None = None
    gid: int | None = None
    """None: the number of its uid."""
    groups: tuple[int, ...] = ()
    """Supplementary groups."""
    name: str | None = None
    """The name in the container's passwd and group; None: the image's files stay unchanged."""
    home: str | None = None
    """Its HOME, and with a name its home directory."""

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Self:
        return cls(**{**data, "groups": tuple(data["groups"])}) if data else cls()


@dataclass(frozen=True, slots=True)
class Hook:
    command: tuple[str, ...]
    timeout_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """How to run one kind of container."""

    image: str
    command: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    health_check: HealthCheck | None = None
    stop_timeout_ms: int = 10_000
    resources: Resources = Resources()
    security: Security = Security()
    post_claim: Hook | None = None
    pre_release: Hook | None = None
    pre_save: Hook | None = None
    seed: str | None = None
    pull_policy: str = "missing"
    config_schema: dict[str, Any] | None = None
    entrypoint: tuple[str, ...] | None = None
    """None: the image's own; empty: none, so the command runs by itself."""
    working_dir: str | None = None
    """None: the image's own."""
    init: bool = True
    """Whether a small init is process 1; otherwise the image's own process is."""
    stop_signal: str | None = None
    """None: the image's STOPSIGNAL, otherwise SIGTERM."""
    is_health_check_off: bool = False
    """Whether the image's HEALTHCHECK is disabled; otherwise it runs if there is no ``health_check``."""
    image_update: str | None = None
    """``roll`` to the image that the tag names, or ``manual``; None: depends on ``pull_policy``."""
    user: User = User()
    tmpfs: tuple[MemoryMount, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    extra_hosts: dict[str, str] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def takes_policies(self) -> bool:
        """Whether network policies apply to its containers, which is only so on our own networks."""
        return self.security.network_mode in ("bridge", "none")

    @property
    def rolls_to_new_images(self) -> bool:
        """Whether a moved tag is rolled out automatically."""
        return self.image_update == "roll" or (self.image_update is None and self.pull_policy == "always")

    @property
    def fixed_uid(self) -> int | None:
        """The uid of all its containers; None: a separate host uid for each."""
        return self.security.run_as_user if self.user.uid is None else self.user.uid

    def owner(self, uid: int) -> Owner:
        """The owner of the files of its container with this uid."""
        return Owner(uid, uid if self.user.gid is None else self.user.gid)

    def volume(self, name: str) -> Volume | None:
        return next((volume for volume in self.volumes if volume.name == name), None)

    def volume_of(self, container_path: str) -> tuple[Volume, PurePosixPath] | None:
        """The volume that contains ``container_path``, and the path relative to it; the deepest volume wins."""
        path = PurePosixPath(container_path)
        holding = [volume for volume in self.volumes if path.is_relative_to(volume.path)]
        if not holding:
            return None
        deepest = max(holding, key=lambda volume: len(volume.path.parts))
        return deepest, path.relative_to(deepest.path)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        def hook(value: dict[str, Any] | None) -> Hook | None:
            return Hook(tuple(value["command"]), value["timeout_ms"]) if value else None

        check = data.get("health_check")
        entrypoint = data.get("entrypoint")
        return cls(
            image=data["image"],
            command=tuple(data["command"]),
            volumes=tuple(Volume(**volume) for volume in data["volumes"]),
            environment=dict(data["environment"]),
            ports=tuple(Port(**port) for port in data["ports"]),
            health_check=HealthCheck(**{**check, "command": tuple(check["command"])}) if check else None,
            stop_timeout_ms=data["stop_timeout_ms"],
            resources=Resources.from_json(data["resources"]),
            security=Security(**data["security"]),
            post_claim=hook(data.get("post_claim")),
            pre_release=hook(data.get("pre_release")),
            pre_save=hook(data.get("pre_save")),
            seed=data.get("seed"),
            pull_policy=data["pull_policy"],
            config_schema=data.get("config_schema"),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            working_dir=data.get("working_dir"),
            init=data.get("init", True),
            stop_signal=data.get("stop_signal"),
            is_health_check_off=data.get("is_health_check_off", False),
            image_update=data.get("image_update"),
            user=User.from_json(data.get("user")),
            tmpfs=tuple(MemoryMount(**item) for item in data.get("tmpfs", ())),
            ulimits=tuple(Ulimit(**item) for item in data.get("ulimits", ())),
            devices=tuple(Device(**item) for item in data.get("devices", ())),
            extra_hosts=dict(data.get("extra_hosts", {})),
            dns=tuple(data.get("dns", ())),
            labels=dict(data.get("labels", {})),
        )


def variables(text: str) -> Iterator[tuple[str, str | None]]:
    """The text split at each ``${NAME}``: the text before it and the name; last the rest, with None.

    One pass over the text, however many placeholders are opened and not closed.
    """
    at = 0
    while (begin := text.find("${", at)) >= 0 and (end := text.find("}", begin)) >= 0:
        yield text[at:begin], text[begin + 2 : end]
        at = end + 1
    yield text[at:], None


def variables_of(text: str) -> list[str]:
    """The NAME of each ``${NAME}`` in the text, in order."""
    return [name for _, name in variables(text) if name is not None]


def interpolate(text: str, values: dict[str, str]) -> str:
    """Replace each ``${NAME}`` by its value; unknown names were refused when the spec was saved."""
    return "".join(
        before if name is None else before + values.get(name, f"${{{name}}}") for before, name in variables(text)
    )

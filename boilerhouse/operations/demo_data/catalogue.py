"""The workloads, pools, sync specs and tenants of the demo data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MB = 1_000_000
STATE = {"name": "state", "container_path": "/state", "mode": "rw"}
SECRETS = {"name": "secrets", "container_path": "/run/secrets", "mode": "ro"}


@dataclass(frozen=True, slots=True)
class DemoWorkload:
    """A workload; ``images`` has one entry per version, oldest first."""

    id: str
    name: str
    images: tuple[str, ...]
    memory_mb: int
    cpus: float
    port: int
    schema: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def spec(self, image: str) -> dict[str, Any]:
        """The version's spec as ``WorkloadSpec`` stores it."""
        return {
            "image": image, "command": list(self.command), "volumes": [STATE, SECRETS],
            "environment": self.environment, "ports": [{"name": "http", "container_port": self.port}],
            "health_check": {
                "command": ["wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{self.port}/healthz"],
                "interval_ms": 10_000, "timeout_ms": 2_000, "retries": 3, "start_period_ms": 60_000,
            },
            "stop_timeout_ms": 5_000, "security": {}, "pull_policy": "missing", "config_schema": self.schema,
            "resources": {"cpus": self.cpus, "memory_mb": self.memory_mb, "pids_limit": 256, "tmpfs_mb": 64},
        }  # fmt: skip


def _schema(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_MODEL = {"type": "string", "enum": ["small", "medium", "large"], "default": "small"}

WORKLOADS = (
    DemoWorkload(
        "notes", "Notes", ("registry.example.com/notes:2.3", "registry.example.com/notes:2.4"), 256, 0.5, 8080,
        _schema(greeting={"type": "string", "maxLength": 200}, model=_MODEL), {"POOL": "${POOL_ID}"},
    ),
    DemoWorkload(
        "notebooks", "Notebooks", ("registry.example.com/jupyter:4.3", "registry.example.com/jupyter:4.4"), 1024, 2.0,
        8888, _schema(theme={"type": "string", "enum": ["light", "dark"]}, packages={"type": "array"}),
    ),
    DemoWorkload(
        "build-worker", "Build worker", ("registry.example.com/builder:18",), 2048, 4.0, 9000,
        _schema(repository={"type": "string"}, cache={"type": "boolean", "default": True}),
    ),
    DemoWorkload(
        "browser-agent", "Browser agent", ("registry.example.com/browser:131", "registry.example.com/browser:132"),
        1536, 1.0, 3000, _schema(start={"type": "string", "format": "uri"}, model=_MODEL),
    ),
    DemoWorkload(
        "postgres", "PostgreSQL sandbox", ("docker.io/library/postgres:17",), 512, 1.0, 5432,
        _schema(database={"type": "string"}),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoPool:
    """A pool with its present containers; ``day`` is the number of claims on a working day."""

    id: str
    name: str
    workload: str
    min_size: int
    max_size: int
    min_idle: int
    idle: int
    day: int
    warm_ms: int
    """The usual latency of a warm claim."""
    state_bytes: int
    """The usual size of a tenant's state."""
    starting: int = 0
    is_paused: bool = False
    idle_timeout_ms: int = 0


POOLS = (
    DemoPool("notes", "Notes", "notes", 6, 16, 3, 3, 46, 14, 4 * MB, idle_timeout_ms=1_800_000),
    DemoPool("notebooks", "Notebooks", "notebooks", 4, 10, 2, 1, 18, 38, 60 * MB, starting=1),
    DemoPool("build-workers", "Build workers", "build-worker", 3, 8, 2, 2, 24, 22, 24 * MB),
    DemoPool("browser-agents", "Browser agents", "browser-agent", 4, 12, 2, 2, 30, 31, 18 * MB,
             idle_timeout_ms=900_000),
    DemoPool("postgres-sandboxes", "PostgreSQL sandboxes", "postgres", 1, 4, 1, 1, 5, 45, 60 * MB, is_paused=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoSpec:
    """A sync spec; ``failing_min`` is since how many minutes its sink refuses, 0 while it works."""

    id: str
    name: str
    pool: str
    sink: dict[str, Any]
    interval_min: int = 0
    credential: str = ""
    failing_min: int = 0


def _s3(bucket: str, endpoint: str, prefix: str, credential: str) -> dict[str, Any]:
    return {
        "type": "s3", "bucket": bucket, "region": "eu-central-1", "prefix": prefix, "endpoint": endpoint,
        "credentialId": credential,
    }  # fmt: skip


MAIN_S3, CACHE_S3 = "https://s3.example.com", "https://cache.example.net"

SPECS = (
    DemoSpec("notes-state", "Notes state", "notes", _s3("boilerhouse", MAIN_S3, "notes/${tenantId}/", "main-s3"), 30,
             "main-s3"),
    DemoSpec("notebooks-state", "Notebooks state", "notebooks",
             _s3("boilerhouse", MAIN_S3, "notebooks/${tenantId}/", "main-s3"), 60, "main-s3"),
    DemoSpec("build-cache", "Build cache", "build-workers",
             _s3("builds", CACHE_S3, "cache/${tenantId}/", "build-cache"), 0, "build-cache", failing_min=24),
    DemoSpec("agents-state", "Agents state", "browser-agents",
             _s3("agents", MAIN_S3, "agents/${tenantId}/", "main-s3"), 30, "main-s3"),
    DemoSpec("postgres-state", "Sandbox state", "postgres-sandboxes",
             _s3("boilerhouse", MAIN_S3, "postgres/${tenantId}/", "main-s3"), 0, "main-s3"),
)  # fmt: skip
REFUSAL = (
    "The bucket builds at https://cache.example.net answered 403 SignatureDoesNotMatch: The request signature we"
    " calculated does not match the signature you provided. Check your key and signing method."
)


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """A tenant now: ``assigned``, ``restoring`` (its claim), ``saving`` (its release), ``unsaved`` or ``released``.

    ``minutes`` is how long it has been so; ``idle_min`` since when it has done nothing.
    """

    id: str
    pool: str
    now: str = "assigned"
    minutes: float = 60.0
    idle_min: float = 0.5
    config: dict[str, Any] | None = None
    is_unhealthy: bool = False


TENANTS = (
    DemoTenant("acme-042", "notes", minutes=184, config={"greeting": "hello", "model": "medium"}),
    DemoTenant("acme-017", "notes", minutes=96, idle_min=4),
    DemoTenant("globex-007", "notes", minutes=71, config={"model": "large"}),
    DemoTenant("initech-003", "notes", minutes=33),
    DemoTenant("umbrella-11", "notes", minutes=22, idle_min=21),
    DemoTenant("hooli-21", "notes", minutes=14),
    DemoTenant("vandelay-2", "notes", minutes=3, idle_min=0.2),
    DemoTenant("wayne-108", "notes", "saving", 0.2),
    DemoTenant("team-vision", "notebooks", minutes=412, config={"theme": "dark"}),
    DemoTenant("team-speech", "notebooks", minutes=268),
    DemoTenant("maria.lopez", "notebooks", minutes=55),
    DemoTenant("j.okafor", "notebooks", "restoring", 0.15),
    DemoTenant("ci:api", "build-workers", minutes=9, config={"repository": "api", "cache": True}),
    DemoTenant("ci:web", "build-workers", minutes=4, config={"repository": "web", "cache": True}),
    DemoTenant("ci:mobile", "build-workers", "unsaved", 19),
    DemoTenant("ci:docs", "build-workers", "released", 58),
    DemoTenant("ci:infra", "build-workers", "unsaved", 6),
    DemoTenant("agent-research", "browser-agents", minutes=37, config={"model": "large"}),
    DemoTenant("agent-billing", "browser-agents", minutes=18),
    DemoTenant("agent-support", "browser-agents", minutes=6, is_unhealthy=True),
    DemoTenant("org:4471", "postgres-sandboxes", minutes=1530, idle_min=44),
    DemoTenant("globex-009", "notes", "released", 131),
    DemoTenant("team-audio", "notebooks", "released", 540),
    DemoTenant("agent-sales", "browser-agents", "released", 75),
)

"""All settings. Each option of a deployment is read once, here, from the environment (or ``NAME_FILE``)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url
import django_stubs_ext
import structlog
from environs import FileAwareEnv

from boilerhouse.core import keys, privacy
from boilerhouse.telemetry import logs

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

django_stubs_ext.monkeypatch()
env = FileAwareEnv()

LOGGING_CONFIG = None
logs.configure(env.str("BOILERHOUSE_LOG_FORMAT", "console"), env.str("BOILERHOUSE_LOG_LEVEL", "INFO"))

_default_data = BASE_DIR / ".boilerhouse" if (BASE_DIR / "pyproject.toml").exists() else Path("/var/lib/boilerhouse")
BOILERHOUSE_DATA_DIR = Path(env.str("BOILERHOUSE_DATA_DIR", str(_default_data))).absolute()
if _narrowed := privacy.close(BOILERHOUSE_DATA_DIR):
    structlog.get_logger("boilerhouse").warning("closed to others", paths=_narrowed)
BOILERHOUSE_RAM_DIR = env.str("BOILERHOUSE_RAM_DIR", "")
"""Empty: ``/run/boilerhouse/<deployment>``, a tmpfs of our own."""
BOILERHOUSE_RAM_SIZE_MB = env.int("BOILERHOUSE_RAM_SIZE_MB", 256)
BOILERHOUSE_SUBNET = env.str("BOILERHOUSE_SUBNET", "")
"""Empty: the first free /16 of 10.64.0.0/10."""
BOILERHOUSE_IPV6_SUBNET = env.str("BOILERHOUSE_IPV6_SUBNET", "")
"""The IPv6 network of containers; empty: no IPv6."""
BOILERHOUSE_RESOLVERS: list[str] = env.list("BOILERHOUSE_RESOLVERS", [])
"""IPv4 addresses of the containers' resolvers; empty: those of the node's resolv.conf."""
BOILERHOUSE_LOCAL_SINK_ROOT = env.str("BOILERHOUSE_LOCAL_SINK_ROOT", "")
BOILERHOUSE_S3_ENV_AUTH = env.bool("BOILERHOUSE_S3_ENV_AUTH", False)
BOILERHOUSE_CA_BUNDLE = env.str("BOILERHOUSE_CA_BUNDLE", "")
"""The file of certificates that verify sinks; empty: the system's."""
HTTPS_PROXY = env.str("HTTPS_PROXY", "") or env.str("https_proxy", "")
HTTP_PROXY = env.str("HTTP_PROXY", "") or env.str("http_proxy", "")
NO_PROXY: list[str] = [name for name in (env.str("NO_PROXY", "") or env.str("no_proxy", "")).split(",") if name.strip()]
"""Proxies for sinks (``syncing.sinks.network_settings``). A proxy's URL may contain a password."""
BOILERHOUSE_ALLOWED_SINK_HOSTS: list[str] = env.list("BOILERHOUSE_ALLOWED_SINK_HOSTS", [], subcast=str.strip)
"""Loopback and link-local addresses at which sinks are allowed, in the syntax of NO_PROXY (ADR 46)."""
BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS: list[str] = env.list(
    "BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS", [], subcast=str.strip
)
"""Hosts with internal addresses to which notifications may go, in the syntax of NO_PROXY (ADR 70)."""
BOILERHOUSE_BACKUP_MAX_AGE_S = env.int("BOILERHOUSE_BACKUP_MAX_AGE_S", 0)
BOILERHOUSE_NOTIFICATION_HOLD_S = env.float("BOILERHOUSE_NOTIFICATION_HOLD_S", 60)
"""How long a cause must be present before a notification is sent, and absent before it counts as resolved."""
BOILERHOUSE_NOTIFICATION_DEADLINE_S = env.int("BOILERHOUSE_NOTIFICATION_DEADLINE_S", 24 * 3600)
"""How long a delivery is tried."""
BOILERHOUSE_NOTIFICATION_DISABLE_AFTER_S = env.int("BOILERHOUSE_NOTIFICATION_DISABLE_AFTER_S", 5 * 86400)
"""A target to which nothing could be delivered for so long is disabled."""
BOILERHOUSE_ALLOW_HOST_NETWORK = env.bool("BOILERHOUSE_ALLOW_HOST_NETWORK", False)
BOILERHOUSE_ALLOW_OPEN_NETWORK = env.bool("BOILERHOUSE_ALLOW_OPEN_NETWORK", False)
"""Whether a pool's policy may be ``open``, which includes private addresses."""
BOILERHOUSE_ALLOW_ROOT = env.bool("BOILERHOUSE_ALLOW_ROOT", False)
BOILERHOUSE_ALLOWED_RUNTIMES = env.list("BOILERHOUSE_ALLOWED_RUNTIMES", ["runc"])
BOILERHOUSE_ALLOWED_DEVICES: list[str] = env.list("BOILERHOUSE_ALLOWED_DEVICES", [])
"""Devices of the node that workloads may use (``/dev/kvm``), and ``gpus``."""
BOILERHOUSE_MAX_ULIMITS: dict[str, int] = env.dict("BOILERHOUSE_MAX_ULIMITS", {}, subcast_values=int)
"""``nofile=1048576,memlock=-1``: maximums of ulimits, which replace those of ``pools.limits``."""
BOILERHOUSE_UID_RANGE = (200_000, 1_200_000)
BOILERHOUSE_ADDRESS_QUARANTINE_S = 600
BOILERHOUSE_DISCARD_RETENTION_S = env.int("BOILERHOUSE_DISCARD_RETENTION_S", 24 * 3600)
BOILERHOUSE_RUN_RETENTION_S = env.int("BOILERHOUSE_RUN_RETENTION_S", 30 * 86400)
BOILERHOUSE_PROBE_RETENTION_S = env.int("BOILERHOUSE_PROBE_RETENTION_S", 7 * 86400)
BOILERHOUSE_BACKUP_RETENTION_S = env.int("BOILERHOUSE_BACKUP_RETENTION_S", 30 * 86400)
"""How long overwrites and deletions of saves are kept in the sink's ``.boilerhouse-trash``."""
BOILERHOUSE_DISK_FLOOR_MB = env.int("BOILERHOUSE_DISK_FLOOR_MB", 256)
"""No container is started with less free disk space."""
BOILERHOUSE_DISK_LIMITS = env.str("BOILERHOUSE_DISK_LIMITS", "auto")
"""How ``diskMb`` is enforced: ``loop`` (a separate file system), ``watch`` (measured), ``auto`` (loop if it works)."""
BOILERHOUSE_DEFAULT_DISK_MB = env.int("BOILERHOUSE_DEFAULT_DISK_MB", 10_240)
"""The disk limit of a container without ``diskMb``; measured, never a separate file system (ADR 44). 0: no limit. Far
above the use of most workloads, far below a node's disk: a workload that needs more sets ``diskMb``."""
BOILERHOUSE_SEED_DIR = env.str("BOILERHOUSE_SEED_DIR", "") or str(BOILERHOUSE_DATA_DIR / "seeds")
BOILERHOUSE_ORPHAN_GRACE_S = env.float("BOILERHOUSE_ORPHAN_GRACE_S", 10)
BOILERHOUSE_RECONCILE_EVERY_S = env.float("BOILERHOUSE_RECONCILE_EVERY_S", 15)
BOILERHOUSE_SAMPLE_EVERY_S = env.float("BOILERHOUSE_SAMPLE_EVERY_S", 15)
BOILERHOUSE_USAGE_RETENTION_S = env.int("BOILERHOUSE_USAGE_RETENTION_S", 3 * 3600)
BOILERHOUSE_POOL_USAGE_RETENTION_S = env.int("BOILERHOUSE_POOL_USAGE_RETENTION_S", 7 * 86400)
BOILERHOUSE_TENANT_USAGE_RETENTION_S = env.int("BOILERHOUSE_TENANT_USAGE_RETENTION_S", 400 * 86400)
"""How long the days and months of tenants' usage are kept."""
BOILERHOUSE_IMAGE_CHECK_S = env.int("BOILERHOUSE_IMAGE_CHECK_S", 3600)
"""How often registries are queried for moved tags; 0: only on request."""
BOILERHOUSE_PARALLEL_CREATES = env.int("BOILERHOUSE_PARALLEL_CREATES", 8)
"""Concurrent starts of one pool; its workers run four at a time and never wait for the next."""
BOILERHOUSE_PARALLEL_PULLS = env.int("BOILERHOUSE_PARALLEL_PULLS", 8)
"""Concurrent image pulls of a node; half of them from one registry."""
BOILERHOUSE_PARALLEL_TRANSFERS = env.int("BOILERHOUSE_PARALLEL_TRANSFERS", 8)
"""Concurrent transfers of a node; those with one sink leave two to others."""
BOILERHOUSE_MAX_FILE_BYTES = env.int("BOILERHOUSE_MAX_FILE_BYTES", 5 * 1024**3)
BOILERHOUSE_MAX_SAVE_FILES = env.int("BOILERHOUSE_MAX_SAVE_FILES", 1_000_000)
BOILERHOUSE_MAX_SAVE_BYTES = env.int("BOILERHOUSE_MAX_SAVE_BYTES", 100 * 1024**3)
BOILERHOUSE_TRANSFER_STALL_S = env.int("BOILERHOUSE_TRANSFER_STALL_S", 120)
"""A transfer without progress for this time ends; nothing else limits its duration."""
BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S = env.int("BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S", 8192)
"""Slower progress than this does not count: the sink could hold a worker and a slot indefinitely."""
BOILERHOUSE_LARGE_BYTES = env.int("BOILERHOUSE_LARGE_BYTES", 256 * 1024**2)
"""Larger transfers leave capacity to others: two of the slots, and one worker of each queue."""
BOILERHOUSE_SNAPSHOT_MAX_BYTES = env.int("BOILERHOUSE_SNAPSHOT_MAX_BYTES", 2 * 1024**3)
"""The most that a save of a running container copies to the node's disk; the rest is sent while the tenant works."""
BOILERHOUSE_FREEZE_MAX_MS = env.int("BOILERHOUSE_FREEZE_MAX_MS", 1000)
"""How long such a save may freeze a container."""
BOILERHOUSE_STAGED_MAX_BYTES = env.int("BOILERHOUSE_STAGED_MAX_BYTES", 100 * 1024**3)
"""Staged files of failed claims are kept up to this size, for the tenant's next claim; 0: not at all."""
BOILERHOUSE_STAGED_RETENTION_S = env.int("BOILERHOUSE_STAGED_RETENTION_S", 6 * 3600)
BOILERHOUSE_MAX_WAITERS = env.int("BOILERHOUSE_MAX_WAITERS", 200)
BOILERHOUSE_MAX_WAITERS_PER_TENANT = env.int("BOILERHOUSE_MAX_WAITERS_PER_TENANT", 20)
BOILERHOUSE_MAX_WAITERS_PER_KEY = env.int("BOILERHOUSE_MAX_WAITERS_PER_KEY", 150)
BOILERHOUSE_MAX_WAITERS_PER_POOL = env.int("BOILERHOUSE_MAX_WAITERS_PER_POOL", 150)
"""Waiting requests of a web process: in total, and of one tenant, one key for many tenants, and one pool."""
BOILERHOUSE_WEB_THREADS = env.int("BOILERHOUSE_WEB_THREADS", 4)
BOILERHOUSE_CLAIM_THREADS = env.int("BOILERHOUSE_CLAIM_THREADS", 4)
"""For claims: a hanging sink occupies one for two seconds, but no other thread."""
BOILERHOUSE_SLOW_THREADS = env.int("BOILERHOUSE_SLOW_THREADS", 16)
"""For requests that wait for the engine or a sink: exec, logs, probes."""
BOILERHOUSE_SLOW_THREADS_PER_TENANT = env.int("BOILERHOUSE_SLOW_THREADS_PER_TENANT", 6)
BOILERHOUSE_SLOW_THREADS_PER_KEY = env.int("BOILERHOUSE_SLOW_THREADS_PER_KEY", 12)
BOILERHOUSE_BODIES_MAX_BYTES = env.int("BOILERHOUSE_BODIES_MAX_BYTES", 128 * 1024**2)
BOILERHOUSE_BODIES_MAX_BYTES_PER_TENANT = env.int("BOILERHOUSE_BODIES_MAX_BYTES_PER_TENANT", 16 * 1024**2)
BOILERHOUSE_BODIES_MAX_BYTES_PER_KEY = env.int("BOILERHOUSE_BODIES_MAX_BYTES_PER_KEY", 64 * 1024**2)
"""Memory of a web process for long bodies until their requests are handled: in total, of one tenant, of one key."""
BOILERHOUSE_KEPT_ANSWER_MAX_BYTES = env.int("BOILERHOUSE_KEPT_ANSWER_MAX_BYTES", 64 * 1024)
"""The longest response stored for an Idempotency-Key; of a longer one, only its existence is stored."""
BOILERHOUSE_KEPT_BYTES = env.int("BOILERHOUSE_KEPT_BYTES", 256 * 1024**2)
BOILERHOUSE_KEPT_BYTES_PER_TENANT = env.int("BOILERHOUSE_KEPT_BYTES_PER_TENANT", 4 * 1024**2)
BOILERHOUSE_KEPT_BYTES_PER_KEY = env.int("BOILERHOUSE_KEPT_BYTES_PER_KEY", 32 * 1024**2)
"""Database space of stored responses: in total, of one tenant, of one key."""
BOILERHOUSE_WEB_REALTIME = env.bool("BOILERHOUSE_WEB_REALTIME", True)
"""Whether the web process runs with real-time priority, if the system permits it."""
BOILERHOUSE_THROTTLE_RATE = env.float("BOILERHOUSE_THROTTLE_RATE", 200)
"""Requests per second and API key in a web process; 0 = no limit."""
BOILERHOUSE_THROTTLE_BURST = env.int("BOILERHOUSE_THROTTLE_BURST", 400)
BOILERHOUSE_THROTTLE_RATE_PER_TENANT = env.float("BOILERHOUSE_THROTTLE_RATE_PER_TENANT", 50)
"""The same for a key of role ``tenant``: 200 a second of one used a whole processor."""
BOILERHOUSE_THROTTLE_BURST_PER_TENANT = env.int("BOILERHOUSE_THROTTLE_BURST_PER_TENANT", 100)
BOILERHOUSE_CLAIM_RATE_PER_TENANT = env.float("BOILERHOUSE_CLAIM_RATE_PER_TENANT", (os.cpu_count() or 1) / 8)
"""New claims per second of a key of role ``tenant``; 0 = no limit. A claim and its release cost most of a second."""
BOILERHOUSE_CLAIM_BURST_PER_TENANT = env.int("BOILERHOUSE_CLAIM_BURST_PER_TENANT", 4)
BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT = env.int("BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT", 64)
"""Queued on-demand syncs of one tenant; at most one per sync spec and direction."""
BOILERHOUSE_METRICS_TOKEN = env.str("BOILERHOUSE_METRICS_TOKEN", "")
"""A bearer token only for ``/metrics``; empty: only API keys are accepted."""
BOILERHOUSE_TRACING = env.bool("BOILERHOUSE_TRACING", False)
"""Whether requests and tasks are traced with OpenTelemetry; its own OTEL_… variables set the destination."""
BOILERHOUSE_DRAIN_S = env.float("BOILERHOUSE_DRAIN_S", 6)
"""How long a stopping web process lets requests wait before it tells them to try again."""
BOILERHOUSE_EVENT_RETENTION_S = env.int("BOILERHOUSE_EVENT_RETENTION_S", 7 * 86400)
BOILERHOUSE_LAST_OUTPUTS_MAX_BYTES = env.int("BOILERHOUSE_LAST_OUTPUTS_MAX_BYTES", 1 << 28)
"""The ends of removed containers' logs, encrypted; the oldest go first."""
BOILERHOUSE_AUDIT_RETENTION_S = env.int("BOILERHOUSE_AUDIT_RETENTION_S", 365 * 86400)
BOILERHOUSE_EXEC_TIMEOUT_MAX_MS = env.int("BOILERHOUSE_EXEC_TIMEOUT_MAX_MS", 600_000)
"""The maximum ``timeoutMs`` of a command."""
BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES = env.int("BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES", 1 << 20)
"""The kept size of each output stream of a command."""
BOILERHOUSE_EXEC_STDIN_MAX_BYTES = env.int("BOILERHOUSE_EXEC_STDIN_MAX_BYTES", 1 << 20)
BOILERHOUSE_EXEC_COMMAND_MAX_BYTES = env.int("BOILERHOUSE_EXEC_COMMAND_MAX_BYTES", 128 * 1024)
"""The maximum size of a command with its arguments; the kernel's limit for one argument is 128 KiB."""
BOILERHOUSE_EXEC_PARALLEL = env.int("BOILERHOUSE_EXEC_PARALLEL", 4)
"""Concurrent commands per container in a web process; each uses one of BOILERHOUSE_SLOW_THREADS."""
BOILERHOUSE_GUEST_AGENT = env.str("BOILERHOUSE_GUEST_AGENT", str(BASE_DIR / "guest" / "build" / "agent"))
"""The program that is process 1 of containers; empty: the engine's init, and every command by the engine."""
BOILERHOUSE_TERMINAL = env.bool("BOILERHOUSE_TERMINAL", False)
"""Whether operators may open a shell in a tenant's container from its page; the audit log records each with its
reason."""
BOILERHOUSE_TERMINAL_LIMIT_S = env.int("BOILERHOUSE_TERMINAL_LIMIT_S", 3600)
BOILERHOUSE_FILE_BROWSER = env.bool("BOILERHOUSE_FILE_BROWSER", False)
"""Whether operators may see and change a tenant's files on its pages; the audit log records each path."""
BOILERHOUSE_LOGIN_FAILURES = env.int("BOILERHOUSE_LOGIN_FAILURES", 10)
"""After this many wrong passwords, the name and the address must wait BOILERHOUSE_LOGIN_COOLOFF_S."""
BOILERHOUSE_LOGIN_COOLOFF_S = env.int("BOILERHOUSE_LOGIN_COOLOFF_S", 900)
BOILERHOUSE_MAX_STREAMS = env.int("BOILERHOUSE_MAX_STREAMS", 1000)
"""Open event streams and terminals per web process."""
BOILERHOUSE_MAX_STREAMS_PER_TENANT = env.int("BOILERHOUSE_MAX_STREAMS_PER_TENANT", 50)
BOILERHOUSE_MAX_STREAMS_PER_KEY = env.int("BOILERHOUSE_MAX_STREAMS_PER_KEY", 500)
BOILERHOUSE_MAX_TRANSFERS = env.int("BOILERHOUSE_MAX_TRANSFERS", 100)
"""Files and archives on their way from or to containers, with a window of 256 KiB each."""
BOILERHOUSE_MAX_TRANSFERS_PER_TENANT = env.int("BOILERHOUSE_MAX_TRANSFERS_PER_TENANT", 8)
BOILERHOUSE_MAX_TRANSFERS_PER_KEY = env.int("BOILERHOUSE_MAX_TRANSFERS_PER_KEY", 50)
BOILERHOUSE_SAVED_FILES_MAX_BYTES = env.int("BOILERHOUSE_SAVED_FILES_MAX_BYTES", 256 * 1024**2)
"""Memory for files of saved state, until their readers have them."""
BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_TENANT = env.int("BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_TENANT", 64 * 1024**2)
BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_KEY = env.int("BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_KEY", 128 * 1024**2)
BOILERHOUSE_MAX_FOLLOWED_LOGS = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS", 200)
BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_TENANT = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_TENANT", 4)
BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_KEY = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_KEY", 100)
"""Followed logs: each uses a thread of the web process."""
BOILERHOUSE_MAX_CONNECTIONS = env.int("BOILERHOUSE_MAX_CONNECTIONS", 4000)
"""Open connections per web process, limited by its file descriptors."""
BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS = env.int("BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS", 200)
"""Waiting connections among these that have not shown a valid key or session."""
BOILERHOUSE_HEAD_TIMEOUT_S = env.float("BOILERHOUSE_HEAD_TIMEOUT_S", 10)
BOILERHOUSE_BODY_TIMEOUT_S = env.float("BOILERHOUSE_BODY_TIMEOUT_S", 30)
"""Time limits for receiving a request's head, and its body."""
BOILERHOUSE_TRUSTED_PROXIES: list[str] = env.list(
    "BOILERHOUSE_TRUSTED_PROXIES", ["127.0.0.0/8", "::1"], subcast=str.strip
)
"""Addresses and networks of proxies whose last ``X-Forwarded-For`` entry is trusted."""
BOILERHOUSE_STREAM_STALL_S = env.float("BOILERHOUSE_STREAM_STALL_S", 30)
"""How long a streaming client may read nothing of its pending data."""
BOILERHOUSE_ALLOWED_NETWORKS: list[str] = env.list("BOILERHOUSE_ALLOWED_NETWORKS", [])
"""Engine networks besides ``bridge`` and ``none`` that workloads may use."""
BOILERHOUSE_PUBLISH_HOST = env.str("BOILERHOUSE_PUBLISH_HOST", "127.0.0.2")
"""The loopback address of published ports, never the dashboard's: browsers send cookies to all ports of a host."""
BOILERHOUSE_NODE_ADDRESS = env.str("BOILERHOUSE_NODE_ADDRESS", "")
"""Host and port at which other nodes reach this one; empty: they do not (``web.node_server``)."""
BOILERHOUSE_FENCE_ADDRESS = env.str("BOILERHOUSE_FENCE_ADDRESS", BOILERHOUSE_NODE_ADDRESS)
"""Host and port of UDP at which other nodes' fences ask this node's; empty: nowhere (``pools.fencing``)."""
BOILERHOUSE_GATEWAY_DOMAIN = env.str("BOILERHOUSE_GATEWAY_DOMAIN", "localhost").strip().lower().strip(".")
"""The domain whose subdomains are ports of tenants' containers; browsers resolve names below localhost themselves."""
BOILERHOUSE_GATEWAY_PORT = env.int("BOILERHOUSE_GATEWAY_PORT", 8081)
"""Where ``up`` starts the gateway's nginx and where clients reach it; 0: no gateway."""
BOILERHOUSE_GATEWAY_HTTPS = env.bool("BOILERHOUSE_GATEWAY_HTTPS", False)
"""Whether clients reach the gateway with TLS; its cookies are then Secure."""
BOILERHOUSE_GATEWAY_CERTIFICATE = env.str("BOILERHOUSE_GATEWAY_CERTIFICATE", "")
BOILERHOUSE_GATEWAY_CERTIFICATE_KEY = env.str("BOILERHOUSE_GATEWAY_CERTIFICATE_KEY", "")
"""Files of the wildcard certificate and its key with which the gateway itself ends TLS; empty: something in front does.
"""
DOCKER_HOST = env.str("DOCKER_HOST", "unix:///var/run/docker.sock")
BOILERHOUSE_RUNTIME: dict[str, Any] = {
    "BACKEND": "pools.runtime.docker.DockerRuntime",
    "OPTIONS": {"base_url": DOCKER_HOST},
}

SECRET_KEY = env.str("BOILERHOUSE_SECRET_KEY", "") or keys.stored(BOILERHOUSE_DATA_DIR, "secret-key")
BOILERHOUSE_ENCRYPTION_KEYS: list[str] = env.list("BOILERHOUSE_ENCRYPTION_KEYS", [])
"""Empty: stored in ``<data>/keys/encryption-key`` (``core.encryption``)."""
BOILERHOUSE_KEY_PEPPER = env.str("BOILERHOUSE_KEY_PEPPER", "") or keys.stored(BOILERHOUSE_DATA_DIR, "key-pepper")

DEBUG = env.bool("BOILERHOUSE_DEBUG", False)
ALLOWED_HOSTS: list[str] = env.list("BOILERHOUSE_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"], subcast=str.strip)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("BOILERHOUSE_TRUSTED_ORIGINS", [], subcast=str.strip)
BOILERHOUSE_BASE_PATH = env.str("BOILERHOUSE_BASE_PATH", "").strip().rstrip("/")
"""The path below which a proxy serves everything, such as ``/boilerhouse``; empty: at its root."""
FORCE_SCRIPT_NAME = BOILERHOUSE_BASE_PATH or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = BOILERHOUSE_BASE_PATH or "/"
CSRF_FAILURE_VIEW = "boilerhouse.dashboard.views.form_refused"
BOILERHOUSE_HTTPS = env.bool("BOILERHOUSE_HTTPS", False)
"""Whether a proxy with TLS is in front; ``web.transport`` then answers only TLS requests and probes of this machine."""
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BOILERHOUSE_HTTPS
_cookie_prefix = "" if not BOILERHOUSE_HTTPS else "__Secure-" if BOILERHOUSE_BASE_PATH else "__Host-"
"""Browsers accept such cookies only from this host with TLS, so a tenant's page on a subdomain cannot set one."""
SESSION_ENGINE = "boilerhouse.core.sessions"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_cookie_prefix}sessionid", f"{_cookie_prefix}csrftoken"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BOILERHOUSE_HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if BOILERHOUSE_HTTPS else 0

_database: dict[str, Any] = dict(
    dj_database_url.parse(env.str("DATABASE_URL", f"sqlite:///{BOILERHOUSE_DATA_DIR / 'boilerhouse.sqlite3'}"))
)
if _database["ENGINE"].endswith("sqlite3"):
    _database |= {
        "ENGINE": "boilerhouse.core.sqlite_gate",
        "CONN_MAX_AGE": 600,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=134217728;"
            " PRAGMA journal_size_limit=27103364; PRAGMA cache_size=2000",
        },
        "TEST": {"NAME": str(BOILERHOUSE_DATA_DIR / "test.sqlite3")},
    }
else:
    # Long-lived connections of a fixed number of threads; never a psycopg pool, because django-q2 forks.
    _database |= {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
    # Prepared statements: PostgreSQL plans each once per connection, and values are sent separately (ADR 25).
    _prepared = {"server_side_binding": True, "prepare_threshold": 3}
    _database["OPTIONS"] = {"connect_timeout": 5, **_prepared, **_database.get("OPTIONS", {})}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# E-mail: only notifications use it.
BOILERHOUSE_SMTP_TLS = env.str("BOILERHOUSE_SMTP_TLS", "starttls")
"""``starttls``, ``tls`` (from the first byte) or ``none``."""
EMAIL_HOST = env.str("BOILERHOUSE_SMTP_HOST", "")
"""Empty: no e-mail."""
EMAIL_PORT = env.int("BOILERHOUSE_SMTP_PORT", 465 if BOILERHOUSE_SMTP_TLS == "tls" else 587)
EMAIL_HOST_USER = env.str("BOILERHOUSE_SMTP_USER", "")
EMAIL_HOST_PASSWORD = env.str("BOILERHOUSE_SMTP_PASSWORD", "")
EMAIL_USE_TLS, EMAIL_USE_SSL = BOILERHOUSE_SMTP_TLS == "starttls", BOILERHOUSE_SMTP_TLS == "tls"
DEFAULT_FROM_EMAIL = env.str("BOILERHOUSE_MAIL_FROM", "boilerhouse@localhost")

# Queues: a long transfer never delays a claim, a create, a wipe, or the save of a release.
_queue: dict[str, Any] = {
    "orm": "default",
    "queue_limit": 1,
    "bulk": 1,
    "retry": 7200,
    "timeout": 900,
    "max_attempts": 1,
}
_queue |= {"poll": 0, "ack_failures": True, "save_limit": -1, "catch_up": False, "scheduler": False, "guard_cycle": 1.0}
_MONTH_S = 30 * 86400
_transfers = {"timeout": _MONTH_S, "retry": 2 * _MONTH_S}
"""A transfer ends when it stalls, not by the queue's limit; one of a dead worker is found by its row."""
QUEUES: dict[str, dict[str, Any]] = {
    "claim": {**_queue, "workers": 4, **_transfers},
    "pool": {**_queue, "workers": 4},
    "save": {**_queue, "workers": 4, **_transfers},
    "sync": {**_queue, "workers": 3, **_transfers},
}
"""``workers``: threads in each worker process. Work with one sink leaves one of a queue free (``queues.slow_work``)."""
QUEUE_LOOK_S = 0.25
"""The polling interval of queues without a wake-up: the longest delay of work from another machine."""
QUEUE_IDLE_LOOK_S = 2.0
"""The same while all processes share this data directory, and so wake its workers."""
Q_CLUSTER: dict[str, Any] = {
    "name": "boilerhouse",
    "label": "Queues",
    "log_level": "WARNING",
    "broker_class": "boilerhouse.queues.broker.Broker",
    "workers": 1,
    **_queue,
    "ALT_CLUSTERS": QUEUES,
}

INSTALLED_APPS = [
    "boilerhouse.dashboard.admin_config.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "axes",
    "csp",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "boilerhouse.core",
    "boilerhouse.queues",
    "boilerhouse.web",
    "pools",
    "syncing",
    "tenants",
    "boilerhouse.notifications",
    "boilerhouse.controller",
    "boilerhouse.operations",
    "boilerhouse.dashboard",
]
MIDDLEWARE = [
    "boilerhouse.web.middleware.request_context",
    "boilerhouse.web.transport.over_tls",
    "django.middleware.security.SecurityMiddleware",
    "boilerhouse.web.static_files.StaticFiles",
    "boilerhouse.web.compression.CompressedPages",
    "boilerhouse.web.middleware.printable_pages",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "boilerhouse.urls"
ASGI_APPLICATION = "boilerhouse.asgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "boilerhouse.dashboard.context.shell",
            ],
            "builtins": ["boilerhouse.dashboard.templatetags.ui"],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django.template.loaders.filesystem.Loader",
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
        },
    }
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = BOILERHOUSE_LOGIN_FAILURES
AXES_COOLOFF_TIME = timedelta(seconds=BOILERHOUSE_LOGIN_COOLOFF_S)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "boilerhouse.web.connections.client_of"
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "boilerhouse.dashboard.views.too_many_failures"
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
PASSWORD_HASHERS = [
    "boilerhouse.dashboard.password_hasher.Hasher",
    "django.contrib.auth.hashers.PBKDF2SHA1PasswordHasher",
    "django.contrib.auth.hashers.ScryptPasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = ["boilerhouse.dashboard.formats"]

# Static files are served from the sources, without a build step (ADR 80).
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "boilerhouse.web.static_files.HashedStorage"},
}
STATIC_URL = f"{BOILERHOUSE_BASE_PATH}/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = env.str("BOILERHOUSE_STATIC_ROOT", "") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
WHITENOISE_AUTOREFRESH = DEBUG
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755
"""For the files of ``collectstatic``, which a server in front reads as another user."""

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000
"""A workload with a thousand ports is also a form."""

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["boilerhouse.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["boilerhouse.api.permissions.RolePermission"],
    "DEFAULT_THROTTLE_CLASSES": ["boilerhouse.web.throttling.KeyThrottle"],
    "DEFAULT_PARSER_CLASSES": ["boilerhouse.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "boilerhouse.api.schema.ProblemAutoSchema",
    "EXCEPTION_HANDLER": "boilerhouse.web.problems.handle",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "boilerhouse.api.negotiation.AlwaysJSON",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Boilerhouse",
    "DESCRIPTION": "Warm pools of containers, claimed by tenants in milliseconds, with their own state.",
    "VERSION": VERSION,
    "SERVERS": [{"url": BOILERHOUSE_BASE_PATH}] if BOILERHOUSE_BASE_PATH else [],
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": False,
    "GET_LIB_DOC_EXCLUDES": "boilerhouse.api.schema_finish.without_descriptions",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "boilerhouse.api.schema_finish.finish",
    ],
    "ENUM_NAME_OVERRIDES": {
        "ContainerState": "pools.states.ContainerState",
        "ContainerHealth": "pools.states.ContainerHealth",
        "AssignmentState": "tenants.states.AssignmentState",
        "SyncRunState": "syncing.states.SyncRunState",
        "MappingDirection": "syncing.states.Direction",
        "MappingMode": "syncing.states.Mode",
        "NetworkMode": ["none", "list", "internet", "open"],
        "Quiesce": "syncing.states.Quiesce",
        "SinkState": ["healthy", "unhealthy"],
        "NotificationType": "boilerhouse.notifications.states.TargetKind",
        "NotificationState": ["active", "muted", "failing", "off", "disabled"],
        "DeliveryState": "boilerhouse.notifications.states.DeliveryState",
        "DeliveryEvent": "boilerhouse.notifications.states.Moment",
        "SyncDirection": ["outward", "inward", "both"],
        "VolumeMode": ["rw", "ro"],
    },
}

SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008", "security.W012", "security.W016"]

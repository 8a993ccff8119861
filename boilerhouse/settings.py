"""All settings; every deployment knob is read here once, from the environment (or ``NAME_FILE``)."""

from __future__ import annotations

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

# Where things live -----------------------------------------------------------------------------
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
"""The network of containers' addresses of IPv6; empty: they have none."""
BOILERHOUSE_RESOLVERS: list[str] = env.list("BOILERHOUSE_RESOLVERS", [])
"""IPv4 addresses of the resolvers that containers ask; empty: those of the node's resolv.conf."""
BOILERHOUSE_LOCAL_SINK_ROOT = env.str("BOILERHOUSE_LOCAL_SINK_ROOT", "")
BOILERHOUSE_S3_ENV_AUTH = env.bool("BOILERHOUSE_S3_ENV_AUTH", False)
BOILERHOUSE_CA_BUNDLE = env.str("BOILERHOUSE_CA_BUNDLE", "")
"""The file of certificates that sinks are verified with; empty: the system's."""
HTTPS_PROXY = env.str("HTTPS_PROXY", "") or env.str("https_proxy", "")
HTTP_PROXY = env.str("HTTP_PROXY", "") or env.str("http_proxy", "")
NO_PROXY: list[str] = [name for name in (env.str("NO_PROXY", "") or env.str("no_proxy", "")).split(",") if name.strip()]
"""What sinks are reached by (``syncing.sinks.reaching``). A proxy's URL may hold a password."""
BOILERHOUSE_ALLOWED_SINK_HOSTS: list[str] = env.list("BOILERHOUSE_ALLOWED_SINK_HOSTS", [], subcast=str.strip)
"""Loopback and link-local addresses at which sinks may be all the same, as NO_PROXY names hosts (ADR 46)."""
BOILERHOUSE_ALLOW_HOST_NETWORK = env.bool("BOILERHOUSE_ALLOW_HOST_NETWORK", False)
BOILERHOUSE_ALLOW_OPEN_NETWORK = env.bool("BOILERHOUSE_ALLOW_OPEN_NETWORK", False)
"""Whether a pool's policy may be ``open``: private addresses, too."""
BOILERHOUSE_ALLOW_ROOT = env.bool("BOILERHOUSE_ALLOW_ROOT", False)
BOILERHOUSE_ALLOWED_RUNTIMES = env.list("BOILERHOUSE_ALLOWED_RUNTIMES", ["runc"])
BOILERHOUSE_ALLOWED_DEVICES: list[str] = env.list("BOILERHOUSE_ALLOWED_DEVICES", [])
"""Devices of the node that workloads may name (``/dev/kvm``), and ``gpus``."""
BOILERHOUSE_MAX_ULIMITS: dict[str, int] = env.dict("BOILERHOUSE_MAX_ULIMITS", {}, subcast_values=int)
"""``nofile=1048576,memlock=-1``: up to where workloads may set these limits, in the place of ``pools.limits``."""
BOILERHOUSE_UID_RANGE = (200_000, 1_200_000)
BOILERHOUSE_ADDRESS_QUARANTINE_S = 600
BOILERHOUSE_DISCARD_RETENTION_S = env.int("BOILERHOUSE_DISCARD_RETENTION_S", 24 * 3600)
BOILERHOUSE_RUN_RETENTION_S = env.int("BOILERHOUSE_RUN_RETENTION_S", 30 * 86400)
BOILERHOUSE_PROBE_RETENTION_S = env.int("BOILERHOUSE_PROBE_RETENTION_S", 7 * 86400)
BOILERHOUSE_BACKUP_RETENTION_S = env.int("BOILERHOUSE_BACKUP_RETENTION_S", 30 * 86400)
"""How long what saves overwrote or deleted stays in the sink's ``.boilerhouse-trash``."""
BOILERHOUSE_DISK_FLOOR_MB = env.int("BOILERHOUSE_DISK_FLOOR_MB", 256)
"""Below that much free disk no container is started."""
BOILERHOUSE_DISK_LIMITS = env.str("BOILERHOUSE_DISK_LIMITS", "auto")
"""How ``diskMb`` is kept: ``loop`` (a file system of its own), ``watch`` (measured), ``auto`` (loop where it works)."""
BOILERHOUSE_DEFAULT_DISK_MB = env.int("BOILERHOUSE_DEFAULT_DISK_MB", 10_240)
"""What a container without ``diskMb`` may hold on disk; measured, never a file system of its own (ADR 44). 0: any
amount. Far above what most workloads keep, far below a node's disk: who needs more says so in ``diskMb``."""
BOILERHOUSE_SEED_DIR = env.str("BOILERHOUSE_SEED_DIR", "") or str(BOILERHOUSE_DATA_DIR / "seeds")
BOILERHOUSE_ORPHAN_GRACE_S = env.float("BOILERHOUSE_ORPHAN_GRACE_S", 10)
BOILERHOUSE_RECONCILE_EVERY_S = env.float("BOILERHOUSE_RECONCILE_EVERY_S", 15)
BOILERHOUSE_SAMPLE_EVERY_S = env.float("BOILERHOUSE_SAMPLE_EVERY_S", 15)
BOILERHOUSE_USAGE_RETENTION_S = env.int("BOILERHOUSE_USAGE_RETENTION_S", 3 * 3600)
BOILERHOUSE_POOL_USAGE_RETENTION_S = env.int("BOILERHOUSE_POOL_USAGE_RETENTION_S", 7 * 86400)
BOILERHOUSE_IMAGE_CHECK_S = env.int("BOILERHOUSE_IMAGE_CHECK_S", 3600)
"""How often a registry is asked what the tag of a workload's image names; 0: only on request."""
BOILERHOUSE_PARALLEL_CREATES = env.int("BOILERHOUSE_PARALLEL_CREATES", 8)
"""Starts of one pool that are decided and not done; its workers do four at a time and never wait for the next."""
BOILERHOUSE_PARALLEL_PULLS = env.int("BOILERHOUSE_PARALLEL_PULLS", 8)
"""Images that a node pulls at once; half of them from one registry."""
BOILERHOUSE_PARALLEL_TRANSFERS = env.int("BOILERHOUSE_PARALLEL_TRANSFERS", 8)
"""Transfers of a node at once; those with one sink leave two to others."""
BOILERHOUSE_MAX_FILE_BYTES = env.int("BOILERHOUSE_MAX_FILE_BYTES", 5 * 1024**3)
BOILERHOUSE_MAX_SAVE_FILES = env.int("BOILERHOUSE_MAX_SAVE_FILES", 1_000_000)
BOILERHOUSE_MAX_SAVE_BYTES = env.int("BOILERHOUSE_MAX_SAVE_BYTES", 100 * 1024**3)
BOILERHOUSE_TRANSFER_STALL_S = env.int("BOILERHOUSE_TRANSFER_STALL_S", 120)
"""A transfer ends when nothing of it has moved for so long; however long it takes, nothing else ends it."""
BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S = env.int("BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S", 8192)
"""What moves slower than this over that time counts as nothing: the sink would hold a worker and a slot for ever."""
BOILERHOUSE_LARGE_BYTES = env.int("BOILERHOUSE_LARGE_BYTES", 256 * 1024**2)
"""Transfers from so many bytes on leave room to others: two of the slots, and the workers of all queues but one."""
BOILERHOUSE_SNAPSHOT_MAX_BYTES = env.int("BOILERHOUSE_SNAPSHOT_MAX_BYTES", 2 * 1024**3)
"""What a save of a running container may copy to the node's disk; what is above it is sent while the tenant works."""
BOILERHOUSE_FREEZE_MAX_MS = env.int("BOILERHOUSE_FREEZE_MAX_MS", 1000)
"""How long such a save may hold a container still."""
BOILERHOUSE_STAGED_MAX_BYTES = env.int("BOILERHOUSE_STAGED_MAX_BYTES", 100 * 1024**3)
"""What claims that failed have restored so far is kept for the tenant's next claim, up to so much; 0: not at all."""
BOILERHOUSE_STAGED_RETENTION_S = env.int("BOILERHOUSE_STAGED_RETENTION_S", 6 * 3600)
BOILERHOUSE_MAX_WAITERS = env.int("BOILERHOUSE_MAX_WAITERS", 200)
BOILERHOUSE_MAX_WAITERS_PER_TENANT = env.int("BOILERHOUSE_MAX_WAITERS_PER_TENANT", 20)
BOILERHOUSE_MAX_WAITERS_PER_KEY = env.int("BOILERHOUSE_MAX_WAITERS_PER_KEY", 150)
BOILERHOUSE_MAX_WAITERS_PER_POOL = env.int("BOILERHOUSE_MAX_WAITERS_PER_POOL", 150)
"""Requests that wait in a web process; those of one tenant, of one key that acts for many, and for one pool."""
BOILERHOUSE_WEB_THREADS = env.int("BOILERHOUSE_WEB_THREADS", 4)
BOILERHOUSE_CLAIM_THREADS = env.int("BOILERHOUSE_CLAIM_THREADS", 4)
"""For claims: a sink that hangs holds these for two seconds each, and nothing else."""
BOILERHOUSE_SLOW_THREADS = env.int("BOILERHOUSE_SLOW_THREADS", 16)
"""For requests that wait for the engine or a sink: exec, logs, probes."""
BOILERHOUSE_SLOW_THREADS_PER_TENANT = env.int("BOILERHOUSE_SLOW_THREADS_PER_TENANT", 6)
BOILERHOUSE_SLOW_THREADS_PER_KEY = env.int("BOILERHOUSE_SLOW_THREADS_PER_KEY", 12)
BOILERHOUSE_BODIES_MAX_BYTES = env.int("BOILERHOUSE_BODIES_MAX_BYTES", 128 * 1024**2)
BOILERHOUSE_BODIES_MAX_BYTES_PER_TENANT = env.int("BOILERHOUSE_BODIES_MAX_BYTES_PER_TENANT", 16 * 1024**2)
BOILERHOUSE_BODIES_MAX_BYTES_PER_KEY = env.int("BOILERHOUSE_BODIES_MAX_BYTES_PER_KEY", 64 * 1024**2)
"""What long bodies take of a web process's memory until their requests are worked on: all, one tenant's, one key's."""
BOILERHOUSE_KEPT_ANSWER_MAX_BYTES = env.int("BOILERHOUSE_KEPT_ANSWER_MAX_BYTES", 64 * 1024)
"""The longest answer that is kept for an Idempotency-Key; of a longer one is kept that it was given."""
BOILERHOUSE_KEPT_BYTES = env.int("BOILERHOUSE_KEPT_BYTES", 256 * 1024**2)
BOILERHOUSE_KEPT_BYTES_PER_TENANT = env.int("BOILERHOUSE_KEPT_BYTES_PER_TENANT", 4 * 1024**2)
BOILERHOUSE_KEPT_BYTES_PER_KEY = env.int("BOILERHOUSE_KEPT_BYTES_PER_KEY", 32 * 1024**2)
"""What the answers to all Idempotency-Keys of a day, one tenant's, and one key's, may take in the database."""
BOILERHOUSE_WEB_REALTIME = env.bool("BOILERHOUSE_WEB_REALTIME", True)
"""Whether the web process runs before ordinary processes, where the system permits it."""
BOILERHOUSE_THROTTLE_RATE = env.float("BOILERHOUSE_THROTTLE_RATE", 200)
"""Requests per second and API key that a web process answers; 0 = no limit."""
BOILERHOUSE_THROTTLE_BURST = env.int("BOILERHOUSE_THROTTLE_BURST", 400)
BOILERHOUSE_THROTTLE_RATE_PER_TENANT = env.float("BOILERHOUSE_THROTTLE_RATE_PER_TENANT", 50)
"""The same for a key of role ``tenant``: 200 a second of one took a whole processor."""
BOILERHOUSE_THROTTLE_BURST_PER_TENANT = env.int("BOILERHOUSE_THROTTLE_BURST_PER_TENANT", 100)
BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT = env.int("BOILERHOUSE_MAX_QUEUED_SYNCS_PER_TENANT", 64)
"""Syncs on demand of one tenant that have not begun; there is one per sync spec and direction at most."""
BOILERHOUSE_METRICS_TOKEN = env.str("BOILERHOUSE_METRICS_TOKEN", "")
"""A bearer token that opens ``/metrics`` and nothing else; empty: only API keys do."""
BOILERHOUSE_TRACING = env.bool("BOILERHOUSE_TRACING", False)
"""Whether requests and tasks are traced by OpenTelemetry, whose own OTEL_… variables say where to."""
BOILERHOUSE_DRAIN_S = env.float("BOILERHOUSE_DRAIN_S", 6)
"""How long a web process that is asked to stop lets requests wait before it tells them to ask again."""
BOILERHOUSE_EVENT_RETENTION_S = env.int("BOILERHOUSE_EVENT_RETENTION_S", 7 * 86400)
BOILERHOUSE_AUDIT_RETENTION_S = env.int("BOILERHOUSE_AUDIT_RETENTION_S", 365 * 86400)
BOILERHOUSE_EXEC_TIMEOUT_MAX_MS = env.int("BOILERHOUSE_EXEC_TIMEOUT_MAX_MS", 600_000)
"""The longest ``timeoutMs`` of a command that a request waits for."""
BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES = env.int("BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES", 1 << 20)
"""What is kept of each of a command's two streams."""
BOILERHOUSE_EXEC_STDIN_MAX_BYTES = env.int("BOILERHOUSE_EXEC_STDIN_MAX_BYTES", 1 << 20)
BOILERHOUSE_EXEC_COMMAND_MAX_BYTES = env.int("BOILERHOUSE_EXEC_COMMAND_MAX_BYTES", 128 * 1024)
"""Of a command and its arguments together; the kernel takes 128 KiB of one argument."""
BOILERHOUSE_EXEC_PARALLEL = env.int("BOILERHOUSE_EXEC_PARALLEL", 4)
"""Commands in one container that a web process waits for at once; each takes one of BOILERHOUSE_SLOW_THREADS."""
BOILERHOUSE_TERMINAL = env.bool("BOILERHOUSE_TERMINAL", False)
"""Whether operators may open a shell in a tenant's container from its page; each is recorded with its reason."""
BOILERHOUSE_TERMINAL_LIMIT_S = env.int("BOILERHOUSE_TERMINAL_LIMIT_S", 3600)
BOILERHOUSE_LOGIN_FAILURES = env.int("BOILERHOUSE_LOGIN_FAILURES", 10)
"""After so many wrong passwords for one name from one address both wait BOILERHOUSE_LOGIN_COOLOFF_S."""
BOILERHOUSE_LOGIN_COOLOFF_S = env.int("BOILERHOUSE_LOGIN_COOLOFF_S", 900)
BOILERHOUSE_MAX_STREAMS = env.int("BOILERHOUSE_MAX_STREAMS", 1000)
"""Open event streams and terminals per web process."""
BOILERHOUSE_MAX_STREAMS_PER_TENANT = env.int("BOILERHOUSE_MAX_STREAMS_PER_TENANT", 50)
BOILERHOUSE_MAX_STREAMS_PER_KEY = env.int("BOILERHOUSE_MAX_STREAMS_PER_KEY", 500)
BOILERHOUSE_MAX_FOLLOWED_LOGS = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS", 200)
BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_TENANT = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_TENANT", 4)
BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_KEY = env.int("BOILERHOUSE_MAX_FOLLOWED_LOGS_PER_KEY", 100)
"""Logs that are followed: each has a thread of the web process."""
BOILERHOUSE_MAX_CONNECTIONS = env.int("BOILERHOUSE_MAX_CONNECTIONS", 4000)
"""Open connections per web process; at most as many as the system gives it files for."""
BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS = env.int("BOILERHOUSE_MAX_CONNECTIONS_PER_ADDRESS", 200)
"""Of these, those that wait without having shown a key or a session."""
BOILERHOUSE_HEAD_TIMEOUT_S = env.float("BOILERHOUSE_HEAD_TIMEOUT_S", 10)
BOILERHOUSE_BODY_TIMEOUT_S = env.float("BOILERHOUSE_BODY_TIMEOUT_S", 30)
"""How long a request's head, and its body, may take to come in."""
BOILERHOUSE_TRUSTED_PROXIES: list[str] = env.list(
    "BOILERHOUSE_TRUSTED_PROXIES", ["127.0.0.0/8", "::1"], subcast=str.strip
)
"""Addresses and networks of proxies that are believed what they say last in ``X-Forwarded-For``."""
BOILERHOUSE_STREAM_STALL_S = env.float("BOILERHOUSE_STREAM_STALL_S", 30)
"""How long a client of a stream may take nothing of what waits for it."""
BOILERHOUSE_ALLOWED_NETWORKS: list[str] = env.list("BOILERHOUSE_ALLOWED_NETWORKS", [])
"""Engine networks besides ``bridge`` and ``none`` that workloads may name."""
BOILERHOUSE_PUBLISH_HOST = env.str("BOILERHOUSE_PUBLISH_HOST", "127.0.0.2")
"""The loopback address of published ports, never the dashboard's: browsers send cookies to all ports of a host."""
DOCKER_HOST = env.str("DOCKER_HOST", "unix:///var/run/docker.sock")
BOILERHOUSE_RUNTIME: dict[str, Any] = {
    "BACKEND": "pools.runtime.docker.DockerRuntime",
    "OPTIONS": {"base_url": DOCKER_HOST},
}

# Keys: given, or made once and kept in the data directory (0600) ----------------------------------
SECRET_KEY = env.str("BOILERHOUSE_SECRET_KEY", "") or keys.stored(BOILERHOUSE_DATA_DIR, "secret-key")
BOILERHOUSE_ENCRYPTION_KEYS: list[str] = env.list("BOILERHOUSE_ENCRYPTION_KEYS", [])
"""Empty: kept in ``<data>/keys/encryption-key`` (``core.encryption``)."""
BOILERHOUSE_KEY_PEPPER = env.str("BOILERHOUSE_KEY_PEPPER", "") or keys.stored(BOILERHOUSE_DATA_DIR, "key-pepper")

DEBUG = env.bool("BOILERHOUSE_DEBUG", False)
ALLOWED_HOSTS: list[str] = env.list("BOILERHOUSE_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"], subcast=str.strip)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("BOILERHOUSE_TRUSTED_ORIGINS", [], subcast=str.strip)
BOILERHOUSE_BASE_PATH = env.str("BOILERHOUSE_BASE_PATH", "").strip().rstrip("/")
"""The path below which a proxy serves everything, as ``/boilerhouse``; empty: at its root."""
FORCE_SCRIPT_NAME = BOILERHOUSE_BASE_PATH or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = BOILERHOUSE_BASE_PATH or "/"
CSRF_FAILURE_VIEW = "boilerhouse.dashboard.views.form_refused"
BOILERHOUSE_HTTPS = env.bool("BOILERHOUSE_HTTPS", False)
"""Whether a proxy with TLS is in front; ``web.arrival`` answers nothing else then, but probes of this machine."""
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BOILERHOUSE_HTTPS
_cookie_prefix = "" if not BOILERHOUSE_HTTPS else "__Secure-" if BOILERHOUSE_BASE_PATH else "__Host-"
"""Browsers take such cookies from this very host alone, over TLS: a tenant's page at a name below ours sets none."""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_cookie_prefix}sessionid", f"{_cookie_prefix}csrftoken"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BOILERHOUSE_HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if BOILERHOUSE_HTTPS else 0

# Database ------------------------------------------------------------------------------------------
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
    # Long-lived connections of a bounded set of threads; never a psycopg pool: django-q2 forks.
    _database |= {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
    # Statements are prepared: PostgreSQL plans one once per connection, and values go beside it (ADR 25).
    _prepared = {"server_side_binding": True, "prepare_threshold": 3}
    _database["OPTIONS"] = {"connect_timeout": 5, **_prepared, **_database.get("OPTIONS", {})}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Queues: a long transfer never delays a claim, a create, a wipe, or the save of a release ----------
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
"""A transfer ends when it stalls, not by the queue; one whose worker died is found by its row, not by the queue."""
QUEUES: dict[str, dict[str, Any]] = {
    "claim": {**_queue, "workers": 4, **_transfers},
    "pool": {**_queue, "workers": 4},
    "save": {**_queue, "workers": 4, **_transfers},
    "sync": {**_queue, "workers": 3, **_transfers},
}
"""``workers``: threads in each worker process. One sink's work holds all but one of a queue (``queues.lanes``)."""
QUEUE_LOOK_S = 0.25
"""How often the queues are looked at when no bell rings: work from another machine waits that long at most."""
Q_CLUSTER: dict[str, Any] = {
    "name": "boilerhouse",
    "label": "Queues",
    "log_level": "WARNING",
    "broker_class": "boilerhouse.queues.broker.Broker",
    "workers": 1,
    **_queue,
    "ALT_CLUSTERS": QUEUES,
}

# Applications --------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
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
    "boilerhouse.controller",
    "boilerhouse.operations",
    "boilerhouse.dashboard",
]
MIDDLEWARE = [
    "boilerhouse.web.middleware.request_context",
    "boilerhouse.web.arrival.over_tls",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
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

# Static files: served from the sources, no build step ------------------------------------------------
STATIC_URL = f"{BOILERHOUSE_BASE_PATH}/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = env.str("BOILERHOUSE_STATIC_ROOT", "") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
WHITENOISE_AUTOREFRESH = DEBUG
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755
"""Of what ``collectstatic`` makes: a server in front reads it as another user."""

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
"""A workload of a thousand ports is a form, too."""

# API -------------------------------------------------------------------------------------------------
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
        "SyncDirection": ["outward", "inward", "both"],
        "VolumeMode": ["rw", "ro"],
    },
}

SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008", "security.W012", "security.W016"]

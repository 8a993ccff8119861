"""Checks everything that a deployment needs, and reports each problem with its remedy."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.core.checks import WARNING, run_checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

from boilerhouse.core import clock, nodes
from boilerhouse.core.deployment import WrongNode, check_node, data_dir, deployment_id, ram_dir
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import FailingStep, Process
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.states import TargetKind
from boilerhouse.process import processes
from boilerhouse.queues.service import unserved_queues
from pools import bridging, firewall, guest, host, registry_logins, resolvers, suitability
from pools.models import Container, Pool, RegistryCredential
from pools.nodes import here
from pools.pull_errors import LoginFailed, PullFault
from pools.runtime import get_runtime
from pools.runtime.base import DEFAULT_OPEN_FILES
from syncing import jail, probes, rclone, services
from syncing.models import SyncSpec
from tenants import syncs

OK, WARN, FAILURE = "ok", "warning", "failure"
CLOCK_S, TIGHT_CLOCK_S = 30.0, 2.0
REGISTRIES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; ``todo`` is empty if there is no problem."""

    name: str
    state: str
    detail: str
    todo: str = ""


def examine() -> list[Finding]:
    """Run all checks, each after those it depends on. Nothing is changed."""
    results: list[Finding] = []
    for name, check in CHECKS:
        try:
            results += [Finding(name, *rest) for rest in check()]
        except (BoilerhouseError, DatabaseError, OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "detail", "") or f"{type(error).__name__}: {error}"
            results.append(Finding(name, FAILURE, detail, "Fix this first; later checks may depend on it."))
            if name == "database":
                break
    return results


Rest = tuple[str, str, str] | tuple[str, str]


def _settings() -> Iterator[Rest]:
    messages = [
        message for message in run_checks() if message.level >= WARNING and str(message.id).startswith("boilerhouse.")
    ]
    for message in messages:
        yield (WARN if message.level == WARNING else FAILURE), str(message.msg), str(message.hint or "")
    if not messages:
        yield OK, "no problems"


def _database() -> Iterator[Rest]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        yield FAILURE, f"{len(plan)} migrations are not applied", "manage.py migrate"
    else:
        yield OK, f"{connection.vendor}, deployment {deployment_id()}"
    if connection.vendor == "sqlite":
        yield OK, "SQLite is for one host; use PostgreSQL (DATABASE_URL) for web or worker processes on several hosts"


def _clock() -> Iterator[Rest]:
    with connection.cursor() as cursor:
        now = "now()" if connection.vendor == "postgresql" else "strftime('%s.%f', 'now')"
        before = time.time()
        cursor.execute(f"SELECT {now}")
        database_time = cursor.fetchone()[0]
    if not isinstance(database_time, datetime):
        yield OK, "the database runs on this host's clock"
        return
    skew = abs(database_time.timestamp() - (before + time.time()) / 2)
    detail = f"{skew * 1000:.0f} ms between the database and this host"
    if skew > TIGHT_CLOCK_S:
        yield (FAILURE if skew > CLOCK_S else WARN), detail, "Run chrony or systemd-timesyncd on both."
    else:
        yield OK, detail


def _privileges() -> Iterator[Rest]:
    if os.geteuid() != 0:
        yield FAILURE, f"running as uid {os.geteuid()}", "Run worker and controller as root on the Docker node."
    elif not jail.can_read_all():
        yield (
            WARN,
            "this process cannot save files that their owner made unreadable",
            "Give the worker CAP_DAC_READ_SEARCH.",
        )
    else:
        yield OK, "root"


def _data_directory() -> Iterator[Rest]:
    path = data_dir()
    try:
        check_node()
    except WrongNode as error:
        yield FAILURE, error.detail, "Mount the data directory, or restore a backup."
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield FAILURE, f"{path} is accessible to other users ({mode:04o})", f"chmod 700 {path}"
    else:
        yield OK, f"{path} ({mode:04o})"
    keys = path / "keys"
    loose = [file.name for file in keys.iterdir() if stat.S_IMODE(file.stat().st_mode) & 0o077] if keys.is_dir() else []
    if loose:
        yield FAILURE, f"keys are accessible to other users: {', '.join(loose)}", f"chmod 600 {keys}/*"
    if host.disk_is_low():
        yield FAILURE, host.disk_words(), "Free disk space."
    else:
        yield OK, f"{host.free_disk_mb()} MiB are free"
    if not settings.BOILERHOUSE_DEFAULT_DISK_MB:
        yield (
            WARN, "a tenant of a workload without diskMb can fill the node's disk",
            "Set BOILERHOUSE_DEFAULT_DISK_MB (10240 if unset).",
        )  # fmt: skip
    ram = ram_dir()
    if ram.is_dir() and _file_system(ram) not in ("tmpfs", "ramfs"):
        yield (
            FAILURE,
            f"{ram} is not in RAM",
            "Unmount the file system that covers it, or set BOILERHOUSE_RAM_DIR to a tmpfs.",
        )


def _file_system(path: Path) -> str:
    result = subprocess.run(
        ["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, timeout=10, check=True
    )
    return result.stdout.strip()


def _engine() -> Iterator[Rest]:
    runtime = get_runtime()
    can = runtime.capabilities()
    yield (
        OK, f"Docker {can.version}, API {can.api_version}, cgroup v{can.cgroup_version}, image store"
            f" {can.image_store}, {can.cpus} CPUs, {can.memory_mb} MiB",
    )  # fmt: skip
    for item in suitability.objections(can):
        yield FAILURE, item.detail, item.todo
    if not can.live_restore:
        yield (
            WARN, "live-restore is off: containers end when dockerd restarts",
            'Add {"live-restore": true} to /etc/docker/daemon.json.',
        )  # fmt: skip
    if can.open_files is not None and can.open_files < DEFAULT_OPEN_FILES:
        yield (
            WARN, f"containers may open {DEFAULT_OPEN_FILES} files each, but the engine cannot give more than its own"
            f" limit, {can.open_files}: none starts whose workload does not say less",
            f"Raise the engine's limit (LimitNOFILE, ulimit -n) to {DEFAULT_OPEN_FILES}, or set ulimits of workloads.",
        )  # fmt: skip
    unknown = [item for item in settings.BOILERHOUSE_ALLOWED_RUNTIMES if can.runtimes and item not in can.runtimes]
    if unknown:
        yield WARN, f"runtimes unknown to the engine: {', '.join(unknown)}", "BOILERHOUSE_ALLOWED_RUNTIMES"


def _same_path() -> Iterator[Rest]:
    """Whether the engine can mount containers' directories under the paths that we use."""
    for directory in (place for place in (data_dir(), ram_dir()) if place.is_dir()):
        path = directory / f"probe-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        try:
            is_visible = get_runtime().sees(str(path), host.labels())
        finally:
            path.rmdir()
        if is_visible is None:
            yield (
                WARN,
                "the engine has no image yet, so this check cannot mount the directories",
                "manage.py build_example",
            )
            return
        if is_visible:
            yield OK, f"the engine sees {directory} under the same path"
        else:
            yield (
                FAILURE, f"the engine does not see {directory}, so it cannot mount anything below it",
                "Give it the same path on the host and in our container. On the host it must be the same"
                    " directory, and the one for secrets a tmpfs (docs/deployment.md).",
            )  # fmt: skip


def _firewall() -> Iterator[Rest]:
    bridging.check_module()
    network = here().host.ensure_network() if Container.objects.exists() else None
    missing = firewall.differences(network) if network else []
    if network and network.subnet6 != settings.BOILERHOUSE_IPV6_SUBNET:
        yield (
            WARN, f"containers have IPv6 in {network.subnet6 or 'no network'}, unlike BOILERHOUSE_IPV6_SUBNET",
            "The network is recreated when it has no container: drain all pools, then resume them.",
        )  # fmt: skip
    if missing:
        yield WARN, "; ".join(missing), "A worker restores them within seconds. If not, see its log."
    else:
        yield OK, "containers cannot reach the host, each other or private addresses, except where policies allow it"


def _resolvers() -> Iterator[Rest]:
    if addresses := resolvers.of_node():
        yield OK, f"containers resolve names with {', '.join(addresses)}"
        return
    there = ", ".join(resolvers.named_in(resolvers.RESOLV_CONF)) or "none"
    yield (
        WARN,
        f"containers cannot resolve names: they can reach none of this node's resolvers ({there})",
        "Set BOILERHOUSE_RESOLVERS, or dns of the pool or workload, to IPv4 addresses that containers can reach.",
    )


def _guest_agent() -> Iterator[Rest]:
    source = settings.BOILERHOUSE_GUEST_AGENT
    if not source:
        yield OK, "no guest agent (BOILERHOUSE_GUEST_AGENT is empty): commands go by the engine"
    elif not Path(source).is_file():
        yield (
            WARN,
            f"{source} does not exist; commands in containers go by the engine, ten times slower",
            ("Build it (make -C guest, needs gcc and musl-tools), or set BOILERHOUSE_GUEST_AGENT to its path."),
        )
    elif (agent := guest.installed()) is None:
        yield (
            WARN,
            f"the guest agent cannot run from {data_dir() / 'guest'}",
            ("Build it for this machine, and mount the data directory without noexec."),
        )
    else:
        yield OK, f"guest agent {agent.name[:12]}"


def _transfers() -> Iterator[Rest]:
    yield OK, rclone.version()
    if problem := probes.jail_problem():
        yield FAILURE, f"bubblewrap cannot create rclone's sandbox: {problem}", "Allow user or PID namespaces."
    else:
        yield OK, "rclone runs in its sandbox under a container's uid"


def _registries() -> Iterator[Rest]:
    """Whether each stored credential can log in. All are tested in parallel, each within the engine's timeout."""
    runtime, stored = get_runtime(), list(RegistryCredential.objects.order_by("pk"))
    logins = [(registry_logins.host_of(row), registry_logins.login_of(row)) for row in stored]
    with ThreadPoolExecutor(REGISTRIES_AT_ONCE) as threads:
        answers = [threads.submit(runtime.log_in, host, login) for host, login in logins]
    for credential, answer in zip(stored, answers, strict=True):
        failed = answer.exception()
        if failed is None:
            yield OK, f"{credential.pk} logs in at {credential.registry}"
        elif not isinstance(failed, LoginFailed):
            raise failed
        elif failed.fault == PullFault.UNAUTHORIZED:
            yield FAILURE, f"{credential.pk} is refused by {failed.detail}", "Replace it (Settings, Registries)."
        else:
            words = "Images on the node start without it. Check whether the registry answers this machine."
            yield WARN, f"{credential.pk} was not tested: {failed.detail}", words
    if not stored:
        yield OK, "no registry credential is stored"


def _sinks() -> Iterator[Rest]:
    specs = list(SyncSpec.objects.select_related("credential").order_by("pk"))
    for spec in specs:
        health = services.probe(spec, is_periodic=True)
        if health.get("state") != "healthy":
            detail = health.get("detail", "not probed yet")
            yield (FAILURE if health else WARN), f"{spec.pk}: {detail}", "docs/sync.md says what a sink must allow."
        elif not health.get("conditionalWrites"):
            yield OK, f"{spec.pk}: healthy, but without conditional writes: use one deployment per location"
        else:
            yield OK, f"{spec.pk}: healthy"
    if not specs:
        yield WARN, "no sync spec: tenants' state is lost on release", "Create one for each pool with state to keep."


def _processes() -> Iterator[Rest]:
    alive = list(Process.objects.filter(pk__in=processes.living()))
    for queue, seconds in unserved_queues().items():
        words = "See the workers' logs and docs/runbook.md#boilerhousequeuesilent."
        yield FAILURE, f"the queue {queue} has not been served for {seconds} s", words
    waiting = nodes.waiting_tasks()
    for node, seconds in nodes.silent().items():
        words = "Start its worker with its data directory. Only that worker can do and save what is on the node."
        tasks = f"{waiting.get(node, 0)} tasks are waiting for it"
        yield FAILURE, f"the node {node} has had no living worker for {seconds} s; {tasks}", words
    for node in nodes.unwatched():
        words = "Run a controller there too. The leading one does not see that machine's engine."
        yield WARN, f"no controller watches the node {node}", words
    for step in FailingStep.objects.order_by("name"):
        words = "See the log of that process and docs/runbook.md#boilerhousestepfails."
        yield FAILURE, f"the step {step.name} fails: {step.error}: {step.detail}", words
    starts = (Process.Kind.WORKER, "run_worker"), (Process.Kind.CONTROLLER, "run_controller"), (Process.Kind.WEB, "up")
    for kind, start in starts:
        count = sum(process.kind == kind for process in alive)
        if not count:
            yield FAILURE, f"no {kind.value} process is running", f"manage.py {start}"
        else:
            yield OK, f"{count} {kind.value}"


def _pools() -> Iterator[Rest]:
    for pool in Pool.objects.exclude(trouble="").order_by("pk"):
        yield FAILURE, f"{pool.pk}: {pool.last_error}", f"See {reverse('pool', args=[pool.pk])}."
    late = [beat for beat in syncs.periodic_saves() if beat.is_overdue(clock.now())]
    if late:
        yield WARN, f"{len(late)} saves are overdue", "See the overview; a sink may be slow or down."
    if not late:
        yield OK, "saves are on time"


def _notifications() -> Iterator[Rest]:
    rows = list(Target.objects.defer("secret").order_by("pk"))
    if any(row.kind == TargetKind.EMAIL for row in rows) and not settings.EMAIL_HOST:
        yield FAILURE, "notifications go to e-mail, but no mail server is set", "Set BOILERHOUSE_SMTP_HOST and restart."
    for row in rows:
        if row.disabled_at is not None:
            words = f"Repair it and save it again (Settings, Notifications, {row.pk})."
            yield FAILURE, f"{row.pk} is disabled: {row.disabled_detail}", words
        elif row.failing_since is not None:
            since = f"{row.failing_since:%Y-%m-%d %H:%M} UTC"
            yield WARN, f"nothing was delivered to {row.pk} since {since}", "See its log (Settings, Notifications)."
    if not rows:
        yield OK, "nobody is notified of what needs attention (Settings, Notifications)"
    elif not any(row.failing_since or row.disabled_at for row in rows):
        yield OK, f"{len(rows)} targets"


CHECKS: list[tuple[str, Callable[[], Iterator[Rest]]]] = [
    ("database", _database), ("settings", _settings), ("clock", _clock), ("privileges", _privileges),
    ("data", _data_directory), ("engine", _engine), ("same path", _same_path), ("packet filter", _firewall),
    ("resolvers", _resolvers), ("guest agent", _guest_agent),
    ("registries", _registries), ("transfers", _transfers), ("sinks", _sinks), ("processes", _processes),
    ("pools", _pools), ("notifications", _notifications),
]  # fmt: skip

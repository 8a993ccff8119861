"""The verbs of workloads, pools and containers."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, Q
from django.db.models.functions import Now
from django.utils import timezone

from boilerhouse.core import processes
from boilerhouse.core.deployment import deployment_id
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.events import emit, recording
from boilerhouse.core.ids import SLUG, slugify
from boilerhouse.core.tasks import enqueue
from pools import errors, host, volumes
from pools.models import Container, Pool, Workload, WorkloadVersion
from pools.runtime import get_runtime
from pools.runtime.base import ContainerPlan, Executed, Mount, Probe, Published
from pools.spec import WorkloadSpec, interpolate
from pools.states import ContainerHealth, ContainerState

log = structlog.get_logger(__name__)

PROBE_EVERY_S = 0.1
BACKOFF_S = (1, 2, 5, 10, 30, 60)
CONTAINER_LABEL, POOL_LABEL, NONCE_LABEL = "boilerhouse.container", "boilerhouse.pool", "boilerhouse.nonce"


# Workloads ------------------------------------------------------------------------------------------


def unused_id(wanted: str | None, name: str, taken: Any) -> str:
    """``wanted`` if it is free, else IdTaken; without one the slug of the name, suffixed if taken."""
    if wanted is not None:
        if taken.filter(pk=wanted).exists():
            raise errors.IdTaken(f"{wanted} is taken.")
        return wanted
    base, number = slugify(name), 1
    while taken.filter(pk=base if number == 1 else f"{base}-{number}").exists():
        number += 1
    found = base if number == 1 else f"{base}-{number}"
    assert SLUG.match(found), found
    return found


def create_workload(*, id: str | None, name: str, spec: WorkloadSpec) -> Workload:
    """Register a workload as its version 1. Raises IdTaken."""
    try:
        with recording():
            workload = Workload.objects.create(id=unused_id(id, name, Workload.objects.all()), name=name)
            WorkloadVersion.objects.create(workload=workload, number=1, spec_json=spec.to_json())
            emit("workload.updated", workloadId=workload.pk, version=1)
    except IntegrityError as error:
        raise errors.IdTaken from error
    return workload


def delete_workload(workload: Workload) -> None:
    """Forget a workload that no pool uses. Raises WorkloadInUse."""
    try:
        with recording():
            emit("workload.updated", workloadId=workload.pk, deleted=True)
            workload.delete()
    except (ProtectedError, IntegrityError) as error:
        raise errors.WorkloadInUse from error


# Pools ----------------------------------------------------------------------------------------------


def create_pool(*, id: str | None, name: str | None, workload: Workload, **options: Any) -> Pool:
    """Make a pool; workers start filling it when this commits. Raises IdTaken."""
    name = name or id or workload.name
    options.setdefault("min_idle", options.get("min_size", 0))
    try:
        with recording():
            pool = Pool.objects.create(
                id=unused_id(id, name, Pool.objects.all()), name=name, workload=workload, **options
            )
            emit("pool.scaled", pool_id=pool.pk, created=True, desiredSize=pool.desired_size(0))
            enqueue("pool", "pools.tasks.refill", pool.pk)
    except IntegrityError as error:
        raise errors.IdTaken from error
    return pool


def scale(pool_id: str, target_size: int) -> Pool:
    """Set the pool's target size; containers follow. Raises Invalid, BelowClaimed, PoolNotFound."""
    with recording():
        pool = lock_pool(pool_id)
        if not pool.min_size <= target_size <= pool.max_size:
            detail = f"Enter a number from {pool.min_size} to {pool.max_size}, the pool's minSize and maxSize."
            raise Invalid(FieldError("/targetSize", detail, "out_of_range"))
        claimed = pool.containers.filter(state=ContainerState.CLAIMED).count()
        if target_size < claimed:
            raise errors.BelowClaimed(f"{claimed} containers are claimed; {target_size} would be below that.")
        Pool.objects.filter(pk=pool_id).update(target_size=target_size, updated_at=Now())
        emit("pool.scaled", pool_id=pool_id, targetSize=target_size, before=pool.target_size)
        enqueue("pool", "pools.tasks.refill", pool_id)
    pool.target_size = target_size
    return pool


def start_deleting(pool_id: str, *, force: bool) -> None:
    """Drain the pool for good; the row goes when the last container has gone.

    Tenants that hold containers are released, with save, by ``tenants``; without ``force`` they raise PoolInUse.
    """
    with recording():
        pool = lock_pool(pool_id)
        held = pool.containers.filter(state=ContainerState.CLAIMED).count() + pool.release_failed
        if held and not force:
            raise errors.PoolInUse(f"Tenants hold {held} containers of this pool; force releases them, with save.")
        Pool.objects.filter(pk=pool_id).update(is_deleting=True, is_draining=True, updated_at=Now())
        enqueue("pool", "pools.tasks.refill", pool_id)


def lock_pool(pool_id: str) -> Pool:
    """The pool's row, locked until the transaction ends: every insert of a container holds it (P2)."""
    pool = Pool.objects.select_for_update().filter(pk=pool_id).first()
    if pool is None:
        raise errors.PoolNotFound(f"There is no pool {pool_id}.")
    return pool


def refill(pool_id: str) -> int:
    """Bring the pool towards its desired size by one step; return how many starts were decided.

    Inserts ``starting`` rows and enqueues their creation, or marks the oldest idle ones for removal. Bounded by
    ``maxSize`` and by the number of creates in flight; whoever finishes a create calls again.
    """
    with recording():
        pool = Pool.objects.select_for_update().filter(pk=pool_id).first()
        if pool is None:
            return 0
        states = list(pool.containers.values_list("state", flat=True))
        counts = {state: states.count(state) for state in ContainerState}
        claimed, idle, starting = (
            counts[s] for s in (ContainerState.CLAIMED, ContainerState.IDLE, ContainerState.STARTING)
        )
        if pool.is_draining:
            _remove_idle(pool, idle)
            if pool.is_deleting and not states and not pool.release_failed and not pool.waiting:
                emit("pool.scaled", pool_id=pool.pk, deleted=True)
                pool.delete()
            return 0
        desired = pool.desired_size(claimed)
        if surplus := max(0, idle + starting + claimed - desired):
            _remove_idle(pool, min(surplus, idle))
            return 0
        if pool.is_paused or (pool.next_start_at and pool.next_start_at > timezone.now()):
            return 0
        parallel = 1 if pool.failures else int(settings.BOILERHOUSE_PARALLEL_CREATES)
        wanted = min(desired - (idle + starting + claimed), pool.max_size - len(states), parallel - starting)
        version = pool.workload.latest
        for _ in range(wanted):
            fixed = version.spec.security.run_as_user
            container = Container(pool=pool, version=version, node=processes.node())
            container.uid = fixed if fixed is not None else host.lease_uid(container.pk)
            container.save(force_insert=True)
            enqueue("pool", "pools.tasks.create_container", container.pk)
        return max(0, wanted)


def _remove_idle(pool: Pool, count: int) -> None:
    oldest = list(pool.containers.filter(state=ContainerState.IDLE).order_by("state_changed_at", "id")[:count])
    for container in oldest:
        if Container.objects.filter(pk=container.pk).transition(ContainerState.IDLE, ContainerState.REMOVING):
            enqueue("pool", "pools.tasks.destroy_container", container.pk)


# Containers -----------------------------------------------------------------------------------------


def runtime_name(container_id: UUID) -> str:
    return f"bh-{container_id}"


def adopt_ownership(container_id: UUID, state: ContainerState) -> Container | None:
    """Make this process the owner of a container in ``state`` that nobody living works on; None if not."""
    rows = Container.objects.filter(pk=container_id, state=state)
    me = processes.current()
    if not rows.filter(Q(owner=None) | ~Q(owner__in=processes.living() - {me})).update(owner=me):
        return None
    return Container.objects.select_related("pool", "version__workload").get(pk=container_id)


def start_container(container_id: UUID) -> bool:
    """Create, start and probe a ``starting`` container; it is ``idle`` afterwards, or ``failed`` with its reason.

    Doing it twice finds the first: the name follows from the id, and a container made by a run that died is adopted.
    Returns whether it became idle; False also when another process works on it.
    """
    container = adopt_ownership(container_id, ContainerState.STARTING)
    if container is None:
        return False
    structlog.contextvars.bind_contextvars(container=str(container_id), pool=container.pool_id)
    started = time.monotonic()
    try:
        digest = _create_and_start(container)
        health = _probe_until_healthy(container)
    except Exception as error:  # whatever it was, the row must not stay "starting" under a living owner
        _start_failed(container, getattr(error, "detail", f"{type(error).__name__}: {error}"))
        return False
    with recording():
        moved = Container.objects.filter(pk=container_id, owner=processes.current()).transition(
            ContainerState.STARTING, ContainerState.IDLE, health=health, error="", owner=None
        )
        if not moved:
            return False  # it was asked to go meanwhile; whoever asked removes it
        WorkloadVersion.objects.filter(pk=container.version_id, image_digest="").update(image_digest=digest)
        if container.pool.failures or container.pool.last_error:
            Pool.objects.filter(pk=container.pool_id).update(failures=0, last_error="", next_start_at=None)
            emit("pool.recovered", pool_id=container.pool_id)
        ms = round((time.monotonic() - started) * 1000)
        emit("container.ready", pool_id=container.pool_id, container_id=container_id, durationMs=ms)
        enqueue("pool", "pools.tasks.refill", container.pool_id)
    return True


def _create_and_start(container: Container) -> str:
    runtime = get_runtime()
    spec = container.version.spec
    network = host.ensure_network()
    host.ensure_ram_dir()
    digest = runtime.ensure_image(spec.image, spec.pull_policy)
    if container.address is None and spec.security.network_mode == "bridge":
        with transaction.atomic():
            container.address = host.lease_address(network, container.pk)
            container.host_ports = {p.name: host.lease_host_port(container.pk) for p in spec.ports if p.publish}
            container.save(update_fields=["address", "host_ports"])
    volumes.prepare(container.pk, container.uid, spec)
    plan = _plan(container, spec, network.name)
    try:
        handle = runtime.create(plan)
    except errors.NameTaken:
        seen = runtime.inspect(plan.name)
        ours = seen and seen.labels.get(NONCE_LABEL) == container.nonce and not volumes.read_latch(container.pk)
        if not seen or not ours:
            raise
        handle = seen.handle
    with recording():
        Container.objects.filter(pk=container.pk).update(runtime_id=handle.runtime_id)
        emit("container.created", pool_id=container.pool_id, container_id=container.pk)
    runtime.start(plan.name)
    return digest


def _plan(container: Container, spec: WorkloadSpec, network: str) -> ContainerPlan:
    values = {
        "CONTAINER_ID": str(container.pk),
        "POOL_ID": container.pool_id,
        "WORKLOAD_ID": container.version.workload_id,
    }
    resources, check = spec.resources, spec.health_check
    mode = spec.security.network_mode
    return ContainerPlan(
        name=runtime_name(container.pk),
        image=spec.image,
        command=spec.command,
        environment={name: interpolate(value, values) for name, value in spec.environment.items()},
        labels={
            host.DEPLOYMENT_LABEL: deployment_id(),
            POOL_LABEL: container.pool_id,
            CONTAINER_LABEL: str(container.pk),
            NONCE_LABEL: container.nonce,
        },
        uid=container.uid,
        mounts=tuple(
            Mount(
                str(volumes.volume_path(container.pk, v.name)), v.container_path, v.mode == "ro" or v.name == "secrets"
            )
            for v in spec.volumes
        ),
        network=network if mode == "bridge" else mode,
        address=container.address,
        dns=tuple((container.pool.network or {}).get("dns", ())),
        ports=tuple(
            Published(p.container_port, p.protocol, container.host_ports[p.name]) for p in spec.ports if p.publish
        ),
        exposed=tuple((p.container_port, p.protocol) for p in spec.ports),
        read_only_root=spec.security.read_only_root_filesystem,
        cpus=resources.cpus,
        memory_mb=resources.memory_mb,
        pids_limit=resources.pids_limit,
        tmpfs_mb=resources.tmpfs_mb,
        runtime=spec.security.runtime,
        probe=Probe(check.command, check.interval_ms, check.timeout_ms, check.retries, check.start_period_ms)
        if check
        else None,
        stop_timeout_ms=spec.stop_timeout_ms,
    )


def _probe_until_healthy(container: Container) -> ContainerHealth:
    """Run the health check at once and again until it passes. Raises NeverHealthy, NotRunning."""
    runtime, name = get_runtime(), runtime_name(container.pk)
    check = container.version.spec.health_check
    seen = runtime.inspect(name)
    if seen is None or not seen.is_running:
        code = seen.exit_code if seen else None
        raise errors.NotRunning(f"The container ended at once with exit code {code}.")
    if check is None:
        return ContainerHealth.UNKNOWN
    deadline = time.monotonic() + (check.start_period_ms + check.timeout_ms) / 1000
    while True:
        try:
            done = runtime.exec(name, check.command, check.timeout_ms, limit_bytes=2000)
            if done.exit_code == 0:
                return ContainerHealth.HEALTHY
            last = f"exit code {done.exit_code}: {(done.stderr or done.stdout).decode(errors='replace')[:200]}"
        except errors.NotRunning as error:
            seen = runtime.inspect(name)
            raise errors.NotRunning(
                f"The container ended with exit code {seen.exit_code if seen else None} before it was healthy."
            ) from error
        except BoilerhouseError as error:
            last = error.detail
        if time.monotonic() > deadline:
            raise errors.NeverHealthy(f"Not healthy within {check.start_period_ms} ms; last probe: {last}")
        time.sleep(PROBE_EVERY_S)


def _start_failed(container: Container, detail: str) -> None:
    log.warning("container failed to start", detail=detail)
    with recording():
        pool = lock_pool(container.pool_id)
        moved = Container.objects.filter(pk=container.pk).transition(
            ContainerState.STARTING, ContainerState.FAILED, error=detail, owner=None
        )
        if not moved:
            return
        delay = BACKOFF_S[min(pool.failures, len(BACKOFF_S) - 1)]
        Pool.objects.filter(pk=pool.pk).update(
            failures=pool.failures + 1, last_error=detail, next_start_at=timezone.now() + timedelta(seconds=delay)
        )
        emit("container.failed", pool_id=pool.pk, container_id=container.pk, detail=detail)
        if pool.last_error != detail:
            emit("pool.warning", pool_id=pool.pk, detail=detail, nextStartInMs=delay * 1000)
        enqueue("pool", "pools.tasks.destroy_container", container.pk)


def take(pool: Pool) -> Container | None:
    """Claim the longest idle container of the pool within the caller's transaction."""
    container = Container.objects.take(pool)
    if container is not None:
        container.pool = pool
    return container


def retire(container_id: UUID) -> None:
    """Mark a claimed container as on its way out; from now on nothing of it may be handed out."""
    Container.objects.filter(pk=container_id).transition(ContainerState.CLAIMED, ContainerState.REMOVING)


def destroy_at_engine(container_id: UUID) -> None:
    """Make the engine forget the container. Raises EngineUnavailable, or EngineFailure while it is not gone yet."""
    runtime, name = get_runtime(), runtime_name(container_id)
    deadline = time.monotonic() + 30
    while (pending := runtime.remove(name)) is not None:
        if time.monotonic() > deadline:
            raise errors.EngineFailure(pending.reason)
        time.sleep(0.1)


def quarantine(container_id: UUID) -> None:
    """Stop a container whose latch names somebody else and keep its directories for a person to look into."""
    get_runtime().stop(runtime_name(container_id), 0)
    log.error("container quarantined", container=str(container_id), latch=volumes.read_latch(container_id))


def forget(container_id: UUID, **payload: Any) -> None:
    """Delete the row of a container that engine and disk have none of any more; its slot is free."""
    with recording():
        container = Container.objects.filter(pk=container_id).first()
        if container is None:
            return
        host.release_addresses(container_id)
        container.delete()
        emit("container.destroyed", pool_id=container.pool_id, container_id=container_id, **payload)
        enqueue("pool", "pools.tasks.refill", container.pool_id)


def destroy_container(container_id: UUID) -> None:
    """Remove a ``failed`` or ``removing`` container that never saw a tenant. Safe to run again.

    A latched one is left alone: its state may not be saved, and only a tenant's release may wipe it.
    """
    container = Container.objects.filter(pk=container_id).first()
    if container is None or container.state not in (ContainerState.FAILED, ContainerState.REMOVING):
        return
    if volumes.read_latch(container_id) is not None:
        return
    Container.objects.filter(pk=container_id).transition(ContainerState.FAILED, ContainerState.REMOVING)
    destroy_at_engine(container_id)
    try:
        with volumes.locked(container_id):
            volumes.wipe(container_id)
    except errors.DirectoryGone:
        volumes.wipe(container_id)  # what is left: the RAM directory, or a wipe that was cut short
    host.release_uid(container_id)
    forget(container_id)


def exec_in(container: Container, command: tuple[str, ...], timeout_ms: int) -> Executed:
    """Run a command in a claimed container. Raises NotClaimed, NotRunning, ExecTimedOut."""
    if container.state != ContainerState.CLAIMED:
        raise errors.NotClaimed
    return get_runtime().exec(runtime_name(container.pk), command, timeout_ms)


def stuck_containers(older_than: datetime) -> list[Container]:
    """Containers that should be under way but that no living process works on."""
    living = processes.living()
    under_way = [ContainerState.STARTING, ContainerState.REMOVING, ContainerState.FAILED]
    rows = Container.objects.filter(state__in=under_way, state_changed_at__lt=older_than)
    return [container for container in rows if container.owner not in living]

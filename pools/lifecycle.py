"""The life cycle of a container, from its row to its end. Each function can be repeated, also by another process."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction

from boilerhouse.core import clock, context, deployment_settings, failpoints, nodes, unexpected_errors
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit, recording
from boilerhouse.process import ownership, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues import in_progress
from pools import (
    accounts,
    conditions,
    errors,
    firewall,
    guest,
    health,
    host,
    image_pulls,
    last_output,
    mount_check,
    mounts,
    name_resolution,
    permissions,
    policy_names,
    sizing,
    stability,
    suitability,
    tags,
    tombstones,
    version_images,
    volumes,
)
from pools.host import identity
from pools.instruments import CONTAINER_START_SECONDS, CONTAINER_STARTS
from pools.models import Container, ImagePull, Pool
from pools.nodes import NodeAccess, at_home, here, node_of
from pools.pull_errors import PullFailed
from pools.runtime import seccomp
from pools.runtime.base import ContainerPlan, Image, Mount, Published
from pools.services import lock_pool
from pools.spec import WorkloadSpec, interpolate
from pools.states import PULLING, ContainerHealth, ContainerState, Fault, Trouble

log = structlog.get_logger(__name__)

PROBE_EVERY_S = 0.1
LOCKED_S = 2.0
"""How long a wipe waits for other work on the container; otherwise it is done later."""
CANNOT_RUN = re.compile(r"exit code 12[67]\b")
"""What a shell, and the engine's init, print for a command that does not exist or is not executable."""
WANTS_PID_1 = re.compile(r"\b(as|is|be) pid ?1\b", re.IGNORECASE)
"""What inits print that are not process 1: s6-overlay, systemd."""
GHOST_S = 60
"""How long the engine may still complete a create request that timed out (hazards.md#d6)."""
CONTAINER_LABEL, POOL_LABEL, NONCE_LABEL = "boilerhouse.container", "boilerhouse.pool", "boilerhouse.nonce"
PROFILE_LABEL = "boilerhouse.profile"
"""The label with the version of the seccomp profile (``pools.runtime.seccomp``) it was created with."""


runtime_name = identity.runtime_name


def hostname(container_id: UUID) -> str:
    """The name of the container's own address in its hosts file."""
    return runtime_name(container_id)[:63]


def _is_on_our_network(spec: WorkloadSpec) -> bool:
    return spec.security.network_mode == "bridge"


def adopt_ownership(container_id: UUID, state: ContainerState) -> Container | None:
    """Make this process the owner of this node's container in ``state`` if no living process is; None otherwise."""
    if not ownership.adopt(Container.objects.here().filter(state=state), container_id):
        return None
    return Container.objects.select_related("pool", "version__workload").get(pk=container_id)


@in_progress.alone
def start_container(container_id: UUID) -> bool:
    """Create, start and probe a ``starting`` container; afterwards it is ``idle``, or ``failed`` with the reason.

    Repeating it finds the first container: the name is derived from the id, and the container of a dead process is
    adopted. Returns whether it became idle; False also if another process works on it.
    """
    container = adopt_ownership(container_id, ContainerState.STARTING)
    if container is None:
        return False
    structlog.contextvars.bind_contextvars(container=str(container_id), pool=container.pool_id)
    if conditions.rests(container.pool):
        _call_off(container)
        return False
    started = time.monotonic()
    try:
        image, failed_pull, plan = _create_and_start(container)
        verdict = _probe_until_healthy(container, image, plan)
        version_images.prove(container.version, image)
    except DATABASE_LOST:
        raise  # undecided: the process that takes over finds the container
    except errors.ImagePending:
        return False  # the pull resumes this start when it ends
    except errors.StartTakenOver:
        return False  # the process that took it over continues or removes it
    except Exception as error:  # whatever failed, the row must not stay "starting" under a living owner
        _start_failed(container, error)
        return False
    failpoints.reach("fill.healthy")
    with recording():
        pool = lock_pool(container.pool_id)
        moved = Container.objects.filter(pk=container_id, owner=processes.current()).transition(
            ContainerState.STARTING, ContainerState.IDLE, health=verdict, error="", owner=None, image_digest=image.id
        )
        if not moved:
            return False  # its removal was requested meanwhile; the requester removes it
        is_new = _proved(pool, container)
        if failed_pull is not None:
            image_pulls.count_failure(pool, failed_pull)
        _tell_bare_volumes(pool, container, image, is_new=is_new)
        ms = round((time.monotonic() - started) * 1000)
        version = container.version.number
        emit("container.ready", pool_id=pool.pk, container_id=container_id, durationMs=ms, version=version)
    CONTAINER_STARTS.labels(container.pool_id, "ready").inc()
    CONTAINER_START_SECONDS.labels(container.pool_id).observe((clock.now() - container.created_at).total_seconds())
    sizing.refill(pool.pk)  # here and not by a message: the next start must not wait for a poll
    return True


def _proved(pool: Pool, container: Container) -> bool:
    """A container of this template has become healthy: the template is used from now on, and the pool's condition is
    cleared.

    Returns whether it is the first of its template.
    """
    is_new = container.template != pool.good and container.template == pool.newest_template
    if is_new:
        Pool.objects.filter(pk=pool.pk).update(
            good_version=container.version_id, good_network=container.network, halted_version=None, halted_network=None,
            moved_to="",
        )  # fmt: skip
        pool.halted_version_id = None
    elif stability.counts(pool):
        return False
    if pool.halted is None and pool.trouble != Trouble.NO_NODE:  # that one is about containers that are missing
        conditions.clear(pool)
    elif pool.failures or pool.next_start_at:
        Pool.objects.filter(pk=pool.pk).update(failures=0, next_start_at=None)
    return is_new


def _tell_bare_volumes(pool: Pool, container: Container, image: Image, *, is_new: bool) -> None:
    """Record on the pool, and report once per version, the image's VOLUMEs without a volume of the workload."""
    bare = list(mounts.declared(container.version.spec, image.volumes).bare)
    is_other = pool.bare_volumes != bare
    if is_other:
        Pool.objects.filter(pk=pool.pk).update(bare_volumes=bare)
    if bare and (is_new or is_other):
        detail = " ".join(warning.detail for warning in mounts.warnings(bare))
        version = container.version.number
        emit("pool.warning", pool_id=pool.pk, code=mounts.IMAGE_VOLUME, version=version, paths=bare, detail=detail)


def _look_at_image(container: Container) -> image_pulls.ImageForStart:
    """Make the image available and record what it declares. Raises ImagePending, ImageMissing, PullFailed, CannotMount.

    Raises CannotGive if the deployment no longer allows what the version requires.
    """
    version = container.version
    permissions.check(version.spec)
    pull = partial(image_pulls.image_for_start, container)
    version_image = version_images.for_start(version, pull)
    if not version_images.is_of(version, version_image.image):  # the tag has moved, or this node has an older image
        if version_image.failed is None:
            tags.record_pulled_image(version, version_image.image)
        version_image = replace(version_image, image=version_images.of_version(version, pull).image)
    image = version_image.image
    if version.image_volumes != list(image.volumes):
        version.image_volumes = list(image.volumes)
        version.save(update_fields=["image_volumes"])
    mounts.check(version.spec, image)
    return version_image


def _create_and_start(container: Container) -> tuple[Image, ImagePull | None, ContainerPlan]:
    node, spec = node_of(container), container.version.spec
    runtime = node.runtime
    suitability.check(runtime)
    network = node.host.ensure_network()
    node.host.ensure_ram_dir()
    version_image = _look_at_image(container)
    image = version_image.image
    if container.address is None and _is_on_our_network(spec):
        with transaction.atomic():
            container.address = node.host.lease_address(network, container.pk)
            container.host_ports = {p.name: node.host.lease_host_port(container.pk) for p in spec.ports if p.publish}
            _note(container, address=container.address, host_ports=container.host_ports)
    names = container.pool.policy.names
    policy_names.learn(names)
    firewall.apply(network)  # every time: a reload of the host's rules may have deleted them (hazards.md#i3)
    node.volumes.prepare(container.pk, container.uid, spec)
    volumes.make_dirs(partial(node.volumes.volume_path, container.pk), container.uid, spec, image.working_dir)
    accounts.write(node.volumes.home(container.pk), runtime, image, spec, spec.owner(container.uid))
    if _is_on_our_network(spec):
        name_resolution.write(
            node.volumes.home(container.pk), container, spec, hostname(container.pk), policy_names.current(names)
        )
    failpoints.reach("fill.prepared")
    address6 = network.address6(container.address) if container.address else ""
    agent = guest.agent_for(spec) if own_command(spec, image) else None  # without one the engine says what is missing
    if agent is not None:
        guest.prepare(container.pk, spec.owner(container.uid))
    plan = plan_of(container, spec, network.name, image, address6, agent)
    try:
        handle = runtime.create(plan)
    except errors.EngineTimeout as error:
        raise errors.CreateTimeout from error
    except errors.NameTaken:
        observed = runtime.inspect(plan.name)
        ours = (
            observed
            and observed.labels.get(NONCE_LABEL) == container.nonce
            and not node.volumes.read_latch(container.pk)
        )
        if not observed or not ours:
            raise
        handle = observed.handle
    failpoints.reach("fill.created")
    with recording():
        _note(container, runtime_id=handle.runtime_id)
        emit("container.created", pool_id=container.pool_id, container_id=container.pk)
    runtime.start(plan.name)
    failpoints.reach("fill.started")
    return image, version_image.failed, plan


def _note(container: Container, **changes: Any) -> None:
    """Record the result of this process's start. Raises StartTakenOver if another process owns it."""
    rows = Container.objects.filter(pk=container.pk, state=ContainerState.STARTING, owner=processes.current())
    if not rows.update(**changes):
        raise errors.StartTakenOver


def plan_of(
    container: Container,
    spec: WorkloadSpec,
    network: str,
    image: Image,
    address6: str = "",
    agent: Path | None = None,
) -> ContainerPlan:
    """The engine's create request for the row; with the guest agent as process 1 if ``agent`` is its program."""
    values = {
        **deployment_settings.current().variables,
        "CONTAINER_ID": str(container.pk),
        "POOL_ID": container.pool_id,
        "WORKLOAD_ID": container.version.workload_id,
    }
    resources, user, node = spec.resources, spec.user, node_of(container)
    owner = spec.owner(container.uid)
    environment = {"HOME": user.home} if user.home else {}
    environment |= {name: interpolate(value, values) for name, value in spec.environment.items()}
    mode = spec.security.network_mode
    return ContainerPlan(
        name=runtime_name(container.pk),
        image=image.id,
        command=() if agent else spec.command,
        environment=environment,
        labels={
            **spec.labels,
            **host.labels(),
            **host.node_labels(),
            POOL_LABEL: container.pool_id,
            CONTAINER_LABEL: str(container.pk),
            NONCE_LABEL: container.nonce,
            PROFILE_LABEL: seccomp.version(),
        },
        uid=container.uid,
        mounts=tuple(
            Mount(
                str(node.volumes.volume_path(container.pk, v.name)),
                v.container_path,
                v.mode == "ro" or v.name == "secrets",
            )
            for v in spec.volumes
        )
        + accounts.binds(node.volumes.home(container.pk), spec)
        + (name_resolution.binds(node.volumes.home(container.pk)) if _is_on_our_network(spec) else ())
        + guest.binds(container.pk, agent),
        network=network if mode == "bridge" else mode,
        address=container.address,
        address6=address6,
        dns=tuple((container.network or {}).get("dns") or spec.dns),
        ports=tuple(
            Published(p.container_port, p.protocol, *host_port)
            for p in spec.ports
            if p.publish and (host_port := container.published(p.name))
        ),
        exposed=tuple((p.container_port, p.protocol) for p in spec.ports),
        read_only_root=spec.security.read_only_root_filesystem,
        cpus=resources.cpus,
        memory_mb=resources.memory_mb,
        pids_limit=resources.pids_limit,
        shm_mb=resources.tmpfs_mb if resources.shm_mb is None else resources.shm_mb,
        tmpfs=mounts.tmpfs(spec, owner, image),
        placeholder=str(node.volumes.placeholder_dir()),
        runtime=spec.security.runtime,
        probe=health.own_probe(spec.health_check) if spec.health_check else None,
        stop_timeout_ms=spec.stop_timeout_ms,
        entrypoint=guest.command_line(own_command(spec, image)) if agent else spec.entrypoint,
        working_dir=spec.working_dir,
        init=spec.init and agent is None,
        stop_signal=spec.stop_signal,
        is_probe_off=spec.is_health_check_off,
        gid=owner.gid,
        groups=user.groups,
        ulimits=spec.ulimits,
        devices=spec.devices,
        gpus=resources.gpus,
        extra_hosts=tuple(spec.extra_hosts.items()),
    )


def own_command(spec: WorkloadSpec, image: Image) -> tuple[str, ...]:
    """What the container runs: the workload's words, else the image's, as the engine combines them."""
    if spec.entrypoint:  # it replaces the image's command, too
        return spec.entrypoint + spec.command
    entrypoint = image.entrypoint if spec.entrypoint is None else ()
    return entrypoint + (spec.command or image.command)


def _probe_until_healthy(container: Container, image: Image, plan: ContainerPlan) -> ContainerHealth:
    """Run the health check repeatedly until it passes. Raises NotAsAsked, NeverHealthy, NotRunning."""
    node, name = node_of(container), runtime_name(container.pk)
    runtime = node.runtime
    observed = runtime.inspect_made(plan)
    if observed is None or not observed.is_running:
        raise errors.NotRunning(f"The container ended immediately with {last_output.ended(observed)}.")
    spec = container.version.spec
    if _is_on_our_network(spec):
        name_resolution.close(observed.pid)
    guest.seal(container.pk, observed.pid)
    mount_check.check(
        observed, {volume.name: node.volumes.volume_path(container.pk, volume.name) for volume in spec.volumes}
    )
    check = health.check_of(spec, image)
    if check is None:
        return ContainerHealth.UNKNOWN
    probe = check.probe
    deadline = time.monotonic() + (check.patience_ms + probe.timeout_ms) / 1000
    while True:
        try:
            result = node.commands.run(container.pk, probe.command, probe.timeout_ms, limit_bytes=2000)
            if result.exit_code == 0:
                return ContainerHealth.HEALTHY
            last = f"exit code {result.exit_code}: {last_output.line_of(result.stderr or result.stdout, 200)}"
        except errors.NotRunning as error:
            how = last_output.ended(runtime.inspect(name))
            raise errors.NotRunning(f"The container ended before it was healthy, with {how}.") from error
        except BoilerhouseError as error:
            last = error.detail
        if time.monotonic() > deadline:
            late = f"Not healthy within {check.patience_ms} ms; last probe: {last}"
            raise errors.NeverHealthy(health.failing(probe.command, late, is_images=True) if check.is_images else late)
        time.sleep(PROBE_EVERY_S)


def _words(error: BoilerhouseError, container: Container) -> str:
    """The problem, and what an operator can do about it."""
    detail = _sentence(error.detail)
    match error:
        case errors.NeverHealthy() | errors.NotRunning():
            output = last_output.of(node_of(container).runtime, runtime_name(container.pk))
            message = _sentence(f"{detail} Its output: {output}") if output else detail
            if container.version.spec.init and WANTS_PID_1.search(output):
                message = f'{message} Set the workload\'s init to "image" to make its own process process 1.'
            return _with_warnings(
                f"{message} Correct the workload's command." if CANNOT_RUN.search(detail) else message, container
            )
        case errors.BadCommand():
            return _with_warnings(f"{detail} Correct the workload's command.", container)
        case errors.EngineUnsupported():
            return detail
        case errors.EngineUnavailable():
            return f"{detail} Start the engine (systemctl start docker); the pool then recovers by itself."
    return detail


def _with_warnings(text: str, container: Container) -> str:
    version = container.version
    bare = mounts.declared(version.spec, version.image_volumes or ()).bare
    return " ".join([text, *(warning.detail for warning in mounts.warnings(bare))])


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _call_off(container: Container) -> None:
    """Cancel the start, because another start of the pool has failed since it was decided."""
    with recording():
        moved = Container.objects.filter(pk=container.pk, owner=processes.current()).transition(
            ContainerState.STARTING, ContainerState.FAILED, error="Another start of this pool has failed.", owner=None
        )
        if moved:
            node_of(container).queue.put("pool", "pools.tasks.destroy_container", container.pk)


def _start_failed(container: Container, error: Exception) -> None:
    public = unexpected_errors.as_public_error(error)
    detail = _words(public, container)
    CONTAINER_STARTS.labels(container.pool_id, public.code).inc()
    log.warning("container failed to start", detail=detail)
    now = clock.now()
    is_ghost = isinstance(error, errors.CreateTimeout)
    with recording():
        pool = lock_pool(container.pool_id)
        moved = Container.objects.filter(pk=container.pk, owner=processes.current()).transition(
            ContainerState.STARTING,
            ContainerState.FAILED,
            error=detail,
            owner=None,
            keep_until=now + timedelta(seconds=GHOST_S) if is_ghost else None,
        )
        if not moved:
            return
        emit("container.failed", pool_id=pool.pk, container_id=container.pk, detail=detail)
        is_trial = (
            pool.good is not None and pool.good != pool.newest_template and container.template == pool.newest_template
        )
        match error:
            case errors.EngineUnavailable():
                kind = Trouble.ENGINE_DOWN
            case errors.HostNotReady():
                kind = Trouble.HOST_NOT_READY
            case _:
                kind = Trouble.ROLL_HALTED if is_trial else Trouble.START_FAILED
        if kind == Trouble.ROLL_HALTED:
            assert pool.good_version
            detail = (
                f"Version {container.version.number} does not become healthy and is not rolled out; version"
                f" {pool.good_version.number} keeps serving. {detail}"
            )
            conditions.report(pool, kind, detail, halted_version=container.version_id, halted_network=container.network)
            if isinstance(error, PullFailed) and container.pull is not None:
                image_pulls.count_failure(
                    pool, container.pull
                )  # a pull error is not the version's fault, so the roll is retried
        elif kind == Trouble.ENGINE_DOWN and nodes.others_have_engines():
            nodes.record_engine(public.detail)  # the next start is placed on another node
        else:
            conditions.report(pool, kind, detail, **conditions.back_off(pool))
        node_of(container).queue.put("pool", "pools.tasks.destroy_container", container.pk)


def take(pool: Pool) -> Container | None:
    """Claim the longest idle container of the pool, first of this node, within the caller's transaction."""
    container = Container.objects.take(pool)
    if container is not None:
        container.pool = pool
    return container


def retire(container_id: UUID) -> None:
    """Mark a claimed container as being removed; it must not be assigned any more."""
    Container.objects.filter(pk=container_id).transition(ContainerState.CLAIMED, ContainerState.REMOVING)


def destroy_at_engine(node: NodeAccess, container_id: UUID) -> None:
    """Remove the container from the engine, after its tombstone was taken.

    Raises OtherNode, EngineUnavailable, and EngineFailure while it exists.
    """
    tombstones.take(node, container_id)
    remove_at_engine(node, runtime_name(container_id))


def remove_at_engine(node: NodeAccess, name: str) -> None:
    """The engine has no container of that name. Raises as ``destroy_at_engine``."""
    deadline = time.monotonic() + 30
    while (pending := node.runtime.remove(name)) is not None:
        if time.monotonic() > deadline:
            raise errors.EngineFailure(pending.reason)
        time.sleep(0.1)


def quarantine(node: NodeAccess, container_id: UUID) -> None:
    """Stop a container whose latch names another tenant, and keep its directories for a person to inspect."""
    node.runtime.stop(runtime_name(container_id), 0)
    tombstones.take(node, container_id)
    log.error("container quarantined", container=str(container_id), latch=node.volumes.read_latch(container_id))


def forget(container_id: UUID, **payload: Any) -> None:
    """Delete the row of a container that no longer exists at the engine or on disk; its slot becomes free, and its
    tombstone stays.

    The caller has the pool refilled.
    """
    with recording():
        container = Container.objects.select_related("version").filter(pk=container_id).first()
        if container is None:
            return
        node_of(container).host.release_addresses(container_id)
        tombstones.complete(container)
        container.delete()
        actor = context.for_whom(container.removed_by)
        emit(
            "container.destroyed", actor=actor, pool_id=container.pool_id, container_id=container_id,
            is_routine=not container.removed_by, **payload,
        )  # fmt: skip


def forget_lost(container: Container, tenant_id: str) -> None:
    """Within a transaction: delete the row of a container of a lost node; its slot becomes free, and its tombstone
    stays.

    Its uid and addresses stay leased until the node has removed it: it may still run there.
    """
    container.fault, container.error = Fault.VANISHED, f"Node {container.node_id} was lost."
    tombstones.complete(container, tenant_id)
    pool_id, container_id, node = container.pool_id, container.pk, container.node_id
    container.delete()
    emit("container.destroyed", pool_id=pool_id, container_id=container_id, node=node, nodeLost=True, is_routine=True)


@in_progress.alone
def destroy_container(container_id: UUID) -> None:
    """Remove a ``failed`` or ``removing`` container that has never held a tenant's data. Can be repeated.

    A container with a latch is left alone: its state may be unsaved, and only its tenant's release may wipe it. So is
    one of another node, whose latch cannot be read here.
    """
    container = Container.objects.here().filter(pk=container_id).first()
    if container is None or container.state not in (ContainerState.FAILED, ContainerState.REMOVING):
        return
    node = node_of(container)
    if node.volumes.read_latch(container_id) is not None:
        return
    Container.objects.filter(pk=container_id).transition(ContainerState.FAILED, ContainerState.REMOVING)
    destroy_at_engine(node, container_id)
    failpoints.reach("destroy.removed")
    wipe(node, container_id)
    if container.keep_until and container.keep_until > clock.now():
        return  # the engine may still create it; the controller removes it later
    failpoints.reach("destroy.wiped")
    node.host.release_uid(container_id)
    forget(container_id)
    sizing.refill(container.pool_id)


def wipe(node: NodeAccess, container_id: UUID) -> None:
    """Remove the container's directories once no other process works on them. Raises Locked if that takes too long."""
    try:
        with node.volumes.locked(container_id, within_s=LOCKED_S):
            node.volumes.wipe(container_id)
    except errors.DirectoryGone:
        node.volumes.wipe(container_id)  # the remaining RAM directory, or an interrupted wipe


def stuck_containers(older_than: datetime) -> list[Container]:
    """Containers in a transitional state that no living process works on."""
    under_way = [ContainerState.STARTING, ContainerState.REMOVING, ContainerState.FAILED]
    rows = Container.objects.filter(state__in=under_way, state_changed_at__lt=older_than)
    # The pull resumes these when it ends.
    rows = rows.exclude(state=ContainerState.STARTING, owner=None, pull__state__in=PULLING)
    containers = list(rows)
    living = processes.living() if containers else set()
    return [container for container in containers if container.owner not in living]


def remove_orphan(name: str, container_id: UUID | None) -> None:
    """Remove a container without a row that has never held a tenant's data, with its directories."""
    if container_id is not None:
        node = at_home(container_id)
        if node is None or node.volumes.read_latch(container_id) is not None:
            return
    if remove_leftover(name) and container_id is not None:
        wipe_stray(container_id)


def remove_leftover(name: str) -> bool:
    """Remove a container without a row from the engine, but keep its directories."""
    runtime = here().runtime
    observed = runtime.inspect(name)
    if observed is None or not (host.labels().items() <= observed.labels.items() and host.of_this_node([observed])):
        return False
    nonce = observed.labels.get(NONCE_LABEL)
    if nonce and Container.objects.filter(nonce=nonce).exists():
        return False
    runtime.remove(name)
    log.warning("orphan removed", container=observed.handle.name)
    return True


def wipe_stray(container_id: UUID) -> None:
    """Remove the directories of a container without a row that has never held a tenant's data."""
    node = at_home(container_id)
    if node is None or Container.objects.filter(pk=container_id).exists():
        return
    if node.volumes.read_latch(container_id) is not None:
        return
    wipe(node, container_id)
    node.host.release_uid(container_id)
    node.host.release_addresses(container_id)

"""Operations on workloads and pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError
from django.db.models import F, ProtectedError
from django.db.models.functions import Now

from boilerhouse.core import audit, context, deployment_settings
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.events import emit, recording
from boilerhouse.core.ids import SLUG, slugify
from boilerhouse.queues.tasks import enqueue
from pools import errors, firewall
from pools.feasibility import check_feasible
from pools.models import Pool, Workload, WorkloadVersion
from pools.runtime.base import Image
from pools.spec import BUILT_IN_VARIABLES, WorkloadSpec, variables_of
from pools.states import ContainerState

spec_checks: list[Callable[[Workload, WorkloadSpec], list[FieldError]]] = []
"""Functions of other apps that check a new spec of a workload; the apps append to it when they are loaded."""


def _variables_in_use(changed: deployment_settings.DeploymentSettings) -> list[FieldError]:
    defined, wrong = BUILT_IN_VARIABLES | set(changed.variables), list[FieldError]()
    for workload in Workload.objects.with_latest():
        spec = WorkloadSpec.from_json(workload.latest_spec_json)  # type: ignore[attr-defined]
        used = {name for text in spec.environment.values() for name in variables_of(text)}
        for name in sorted(used - defined):
            detail = f"Workload {workload.pk} uses ${{{name}}}."
            wrong.append(FieldError("/variables", detail, "variable_in_use"))
    return wrong


deployment_settings.checks.append(_variables_in_use)


def unused_id(requested: str | None, name: str, is_used: Any) -> str:
    """``wanted`` if it is free, otherwise IdTaken; without it, a slug of the name, with a suffix if taken."""
    if requested is not None:
        if is_used.filter(pk=requested).exists():
            raise errors.IdTaken(f"The id {requested} is already in use.")
        return requested
    base, number = slugify(name), 1
    while is_used.filter(pk=base if number == 1 else f"{base}-{number}").exists():
        number += 1
    candidate = base if number == 1 else f"{base}-{number}"
    assert SLUG.match(candidate), candidate
    return candidate


def find_workload(workload_id: str) -> Workload:
    """With the data of its latest version. Raises WorkloadNotFound."""
    workload = Workload.objects.with_latest().filter(pk=workload_id).first()
    if workload is None:
        raise errors.WorkloadNotFound(f"No workload {workload_id}.")
    return workload


def create_workload(*, id: str | None, name: str, spec: WorkloadSpec) -> Workload:
    """Register a workload as its version 1. Raises IdTaken, and Invalid if this host cannot run it."""
    image = check_feasible(spec)
    try:
        with recording():
            workload = Workload.objects.create(id=unused_id(id, name, Workload.objects.all()), name=name)
            WorkloadVersion.objects.create(
                workload=workload, number=1, spec_json=spec.to_json(), image_volumes=_declared(image),
                created_by=context.actor(),
            )  # fmt: skip
            emit("workload.updated", workloadId=workload.pk, version=1)
            audit.record("workload.create", workload.pk, after=_audited_workload(workload))
    except IntegrityError as error:
        raise errors.IdTaken from error
    return workload


def _declared(image: Image | None) -> list[str] | None:
    return None if image is None else list(image.volumes)


def _nothing(_row: Any) -> None:
    pass


def _audited_workload(workload: Workload) -> dict[str, Any]:
    latest = workload.latest
    return {"name": workload.name, "version": latest.number, "spec": latest.spec.to_json()}


def update_workload(
    workload: Workload, *, name: str, spec: WorkloadSpec, check: Callable[[Workload], None] = _nothing
) -> Workload:
    """Change a workload; a changed spec is a new version, to which its pools roll.

    ``check`` gets the locked row first and raises an error to reject the change. Raises Invalid.
    """
    image = check_feasible(spec)
    with recording():
        workload = lock_workload(workload.pk)
        check(workload)
        if wrong := [error for object_to in spec_checks for error in object_to(workload, spec)]:
            raise Invalid(*wrong)
        latest, before = workload.latest, _audited_workload(workload)
        Workload.objects.filter(pk=workload.pk).update(name=name, updated_at=Now())
        number = latest.number
        if latest.spec != spec:
            number += 1
            # Only another name or a refresh changes the image; otherwise the new version keeps it.
            pins = latest.pins_for(spec)
            add_version(workload, number, spec.to_json(), image_volumes=_declared(image), **pins)
        elif image is not None and latest.image_volumes != _declared(image):
            WorkloadVersion.objects.filter(pk=latest.pk).update(image_volumes=_declared(image))
        emit("workload.updated", workloadId=workload.pk, version=number)
        after = {"name": name, "version": number, "spec": spec.to_json()}
        audit.record("workload.update", workload.pk, **audit.changes(before, after))
    workload.refresh_from_db()
    return workload


def roll_back(workload_id: str, number: int) -> WorkloadVersion:
    """Make a new version that equals version ``number``, with its image; the workload's pools roll to it.

    Raises WorkloadNotFound, VersionNotFound, SameVersion, and Invalid if this host cannot run it any more.
    """
    with recording():
        workload = lock_workload(workload_id)
        old, latest = find_version(workload, number), workload.latest
        if old.pk == latest.pk:
            raise errors.SameVersion(f"Version {number} is the newest version.")
        image = check_feasible(old.spec)
        if wrong := [error for object_to in spec_checks for error in object_to(workload, old.spec)]:
            raise Invalid(*wrong)
        Workload.objects.filter(pk=workload.pk).update(updated_at=Now())
        version = add_version(
            workload, latest.number + 1, old.spec_json, image_volumes=_declared(image) or old.image_volumes,
            image_digest=old.image_digest, manifest_digest=old.manifest_digest,
        )  # fmt: skip
        emit("workload.updated", workloadId=workload.pk, version=version.number, rolledBackTo=number)
        before = {"version": latest.number, "spec": latest.spec.to_json()}
        after = {"version": version.number, "rolledBackTo": number, "spec": old.spec.to_json()}
        audit.record("workload.update", workload.pk, **audit.changes(before, after))
    return version


def find_version(workload: Workload, number: int) -> WorkloadVersion:
    """Raises VersionNotFound."""
    version = workload.versions.filter(number=number).first()
    if version is None:
        raise errors.VersionNotFound(f"Workload {workload.pk} has no version {number}.")
    return version


def add_version(workload: Workload, number: int, spec_json: dict[str, Any], **fields: Any) -> WorkloadVersion:
    """Create the next version of the locked workload, to which its pools roll; call it in a transaction."""
    version = WorkloadVersion.objects.create(
        workload=workload, number=number, spec_json=spec_json, created_by=context.actor(), **fields
    )
    for pool_id in workload.pools.values_list("pk", flat=True):
        enqueue("pool", "pools.tasks.refill", pool_id)
    return version


def delete_workload(workload: Workload) -> None:
    """Delete a workload that no pool uses. Raises WorkloadInUse."""
    try:
        with recording():
            emit("workload.updated", workloadId=workload.pk, deleted=True)
            audit.record("workload.delete", workload.pk, before=_audited_workload(workload))
            workload.delete()
    except (ProtectedError, IntegrityError) as error:
        raise errors.WorkloadInUse from error


def find_pool(pool_id: str) -> Pool:
    """With its counts. Raises PoolNotFound."""
    pool = Pool.objects.with_counts().filter(pk=pool_id).first()
    if pool is None:
        raise errors.PoolNotFound(f"No pool {pool_id}.")
    return pool


def create_pool(*, id: str | None, name: str | None, workload: Workload, **options: Any) -> Pool:
    """Create a pool; workers start filling it when this commits. Raises IdTaken, and Invalid for its network policy."""
    name = name or id or workload.name
    options.setdefault("min_idle", options.get("min_size", 0))
    try:
        with recording():
            workload = lock_workload(workload.pk)
            _split_network(options, workload)
            pool = Pool.objects.create(
                id=unused_id(id, name, Pool.objects.all()), name=name, workload=workload, **options
            )
            emit("pool.scaled", pool_id=pool.pk, created=True, desiredSize=pool.desired_size(0))
            audit.record("pool.create", pool.pk, after={"name": name, "workloadId": workload.pk, **options})
            enqueue("pool", "pools.tasks.refill", pool.pk)
    except IntegrityError as error:
        raise errors.IdTaken from error
    return pool


def update_pool(pool_id: str, *, name: str | None, check: Callable[[Pool], None] = _nothing, **options: Any) -> Pool:
    """Change a pool's settings; its containers are adjusted. The target size is kept within the new maxSize.

    A changed network is rolled out like a new version of the workload; a changed policy takes effect immediately.
    ``check`` gets the locked row first and raises an error to reject the change. Raises PoolNotFound, and Invalid for a
    policy that could not be enforced.
    """
    with recording():
        pool = lock_pool(pool_id)
        check(pool)
        _split_network(options, lock_workload(pool.workload_id))
        before = {field: getattr(pool, field) for field in options}
        options["target_size"] = min(pool.target_size, options["max_size"])
        Pool.objects.filter(pk=pool_id).update(name=name or pool.name, updated_at=Now(), **options)
        changed = {field: value for field, value in options.items() if before.get(field, pool.target_size) != value}
        if changed:
            emit("pool.scaled", pool_id=pool_id, changed=sorted(changed))
        old = {"name": pool.name, "target_size": pool.target_size, **before}
        audit.record("pool.update", pool_id, **audit.changes(old, {**old, "name": name or pool.name, **options}))
        enqueue("pool", "pools.tasks.refill", pool_id)
        if "egress" in changed:
            pool.containers.update(egress_asked=F("egress_asked") + 1)
            firewall.ask()
    pool.refresh_from_db()
    return pool


def _split_network(options: dict[str, Any], workload: Workload) -> None:
    """Separate the policy, which causes no roll, from the settings that containers are created with. Raises Invalid."""
    if "network" not in options:
        return
    whole = dict(options["network"] or {})
    options["egress"] = whole.pop("egress", None)
    options["network"] = whole or None
    spec = workload.latest.spec
    if options["egress"] is not None and not spec.takes_policies:
        detail = (
            f"The workload's containers are on the network {spec.security.network_mode}, where no policy is enforced."
        )
        raise Invalid(FieldError("/network/egress", detail, "not_enforced"))


def _policies_in_use(workload: Workload, spec: WorkloadSpec) -> list[FieldError]:
    """Pools with a network policy that could not be enforced on another network."""
    pools = workload.pools.filter(egress__isnull=False).order_by("pk").values_list("pk", flat=True)
    if spec.takes_policies or not pools:
        return []
    detail = f"These pools have a network policy, which cannot be enforced on that network: {', '.join(pools)}."
    return [FieldError("/security/networkMode", detail, "not_enforced")]


spec_checks.append(_policies_in_use)


def pause(pool_id: str) -> None:
    """Start no more containers; warm ones can still be claimed. Raises PoolNotFound."""
    _switch(pool_id, "pause", "paused", is_paused=True)


AGAIN: dict[str, Any] = {"next_start_at": None, "failures": 0, "halted_version": None, "halted_network": None}
"""End the back-off of a pool after failed starts, and retry a version whose roll stopped."""


def try_again(pool_id: str) -> None:
    """End the back-off before the pool's next start, because the cause of the failures may be over."""
    Pool.objects.filter(pk=pool_id).update(**AGAIN)


def start_now(pool_id: str) -> None:
    """End the back-off and retry a halted roll, because somebody says that the cause is over. Raises PoolNotFound."""
    with recording():
        lock_pool(pool_id)
        try_again(pool_id)
        audit.record("pool.start", pool_id)
        enqueue("pool", "pools.tasks.refill", pool_id)


def resume(pool_id: str) -> None:
    """End a pause or a drain, and retry immediately what had failed.

    Raises PoolNotFound, and PoolInUse if the pool is being deleted.
    """
    with recording():
        if lock_pool(pool_id).is_deleting:
            raise errors.PoolInUse("The pool is being deleted.")
        _switch(
            pool_id, "resume", "resumed", is_paused=False, is_draining=False, last_error="", trouble="", **AGAIN
        )  # fmt: skip


def drain(pool_id: str) -> None:
    """Refuse new claims and remove the warm containers; claimed ones stay. Raises PoolNotFound."""
    _switch(pool_id, "drain", "draining", is_draining=True)


def _switch(pool_id: str, verb: str, word: str, **changes: Any) -> None:
    with recording():
        pool = lock_pool(pool_id)
        if any(getattr(pool, field) != value for field, value in changes.items()):
            Pool.objects.filter(pk=pool_id).update(updated_at=Now(), **changes)
            payload: dict[str, Any] = {word: True}
            emit("pool.scaled", pool_id=pool_id, **payload)
            audit.record(f"pool.{verb}", pool_id)
        enqueue("pool", "pools.tasks.refill", pool_id)


def scale(pool_id: str, target_size: int) -> Pool:
    """Set the pool's target size; containers are adjusted. Raises Invalid, BelowClaimed, PoolNotFound."""
    with recording():
        pool = lock_pool(pool_id)
        if not pool.min_size <= target_size <= pool.max_size:
            detail = f"Must be a number from {pool.min_size} (minSize) to {pool.max_size} (maxSize)."
            raise Invalid(FieldError("/targetSize", detail, "out_of_range"))
        claimed = pool.containers.filter(state=ContainerState.CLAIMED).count()
        if target_size < claimed:
            raise errors.BelowClaimed(
                f"{claimed} containers are claimed, so the pool cannot be scaled to {target_size}."
            )
        Pool.objects.filter(pk=pool_id).update(target_size=target_size, updated_at=Now())
        emit("pool.scaled", pool_id=pool_id, targetSize=target_size, before=pool.target_size)
        sizes = {"before": {"targetSize": pool.target_size}, "after": {"targetSize": target_size}}
        audit.record("pool.scale", pool_id, **sizes)
        enqueue("pool", "pools.tasks.refill", pool_id)
    pool.target_size = target_size
    return pool


def start_deleting(pool_id: str, *, force: bool) -> None:
    """Drain the pool permanently; its row is deleted with the last container.

    Tenants that hold containers are released, with a save, by ``tenants``; without ``force``, they cause PoolInUse.
    """
    with recording():
        pool = lock_pool(pool_id, against_claims=True)
        tenants = pool.held_count()
        if tenants and not force:
            raise errors.PoolInUse(
                f"Tenants hold {tenants} containers of this pool. With force, they are saved and released."
            )
        if not pool.is_deleting:
            audit.record("pool.delete", pool_id, after={"force": force})
        Pool.objects.filter(pk=pool_id).update(
            is_deleting=True, is_draining=True, deleted_by=pool.deleted_by or context.actor(), updated_at=Now()
        )
        enqueue("pool", "pools.tasks.refill", pool_id)


def lock_pool(pool_id: str, *, against_claims: bool = False) -> Pool:
    """The pool's row, locked until the transaction ends: every insert of a container takes this lock (P2).

    With ``against_claims``, no claim of the pool commits meanwhile either, so its assignments can be read safely.
    Raises PoolNotFound.
    """
    pool = Pool.objects.select_for_update(no_key=not against_claims).filter(pk=pool_id).first()
    if pool is None:
        raise errors.PoolNotFound(f"No pool {pool_id}.")
    return pool


def lock_workload(workload_id: str) -> Workload:
    """The workload's row with its latest version, which stays the latest until the transaction ends.

    Code that checks against it takes this lock after the pool's. Raises WorkloadNotFound.
    """
    locked = Workload.objects.select_for_update(no_key=True).filter(pk=workload_id)
    if not locked.values_list("pk", flat=True):
        raise errors.WorkloadNotFound(f"No workload {workload_id}.")
    return find_workload(workload_id)  # a second statement, because the first may have waited and read old data

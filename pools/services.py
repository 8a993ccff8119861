"""The verbs of workloads and pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError
from django.db.models import F, ProtectedError
from django.db.models.functions import Now

from boilerhouse.core import audit, deployment_settings
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
"""What upper apps have against a new spec of a workload; they add to it when they are loaded."""


def _variables_in_use(wanted: deployment_settings.DeploymentSettings) -> list[FieldError]:
    known, wrong = BUILT_IN_VARIABLES | set(wanted.variables), list[FieldError]()
    for workload in Workload.objects.with_latest():
        spec = WorkloadSpec.from_json(workload.latest_spec_json)  # type: ignore[attr-defined]
        used = {name for text in spec.environment.values() for name in variables_of(text)}
        for name in sorted(used - known):
            detail = f"Workload {workload.pk} uses ${{{name}}}."
            wrong.append(FieldError("/variables", detail, "variable_in_use"))
    return wrong


deployment_settings.checks.append(_variables_in_use)


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


def find_workload(workload_id: str) -> Workload:
    """With what its latest version holds. Raises WorkloadNotFound."""
    workload = Workload.objects.with_latest().filter(pk=workload_id).first()
    if workload is None:
        raise errors.WorkloadNotFound(f"There is no workload {workload_id}.")
    return workload


def create_workload(*, id: str | None, name: str, spec: WorkloadSpec) -> Workload:
    """Register a workload as its version 1. Raises IdTaken, and Invalid for what this host cannot run."""
    image = check_feasible(spec)
    try:
        with recording():
            workload = Workload.objects.create(id=unused_id(id, name, Workload.objects.all()), name=name)
            WorkloadVersion.objects.create(
                workload=workload, number=1, spec_json=spec.to_json(), image_volumes=_declared(image)
            )
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
    """Change a workload; another spec is a new version, which its pools roll to.

    ``check`` sees the locked row first and raises what stands against the change. Raises Invalid.
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
            # What the image is changes by its name, or by a refresh: with the rest of the spec it stays.
            pins = latest.pins_for(spec)
            add_version(workload, number, spec.to_json(), image_volumes=_declared(image), **pins)
        elif image is not None and latest.image_volumes != _declared(image):
            WorkloadVersion.objects.filter(pk=latest.pk).update(image_volumes=_declared(image))
        emit("workload.updated", workloadId=workload.pk, version=number)
        after = {"name": name, "version": number, "spec": spec.to_json()}
        audit.record("workload.update", workload.pk, **audit.changes(before, after))
    workload.refresh_from_db()
    return workload


def add_version(workload: Workload, number: int, spec_json: dict[str, Any], **known: Any) -> WorkloadVersion:
    """Give the locked workload another version, to which its pools roll; call it in a transaction."""
    made = WorkloadVersion.objects.create(workload=workload, number=number, spec_json=spec_json, **known)
    for pool_id in workload.pools.values_list("pk", flat=True):
        enqueue("pool", "pools.tasks.refill", pool_id)
    return made


def delete_workload(workload: Workload) -> None:
    """Forget a workload that no pool uses. Raises WorkloadInUse."""
    try:
        with recording():
            emit("workload.updated", workloadId=workload.pk, deleted=True)
            audit.record("workload.delete", workload.pk, before=_audited_workload(workload))
            workload.delete()
    except (ProtectedError, IntegrityError) as error:
        raise errors.WorkloadInUse from error


# Pools ----------------------------------------------------------------------------------------------


def find_pool(pool_id: str) -> Pool:
    """With its counts. Raises PoolNotFound."""
    pool = Pool.objects.with_counts().filter(pk=pool_id).first()
    if pool is None:
        raise errors.PoolNotFound(f"There is no pool {pool_id}.")
    return pool


def create_pool(*, id: str | None, name: str | None, workload: Workload, **options: Any) -> Pool:
    """Make a pool; workers start filling it when this commits. Raises IdTaken, and Invalid for its network policy."""
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
    """Change a pool's settings; its containers follow. The target size is kept within the new maxSize.

    Another network is rolled out like a version of the workload; another policy is in force at once. ``check`` sees
    the locked row first and raises what stands against the change. Raises PoolNotFound,
    and Invalid for a policy that nothing would enforce.
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
    """Put the policy, which rolls nothing, beside the settings that containers are made with. Raises Invalid."""
    if "network" not in options:
        return
    whole = dict(options["network"] or {})
    options["egress"] = whole.pop("egress", None)
    options["network"] = whole or None
    spec = workload.latest.spec
    if options["egress"] is not None and not spec.takes_policies:
        detail = f"The workload's containers are on the network {spec.security.network_mode}, where none is enforced."
        raise Invalid(FieldError("/network/egress", detail, "not_enforced"))


def _policies_in_use(workload: Workload, spec: WorkloadSpec) -> list[FieldError]:
    """What pools promise of their containers' packets, and another network would not hold."""
    pools = workload.pools.filter(egress__isnull=False).order_by("pk").values_list("pk", flat=True)
    if spec.takes_policies or not pools:
        return []
    detail = f"These pools have a network policy, which is enforced on no other network: {', '.join(pools)}."
    return [FieldError("/security/networkMode", detail, "not_enforced")]


spec_checks.append(_policies_in_use)


def pause(pool_id: str) -> None:
    """Start no more containers; warm ones are still handed out. Raises PoolNotFound."""
    _switch(pool_id, "pause", "paused", is_paused=True)


AGAIN: dict[str, Any] = {"next_start_at": None, "failures": 0, "halted_version": None, "halted_network": None}
"""The pool waits for nothing after a start that failed, and tries a version again whose roll stopped."""


def try_again(pool_id: str) -> None:
    """Let the pool's next start not wait: what made the last ones fail may be over."""
    Pool.objects.filter(pk=pool_id).update(**AGAIN)


def resume(pool_id: str) -> None:
    """Take up the pool's work again after a pause or a drain, and try at once what had failed.

    Raises PoolNotFound, and PoolInUse when the pool is being deleted.
    """
    with recording():
        if lock_pool(pool_id).is_deleting:
            raise errors.PoolInUse("The pool is being deleted.")
        _switch(
            pool_id, "resume", "resumed", is_paused=False, is_draining=False, last_error="", trouble="", **AGAIN
        )  # fmt: skip


def drain(pool_id: str) -> None:
    """Refuse new claims and remove the warm containers; those who hold one keep it. Raises PoolNotFound."""
    _switch(pool_id, "drain", "draining", is_draining=True)


def _switch(pool_id: str, verb: str, word: str, **changes: Any) -> None:
    with recording():
        pool = lock_pool(pool_id)
        if any(getattr(pool, field) != value for field, value in changes.items()):
            Pool.objects.filter(pk=pool_id).update(updated_at=Now(), **changes)
            told: dict[str, Any] = {word: True}
            emit("pool.scaled", pool_id=pool_id, **told)
            audit.record(f"pool.{verb}", pool_id)
        enqueue("pool", "pools.tasks.refill", pool_id)


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
        sizes = {"before": {"targetSize": pool.target_size}, "after": {"targetSize": target_size}}
        audit.record("pool.scale", pool_id, **sizes)
        enqueue("pool", "pools.tasks.refill", pool_id)
    pool.target_size = target_size
    return pool


def start_deleting(pool_id: str, *, force: bool) -> None:
    """Drain the pool for good; the row goes when the last container has gone.

    Tenants that hold containers are released, with save, by ``tenants``; without ``force`` they raise PoolInUse.
    """
    with recording():
        pool = lock_pool(pool_id, against_claims=True)
        held = pool.held_count()
        if held and not force:
            raise errors.PoolInUse(f"Tenants hold {held} containers of this pool; force releases them, with save.")
        if not pool.is_deleting:
            audit.record("pool.delete", pool_id, after={"force": force})
        Pool.objects.filter(pk=pool_id).update(is_deleting=True, is_draining=True, updated_at=Now())
        enqueue("pool", "pools.tasks.refill", pool_id)


def lock_pool(pool_id: str, *, against_claims: bool = False) -> Pool:
    """The pool's row, locked until the transaction ends: every insert of a container holds it (P2).

    With ``against_claims`` no claim of the pool is committed meanwhile either, so who holds what can be looked at.
    Raises PoolNotFound.
    """
    pool = Pool.objects.select_for_update(no_key=not against_claims).filter(pk=pool_id).first()
    if pool is None:
        raise errors.PoolNotFound(f"There is no pool {pool_id}.")
    return pool


def lock_workload(workload_id: str) -> Workload:
    """The workload's row with its latest version, which stays the latest until the transaction ends.

    Whoever checks something against it takes this lock after the pool's. Raises WorkloadNotFound.
    """
    locked = Workload.objects.select_for_update(no_key=True).filter(pk=workload_id)
    if not locked.values_list("pk", flat=True):
        raise errors.WorkloadNotFound(f"There is no workload {workload_id}.")
    return find_workload(workload_id)  # by a second statement: the first one may have waited, and sees what was before

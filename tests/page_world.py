"""One object of each kind in each of its states, as rows, for the tests of pages.

``put`` makes an object, ``drop`` removes all of it, and ``address`` says what of it a URL names. The same id may be put
in one state after another: that is what an open page sees.
"""

from __future__ import annotations

import uuid
import zlib
from base64 import b85encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.core import deployment_settings
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import ApiKey, Node, Role
from boilerhouse.core.states import NodeState
from boilerhouse.notifications.models import Delivery, Target
from pools.models import (
    Container,
    ContainerUsage,
    ImagePull,
    LastOutput,
    Pool,
    PoolUsage,
    RegistryCredential,
    Tombstone,
    Workload,
    WorkloadVersion,
)
from syncing.models import Backup, Credential, SavedState, SyncRun, SyncSpec
from tenants.models import Assignment, Death, Tenant
from tests.make import (
    make_assignment,
    make_container,
    make_delivery,
    make_held,
    make_pool,
    make_spec,
    make_sync_spec,
    make_workload,
)

Address = dict[str, Any]
GONE = "gone"
"""The state of an object that there is no more, or never was."""
REFUSAL = (
    "The bucket answered 403 SignatureDoesNotMatch: Check your key and signing method, and the clock of this host."
)
LONG = "x" * 120
LINES = b"2026-01-31T12:00:00.123456789Z first line\n2026-01-31T12:00:01.000000001Z last words, an error\n"


def _number(id: str) -> int:
    """A number of its own for this id."""
    return zlib.crc32(id.encode()) % 10**9


def _uuid(id: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, id)


def _ago(**ago: float) -> Any:
    return timezone.now() - timedelta(**ago)


# Pools and their containers ------------------------------------------------------------------------------


def _versions(id: str, count: int) -> list[WorkloadVersion]:
    workload = make_workload(f"{id}-w", resources={"memory_mb": 512})
    for number in range(2, count + 1):
        spec = make_spec(image=f"boilerhouse/example-workload:{number}", environment={"N": str(number)})
        WorkloadVersion.objects.create(
            workload=workload, number=number, spec_json=spec.to_json(), created_by="user ada", created_at=_ago(hours=1)
        )
    return list(workload.versions.order_by("number"))


def _pool(id: str, *, versions: int = 1, saves: bool = True, health: dict[str, Any] | None = None, **over: Any) -> Pool:
    made = _versions(id, versions)
    pool = make_pool(
        id, **{"workload": made[0].workload, "good_version": made[0], "min_size": 1, "target_size": 2, **over}
    )
    if saves:
        checked = {"state": "healthy", "checkedAt": timezone.now().isoformat().replace("+00:00", "Z")}
        make_sync_spec(pool, id=f"{id}-s", interval_ms=60_000, is_settled=True, sink_health=health or checked)
    for minute in range(3):
        PoolUsage.objects.create(
            pool=pool, at=_ago(minutes=minute), idle=1, claimed=1, size=2, waiting=0, desired_size=2, cpu_cores=0.5,
            memory_bytes=10**7, disk_bytes=0,
        )  # fmt: skip
    return pool


def _container(pool: Pool, id: str, **over: Any) -> Container:
    """With samples of its use."""
    container = make_container(
        pool,
        **{"id": _uuid(id), "health": "healthy", "runtime_id": f"{_number(id):x}", "disk_bytes": 5_000_000, **over},
    )
    for minute in range(3):
        ContainerUsage.objects.create(
            container_id=container.pk, at=_ago(minutes=minute), cpu_ns=10**9 * (9 - minute), memory_bytes=10**7, pids=2
        )
    return container


def _held(pool: Pool, tenant: str, container: str, **over: Any) -> Assignment:
    """The tenant uses this container, which may have anything wrong with it."""
    config = {"greeting": "hello", "nested": {"list": [1, 2, 3], "long": LONG}}
    endpoints = [{"name": "http", "host": "10.117.0.3", "port": 8080}]
    held = _container(pool, container, state="claimed", **over)
    return make_held(tenant=tenant, minutes=9, container=held, config=config, endpoints=endpoints)


def _pool_ready(id: str) -> None:
    pool = _pool(id)
    _container(pool, f"{id}-idle")
    _held(pool, f"{id}-t", f"{id}-held")


def _pool_rolling(id: str) -> None:
    pool = _pool(id, versions=2)
    _held(pool, f"{id}-t", f"{id}-held")
    _container(pool, f"{id}-idle", version=pool.workload.latest)


def _pool_halted(id: str) -> None:
    pool = _pool(id, versions=2)
    pool.halted_version = pool.workload.latest
    pool.trouble, pool.last_error = "roll_halted", f"Version 2 does not become healthy: exit code 127. {LONG}"
    pool.trouble_since = _ago(minutes=4)
    pool.save()
    _container(pool, f"{id}-idle", version=pool.good_version)


def _pool_waiting(id: str) -> None:
    pool = _pool(id, max_size=1, waiting=2)
    _held(pool, f"{id}-t", f"{id}-held")
    for number in range(2):
        make_assignment(f"{id}-waits-{number}", pool=pool)


def _pool_crowded(id: str) -> None:
    """200 containers, each of a tenant."""
    pool = _pool(id, max_size=300)
    for number in range(200):
        container = make_container(pool, id=_uuid(f"{id}-{number}"), state="claimed", health="healthy")
        make_held(tenant=f"{id}-{number:03}", minutes=number, container=container)


def _empty_pool(**over: Any) -> Callable[[str], None]:
    return lambda id: _pool(id, **over) and None


def _idle_pool(**over: Any) -> Callable[[str], None]:
    return lambda id: _container(_pool(id, **over), f"{id}-idle") and None


def _pool_draining(id: str) -> None:
    _held(_pool(id, is_draining=True), f"{id}-t", f"{id}-held")


def _pool_deleting(id: str) -> None:
    _held(_pool(id, is_deleting=True, is_draining=True, deleted_by="user ada"), f"{id}-t", f"{id}-held")


def _pool_pulling(id: str) -> None:
    pool = _pool(id)
    pull = ImagePull.objects.create(
        node_id=make_container(pool, id=_uuid(f"{id}-first"), state="starting").node_id, image=f"registry.example.com/{id}:1",
        state="running", started_at=_ago(seconds=40), progress={"phase": "downloading", "percent": 40, "etaMs": 61_000},
    )  # fmt: skip
    Container.objects.filter(pk=_uuid(f"{id}-first")).update(pull=pull)


def _pool_unsaved(id: str) -> None:
    pool = _pool(id, release_failed=1, health={"state": "unhealthy", "code": "denied", "detail": REFUSAL})
    _not_saved(pool, f"{id}-t")


POOLS: dict[str, Callable[[str], None]] = {
    "ready": _pool_ready,
    "no spec": _idle_pool(saves=False),
    "scaled to 0": _empty_pool(min_size=0, target_size=0),
    "paused": _idle_pool(is_paused=True),
    "draining": _pool_draining,
    "drained": _empty_pool(is_draining=True),
    "deleting": _pool_deleting,
    "cannot start": _empty_pool(
        trouble="start_failed", last_error=f"The container ended with exit code 127. {LONG}", failures=4
    ),
    "two versions": _pool_rolling,
    "halted": _pool_halted,
    "waiting": _pool_waiting,
    "pulling": _pool_pulling,
    "not saved": _pool_unsaved,
    "200 rows": _pool_crowded,
}


def _drop_pool(id: str) -> None:
    pool = Pool.objects.filter(pk=id)
    containers = list(Container.objects.filter(pool_id=id).values_list("pk", flat=True))
    ImagePull.objects.filter(image=f"registry.example.com/{id}:1").delete()
    tenants = list(Assignment.objects.filter(pool_id=id).values_list("tenant_id", flat=True))
    Assignment.objects.filter(pool_id=id).delete()
    ContainerUsage.objects.filter(container_id__in=containers).delete()
    Container.objects.filter(pool_id=id).delete()
    Tombstone.objects.filter(pool_id=id).delete()
    SavedState.objects.filter(pool_id=id).delete()
    pool.delete()
    Tenant.objects.filter(pk__in=tenants).delete()
    Workload.objects.filter(pk=f"{id}-w").delete()


# One container -----------------------------------------------------------------------------------------------


def _own_pool(id: str) -> Pool:
    return Pool.objects.filter(pk=f"{id}-p").first() or _pool(f"{id}-p")


def _bare_container(**over: Any) -> Callable[[str], None]:
    return lambda id: _container(_own_pool(id), id, **over) and None


def _claimed_container(**over: Any) -> Callable[[str], None]:
    return lambda id: _held(_own_pool(id), f"{id}-t", id, **over) and None


def _removed_container(id: str) -> None:
    pool = _own_pool(id)
    Tenant.objects.get_or_create(pk=f"{id}-t")
    tombstone = Tombstone.objects.create(
        id=_uuid(id), backwards=_uuid(id).hex[::-1], pool_id=pool.pk, workload_id=pool.workload_id, version=1,
        image=pool.workload.latest.spec.image, image_digest="sha256:1", node_id=node_id(), uid=200_001,
        tenant_id=f"{id}-t", exit_code=137, memory_mb=512, cpus=1.0, created_at=_ago(hours=1), disk_bytes=10**6,
        removed_by="user ada",
    )  # fmt: skip
    packed = b85encode(zlib.compress(LINES)).decode()
    LastOutput.objects.create(tombstone=tombstone, log=packed, size=1, usage=[[timezone.now().timestamp(), 1, 2]])


CONTAINERS: dict[str, Callable[[str], None]] = {
    "starting": _bare_container(state="starting", health="unknown"),
    "idle": _bare_container(),
    "claimed": _claimed_container(),
    "unhealthy": _claimed_container(health="unhealthy", fault="unhealthy", error=f"Health check failed: {LONG}"),
    "dead": _claimed_container(health="unhealthy", fault="oom", error="The kernel killed it: memory limit exceeded."),
    "removing": _bare_container(state="removing"),
    "failed": _bare_container(state="failed", error="exit code 127: no such program"),
    "removed": _removed_container,
}


def _drop_container(id: str) -> None:
    _drop_pool(f"{id}-p")
    Tenant.objects.filter(pk=f"{id}-t").delete()


# One tenant --------------------------------------------------------------------------------------------------


def _not_saved(pool: Pool, tenant: str) -> None:
    make_assignment(
        tenant, pool=pool, state="release_failed", step="saving", outcome="denied", outcome_detail=REFUSAL, attempt=3,
        was_assigned=True, next_attempt_at=_ago(minutes=-4), directory_node=node_id(), reason="requested",
        container_ref=_uuid(f"{tenant}-was"),
    )  # fmt: skip


def _pending(*, has_container: bool) -> Callable[[str], None]:
    def make(id: str) -> None:
        pool = _own_pool(id)
        container = _container(pool, f"{id}-c", state="claimed") if has_container else None
        make_assignment(id, pool=pool, **({"container": container} if container else {}))

    return make


def _tenant_assigned(id: str) -> None:
    pool = _own_pool(id)
    _held(pool, id, f"{id}-c")
    _save(pool, id)


def _tenant_dead(id: str) -> None:
    held = _held(_own_pool(id), id, f"{id}-c", fault="exit", health="unhealthy", error="exit code 1")
    Death.objects.create(
        assignment=held, tenant_id=id, container_ref=held.held_container, exit_code=1, detail="It ended with exit code 1.",
        words="Traceback\n  last words", log="",
    )  # fmt: skip


def _tenant_releasing(id: str) -> None:
    held = _held(_own_pool(id), id, f"{id}-c")
    Assignment.objects.filter(pk=held.pk).update(state="releasing", step="saving", released_by="user ada")


def _ended(**over: Any) -> Callable[[str], None]:
    def make(id: str) -> None:
        pool = _own_pool(id)
        about = {"state": "ended", "was_assigned": True, "ended_at": timezone.now(), "released_by": "user ada"}
        make_assignment(id, pool=pool, **{**about, "outcome": "released", **over})
        _save(pool, id)

    return make


def _save(pool: Pool, tenant: str) -> None:
    """A saved state, its runs, and a backup of what it replaced."""
    spec = SyncSpec.objects.get(pool=pool)
    mapping = spec.mappings.get()
    run = _make_run(spec, tenant, "succeeded")
    SavedState.objects.create(
        tenant_id=tenant, mapping=mapping, place="http://127.0.0.1:1/bucket", location=f"t/{tenant}/state",
        container_path="/state", pool_id=pool.pk, generation=1, run_id=run.pk, files=3, bytes=9_000_000,
    )  # fmt: skip
    Backup.objects.create(
        id=_uuid(f"{tenant}-backup"), tenant_id=tenant, spec=spec, place="p", location=f"t/{tenant}/state", backup="b",
        container_path="/state", files=3, bytes=9,
    )  # fmt: skip


TENANTS: dict[str, Callable[[str], None]] = {
    "waiting": _pending(has_container=False),
    "restoring": _pending(has_container=True),
    "in use": _tenant_assigned,
    "dead": _tenant_dead,
    "releasing": _tenant_releasing,
    "not saved": lambda id: _not_saved(_own_pool(id), id),
    "released": _ended(),
    "claim failed": _ended(outcome="timeout", outcome_detail="No container in 30 s.", was_assigned=False),
    "state missing": _ended(outcome="state_missing", outcome_detail="Nothing is at s3.", was_assigned=False),
}


def _drop_tenant(id: str) -> None:
    SyncRun.objects.filter(tenant_id=id).delete()
    Backup.objects.filter(tenant_id=id).delete()
    _drop_pool(f"{id}-p")
    Tenant.objects.filter(pk=id).delete()


# What saves, and its runs --------------------------------------------------------------------------------------


def _make_run(spec: SyncSpec, tenant: str, state: str, **over: Any) -> SyncRun:
    progress = {"bytes": 5_000_000, "totalBytes": 10_000_000, "percent": 50.0, "etaMs": 1200, "bytesPerSecond": 700_000,
                "files": 1, "totalFiles": 2}  # fmt: skip
    has_ended = state in ("succeeded", "failed", "cancelled")
    return SyncRun.objects.create(
        **{"spec": spec, "tenant_id": tenant, "generation": 1, "direction": "upload", "trigger": "manual",
           "state": state, "started_at": None if state == "queued" else _ago(seconds=9), "asked_by": "user ada",
           "finished_at": timezone.now() if has_ended else None, "progress": {} if state == "queued" else progress,
           "error_code": "denied" if state == "failed" else "", "error_detail": REFUSAL if state == "failed" else "",
           **over}
    )  # fmt: skip


def _run_in(state: str) -> Callable[[str], None]:
    def make(id: str) -> None:
        pool = _own_pool(id)
        Tenant.objects.get_or_create(pk=f"{id}-t")
        _make_run(
            SyncSpec.objects.get(pool=pool),
            f"{id}-t",
            state,
            id=_uuid(id),
            cancelled_by="user ada" * (state == "cancelled"),
        )

    return make


RUNS: dict[str, Callable[[str], None]] = {
    state: _run_in(state) for state in ("queued", "running", "succeeded", "failed", "cancelled")
}


def _drop_run(id: str) -> None:
    SyncRun.objects.filter(pk=_uuid(id)).delete()
    _drop_pool(f"{id}-p")
    Tenant.objects.filter(pk=f"{id}-t").delete()


def _spec_in(health: dict[str, Any], *, has_tenant: bool) -> Callable[[str], None]:
    def make(id: str) -> None:
        pool = _pool(f"{id}-p", saves=False)
        spec = make_sync_spec(
            pool, [{}, {"container_path": "/other", "sink_path": f"{LONG}/"}], id=id, sink_health=health
        )
        if has_tenant:
            _held(pool, f"{id}-t", f"{id}-c")
            _make_run(spec, f"{id}-t", "failed" if health.get("code") else "succeeded")

    return make


SPECS: dict[str, Callable[[str], None]] = {
    "not checked": _spec_in({}, has_tenant=False),
    "healthy": _spec_in({"state": "healthy", "checkedAt": "2026-01-31T12:00:00Z"}, has_tenant=True),
    "refused": _spec_in(
        {"state": "unhealthy", "code": "denied", "detail": REFUSAL, "checkedAt": "2026-01-31T12:00:00Z"},
        has_tenant=True,
    ),
}


def _workload_in(versions: int, *, is_used: bool) -> Callable[[str], None]:
    def make(id: str) -> None:
        if is_used:
            made = _pool(f"{id}-p", versions=versions, saves=False).workload
            _container(Pool.objects.get(pk=f"{id}-p"), f"{id}-c")
            _rename(made, id)
        else:
            _rename(_versions(f"{id}-p", versions)[0].workload, id)

    return make


def _rename(workload: Workload, id: str) -> None:
    """The workload of a helper's pool gets the id that the page shows."""
    old = workload.pk
    Workload.objects.create(id=id, name=id)
    WorkloadVersion.objects.filter(workload_id=old).update(workload_id=id)
    Pool.objects.filter(workload_id=old).update(workload_id=id)
    Workload.objects.filter(pk=old).delete()


WORKLOADS: dict[str, Callable[[str], None]] = {
    "unused": _workload_in(1, is_used=False),
    "in use": _workload_in(1, is_used=True),
    "two versions": _workload_in(2, is_used=True),
}


def _drop_workload(id: str) -> None:
    _drop_pool(f"{id}-p")
    Workload.objects.filter(pk=id).delete()


# Settings --------------------------------------------------------------------------------------------------------


def _user(group: str, **over: Any) -> Callable[[str], None]:
    def make(id: str) -> None:
        user = User(pk=_number(id), username=id, is_staff=True, **over)
        user.set_unusable_password()
        user.save(force_insert=True)
        user.groups.add(Group.objects.get_or_create(name=group)[0])

    return make


USERS: dict[str, Callable[[str], None]] = {
    "viewer": _user("viewer"),
    "operator": _user("operator", last_login=None),
    "admin": _user("admin"),
    "disabled": _user("operator", is_active=False),
}


def _key(**over: Any) -> Callable[[str], None]:
    def make(id: str) -> None:
        about = {"role": Role.TENANT, "tenant_ids": [f"t-{number}" for number in range(40)], **over}
        ApiKey.objects.create(id=f"{_number(id):x}", name=id, key_hash=f"{_number(id):x}", **about)

    return make


KEYS: dict[str, Callable[[str], None]] = {
    "living": _key(),
    "expires soon": _key(expires_at=timezone.now() + timedelta(days=2), last_used_at=timezone.now()),
    "expired": _key(expires_at=_ago(days=1)),
    "revoked": _key(revoked_at=_ago(days=1)),
}


def _credential(*, is_used: bool) -> Callable[[str], None]:
    def make(id: str) -> None:
        made = Credential.objects.create(id=id, name=id, secret={"accessKeyId": "AKID", "secretAccessKey": "x" * 20})
        if is_used:
            _pool(f"{id}-p", saves=False)
            make_sync_spec(Pool.objects.get(pk=f"{id}-p"), id=f"{id}-s", credential=made)

    return make


def _drop_credential(id: str) -> None:
    _drop_pool(f"{id}-p")
    Credential.objects.filter(pk=id).delete()


def _registry(id: str) -> None:
    secret = {"username": "puller", "password": "x" * 20}
    RegistryCredential.objects.create(id=id, name=id, registry=f"{id}.example.com", secret=secret)


def _node(state: str) -> Callable[[str], None]:
    def make(id: str) -> None:
        lost = {"lost_at": _ago(hours=1), "lost_by": "user ada", "lost_reason": "Its power supply is broken."}
        Node.objects.create(
            pk=id, name=id, state=state, heartbeat_at=_ago(hours=2), **(lost if state == NodeState.LOST else {})
        )

    return make


def _notification(**over: Any) -> Callable[[str], None]:
    def make(id: str) -> None:
        failed = make_delivery(
            id, id=_uuid(f"{id}-d"), detail=f"The receiver answered 500. {LONG}", attempts=9, status_code=500
        )
        make_delivery(id, state="delivered", delivered_at=timezone.now(), status_code=200, moment="resolved")
        Target.objects.filter(pk=failed.target_id).update(**over)

    return make


NOTIFICATIONS: dict[str, Callable[[str], None]] = {
    "on": _notification(last_delivered_at=timezone.now()),
    "muted": _notification(muted_until=timezone.now() + timedelta(hours=2)),
    "off": _notification(is_on=False),
    "disabled": _notification(disabled_at=timezone.now(), disabled_detail=REFUSAL, failing_since=_ago(days=5)),
}


def _drop_notification(id: str) -> None:
    Delivery.objects.filter(target_id=id).delete()
    Target.objects.filter(pk=id).delete()


# All of it -------------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Callable[[str], None]]] = {
    "pool": POOLS, "container": CONTAINERS, "tenant": TENANTS, "run": RUNS, "spec": SPECS, "workload": WORKLOADS,
    "user": USERS, "key": KEYS, "notification": NOTIFICATIONS,
    "credential": {"unused": _credential(is_used=False), "used": _credential(is_used=True)},
    "registry": {"kept": _registry},
    "node": {"silent": _node("silent"), "lost": _node("lost")},
}  # fmt: skip
_DROP: dict[str, Callable[[str], object]] = {
    "pool": _drop_pool, "container": _drop_container, "tenant": _drop_tenant, "run": _drop_run,
    "spec": lambda id: _drop_pool(f"{id}-p"), "workload": _drop_workload, "notification": _drop_notification,
    "user": lambda id: User.objects.filter(username=id).delete(),
    "key": lambda id: ApiKey.objects.filter(name=id).delete(), "credential": _drop_credential,
    "registry": lambda id: RegistryCredential.objects.filter(pk=id).delete(),
    "node": lambda id: Node.objects.filter(pk=id).delete(),
}  # fmt: skip
_ADDRESS: dict[str, Callable[[str], Address]] = {
    "pool": lambda id: {"pool_id": id}, "container": lambda id: {"container_id": _uuid(id)},
    "tenant": lambda id: {"tenant_id": id, "backup_id": _uuid(f"{id}-backup")}, "run": lambda id: {"run_id": _uuid(id)},
    "spec": lambda id: {"spec_id": id}, "workload": lambda id: {"workload_id": id, "number": 1},
    "user": lambda id: {"user_id": _number(id)}, "key": lambda id: {"key_id": f"{_number(id):x}"},
    "notification": lambda id: {"notification_id": id, "delivery_id": _uuid(f"{id}-d")},
    "credential": lambda id: {"credential_id": id}, "registry": lambda id: {"registry_credential_id": id},
    "node": lambda id: {"node_id": id},
}  # fmt: skip
_EVENT: dict[str, Callable[[str], Address]] = {
    "pool": lambda id: {"pool_id": id}, "container": lambda id: {"container_id": _uuid(id), "pool_id": f"{id}-p"},
    "tenant": lambda id: {"tenant_id": id, "pool_id": f"{id}-p"},
    "run": lambda id: {"tenant_id": f"{id}-t", "pool_id": f"{id}-p"},
}  # fmt: skip


def id_of(kind: str, state: str) -> str:
    """The id of the object that ``build`` puts in this state."""
    return f"{kind}-{state.replace(' ', '-')}"


def address(kind: str, id: str) -> Address:
    """The arguments of the URLs that name the object."""
    return _ADDRESS[kind](id)


def put(kind: str, state: str, id: str) -> None:
    """The object is in this state, and what it needs is there. It must not be there yet."""
    with recording():
        if state != GONE:
            KINDS[kind][state](id)
        about = _EVENT.get(kind)
        emit("pool.warning", **(about(id) if about else {}), detail=f"{id} is {state} now.")


def drop(kind: str, id: str) -> None:
    """Nothing of the object is there."""
    _DROP[kind](id)


def move(kind: str, state: str, id: str) -> None:
    """The object is in this state, whichever it was in, in one transaction."""
    with recording():
        drop(kind, id)
        put(kind, state, id)


def build() -> None:
    """Each kind in each state, side by side."""
    with recording():
        for kind, states in KINDS.items():
            for state in states:
                put(kind, state, id_of(kind, state))
    deployment_settings.current()

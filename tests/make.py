"""Functions that create rows for tests, with defaults that work together."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from django.utils import timezone

from boilerhouse.core import deployment
from boilerhouse.core.models import Node
from boilerhouse.notifications import targets
from boilerhouse.notifications.messages import payload
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DEFAULT_RULES
from boilerhouse.notifications.targets import TargetSettings
from pools.models import Container, Pool, Workload, WorkloadVersion
from pools.spec import WorkloadSpec
from pools.states import ContainerState
from syncing import places
from syncing.models import SyncMapping, SyncSpec
from syncing.states import PlaceState
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState

_numbers = itertools.count(1)

SPEC: dict[str, Any] = {
    "image": "boilerhouse/example-workload:1",
    "command": [],
    "volumes": [
        {"name": "state", "container_path": "/state", "mode": "rw"},
        {"name": "secrets", "container_path": "/run/secrets", "mode": "ro"},
    ],
    "environment": {},
    "ports": [{"name": "http", "container_port": 8080}],
    "stop_timeout_ms": 1000,
    "resources": {},
    "security": {},
    "pull_policy": "never",
}

API_SINK: dict[str, Any] = {
    "type": "s3", "bucket": "bucket", "region": "r", "prefix": "t/${tenantId}", "endpoint": "http://127.0.0.1:1",
    "accessKeyId": "AKID", "secretAccessKey": "very-secret",
}  # fmt: skip
"""A sink as the API takes it; nothing answers there."""
API_MAPPING: dict[str, Any] = {
    "containerPath": "/state", "sinkPath": "s/", "direction": "bidirectional", "mode": "sync"
}  # fmt: skip


def make_spec(**over: Any) -> WorkloadSpec:
    """A workload's spec with a state and a secrets volume."""
    return WorkloadSpec.from_json({**SPEC, **over})


def make_workload(id: str | None = None, **over: Any) -> Workload:
    id = id or f"workload-{next(_numbers)}"
    workload = Workload.objects.create(id=id, name=id)
    WorkloadVersion.objects.create(workload=workload, number=1, spec_json=make_spec(**over).to_json())
    return workload


def make_pool(id: str | None = None, **over: Any) -> Pool:
    id = id or f"pool-{next(_numbers)}"
    workload = over.pop("workload", None) or make_workload()
    proven = {"good_version": workload.latest}
    return Pool.objects.create(**{"id": id, "name": id, "workload": workload, "max_size": 10, **proven, **over})


def make_node(id: str | None = None) -> Node:
    """This node's row, or another's."""
    id = id or deployment.node_id()
    return Node.objects.get_or_create(pk=id, defaults={"name": id})[0]


def make_container(pool: Pool | None = None, **over: Any) -> Container:
    pool = pool or make_pool()
    deployment.deployment_id()
    values = {
        "pool": pool,
        "version": pool.workload.latest,
        "node_id": make_node(over.pop("node", None)).pk,
        "uid": 200_000 + next(_numbers),
    }
    return Container.objects.create(**{**values, "state": ContainerState.IDLE, **over})


def make_sync_spec(
    pool: Pool | None = None, mappings: list[dict[str, Any]] | None = None, *, is_settled: bool = False, **over: Any
) -> SyncSpec:
    """With ``is_settled`` it is not asked at first use which place the sink is, and whom it meets there."""
    pool = pool or make_pool()
    sink = {"type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/"}
    number = next(_numbers)
    sink |= {"endpoint": "http://127.0.0.1:1", "accessKeyId": "AKIDTEST"}
    asked = over.pop("sink", {})
    sink = {**sink, **asked} if asked.get("type", "s3") == "s3" else asked
    spec = SyncSpec.objects.create(
        **{"id": f"spec-{number}", "name": "spec", "pool": pool, "sink": sink, "on_claim": True, "on_release": True}
        | {"sink_secrets": {"accessKeyId": "AKIDTEST", "secretAccessKey": "test-secret"}, **over}
    )
    if is_settled:
        spec.place, spec.place_state = {"spelled": places.spelling(spec)}, PlaceState.KNOWN
        spec.save()
    default = {"container_path": "/state", "sink_path": "state/", "direction": "bidirectional", "mode": "sync"}
    for position, mapping in enumerate(mappings or [{}]):
        SyncMapping.objects.create(spec=spec, position=position, **{**default, **mapping})
    return spec


def make_assignment(tenant: str = "alice", *, container: Container | None = None, **over: Any) -> Assignment:
    """A pending claim of the tenant, which there is then; with ``container``, of that one and its pool."""
    Tenant.objects.get_or_create(pk=tenant)
    values = {"tenant_id": tenant, "generation": 1, "deadline": timezone.now() + timedelta(seconds=30)}
    if container:
        values |= {"container": container, "container_ref": container.pk, "pool": container.pool}
        values |= {"version": container.version, "uid": container.uid}
    elif "pool" not in over:
        values["pool"] = make_pool()
    return Assignment.objects.create(**{**values, **over})


def make_held(
    pool: Pool | None = None,
    tenant: str = "alice",
    *,
    minutes: float = 0.0,
    container: Container | None = None,
    **over: Any,
) -> Assignment:
    """The tenant has held a claimed container for so many minutes, and was active a moment ago."""
    values: dict[str, Any] = {"state": AssignmentState.ASSIGNED, "was_assigned": True}
    values |= {"last_activity_at": timezone.now(), "assigned_at": timezone.now() - timedelta(minutes=minutes)}
    container = container or make_container(pool, state=ContainerState.CLAIMED)
    return make_assignment(tenant, container=container, **{**values, **over})


def make_delivery(target_id: str = "ops", **over: Any) -> Delivery:
    """A message to a webhook that nobody listens at, failed unless the state is given."""
    now = timezone.now()
    target = Target.objects.filter(pk=target_id).first()
    if target is None:
        settings = TargetSettings(
            name=target_id, kind="webhook", url="http://127.0.0.1:1/hook/very-secret", kinds=DEFAULT_RULES
        )
        target = targets.create(id=target_id, settings=settings)[0]
    about = payload(
        incident_id=None, key="node:n", kind="node_lost", severity="error", title="Node n has no worker",
        text="Its work waits.", pool_ids=(), since=now,
    )  # fmt: skip
    return Delivery.objects.create(
        **{"target": target, "moment": "opened", "payload": about, "state": "failed", "give_up_at": now, **over}
    )

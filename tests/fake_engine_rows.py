"""Containers of the fake engine with real directories: warm ones, claimed ones, and claims on them."""

from __future__ import annotations

import os
import time
from typing import Any

from django_q.models import OrmQ

from pools import lifecycle, volumes
from pools.models import Container, Pool
from pools.runtime.base import Image
from pools.states import ContainerState
from tenants import claims, tasks
from tenants.models import Assignment
from tests.fake_runtime import FakeRuntime
from tests.make import make_container, make_held, make_pool, make_spec, make_sync_spec

UID = 200_779


def start(container: Container, engine: FakeRuntime) -> None:
    """The row's container runs at the engine."""
    engine.create(lifecycle.plan_of(container, container.version.spec, "net", Image("sha256:1")))
    engine.start(lifecycle.runtime_name(container.pk))


def hold(pool: Pool, engine: FakeRuntime, tenant: str, **resources: Any) -> Assignment:
    """A tenant at work with a file of its own."""
    container = make_container(pool, state=ContainerState.CLAIMED)
    spec = make_spec(resources=resources)
    volumes.prepare(container.pk, container.uid, spec)
    volumes.latch(container.pk, tenant, 1)
    precious = volumes.volume_path(container.pk, "state") / "precious"
    precious.write_text(tenant)
    os.chown(precious, container.uid, container.uid)
    start(container, engine)
    return make_held(pool, tenant, container=container)


def warm(runtime: FakeRuntime, sink: dict[str, Any], secrets: dict[str, Any]) -> Pool:
    """A pool with three idle containers, and a spec that leads to this sink."""
    pool = make_pool()
    for _ in range(3):
        container = make_container(pool, uid=UID)
        volumes.prepare(container.pk, UID, make_spec())
        start(container, runtime)
    mappings = [{"sink_path": "t/${tenantId}/"}]
    make_sync_spec(pool, sink=sink, sink_secrets=secrets, mappings=mappings, is_settled=True)
    return pool


def work() -> int:
    """Run the queued tasks of claims, and nothing else; return their number."""
    messages = [one for one in OrmQ.objects.order_by("id") if one.task["func"] == "tenants.tasks.prepare"]
    for message in messages:
        message.delete()
        tasks.prepare(*message.task["args"])
    return len(messages)


def outcome(pool: Pool, tenant: str = "ann", **over: Any) -> Assignment:
    """What a claim comes to. Raises its error."""
    begun = claims.begin(claims.Claim(tenant_id=tenant, pool_id=pool.pk, **over))
    until = time.time() + 20
    while (settled := claims.settle(begun, until)) is None:
        work()
        time.sleep(0.02)
    return settled

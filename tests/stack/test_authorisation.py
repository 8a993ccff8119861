"""Every operation of the API by everybody who may ask, for objects that are there: who may not is refused and has changed
nothing, and what is allowed does what it says.

What each role may do stands in ``tests.access``. A new operation fails here until it is in ``CASES``, too.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.utils import timezone

from boilerhouse.core.api_keys import create_key, find_key
from boilerhouse.core.models import ApiKey, AuditEntry, FailingStep, NodeToken, Role
from boilerhouse.notifications import mutes
from boilerhouse.notifications.models import Delivery, Target
from pools.models import Container, Pool, RegistryCredential, Workload, WorkloadVersion
from pools.states import PoolState
from syncing.locations import marker_key
from syncing.models import Credential, SyncRun, SyncSpec
from tenants.models import Assignment
from tests.access import MAY, PUBLIC
from tests.s3 import S3Server
from tests.stack.conftest import Stack, eventually

Ids = dict[str, str]
MAPPING = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
RUNNING = set(PoolState) - {PoolState.PAUSED, PoolState.DRAINING}
ROLES = [Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.TENANT]
pytestmark = pytest.mark.any_database


class World:
    """One object of each kind that nothing is done to (``ids``), two tenants, and a key of each kind."""

    def __init__(self, stack: Stack, s3: S3Server) -> None:
        self.stack, self.s3 = stack, s3
        self.pool = stack.make_pool(sink=s3.json("t/${tenantId}/"), warm=2, maxSize=8)
        self.own, self.other, self.resting = "own", "other", "resting"
        self.tenants = [self.own, self.resting, *(self.guest(role) for role in ROLES)]
        self.keys = {role: create_key(name=f"a-{role}", role=role)[1] for role in ROLES[:3]}
        self.keys[Role.TENANT] = create_key(name="a-tenant", role=Role.TENANT, tenant_ids=self.tenants)[1]
        self.foreign = create_key(name="a-foreign", role=Role.TENANT, tenant_ids=[self.other])[1]
        for text in ("one", "two"):
            self.visit(self.resting, text)
        self.hold(self.own)
        self.hold(self.other)
        (backup,) = stack.ok("GET", f"tenants/{self.resting}/backups")["items"]
        self.ids: Ids = {
            "tenantId": self.own, "workloadId": self.pool, "poolId": self.pool, "specId": self.pool,
            "containerId": str(self.container(self.own)), "backupId": backup["id"],
            "runId": str(SyncRun.objects.filter(tenant_id=self.resting).latest("created_at").pk),
            "keyId": create_key(name="stays", role=Role.VIEWER)[0].pk,
            "credentialId": self.made("credentials", credential()),
            "registryCredentialId": self.made("registry-credentials", registry_credential()),
            "port": "8080", "commandId": self.running_command(), "nodeId": Container.objects.all()[0].node_id,
            **self.cause(), **self.delivery(), **self.node_token(),
        }  # fmt: skip

    @staticmethod
    def guest(role: Role) -> str:
        """The tenant that a role's calls claim, release and erase."""
        return f"guest-of-{role}"

    def node(self) -> Any:
        (node,) = self.stack.ok("GET", "nodes")["items"]
        return node

    def made(self, path: str, body: Any) -> str:
        return str(self.stack.ok("POST", path, body, 201)["id"])

    def running_command(self) -> str:
        body = {"script": "sleep 3600", "wait": False}
        return str(self.stack.ok("POST", f"tenants/{self.own}/commands", body, 201)["commandId"])

    def cause(self) -> Ids:
        """Something that needs an operator: a step that fails."""
        step = FailingStep.objects.create(name=name(), error="Odd", detail="odd", since=timezone.now())
        return {"causeId": mutes.id_of(f"step:{step.pk}")}

    def muted_cause(self) -> Ids:
        ids = self.cause()
        self.stack.ok("PUT", f"causes/{ids['causeId']}/mute", mute(), 200)
        return ids

    def mute_of(self, ids: Ids) -> Any:
        (found,) = [one for one in self.stack.ok("GET", "causes")["items"] if one["id"] == ids["causeId"]]
        return found["mute"]

    def notification(self) -> Ids:
        return {"notificationId": self.made("notifications", notification())}

    def delivery(self) -> Ids:
        """A message that could not be delivered: nobody listens there."""
        ids = self.notification()
        sent = self.stack.ok("POST", f"notifications/{ids['notificationId']}/test", None, 200)
        return {**ids, "deliveryId": sent["id"]}

    def container(self, tenant: str) -> Any:
        return Assignment.objects.live().get(tenant_id=tenant).container_ref

    def assigned(self, tenant: str) -> bool:
        return bool(self.stack.status(tenant)["assigned"])

    def hold(self, tenant: str, text: str = "kept") -> Ids:
        """Afterwards it holds a container, and has written there."""
        if not self.assigned(tenant):
            self.stack.claim(tenant, self.pool)
        self.stack.exec(str(self.container(tenant)), f"echo {text} > /state/diary")
        return {"tenantId": tenant}

    def visit(self, tenant: str, text: str = "kept") -> Ids:
        """Afterwards it holds nothing, and what it wrote is at the sink."""
        self.hold(tenant, text)
        self.stack.release(tenant)
        return {"tenantId": tenant}

    def workload(self) -> Ids:
        return {"workloadId": self.made("workloads", workload())}

    def empty_pool(self, **over: Any) -> Ids:
        return {"poolId": self.made("pools", {**pool(self), **over})}

    def spec(self) -> Ids:
        return {"specId": self.made("sync-specs", spec(self, self.empty_pool()["poolId"]))}

    def backup(self) -> Ids:
        newest = self.stack.ok("GET", f"tenants/{self.resting}/backups")["items"][0]
        return {"tenantId": self.resting, "backupId": newest["id"]}

    def queued_run(self) -> Ids:
        run = SyncRun.objects.create(
            spec_id=self.pool, tenant_id=self.own, trigger="manual", direction="upload", state="queued",
            generation=Assignment.objects.live().get(tenant_id=self.own).generation,
        )  # fmt: skip
        return {"runId": str(run.pk)}

    def idle_container(self) -> Ids:
        self.stack.wait_warm(self.pool)
        return {"containerId": self.stack.containers(self.pool)[0]["id"]}

    def lost_state(self) -> Ids:
        """A tenant whose saved state is gone at the sink, as its last claim has found."""
        tenant = f"lost-{uuid.uuid4().hex[:6]}"
        self.visit(tenant)
        sink = self.s3.sink()
        for key in [marker_key(f"t/{tenant}/state"), *(one for one in self.s3.keys() if tenant in one)]:
            sink.delete(key)
        self.stack.problem("POST", f"tenants/{tenant}/claim", {"poolId": self.pool}, 502, "state_missing")
        eventually(lambda: not self.assigned(tenant))
        return {"tenantId": tenant}

    def node_token(self) -> Ids:
        values = {"created_by": "a test", "expires_at": timezone.now() + timedelta(hours=1)}
        return {"tokenId": NodeToken.objects.create(pk=uuid.uuid4().hex[:8], token_hash="none", **values).pk}

    def key(self) -> Ids:
        return {"keyId": create_key(name="goes", role=Role.VIEWER)[0].pk}

    def ended(self, run_id: str) -> str:
        """The state of a run, once it has ended."""
        return str(eventually(lambda: SyncRun.objects.filter(pk=run_id, finished_at__isnull=False).first(), 60).state)

    def shape(self) -> list[Any]:
        """Everything that a call could have changed of what stays as it is."""
        rows = [
            sorted(model.objects.values_list("pk", flat=True))  # type: ignore[attr-defined]
            for model in (
                Workload, WorkloadVersion, Pool, SyncSpec, Credential, RegistryCredential, Target, Delivery, NodeToken,
            )
        ]  # fmt: skip
        shown = [
            self.stack.call("GET", f"{kind}/{self.ids[name]}").headers.get("ETag")
            for kind, name in (
                ("workloads", "workloadId"), ("pools", "poolId"), ("sync-specs", "specId"), ("credentials", "credentialId"),
                ("registry-credentials", "registryCredentialId"), ("notifications", "notificationId"),
            )
        ]  # fmt: skip
        keys = sorted(ApiKey.objects.values_list("pk", "revoked_at", "role"))
        held = sorted(Assignment.objects.live().values_list("tenant_id", "generation", "state"))
        runs = SyncRun.objects.exclude(trigger="interval").count()
        settings = self.stack.ok("GET", "settings")
        return [*rows, shown, keys, held, runs, settings]


def name() -> str:
    return f"n-{uuid.uuid4().hex[:8]}"


def workload() -> dict[str, Any]:
    return {"id": name(), "name": "Made", "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
            "volumes": {"state": {"containerPath": "/state"}}}  # fmt: skip


def pool(world: World) -> dict[str, Any]:
    return {"id": name(), "workloadId": world.pool, "minSize": 0, "maxSize": 2}


def spec(world: World, pool_id: str) -> dict[str, Any]:
    made = name()
    return {
        "id": made,
        "poolId": pool_id,
        "mappings": [MAPPING],
        "sink": world.s3.json(f"{made}/${{tenantId}}/"),
        "policy": {},
    }


def credential() -> dict[str, Any]:
    return {"id": name(), "name": "Made", "accessKeyId": "AKIDMADE", "secretAccessKey": "made-secret"}


def registry_credential() -> dict[str, Any]:
    made = name()
    return {"id": made, "name": "Made", "registry": f"{made}.example", "username": "u", "password": "made-secret"}


def notification() -> dict[str, Any]:
    return {"id": name(), "name": "Made", "type": "slack", "url": "http://127.0.0.1:1/hook", "enabled": True}


def mute() -> dict[str, Any]:
    return {"forMs": 3_600_000}


# What each operation is asked, and what is so once it was allowed ------------------------------------------


@dataclass(frozen=True)
class Case:
    """``fresh`` makes what a call may use up; ``body`` is what is sent; ``done`` says whether it did what it says."""

    done: Callable[[World, Ids, Any], Any]
    status: int = 200
    fresh: Callable[[World, Role], Ids] = lambda world, role: {}
    body: Callable[[World, Ids], Any] = lambda world, ids: None
    query: str = ""


def listed(key: str) -> Case:
    """The existing object is in the list."""
    return Case(lambda world, ids, found: ids[key] in {one["id"] for one in found["items"]}, query="?limit=200")


def shown(key: str) -> Case:
    return Case(lambda world, ids, found: found["id"] == ids[key])


def created(path: str, body: Callable[[World], Any]) -> Case:
    return Case(
        lambda world, ids, found: world.stack.ok("GET", f"{path}/{found['id']}")["id"] == found["id"], 201,
        body=lambda world, ids: body(world),
    )  # fmt: skip


def renamed(path: str, key: str, fresh: Callable[[World], Ids], **more: Any) -> Case:
    """Sends the body of a GET with another name, and reads that name afterwards."""
    return Case(
        lambda world, ids, found: world.stack.ok("GET", f"{path}/{ids[key]}")["name"] == "Renamed",
        fresh=lambda world, role: fresh(world),
        body=lambda world, ids: {**world.stack.ok("GET", f"{path}/{ids[key]}"), "name": "Renamed", **more},
    )


def of_files(whose: str) -> dict[str, Case]:
    """The operations on files of the container that ``own`` holds; ``/etc/hostname`` is one that each has."""

    def with_file(world: World, role: Role) -> Ids:
        world.stack.exec(str(world.container(world.own)), "touch /state/there")
        return {}

    def reads(world: World, ids: Ids, found: Any) -> bool:
        return requests.get(found["url"], timeout=30).content != b""

    return {
        f"read{whose}File": Case(lambda world, ids, found: found, query="?path=/etc/hostname"),
        f"write{whose}File": Case(
            lambda world, ids, found: found["size"] > 0, query="?path=written", body=lambda world, ids: {"any": "bytes"}
        ),
        f"remove{whose}File": Case(
            lambda world, ids, found: found == {"removed": 1}, query="?path=there", fresh=with_file
        ),
        f"list{whose}Files": Case(lambda world, ids, found: found["items"], query="?path=/"),
        f"show{whose}File": Case(lambda world, ids, found: found["type"] == "directory", query="?path=/"),
        f"make{whose}Directory": Case(
            lambda world, ids, found: found["type"] == "directory", 201,
            body=lambda world, ids: {"path": f"made/{uuid.uuid4()}"},
        ),
        f"move{whose}File": Case(
            lambda world, ids, found: found["name"] == "moved", fresh=with_file,
            body=lambda world, ids: {"from": "there", "to": "moved", "overwrite": True},
        ),
        f"watch{whose}Files": Case(lambda world, ids, found: b"ready" in found),
        f"read{whose}Archive": Case(lambda world, ids, found: b"hostname" in found, query="?path=/etc/hostname"),
        f"write{whose}Archive": Case(lambda world, ids, found: found == {"entries": 0}),
        f"sign{whose}FileLink": Case(reads, 201, body=lambda world, ids: {"path": "/etc/hostname"}),
    }  # fmt: skip


def gone(path: str, key: str, fresh: Callable[[World], Ids], status: int = 204) -> Case:
    return Case(
        lambda world, ids, found: eventually(
            lambda: world.stack.call("GET", f"{path}/{ids[key]}").status_code == 404, 30
        ),
        status, fresh=lambda world, role: fresh(world),
    )  # fmt: skip


def pool_becomes(*states: str, body: Any = None, was_paused: bool = False, size: int = 0) -> Case:
    def is_so(world: World, ids: Ids, found: Any) -> bool:
        status = world.stack.pool_status(ids["poolId"])
        return status["state"] in states and status["targetSize"] == size

    def fresh(world: World, role: Role) -> Ids:
        ids = world.empty_pool()
        if was_paused:
            world.stack.ok("POST", f"pools/{ids['poolId']}/pause", {}, 202)
        return ids

    return Case(is_so, 202, fresh=fresh, body=lambda world, ids: body)


def ran() -> Case:
    """The command's output is that of the tenant's own container."""
    return Case(
        lambda world, ids, found: found["stdout"] == "kept\n",
        body=lambda world, ids: {"command": ["cat", "/state/diary"]},
    )


def command(script: str = "sleep 60", **more: Any) -> Callable[[World, Role], Ids]:
    """A command that runs in the tenant's container, with a terminal or an input."""

    def start(world: World, role: Role) -> Ids:
        body = {"script": script, "wait": False, "timeoutMs": 60_000, **more}
        started = world.stack.ok("POST", f"tenants/{world.own}/commands", body, 201)
        return {"commandId": started["commandId"]}

    return start


def command_state(world: World, ids: Ids) -> Any:
    return world.stack.ok("GET", f"tenants/{world.own}/commands/{ids['commandId']}")


def command_cases(of: str, run: str) -> dict[str, Case]:
    """By tenant or by container."""
    terminal = {"tty": {"cols": 80, "rows": 24}}
    return {
        f"runCommand{run}": ran(),
        f"listCommands{of}": Case(
            lambda world, ids, found: ids["commandId"] in {one["commandId"] for one in found["items"]}, fresh=command("true")
        ),
        f"getCommand{of}": Case(lambda world, ids, found: found["commandId"] == ids["commandId"], fresh=command("true")),
        f"followCommand{of}": Case(lambda world, ids, found: True, fresh=command("true")),
        f"killCommand{of}": Case(
            lambda world, ids, found: eventually(lambda: command_state(world, ids)["signal"] == "SIGKILL"), 204,
            fresh=command(),
        ),
        f"signalCommand{of}": Case(
            lambda world, ids, found: eventually(lambda: command_state(world, ids)["signal"] == "SIGTERM"), 204,
            fresh=command(), body=lambda world, ids: {"signal": "SIGTERM"},
        ),
        f"writeToCommand{of}": Case(
            lambda world, ids, found: eventually(lambda: command_state(world, ids)["exitCode"] == 7), 204,
            fresh=command("read x; exit $x", stdin=""), body=lambda world, ids: {"data": "7\n"},
        ),
        f"resizeCommand{of}": Case(
            lambda world, ids, found: command_state(world, ids)["tty"], 204,
            fresh=command(**terminal), body=lambda world, ids: {"cols": 100, "rows": 30},
        ),
    }  # fmt: skip


def runs_succeed(world: World, ids: Ids, found: Any) -> bool:
    states = [world.ended(run["id"]) for run in found["runs"]]
    return bool(states) and set(states) == {"succeeded"}


def with_variable(world: World, ids: Ids) -> Any:
    return {**world.stack.ok("GET", "settings"), "variables": {"MADE": name()}}


CASES: dict[str, Case] = {
    "listRegistryCredentials": listed("registryCredentialId"),
    "createRegistryCredential": created("registry-credentials", lambda world: registry_credential()),
    "getRegistryCredential": shown("registryCredentialId"),
    "replaceRegistryCredential": renamed(
        "registry-credentials", "registryCredentialId",
        lambda world: {"registryCredentialId": world.made("registry-credentials", registry_credential())}, password="other",
    ),
    "deleteRegistryCredential": gone(
        "registry-credentials", "registryCredentialId",
        lambda world: {"registryCredentialId": world.made("registry-credentials", registry_credential())},
    ),
    "listUsage": Case(lambda world, ids, found: "items" in found),
    "listCauses": Case(lambda world, ids, found: ids["causeId"] in {one["id"] for one in found["items"]}),
    "muteCause": Case(
        lambda world, ids, found: world.mute_of(ids) == found, fresh=lambda world, role: world.cause(),
        body=lambda world, ids: mute(),
    ),
    "unmuteCause": Case(
        lambda world, ids, found: world.mute_of(ids) is None, 204, fresh=lambda world, role: world.muted_cause()
    ),
    "listNotifications": listed("notificationId"),
    "createNotification": created("notifications", lambda world: notification()),
    "getNotification": shown("notificationId"),
    "replaceNotification": renamed("notifications", "notificationId", World.notification),
    "deleteNotification": gone("notifications", "notificationId", World.notification),
    "testNotification": Case(
        lambda world, ids, found: (found["event"], found["state"]) == ("test", "failed"),
        fresh=lambda world, role: world.notification(),
    ),
    "listNotificationDeliveries": listed("deliveryId"),
    "resendNotificationDelivery": Case(
        lambda world, ids, found: found["id"] == ids["deliveryId"], 202, fresh=lambda world, role: world.delivery()
    ),
    "listNodes": listed("nodeId"),
    "getNode": shown("nodeId"),
    "replaceNode": Case(
        lambda world, ids, found: world.node()["labels"] == {"made": "yes"},
        body=lambda world, ids: {**world.node(), "labels": {"made": "yes"}},
    ),
    "cordonNode": Case(lambda world, ids, found: world.node()["cordoned"], body=lambda world, ids: {}),
    "listNodeTokens": listed("tokenId"),
    "createNodeToken": Case(  # SQLite serves one machine
        lambda world, ids, found: found.get("code") == "one_machine_only" or NodeToken.objects.get(pk=found["id"]),
        201 if "DATABASE_URL" in os.environ else 409, body=lambda world, ids: {"ttlMs": 60_000},
    ),
    "revokeNodeToken": Case(
        lambda world, ids, found: not NodeToken.objects.filter(pk=ids["tokenId"]).exists(), 204,
        fresh=lambda world, role: world.node_token(),
    ),
    "uncordonNode": Case(lambda world, ids, found: not world.node()["cordoned"]),
    "drainNode": Case(  # its tenants go on
        lambda world, ids, found: world.node()["drainsAt"], body=lambda world, ids: {"afterMs": 30 * 86_400_000}
    ),
    "declareNodeLost": Case(  # the only node is alive
        lambda world, ids, found: found["code"] == "node_alive", 409, body=lambda world, ids: {"isOff": True}
    ),
    "listWorkloads": listed("workloadId"),
    "createWorkload": created("workloads", lambda world: workload()),
    "getWorkload": shown("workloadId"),
    "replaceWorkload": renamed("workloads", "workloadId", World.workload),
    "deleteWorkload": gone("workloads", "workloadId", World.workload),
    "refreshWorkload": Case(lambda world, ids, found: True, 202, fresh=lambda world, role: world.workload()),
    "listWorkloadVersions": Case(lambda world, ids, found: found["items"]),
    "listPools": listed("poolId"),
    "createPool": created("pools", pool),
    "getPool": shown("poolId"),
    "replacePool": renamed("pools", "poolId", World.empty_pool),
    "deletePool": gone("pools", "poolId", World.empty_pool, 202),
    "scalePool": pool_becomes(*RUNNING, body={"targetSize": 1}, size=1),
    "pausePool": pool_becomes("paused"),
    "resumePool": pool_becomes(*RUNNING, was_paused=True),
    "drainPool": pool_becomes("draining"),
    "getPoolUsage": Case(lambda world, ids, found: "items" in found),
    "listPoolContainers": listed("containerId"),
    "listCredentials": listed("credentialId"),
    "createCredential": created("credentials", lambda world: credential()),
    "getCredential": shown("credentialId"),
    "replaceCredential": renamed(
        "credentials", "credentialId", lambda world: {"credentialId": world.made("credentials", credential())},
        secretAccessKey="other",
    ),
    "deleteCredential": gone(
        "credentials", "credentialId", lambda world: {"credentialId": world.made("credentials", credential())}
    ),
    "listSyncSpecs": listed("specId"),
    "createSyncSpec": created("sync-specs", lambda world: spec(world, world.empty_pool()["poolId"])),
    "getSyncSpec": shown("specId"),
    "replaceSyncSpec": renamed("sync-specs", "specId", World.spec),
    "deleteSyncSpec": gone("sync-specs", "specId", World.spec),
    "listSinkProbes": Case(lambda world, ids, found: found["items"][0]["state"] == "healthy"),
    "probeSyncSpec": Case(lambda world, ids, found: found["state"] == "healthy"),
    "getSyncSpecStatus": Case(lambda world, ids, found: found["specId"] == ids["specId"]),
    "triggerSyncSpec": Case(runs_succeed, 202, body=lambda world, ids: {"tenantId": world.own, "direction": "outward"}),
    "listSyncRuns": listed("runId"),
    "getSyncRun": shown("runId"),
    "cancelSyncRun": Case(
        lambda world, ids, found: world.ended(ids["runId"]) == "cancelled", 202, fresh=lambda world, role: world.queued_run()
    ),
    "listTenants": Case(
        lambda world, ids, found: {world.own, world.other} <= {one["tenantId"] for one in found["items"]}, query="?limit=200"
    ),
    "claimContainer": Case(
        lambda world, ids, found: str(world.container(ids["tenantId"])) == found["containerId"], 201,
        fresh=lambda world, role: {"tenantId": world.guest(role)}, body=lambda world, ids: {"poolId": world.pool},
    ),
    "releaseContainer": Case(
        lambda world, ids, found: not world.assigned(ids["tenantId"]) and world.s3.keys(f"t/{ids['tenantId']}/state"),
        fresh=lambda world, role: world.hold(world.guest(role)),
    ),
    "getTenantStatus": Case(lambda world, ids, found: found["containerId"] == str(world.container(ids["tenantId"]))),
    "syncTenant": Case(runs_succeed, 202, body=lambda world, ids: {"direction": "outward"}),
    "signPortLink": Case(
        lambda world, ids, found: ".boilerhouse/open?token=" in found["url"], 201, body=lambda world, ids: {}
    ),
    "heartbeat": Case(
        lambda world, ids, found: Assignment.objects.live().get(tenant_id=world.own).last_activity_at
        > timezone.now() - timedelta(seconds=20), 204,
    ),
    "getTenantNetwork": Case(lambda world, ids, found: found["mode"] == "internet"),
    "setTenantNetwork": Case(
        lambda world, ids, found: found["inForce"] and found["isOwn"], body=lambda world, ids: {"mode": "internet"}
    ),
    "setTenantTtl": Case(
        lambda world, ids, found: found["endsAt"] is None
        and Assignment.objects.live().get(tenant_id=world.own).ends_at is None,
        body=lambda world, ids: {"ttlMs": None},
    ),
    "execForTenant": ran(),
    **of_files("Tenant"),
    **of_files("Container"),
    **command_cases("OfTenant", "ForTenant"),
    "getTenantLogs": Case(lambda world, ids, found: True),
    "eraseTenantState": Case(
        lambda world, ids, found: not world.s3.keys(f"t/{ids['tenantId']}/state"), 204,
        fresh=lambda world, role: world.visit(world.guest(role)),
    ),
    "forgetTenantState": Case(
        lambda world, ids, found: world.hold(ids["tenantId"]) and world.assigned(ids["tenantId"]),
        fresh=lambda world, role: world.lost_state(),
    ),
    "listSavedFiles": Case(lambda world, ids, found: found["items"], fresh=lambda world, role: {"tenantId": world.resting}),
    "readSavedFile": Case(
        lambda world, ids, found: found, query="?path=/state/diary",
        fresh=lambda world, role: {"tenantId": world.resting},
    ),
    "listTenantRuns": Case(
        lambda world, ids, found: ids["runId"] in {one["id"] for one in found["items"]},
        fresh=lambda world, role: {"tenantId": world.resting}, query="?limit=200",
    ),
    "listTenantBackups": Case(lambda world, ids, found: found["items"], fresh=lambda world, role: {"tenantId": world.resting}),
    "restoreTenantBackup": Case(
        lambda world, ids, found: world.ended(found["id"]) == "succeeded", 202, fresh=lambda world, role: world.backup()
    ),
    "listContainers": listed("containerId"),
    "getContainer": shown("containerId"),
    "removeContainer": Case(
        lambda world, ids, found: eventually(lambda: not Container.objects.filter(pk=ids["containerId"]).exists()), 204,
        fresh=lambda world, role: world.idle_container(),
    ),
    "execInContainer": ran(),
    **command_cases("InContainer", "InContainer"),
    "getContainerLogs": Case(lambda world, ids, found: True),
    "listEvents": Case(lambda world, ids, found: found["items"]),
    "streamEvents": Case(lambda world, ids, found: True, query="?after=0"),
    "listApiKeys": listed("keyId"),
    "createApiKey": Case(
        lambda world, ids, found: requests.get(
            f"{world.stack.base}/api/v1/pools", headers={"Authorization": f"Bearer {found['key']}"}, timeout=30
        ).ok,
        201, body=lambda world, ids: {"name": "made", "role": "viewer"},
    ),
    "rotateApiKey": Case(
        lambda world, ids, found: find_key(found["key"]) and not ApiKey.objects.get(pk=ids["keyId"]).is_living, 201,
        body=lambda world, ids: {"overlapMs": 0}, fresh=lambda world, role: world.key(),
    ),
    "revokeApiKey": Case(
        lambda world, ids, found: ApiKey.objects.get(pk=ids["keyId"]).revoked_at, 204, fresh=lambda world, role: world.key()
    ),
    "listAudit": Case(lambda world, ids, found: found["items"]),
    "getSettings": Case(lambda world, ids, found: "variables" in found),
    "replaceSettings": Case(
        lambda world, ids, found: world.stack.ok("GET", "settings")["variables"] == found["variables"] != {}, body=with_variable
    ),
    "getStats": Case(lambda world, ids, found: found),
    "getMetrics": Case(lambda world, ids, found: True),
}  # fmt: skip


# Asking -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    case: Case = field(repr=False)

    @property
    def may(self) -> set[Role]:
        return MAY[re.sub(r"\{\w+\}", "*", self.path)][self.method]

    def ask(self, world: World, key: str | None, ids: Ids, *, with_body: Any = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        url = f"{world.stack.base}/api/v1/{self.path.format(**{**world.ids, **ids})}{self.case.query}"
        return requests.request(self.method, url, json=with_body, headers=headers, timeout=120, stream=True)


@pytest.fixture(scope="module")
def world(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    s3 = S3Server(tmp_path_factory.mktemp("matrix") / "s3")
    s3.start()
    pools_before = set(Pool.objects.values_list("pk", flat=True))
    made = World(stack, s3)
    yield made
    for tenant in Assignment.objects.live().values_list("tenant_id", flat=True):
        stack.call("POST", f"tenants/{tenant}/release", {"discard": True})
    for pool_id in set(Pool.objects.values_list("pk", flat=True)) - pools_before:
        stack.drop_pool(pool_id)
    stack.ok("PUT", "settings", {**stack.ok("GET", "settings"), "variables": {}})
    s3.stop()


STREAMS = {"streamEvents", "watchTenantFiles", "watchContainerFiles"}


@pytest.fixture(scope="module")
def operations(stack: Stack) -> list[Operation]:
    """All of the document but those that want no key."""
    document = requests.get(f"{stack.base}/api/v1/openapi.json", timeout=30).json()
    found = [
        (does["operationId"], method.upper(), path.removeprefix("/api/v1/"))
        for path, methods in document["paths"].items()
        for method, does in methods.items()
        if re.sub(r"\{\w+\}", "*", path.removeprefix("/api/v1/")) not in PUBLIC
    ]
    names = {one for one, _, _ in found}
    assert names == set(CASES), f"say in CASES what is asked and what is done: {names ^ set(CASES)}"
    return [Operation(one, method, path, CASES[one]) for one, method, path in found]


def without_a_living_key() -> dict[str, str | None]:
    revoked, expired = create_key(name="a-revoked", role=Role.ADMIN), create_key(name="an-expired", role=Role.ADMIN)
    ApiKey.objects.filter(pk=revoked[0].pk).update(revoked_at=timezone.now())
    ApiKey.objects.filter(pk=expired[0].pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    wrong = revoked[1][:-1] + ("a" if revoked[1][-1] != "a" else "b")
    return {"no key": None, "wrong": wrong, "revoked": revoked[1], "expired": expired[1]}


def test_who_may_not_is_refused_at_objects_that_are_there_and_nothing_has_changed(world, operations):
    nobody = without_a_living_key()
    bodies = {operation.name: operation.case.body(world, world.ids) for operation in operations}
    before, found, expected = world.shape(), {}, {}

    def refuse(operation: Operation, who: str, key: str | None, status: int) -> None:
        answer = operation.ask(world, key, {}, with_body=bodies[operation.name])
        assert answer.headers["Content-Type"] == "application/problem+json", (operation, who, answer.text[:200])
        found[operation.name, who], expected[operation.name, who] = answer.status_code, status

    for operation in operations:
        for who, key in nobody.items():
            refuse(operation, who, key, 401)
        is_tenants = operation.path.startswith("tenants/")
        for role in set(ROLES) - operation.may:
            refuse(operation, role, world.keys[role], 403)
        if is_tenants:
            refuse(operation, "another tenant", world.foreign, 404)
        elif Role.TENANT not in operation.may:
            refuse(operation, "another tenant", world.foreign, 403)

    assert found == expected, {one: (status, expected[one]) for one, status in found.items() if status != expected[one]}
    assert world.shape() == before
    wrote = set(AuditEntry.objects.filter(actor__startswith="key a").values_list("actor", flat=True))
    assert not wrote, "a refused call is in nobody's name"


def test_what_is_allowed_does_what_it_says(world, operations):
    """Each role in turn; objects that a call uses up are created again for the next."""
    wrong = []
    for operation in operations:
        for role in ROLES:
            if role not in operation.may:
                continue
            ids = {**world.ids, **operation.case.fresh(world, role)}
            answer = operation.ask(world, world.keys[role], ids, with_body=operation.case.body(world, ids))
            text = next(answer.iter_content(None), b"") if operation.name in STREAMS else answer.content
            is_json = answer.headers.get("Content-Type", "").endswith("json")
            answer.close()
            if answer.status_code != operation.case.status:
                wrong.append((operation.name, role, answer.status_code, text[:300]))
            elif not operation.case.done(world, ids, answer.json() if is_json else text):
                wrong.append((operation.name, role, "not done", text[:300]))
    assert not wrong, "\n".join(map(str, wrong))


def test_nothing_of_another_tenant_is_there_under_ones_own_name(world):
    """Its backup is not found below one's own id, and its events are in no list and no stream."""
    stack, key = world.stack, {"Authorization": f"Bearer {world.foreign}"}

    def ask(method: str, path: str) -> requests.Response:
        return requests.request(method, f"{stack.base}/api/v1/{path}", headers=key, timeout=30, stream=True)

    backup = world.backup()["backupId"]
    assert ask("POST", f"tenants/{world.other}/backups/{backup}/restore").status_code in (404, 409)
    assert ask("GET", f"events?tenantId={world.own}").status_code == 404
    found = {one["payload"].get("tenantId") for one in ask("GET", "events?limit=200").json()["items"]}
    assert found == {world.other}
    text = ""
    with ask("GET", "events/stream?after=0") as stream:
        for chunk in stream.iter_content(None):
            text += chunk.decode()
            if f'"{world.other}"' in text:
                break
    assert f'"{world.other}"' in text
    assert not [tenant for tenant in world.tenants if f'"{tenant}"' in text]

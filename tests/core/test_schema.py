"""The OpenAPI schema is complete, and its examples work unchanged."""

from __future__ import annotations

import re

import jsonschema
import pytest
from django.db import connection

from boilerhouse.api.schema_examples import REQUESTS
from boilerhouse.core import deployment
from boilerhouse.core.api_keys import create_key
from boilerhouse.core.models import FailingStep, Role
from boilerhouse.notifications import mutes
from boilerhouse.web.asgi_handler import REFUSALS
from tests.api_calls import problem
from tests.make import make_container
from tests.routes import PATHS, SCHEMA

pytestmark = pytest.mark.any_database
OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
]


def validator(schema):
    return jsonschema.Draft202012Validator({**schema, "components": SCHEMA["components"]})


def test_it_is_openapi_3_1_and_names_the_key(client, db):
    served = client.get("/api/v1/openapi.json").json()

    assert SCHEMA["openapi"] == "3.1.0"
    assert served == SCHEMA, "the committed copy is what is served"
    assert SCHEMA["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_is_told_with_examples_and_its_errors(path, method, operation):
    assert operation["summary"]
    named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
    assert named == set(re.findall(r"\{(\w+)\}", path))
    for parameter in operation.get("parameters", ()):
        assert parameter.get("description") or "example" in parameter, parameter["name"]
    if body := operation.get("requestBody"):
        ((kind, content),) = body["content"].items()
        if kind == "application/json":
            validator(content["schema"]).validate(content["example"])
        else:
            assert content["schema"]["format"] == "binary"
    assert any(status.startswith("2") for status in operation["responses"])
    if operation.get("security"):
        assert {"401", "403", "422", "429", "503"} <= set(operation["responses"])
    for status, response in operation["responses"].items():
        assert response["description"] not in ("", "."), status
        assert "X-Request-ID" in response["headers"]
        for kind, content in response.get("content", {}).items():
            if kind.endswith("json"):
                validator(content["schema"]).validate(content["example"])
            assert (kind == "application/problem+json") == (int(status) >= 400) or status == "503", (status, kind)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_what_is_refused_before_a_body_is_read_is_told(path, method, operation):
    """No view returns these errors, so the schema of no view contains them by default."""
    told = {
        (int(status), code)
        for status, response in operation["responses"].items()
        for code in re.findall(r"`(\w+)`", response["description"])
    }
    answered = {(status, code) for status, code, *_ in REFUSALS.values()}

    assert (answered <= told) == (method != "get"), answered - told


def test_the_docs_page_needs_nothing_from_elsewhere(client, db):
    page = client.get("/api/v1/docs")
    urls = re.findall(r'(?:src|href|data-schema)="([^"]+)"', page.content.decode())

    assert urls
    assert all(url.startswith("/") for url in urls)
    for url in urls:
        assert client.get(url).status_code == 200, url
    assert "<script>" not in page.content.decode()
    assert "unsafe" not in page["Content-Security-Policy"]


FILES = [
    what.replace("*", whose)
    for whose in ("Tenant", "Container")
    for what in ("make*Directory", "move*File", "sign*FileLink")
]
COMMANDS = [
    f"{what}{where}"
    for what, one in (("runCommand", "For"), ("writeToCommand", "Of"), ("signalCommand", "Of"), ("resizeCommand", "Of"))
    for where in (f"{one}Tenant", "InContainer")
]


def test_every_example_body_works_as_it_stands_there(call, settings):
    sent = []
    FailingStep.objects.create(name="tidy", error="OSError")
    for name in (
        "createWorkload", "replaceWorkload", "createPool", "scalePool", "replacePool", "createCredential", "createSyncSpec",
        "replaceSyncSpec", "triggerSyncSpec", "replaceCredential", "createApiKey", "rotateApiKey", "replaceSettings",
        "claimContainer",
        "releaseContainer", "syncTenant", "setTenantNetwork", "setTenantTtl", "execForTenant", "execInContainer", "createRegistryCredential",
        "replaceRegistryCredential", "createNotification", "replaceNotification", "muteCause", "replaceNode", "cordonNode",
        "declareNodeLost", "drainNode", "createNodeToken", "joinNode", "signPortLink", *FILES, *COMMANDS,
    ):  # fmt: skip
        method, path = PATHS[name]
        ids = {
            "credentialId": "storage",
            "registryCredentialId": "registry",
            "notificationId": "ops",
            "nodeId": deployment.node_id(),
            "commandId": "0" * 32,
            "tenantId": "alice",
            "containerId": str(make_container().pk),
            "port": "8080",
            "causeId": mutes.id_of("step:tidy"),
            "keyId": create_key(name="k", role=Role.VIEWER)[0].pk,
        }
        path = re.sub(r"\{(\w+)\}", lambda match, ids=ids: ids.get(match[1], "notes"), path).removeprefix("/api/v1/")
        # What needs an engine or a sink is accepted by validation and then told what is missing.
        query = "?timeoutMs=1" if name == "claimContainer" else ""
        answer = call(method, path + query, REQUESTS[name])
        missing = {
            "claimContainer": 504,
            "releaseContainer": 404,
            "syncTenant": 409,
            "triggerSyncSpec": 409,
            "declareNodeLost": 409,
        }
        conflicts = ("execForTenant", "execInContainer", "setTenantNetwork", "setTenantTtl", "signPortLink")
        missing |= dict.fromkeys((*FILES, *conflicts), 409)
        missing |= {**dict.fromkeys(COMMANDS, 409), "joinNode": 403}
        if connection.vendor == "sqlite":
            missing["createNodeToken"] = 409
        wanted = {missing[name]} if name in missing else {200, 201, 202}
        if name == "claimContainer":
            wanted |= {503}
        assert answer.status_code in wanted, (name, answer.content)
        sent.append(name)
    assert set(sent) == set(REQUESTS)


CONTRACT_WORKLOAD = {
    "id": "agent", "name": "Agent", "image": "img:1", "command": ["run"],
    "volumes": {
        "state": {"containerPath": "/state", "mode": "rw"}, "secrets": {"containerPath": "/secrets", "mode": "ro"},
        "comm": {"containerPath": "/comm"}, "custom": [{"name": "cache", "containerPath": "/cache", "mode": "rw"}],
    },
    "environment": {"K": "v ${CONTAINER_ID}"},
    "ports": [{"name": "http", "containerPort": 80, "protocol": "tcp", "publish": False}],
    "healthCheck": {"command": ["true"], "intervalMs": 30000, "timeoutMs": 5000, "retries": 3, "startPeriodMs": 60000},
    "stopTimeoutMs": 10000, "resources": {"cpus": 1, "memoryMb": 512, "pidsLimit": 256, "tmpfsMb": 64, "diskMb": 100},
    "security": {"readOnlyRootFilesystem": True, "networkMode": "bridge"},
    "hooks": {"postClaim": {"command": ["a"], "timeoutMs": 1000}, "preRelease": {"command": ["b"], "timeoutMs": 1000}, "preSave": {"command": ["c"], "timeoutMs": 1000}},
    "pullPolicy": "missing", "configSchema": {"type": "object"},
}  # fmt: skip


PLAN = {
    "id": "ml-training-sync", "poolId": "ml-gpu-pool",
    "mappings": [
        {
            "containerPath": "/data/checkpoints", "pattern": "*.pt", "sinkPath": "checkpoints/",
            "direction": "bidirectional", "mode": "sync",
        },
        {"containerPath": "/data/logs", "pattern": "**/*.log", "sinkPath": "logs/", "direction": "upload", "mode": "copy"},
        {"containerPath": "/config", "sinkPath": "config/", "direction": "download", "mode": "sync"},
    ],
    "sink": {"type": "s3", "bucket": "my-ml-data", "region": "us-west-2", "prefix": "workloads/ml/${tenantId}/"},
    "policy": {"onClaim": True, "onRelease": True, "intervalMs": 300000, "allowManualTrigger": True},
}  # fmt: skip


def test_the_contracts_workload_and_the_plans_sync_spec_work_as_written(call, settings, monkeypatch):
    """The ML training example: its sink has no keys, so the host's own credentials must be permitted."""
    monkeypatch.setattr("syncing.services.probe", lambda spec, **_: {"state": "healthy"})  # its bucket is elsewhere
    assert call("POST", "workloads", CONTRACT_WORKLOAD).status_code == 201
    volumes = {"state": {"containerPath": "/data"}, "custom": [{"name": "config", "containerPath": "/config"}]}
    assert (
        call("POST", "workloads", {"id": "ml", "name": "ml", "image": "pytorch", "volumes": volumes}).status_code == 201
    )
    assert call("POST", "pools", {"id": "ml-gpu-pool", "workloadId": "ml"}).status_code == 201
    found = problem(call("POST", "sync-specs", PLAN), 422)
    assert "BOILERHOUSE_S3_ENV_AUTH" in found["detail"]
    settings.BOILERHOUSE_S3_ENV_AUTH = True
    made = call("POST", "sync-specs", PLAN)
    assert made.status_code == 201, made.content
    shown = made.json()
    plan = {**PLAN, "policy": {**PLAN["policy"], "quiesce": "freeze"}}
    assert {name: shown[name] for name in plan} == plan
    assert call("PUT", "sync-specs/ml-training-sync", shown).status_code == 200


def test_what_get_gave_may_be_sent_back(call):
    for kind, body in (("workloads", CONTRACT_WORKLOAD), ("pools", {"id": "p", "workloadId": "agent"})):
        made = call("POST", kind, body).json()
        answer = call("PUT", f"{kind}/{made['id']}", made)
        assert answer.status_code == 200, answer.content
        stable = {name: value for name, value in made.items() if name not in ("updatedAt", "status")}
        assert {name: answer.json()[name] for name in stable} == stable


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80"])
def test_a_foreign_host_name_is_a_problem_document(call, host):
    answer = call.client.get("/api/v1/health", headers={"Host": host})
    problem(answer, 400, "malformed")

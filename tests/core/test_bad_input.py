"""Invalid values that were once accepted, or stored despite a 500: each now gets a 422 and stores nothing (P12)."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
from rest_framework import serializers

from boilerhouse.api.schema_examples import REQUESTS
from boilerhouse.api.serializers import ApiSerializer, LineField
from pools import schemas
from pools.spec import WorkloadSpec
from syncing.sinks.s3 import S3Sink
from tenants import validation
from tests.api_calls import problem
from tests.make import SPEC, make_pool, make_workload
from tests.snapshot import snapshot

pytestmark = pytest.mark.any_database

SINK = {"type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/", "endpoint": "http://127.0.0.1:1",
        "accessKeyId": "AKID", "secretAccessKey": "secret"}  # fmt: skip
HTTP = {"type": "http", "endpoint": "http://127.0.0.1:1/dav"}
ENDPOINTS = [
    "http://[::1", "http://[::1]x", "http://::1", "http://[]", "http://[v1.a]", "http://[::1]:99999", "http://h:65536",
    "http://h:0", "http://h:", "http://h:9a", "http://a\nb", "http://a b", "http://h/a b", "http://h\\x", "http://h\r\n",
    " http://h\n", "http://" + "a" * 64, "http://" + ".".join(["a" * 60] * 5), "http://a..b", "http://.a", "http://-a",
    "http://a-", "http://", "http:///x", "http://user@h", "http://user:pw@h", "http://h?x", "http://h#x", "http://h/%41",
    "ftp://h", "h", "//h", "http:h", "http://h\u00e9", "http://\u2488com", "http://h/\u202e", "http://h/" + "a" * 400,
]  # fmt: skip
LINES = ["a\nb", "a\n", "\na", "a\r\nb", "a\tb", "a\x1b[31m", "a\x7f", "a\u0085b"]


def spec(**over):
    sink = over.pop("sink", {})
    body = {**copy.deepcopy(REQUESTS["createSyncSpec"]), "id": "s", "sink": {**SINK, **sink}, **over}
    return "sync-specs", body


def workload(**over):
    return "workloads", {**copy.deepcopy(REQUESTS["createWorkload"]), "id": "w", **over}


def mapping(**over):
    return [{"containerPath": "/state", "sinkPath": "s/", "direction": "upload", "mode": "copy", **over}]


ROWS = [
    *((spec(sink={"endpoint": text}), "/sink/endpoint") for text in [*ENDPOINTS, "http://a_b"]),
    *((spec(sink={**dict.fromkeys(SINK), **HTTP, "endpoint": text}), "/sink/endpoint") for text in ENDPOINTS),
    *((spec(sink={"region": text}), "/sink/region") for text in [*LINES, "a b", "-a", "a-", "12", "a.b", "a/b", "\u00e9"]),
    *((spec(sink={"bucket": text}), "/sink/bucket") for text in [*LINES, "a..b", "a b", "a/b", "\u00e9\u00e9\u00e9", "..."]),
    *((spec(sink={"accessKeyId": text}), "/sink/accessKeyId") for text in [*LINES, "a b", "\u00e9"]),
    *((spec(sink={"secretAccessKey": text}), "/sink/secretAccessKey") for text in [*LINES, "a b", "\u00e9"]),
    *((spec(sink={"prefix": f"${{tenantId}}/{text}"}), "/sink/prefix") for text in LINES),
    *((spec(mappings=mapping(sinkPath=text)), "/mappings/0/sinkPath") for text in LINES),
    *((spec(mappings=mapping(containerPath=f"/{text}")), "/mappings/0/containerPath") for text in [*LINES, "/state", "state/"]),
    *((spec(name=text), "/name") for text in LINES),
    *((spec(id=text), "/id") for text in [*LINES, " a", "a "]),
    *((spec(poolId=text), "/poolId") for text in LINES),
    *((workload(name=text), "/name") for text in LINES),
    *((workload(id=text), "/id") for text in [*LINES, " a", "a "]),
    *((workload(image=text), "/image") for text in LINES),
    *((workload(seed=text), "/seed") for text in LINES),
    *((workload(ports=[{"name": text, "containerPort": 1}]), "/ports/0/name") for text in LINES),
    *((workload(security={"networkMode": text}), "/security/networkMode") for text in LINES),
    *((workload(security={"runtime": text}), "/security/runtime") for text in LINES),
    *((workload(environment={text: "x"}), f"/environment/{text}") for text in LINES),
    *((("pools", {"id": "q", "workloadId": "notes", "name": text}), "/name") for text in LINES),
    *((("pools", {"id": "q", "workloadId": text}), "/workloadId") for text in LINES),
    *((("credentials", {"name": "c", "accessKeyId": text, "secretAccessKey": "s"}), "/accessKeyId") for text in [*LINES, "a b"]),
    *((("credentials", {"name": "c", "accessKeyId": "a", "secretAccessKey": text}), "/secretAccessKey") for text in [*LINES, "a b"]),
    *((("registry-credentials", {"registry": text, "username": "u", "password": "p"}), "/registry") for text in [
        *LINES, "https://ghcr.io", "a b", "ghcr.io/", "ghcr.io//x", "ghcr.io/../x", "\u00e9.example.com", "user@ghcr.io", "/x",
    ]),
    *((("registry-credentials", {"registry": "r.example.com", "username": text, "password": "p"}), "/username") for text in [*LINES, "a:b", ""]),
    (("registry-credentials", {"registry": "r.example.com", "username": "u"}), "/password"),
    (("registry-credentials", {"registry": "r.example.com", "password": "p"}), "/username"),
    (("registry-credentials", {"registry": "r.example.com", "username": "u", "identityToken": "t"}), "/username"),
    (("registry-credentials", {"registry": "r.example.com", "username": "u", "password": "p", "identityToken": "t"}), "/identityToken"),
    *((("api-keys", {"name": text, "role": "viewer"}), "/name") for text in LINES),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[f"{path}{at}" for (path, _), at in ROWS])
def test_a_value_that_nothing_can_use_is_refused_and_nothing_is_saved(call, number):
    """With the pointer of the value; the answer was 500 and the spec was stored, or the value was trimmed."""
    (path, body), pointer = ROWS[number]
    make_pool("notes", workload=make_workload("notes"))
    body = {name: value for name, value in body.items() if name != "sink"} | (
        {"sink": {name: value for name, value in body["sink"].items() if value is not None}} if "sink" in body else {}
    )
    call.client.raise_request_exception = False
    before = snapshot()
    found = problem(call("POST", path, body), 422, "invalid")
    assert {one["pointer"] for one in found["errors"]} == {pointer}
    assert snapshot() == before


@pytest.mark.parametrize("endpoint", [
    "http://127.0.0.1:9000", "https://s3.eu-central-1.amazonaws.com", "http://[::1]:9000", "http://minio", "https://h.test./",
    "HTTPS://h.test/storage/v1/s3", "http://127.0.0.1:65535",
])  # fmt: skip
def test_endpoints_that_every_client_reads_are_taken(call, monkeypatch, endpoint):
    """The rule refuses no valid value."""
    monkeypatch.setattr("syncing.services.probe", lambda spec, **_: {"state": "unhealthy"})
    make_pool("notes", workload=make_workload("notes"))
    path, body = spec(sink={"endpoint": endpoint})
    assert call("POST", path, body).status_code == 201


def test_a_spec_that_is_stored_is_never_answered_with_an_error_of_its_probe(call, monkeypatch):
    """However a client library interprets the endpoint."""

    def read(self, key, deadline_s):
        raise ValueError("Invalid endpoint")

    monkeypatch.setattr(S3Sink, "read", read)
    make_pool("notes", workload=make_workload("notes"))
    answer = call("POST", *spec())
    assert answer.status_code == 201
    assert (answer.json()["sinkHealth"]["state"], answer.json()["sinkHealth"]["code"]) == ("unhealthy", "failed")
    assert "ValueError" in answer.json()["sinkHealth"]["detail"]


# Schemas of configs -----------------------------------------------------------------------------------

CHAIN = {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(60)} | {"d60": {}}}
DEEP = {"properties": {"a": {"items": {"$ref": "#/nope"}}}}
UNUSABLE = [
    ({"$ref": "#"}, ""), ({"$ref": ""}, ""), ({"$ref": "#/nope"}, "/$ref"), ({"$ref": "#foo"}, "/$ref"),
    ({"$dynamicRef": "#foo"}, "/$dynamicRef"), ({"$dynamicRef": "#"}, ""), ({"$ref": "file:///etc/passwd"}, "/$ref"),
    ({"$ref": "http://127.0.0.1:1/x"}, "/$ref"), ({"$ref": "other"}, "/$ref"), ({"allOf": [{"$ref": "#"}]}, ""),
    ({"allOf": [{}, {"$ref": "#/nope"}]}, "/allOf/1/$ref"), ({"not": {"$ref": "#"}}, ""), ({"if": {"$ref": "#"}}, ""),
    ({"dependentSchemas": {"a": {"$ref": "#"}}}, ""), (CHAIN, "/$defs/d50"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "/$defs/a"),
    ({"properties": {"a": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}}, "/properties/a/$ref"),
    ({"$id": "http://[::1", "$ref": "x"}, ""), (DEEP, "/properties/a/items/$ref"), ({"pattern": "("}, "/pattern"),
    ({"patternProperties": {"(": {}}}, "/patternProperties/("),
    ({"properties": {"a/b": {"type": "nonsense"}}}, "/properties/a~1b/type"), ({"required": 1}, "/required"),
]  # fmt: skip
USABLE = [
    {}, {"properties": {"a": {"$ref": "#"}}}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
    {"$ref": "#k", "$defs": {"a": {"$anchor": "k"}}}, {"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}},
    {"$id": "https://example.com/a", "$defs": {"b": {"$id": "b", "type": "object"}}, "properties": {"p": {"$ref": "b"}}},
    {"$ref": "#/unknown", "unknown": {"type": "object"}},
]  # fmt: skip


@pytest.mark.parametrize(("schema", "where"), UNUSABLE, ids=lambda one: ascii(one)[:60])
def test_a_schema_that_no_config_could_be_held_against_is_refused(call, schema, where):
    """It was accepted, and then every claim answered 500; remote references were fetched."""
    make_pool("notes", workload=make_workload("notes"))
    before = snapshot()
    found = problem(call("POST", *workload(configSchema=schema)), 422, "invalid")
    [error] = found["errors"]
    assert (error["pointer"], error["code"]) == ("/configSchema" + where, "schema")
    assert snapshot() == before


@pytest.mark.parametrize("schema", USABLE, ids=lambda one: str(one)[:60])
def test_a_schema_that_refers_to_itself_sensibly_is_taken(schema):
    """Recursive references that describe a tree of values are valid."""
    assert schemas.problem(schema) is None
    assert schemas.errors(schema, [{"a": {"a": {}}, "p": {}}], "bob") == [[]]


@pytest.mark.parametrize("schema", [schema for schema, _ in UNUSABLE], ids=lambda one: ascii(one)[:60])
def test_a_claim_by_a_schema_that_was_stored_before_is_a_422_at_worst(schema):
    """The error says that the workload is wrong, not the claim (hazards.md#d5)."""
    stored = WorkloadSpec.from_json({**SPEC, "config_schema": schema})
    [[wrong]] = validation.config_errors([{"a": {"items": [1]}}], stored, "bob")
    assert wrong.code == "schema"
    assert "configSchema" in wrong.detail


@pytest.mark.parametrize("number", [10**400, -(10**4000), 1e308, 5e-324])
def test_numbers_of_any_size_are_held_against_a_schema(number):
    """Dividing it as a float overflowed."""
    bounded = {"properties": {"b": {"multipleOf": 0.5, "maximum": 7, "minimum": -7}}}
    stored = WorkloadSpec.from_json({**SPEC, "config_schema": bounded})
    [found] = validation.config_errors([{"b": number}], stored, "bob")
    assert {one.pointer for one in found} == {"/b"}


# All of them ------------------------------------------------------------------------------------------

FREE = {
    ("HealthCheckField", "command"), ("HealthCheckChoice", "command"), ("HookField", "command"),
    ("WorkloadInput", "command"), ("WorkloadInput", "entrypoint"), ("ExecInput", "command"), ("ExecInput", "stdin"),
    ("CommandInput", "command"), ("CommandInput", "script"), ("CommandInput", "cwd"), ("CommandInput", "stdin"),
    ("ClaimInput", "command"), ("ClaimInput", "script"), ("StdinInput", "data"),
    ("MakeDirectoryInput", "path"), ("MakeDirectoryInput", "mode"), ("MoveInput", "from"), ("MoveInput", "to"), ("LinkInput", "path"),
    ("ApiKeyInput", "tenantIds"), ("S3SinkInput", "provider"), ("PoolNetworkField", "dns"),
    ("WorkloadInput", "dns"),
    ("RegistryCredentialInput", "password"), ("RegistryCredentialInput", "identityToken"),
    ("SftpSinkInput", "privateKey"), ("GcsSinkInput", "serviceAccountKey"), ("NodeJoinInput", "certificateRequest"),
}  # fmt: skip
"""Words that a program gets, and names of files, whatever they hold; and what a stricter rule of its own holds together."""


def inputs(base=ApiSerializer):
    import_module("boilerhouse.urls")  # which knows all views and what they read
    for one in base.__subclasses__():
        if not one.__name__.endswith("Output"):
            yield one
        yield from inputs(one)


def test_every_text_that_comes_in_is_one_line_unless_it_is_a_programs(db):
    """A name with a newline is never intended; new fields are checked too."""
    looked_at = 0
    for serializer in inputs():
        if serializer.__module__.startswith("tests."):
            continue
        for name, field in serializer().get_fields().items():
            text = field.child if isinstance(field, serializers.ListField) else field
            if isinstance(text, serializers.CharField) and (serializer.__name__, name) not in FREE:
                looked_at += 1
                assert isinstance(text, LineField), f"{serializer.__name__}.{name}"
    assert looked_at > 30

"""Malformed values in every field of every body and in every id get a precise 4xx and change nothing (P12)."""

from __future__ import annotations

import re

import pytest
from django.urls import resolve

from boilerhouse.api.schema_examples import REQUESTS
from boilerhouse.core.models import ApiKey
from tests.dictionary import IDS, NASTY, places, replaced
from tests.routes import PATHS, ROUTES
from tests.snapshot import snapshot

pytestmark = pytest.mark.postgresql


def is_said_well(answer):
    """A problem document with the error, and its pointer if it is in the body."""
    found = answer.json()
    assert answer["Content-Type"] == "application/problem+json"
    assert found["detail"]
    assert found["code"]
    assert len(answer.content) < 20_000, "the answer does not throw the request back"
    for error in found["errors"]:
        assert error["pointer"] == "" or error["pointer"].startswith("/")
        assert error["detail"]


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - {"releaseContainer", "syncTenant"}))
def test_bodies(call, world, name):
    method, template = PATHS[name]
    ids = {
        "credentialId": "storage",
        "registryCredentialId": "registry",
        "tenantId": "bob",
        "containerId": str(world.pk),
    }
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "notes"), template).removeprefix("/api/v1/")
    if name == "claimContainer":
        path += "?timeoutMs=1"
    call.client.raise_request_exception = False
    before = snapshot()
    refused = 0
    for at in places(REQUESTS[name]):
        for value in NASTY:
            answer = call(method, path, replaced(REQUESTS[name], at, value))
            assert answer.status_code < 500 or answer.json()["code"] in ("pool_exhausted", "claim_timeout"), (
                at,
                value,
                answer.content,
            )
            if answer.status_code < 400 or answer.status_code >= 500:
                before = snapshot()
                continue
            refused += 1
            is_said_well(answer)
            if refused % 7 == 0:
                assert snapshot() == before, (at, str(value)[:100])
    assert refused > 15
    assert snapshot() == before


@pytest.mark.parametrize(("route", "method"), [one for one in ROUTES if "*" in one[0] and one[0] != "events/stream"])
def test_ids(call, world, route, method):
    call.client.raise_request_exception = False
    before = snapshot()
    for value in IDS:
        body = {} if method in ("POST", "PUT") else None
        answer = call(method, route.replace("*", value), body)
        assert answer.status_code < 500, (value, answer.content)
        if answer.status_code >= 400:
            is_said_well(answer)
    if method != "DELETE" or route != "tenants/*/state":
        assert snapshot() == before


@pytest.mark.parametrize(
    "raw",
    ["nan", "NaN", "[1,]", "{'a': 1}", '{"a": 1e999999}', "[" * 2000 + "]" * 2000, '"\\ud800"', "\ufeff{}", "{}{}", ""],
)
def test_text_that_is_no_body(call, world, raw):
    before = snapshot()
    for name in ("createWorkload", "createPool", "claimContainer", "replacePool"):
        method, path = PATHS[name]
        path = re.sub(r"\{(\w+)\}", "notes", path).removeprefix("/api/v1/")
        answer = call(method, path, raw=raw.encode("utf-8", "surrogatepass"))
        assert answer.status_code in (400, 422), answer.content
        is_said_well(answer)
    assert snapshot() == before
    assert resolve("/api/v1/pools")
    assert ApiKey.objects.count() == 1

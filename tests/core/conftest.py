"""Fixtures of the tests of the API as a whole."""

from __future__ import annotations

import pytest

from pools.models import Container
from tests.api_calls import Call
from tests.make import make_assignment, make_container, make_pool, make_sync_spec, make_workload


@pytest.fixture
def world(call: Call, monkeypatch: pytest.MonkeyPatch) -> Container:
    """What the examples name, and no sink or engine that could be asked."""
    monkeypatch.setattr("syncing.services.probe", lambda spec, **_: {"state": "unhealthy"})
    pool = make_pool("notes", workload=make_workload("notes"), max_size=20)
    make_sync_spec(pool, id="notes", sink={"prefix": "notes/${tenantId}/"})
    call("POST", "credentials", {"id": "storage", "name": "S", "accessKeyId": "A", "secretAccessKey": "S"})
    place = {"id": "registry", "registry": "registry.example.net", "username": "u", "password": "secret"}
    call("POST", "registry-credentials", place)
    mail = {"id": "notes", "name": "On call", "type": "email", "recipients": ["ops@example.net"]}
    assert call("POST", "notifications", mail).status_code == 201
    container = make_container(pool, state="claimed")
    make_assignment("alice", pool=pool, state="release_failed", container_ref=container.pk)
    return container

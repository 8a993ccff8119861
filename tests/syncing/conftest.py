"""Fixtures of the tests of saves and restores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from boilerhouse.core.api_keys import create_key
from boilerhouse.core.models import Role
from tests.sink_servers import SinkServer
from tests.spec_bodies import SECRET
from tests.tenant_state import TenantState


@pytest.fixture
def tenant(empty_sink_server: SinkServer, data_dir: Path, transactional_db: None) -> TenantState:
    """A tenant with its first claim, at each kind of sink."""
    return TenantState(empty_sink_server)


@pytest.fixture
def ask_api(client: Client, db: None, data_dir: Path) -> Callable[..., Any]:
    """The API's answer to a key of the role, with this status. No answer contains the secret."""
    keys = {role: create_key(name=role.value, role=role)[1] for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER)}

    def call(method: str, path: str, body: Any = None, status: int = 200, role: Role = Role.ADMIN) -> Any:
        data = "" if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {keys[role]}"}
        answer = client.generic(method, f"/api/v1/{path}", data, content_type="application/json", headers=headers)
        assert answer.status_code == status, answer.content
        assert SECRET not in answer.content.decode()
        return answer.json() if answer.content else None

    return call

"""Sends API requests within the test process and checks their problem documents."""

from __future__ import annotations

import json
from typing import Any


class Call:
    """``call("POST", "pools", {...})``"""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.admin = self.key_of("admin")

    def key_of(self, role: str, **more: Any) -> str:
        from boilerhouse.core.api_keys import create_key
        from boilerhouse.core.models import Role

        return create_key(name=role, role=Role(role), **more)[1]

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "admin",
        raw: Any = None,
        content_type: str = "application/json",
        **headers: str,
    ) -> Any:
        key = self.admin if key == "admin" else key
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            named["Authorization"] = f"Bearer {key}"
        data = raw if raw is not None else (json.dumps(body) if body is not None else "")
        return self.client.generic(method, f"/api/v1/{path}", data, content_type=content_type, headers=named)


def problem(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, which must be one."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["requestId"] == answer["X-Request-ID"]
    assert code is None or found["code"] == code, found
    return found


def refused_fields(answer: Any) -> tuple[set[tuple[str, str]], dict[str, Any]]:
    """Pointer and code of each field that an answer refuses, and its problem document."""
    found = problem(answer, 422, "invalid")
    return {(one["pointer"], one["code"]) for one in found["errors"]}, found

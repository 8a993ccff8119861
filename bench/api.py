"""The few calls that benches need, with nothing in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests


@dataclass
class Api:
    base: str
    key: str
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: Any = None, expect: tuple[int, ...] = (200, 201, 202)) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = self.session.request(method, f"{self.base}/api/v1/{path}", json=body, headers=headers, timeout=120)
        if answer.status_code not in expect:
            raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text[:600]}")
        return answer.json() if answer.content else None

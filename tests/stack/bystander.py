"""A well-behaved tenant, and the duration of each of its operations: alone, and during an attack."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests

from tests.stack.conftest import Stack

OPERATIONS = ("claim", "exec", "status", "stream", "release", "save")
INTERVAL_S = 5
FLOOR_S = {"claim": 0.25, "exec": 0.25, "status": 0.1, "stream": 0.25, "release": 0.5, "save": INTERVAL_S}
"""A quiet value below this counts as this: of a few milliseconds a scheduler alone makes twice as many."""
PATIENCE_S = 90
VISIT_EVERY_S, WORK_EVERY_S = 4.0, 1.0
"""It leaves room: one that came back as fast as it can would keep two processors busy by itself, with nobody attacking."""
MOST_S = 150
"""A round that has not seen as much as it should ends nevertheless."""


def quantile(values: list[float], share: float) -> float:
    """The smallest of the values that ``share`` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Round:
    """Seconds by operation, and what went wrong."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def __add__(self, other: Round) -> Round:
        both = Round(errors=[*self.errors, *other.errors])
        for one in (self, other):
            for operation, values in one.took.items():
                both.took[operation] += values
        return both

    def at(self, operation: str, share: float) -> float:
        return quantile(self.took[operation], share)


class Bystander:
    """Two tenants with one key: ``held`` keeps its container, works in it and is saved every five seconds;
    ``guest`` comes, looks for what it had, works and leaves, again and again."""

    def __init__(self, stack: Stack, pool: str) -> None:
        self.stack, self.pool = stack, pool
        self.held, self.guest = f"held-{pool}", f"guest-{pool}"
        body = {"name": "bystander", "role": "tenant", "tenantIds": [self.held, self.guest]}
        self.key = stack.ok("POST", "api-keys", body, 201)["key"]
        self.visits = 0
        self._turn = Round()
        assert self._ask("POST", f"tenants/{self.held}/claim?timeoutMs=60000", {"poolId": pool}), self._turn.errors
        assert self._visit(), self._turn.errors

    def leave(self) -> None:
        for tenant in (self.held, self.guest):
            self.stack.call("POST", f"tenants/{tenant}/release", {"discard": True})

    def _ask(self, method: str, path: str, body: Any = None, operation: str = "") -> Any:
        began = time.monotonic()
        try:
            answer = requests.request(
                method, f"{self.stack.base}/api/v1/{path}", json=body, timeout=PATIENCE_S,
                headers={"Authorization": f"Bearer {self.key}"},
            )  # fmt: skip
        except requests.RequestException as error:
            self._turn.errors.append(
                f"{operation or path}: {type(error).__name__} after {time.monotonic() - began:.1f} s"
            )
            return None
        if operation:
            self._turn.took[operation].append(time.monotonic() - began)
        if not answer.ok:
            self._turn.errors.append(f"{operation or path}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer.json() if answer.content else {}

    def _run(self, tenant: str, script: str) -> str | None:
        done = self._ask("POST", f"tenants/{tenant}/exec", {"command": ["sh", "-c", script]}, "exec")
        if done is None:
            return None
        if done["exitCode"]:
            self._turn.errors.append(f"exec: {done}")
        return str(done["stdout"])

    def _work(self) -> None:
        self._run(self.held, "date >> /state/diary; tail -c 2000 /state/diary > /state/last")
        self._ask("GET", f"tenants/{self.held}/status", operation="status")
        self._follow()

    def _follow(self) -> None:
        """Open the stream of its own events, and leave once it is open."""
        began = time.monotonic()
        try:
            answer = requests.get(
                f"{self.stack.base}/api/v1/events/stream?tenantId={self.held}", timeout=PATIENCE_S, stream=True,
                headers={"Authorization": f"Bearer {self.key}"},
            )  # fmt: skip
        except requests.RequestException as error:
            self._turn.errors.append(f"stream: {type(error).__name__} after {time.monotonic() - began:.1f} s")
            return
        with answer:
            self._turn.took["stream"].append(time.monotonic() - began)
            if not answer.ok:
                self._turn.errors.append(f"stream: {answer.status_code} {answer.text[:200]}")

    def _visit(self) -> bool:
        """Come, find what was left here the last time, write, and go. A container is warm when it comes."""
        self._wait_warm()
        if self._ask("POST", f"tenants/{self.guest}/claim?timeoutMs=60000", {"poolId": self.pool}, "claim") is None:
            return False
        found = self._run(self.guest, "cat /state/visits 2>/dev/null")
        if found is not None and found.strip() != (str(self.visits) if self.visits else ""):
            self._turn.errors.append(f"state: found {found!r} at visit {self.visits}")
        self.visits += 1
        self._run(self.guest, f"echo {self.visits} > /state/visits; head -c 100000 /dev/urandom > /state/data")
        return self._ask("POST", f"tenants/{self.guest}/release", {}, "release") is not None

    def _wait_warm(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 30:
            answer = self.stack.call("GET", f"pools/{self.pool}")
            if answer.ok and answer.json()["status"]["idle"]:
                break
            time.sleep(0.05)
        self._turn.took["refill"].append(time.monotonic() - began)

    def _saves(self, began: float, ended: float) -> None:
        """How long nothing of ``held`` was saved: from one completed save to the next, or to now."""
        found = self._ask("GET", f"tenants/{self.held}/runs?direction=upload&limit=100")
        if found is None:
            return
        done = []
        for run in found["items"]:
            if run["state"] == "succeeded":
                done.append(datetime.fromisoformat(run["finishedAt"]).timestamp())
            elif run["finishedAt"] and datetime.fromisoformat(run["finishedAt"]).timestamp() > began:
                self._turn.errors.append(f"save: {run['state']} {run['error']}")
        done.sort()
        for before, after in zip(done, [*done[1:], ended], strict=True):
            if after > began and before < ended and (after < ended or after - before > INTERVAL_S):
                self._turn.took["save"].append(after - before)

    def round(self, seconds: float, visits: int = 0) -> Round:
        """Live for so long, and for at least so many visits, and until what was begun has ended."""
        self._turn = turn = Round()
        began, enough, deadline = time.time(), time.monotonic() + seconds, time.monotonic() + MOST_S

        def goes_on() -> bool:
            now = time.monotonic()
            return now < enough or (len(turn.took["release"]) < visits and now < deadline)

        def until_then(action: Callable[[], Any], every_s: float) -> None:
            while goes_on():
                failed, next_at = len(turn.errors), time.monotonic() + every_s
                action()
                if len(turn.errors) > failed:
                    time.sleep(1)
                time.sleep(max(0.0, next_at - time.monotonic()))

        actions = (self._work, WORK_EVERY_S), (self._visit, VISIT_EVERY_S)
        threads = [threading.Thread(target=until_then, args=action) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._saves(began, time.time())
        return turn

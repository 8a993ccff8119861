"""Containers at the engine."""

from __future__ import annotations

import time
from typing import Any

import docker.errors

from pools import errors
from pools.runtime.base import ContainerPlan, Handle, Observed, Pending
from pools.runtime.docker import comparison, confined, request
from pools.runtime.docker.engine import FAST_S, SLOW_S, Engine
from pools.runtime.docker.probes import health_of, next_probe, probed_of
from pools.runtime.docker.translation import translated, words_of

LIST_S = 5
"""The deadline of the list, which detects that the engine hangs."""
HOT_S = (0.5, 1.0, 2.0)
"""Deadlines on hot paths; only a few, because each has its own client."""


class Containers(Engine):
    """Operations on containers from creation to removal."""

    def create(self, plan: ContainerPlan) -> Handle:
        with translated():
            api = self._api(SLOW_S)
            created = api.create_container(name=plan.name, **request.arguments(api, plan))
        return Handle(self.node, created["Id"], plan.name)

    def start(self, name: str) -> None:
        with translated():
            self._api(SLOW_S).start(name)

    def stop(self, name: str, timeout_ms: int) -> Observed | None:
        seconds = -(-timeout_ms // 1000)
        with translated():
            try:
                if seconds:
                    self._api(SLOW_S + seconds).stop(name, timeout=seconds)
                else:  # the engine's stop sends two signals even then, each with a new process
                    self._api(SLOW_S).kill(name)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if seconds or error.status_code != 409:
                    raise
        return self.inspect(name)

    def remove(self, name: str) -> Pending | None:
        with translated():
            try:
                self._api(SLOW_S).remove_container(name, force=True, v=True)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if error.status_code == 409 and "in progress" in words_of(error):
                    return Pending("The engine is already removing it.")
                raise
        return None

    def pause(self, name: str) -> None:
        with translated():
            try:
                self._api().pause(name)
            except docker.errors.APIError as error:
                if "already paused" not in words_of(error):
                    raise

    def unpause(self, name: str) -> None:
        with translated():
            try:
                self._api().unpause(name)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if "not paused" not in words_of(error) and "not running" not in words_of(error):
                    raise

    def inspect(self, name: str, timeout_s: float | None = None) -> Observed | None:
        allowed = FAST_S if timeout_s is None else max((t for t in HOT_S if t <= timeout_s), default=HOT_S[0])
        document = self._inspected(name, allowed)
        return None if document is None else self._observed(document)

    def inspect_made(self, plan: ContainerPlan) -> Observed | None:
        document = self._inspected(plan.name, FAST_S)
        if document is None:
            return None
        if not document["State"]["Running"]:
            return self._observed(document)
        with translated():
            api = self._api()
        body = api.create_container_config(**request.arguments(api, plan))
        wrong = comparison.differences(body, document) or confined.differences(document)
        if wrong:
            raise errors.NotAsAsked(
                f"The engine created a container that differs from the request: {'; '.join(wrong)}."
            )
        return self._observed(document)

    def _inspected(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        try:
            with translated():
                try:
                    return self._api(timeout_s).state_of(name)
                except docker.errors.NotFound:
                    return None
        except errors.EngineTimeout:
            self._timed_out_at = time.monotonic()
            raise

    def _observed(self, document: dict[str, Any]) -> Observed:
        state = document["State"]
        return Observed(
            Handle(self.node, document["Id"], document["Name"].lstrip("/")),
            document["Config"]["Labels"],
            bool(state["Running"]),
            state["Status"],
            state["ExitCode"],
            state["Pid"],
            (state.get("Health") or {}).get("Status", ""),
            bool(state["OOMKilled"]),
            next_probe_at=next_probe(document),
            probed=probed_of(document),
        )

    def list(self, labels: dict[str, str]) -> list[Observed]:
        filters = [f"{name}={value}" for name, value in labels.items()]
        with translated():
            documents = self._api(LIST_S).containers(all=True, filters={"label": filters})
        return [
            Observed(
                Handle(self.node, item["Id"], item["Names"][0].lstrip("/") if item["Names"] else item["Id"]),
                item["Labels"],
                item["State"] in ("running", "paused"),
                item["State"],
                health=health_of(item["Status"]),
                created_at=float(item["Created"]),
            )
            for item in documents
        ]

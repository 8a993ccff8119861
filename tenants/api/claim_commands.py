"""The first command of a claim, whose result is part of the claim's answer.

It runs in a thread of its own, which counts as a slow request of its owners: the threads of claims wait for it only a
moment, and then the request waits like one whose claim is not ready.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from django.db import connection

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError, Elsewhere
from boilerhouse.process import budgets
from boilerhouse.web import node_calls
from boilerhouse.web.event_pump import pump
from pools.errors import ExecTimedOut
from tenants import commands, wait_queue
from tenants.api.command_fields import encoded, name_of, render_finished

log = structlog.get_logger(__name__)

OUTPUT_BYTES = 64 * 1024
"""Of each stream in the answer of a claim, which is stored for its Idempotency-Key."""
ANSWER_S = 30.0
"""How much longer than the command its node may take to answer."""
MOMENT_S = 0.05
"""How long a thread of claims waits for a command."""


@dataclass
class _Progress:
    until: float
    """When the claim itself is given up, in Unix seconds."""
    future: Future[dict[str, Any]] | None = None


_waiting: dict[Hashable, _Progress] = {}
"""Claims of this process that have a command, by assignment."""


class ClaimCommand:
    """The command of one claim."""

    def __init__(self, assignment_id: UUID, wish: commands.Wish, command_id: str, until: float) -> None:
        self._key, self._wish, self._id = assignment_id, wish, command_id
        _forget_abandoned()
        self._state = _waiting.setdefault(assignment_id, _Progress(until))

    def result(self, container_id: UUID, owners: tuple[budgets.Owner, ...]) -> dict[str, Any] | None:
        """What the claim's answer says of it; None while it runs. It is started by the first call."""
        if self._state.future is None:
            self._state.future = self._begin(container_id, owners)
        try:
            shown = self._state.future.result(MOMENT_S)
        except TimeoutError:
            return None
        self.forget()
        return shown

    def forget(self) -> None:
        """Nobody waits for it any more."""
        _waiting.pop(self._key, None)

    def _begin(self, container_id: UUID, owners: tuple[budgets.Owner, ...]) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        try:
            hold = budgets.slow.enter(*owners)
        except BoilerhouseError as error:
            future.set_result(_failed(self._id, error))
            return future

        def work() -> None:
            try:
                with hold:
                    future.set_result(self._run(container_id))
            finally:
                connection.close()
                pump.pulse()

        within = contextvars.copy_context()
        threading.Thread(target=within.run, args=(work,), name="first-command", daemon=True).start()
        return future

    def _run(self, container_id: UUID) -> dict[str, Any]:
        try:
            return run_here(container_id, self._id, self._wish)
        except Elsewhere as error:
            return self._run_there(error, container_id)

    def _run_there(self, elsewhere: Elsewhere, container_id: UUID) -> dict[str, Any]:
        """The same on the container's node."""
        peer = node_calls.peer_of(elsewhere.node)
        if peer is None:
            return _failed(self._id, elsewhere)
        order = {"commandId": self._id, "wish": self._wish.to_json(), "actor": context.actor()}
        timeout_ms = self._wish.timeout_ms or commands.DEFAULT_WAIT_MS
        answer = node_calls.post(
            peer, f"/node/v1/containers/{container_id}/command", order, timeout_ms / 1000 + ANSWER_S
        )
        if answer is None or answer.status != HTTPStatus.OK:
            return _failed(self._id, BoilerhouseError(f"Node {peer.node} did not answer. The command may have run."))
        shown: dict[str, Any] = json.loads(answer.content)
        return shown


def run_here(container_id: UUID, command_id: str, wish: commands.Wish) -> dict[str, Any]:
    """What a claim's answer says of a command in a container of this node, once it has ended. Raises Elsewhere."""
    try:
        return _shown(commands.run(container_id, command_id, wish))
    except Elsewhere:
        raise
    except BoilerhouseError as error:
        return _failed(command_id, error)
    except Exception as error:
        log.error("first command failed", error=type(error).__name__, exc_info=True)
        return _failed(command_id, BoilerhouseError("Internal error. Whether the command has run is unknown."))


def _failed(command_id: str, error: BoilerhouseError) -> dict[str, Any]:
    """The claim has succeeded; its command has not, or not in time."""
    out, err = (error.stdout, error.stderr) if isinstance(error, ExecTimedOut) else (b"", b"")
    return {
        "commandId": command_id, "exitCode": None, "signal": name_of(None),
        "stdout": encoded(out[:OUTPUT_BYTES], "utf-8"), "stderr": encoded(err[:OUTPUT_BYTES], "utf-8"),
        "truncated": len(out) > OUTPUT_BYTES or len(err) > OUTPUT_BYTES,
        "stdoutTruncated": len(out) > OUTPUT_BYTES, "stderrTruncated": len(err) > OUTPUT_BYTES,
        "durationMs": None, "via": None, "error": {"code": error.code, "detail": error.detail},
    }  # fmt: skip


def _shown(done: commands.Finished | commands.Running) -> dict[str, Any]:
    assert isinstance(done, commands.Finished), "a claim's command has a deadline"
    cut = replace(
        done, stdout=done.stdout[:OUTPUT_BYTES], stderr=done.stderr[:OUTPUT_BYTES],
        stdout_truncated=done.stdout_truncated or len(done.stdout) > OUTPUT_BYTES,
        stderr_truncated=done.stderr_truncated or len(done.stderr) > OUTPUT_BYTES,
    )  # fmt: skip
    return {**render_finished(cut, "utf-8"), "error": None}


def _forget_abandoned() -> None:
    """Claims whose client has left are not answered, so nobody else forgets them."""
    now = time.time()
    for key, state in list(_waiting.items()):
        if now >= state.until and (state.future is None or state.future.done()):
            _waiting.pop(key, None)


def settled(keys: set[Hashable]) -> set[Hashable]:
    """Which of these claims can go on: their command has ended, or they are decided, or their time is over."""
    ended, undecided = set[Hashable](), set[Hashable]()
    for key in keys:
        state = _waiting.get(key)
        if state is None or (state.future is None and time.time() >= state.until):
            ended.add(key)
        elif state.future is None:
            undecided.add(key)
        elif state.future.done():
            ended.add(key)
    return ended | (wait_queue.settled(undecided) if undecided else set())

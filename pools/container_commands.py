"""Commands in a container of this node: by its guest agent, or by the engine where that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from pools import errors, guest
from pools.guest import kept
from pools.guest.connections import NoAgent
from pools.host.identity import runtime_name
from pools.runtime import get_runtime
from pools.runtime.base import Executed, Terminal

log = structlog.get_logger(__name__)


def run(
    container_id: UUID,
    command: tuple[str, ...],
    timeout_ms: int,
    stdin: bytes | None = None,
    limit_bytes: int = 1 << 20,
) -> Executed:
    """Run a command and wait until it ends; of each stream the first ``limit_bytes`` are kept. It runs at most once.

    Raises as ``ContainerRuntime.exec``, and CommandLost if the connection to the guest agent breaks in the middle.
    """
    by_agent = partial(guest.run, container_id, command, timeout_ms, stdin, limit_bytes)
    by_engine = partial(run_by_engine, container_id, command, timeout_ms, stdin, limit_bytes)
    return _run(by_agent, by_engine, runtime_name(container_id))


def run_at(directory: Path, name: str, command: tuple[str, ...], timeout_ms: int, *, limit_bytes: int) -> Executed:
    """The same in a container without a row: by the directory of its agent's socket, and its name at the engine."""
    by_agent = partial(guest.run_at, directory, command, timeout_ms, limit_bytes=limit_bytes)
    by_engine = partial(get_runtime().exec, name, command, timeout_ms, limit_bytes=limit_bytes)
    return _run(by_agent, by_engine, name)


def _run(by_agent: Callable[[], Executed], by_engine: Callable[[], Executed], name: str) -> Executed:
    try:
        return by_agent()
    except NoAgent as error:
        log.debug("command goes by the engine", container=name, detail=str(error))
    except errors.CommandLost:
        if _has_ended(name):
            raise errors.NotRunning("The container ended while the command ran.") from None
        raise
    return by_engine()


def run_by_engine(
    container_id: UUID,
    command: tuple[str, ...],
    timeout_ms: int,
    stdin: bytes | None = None,
    limit_bytes: int = 1 << 20,
) -> Executed:
    """The same without the guest agent."""
    return get_runtime().exec(runtime_name(container_id), command, timeout_ms, stdin=stdin, limit_bytes=limit_bytes)


def start(
    container_id: UUID, command_id: str, wanted: kept.Wanted, *, is_silent: bool, stdin: bytes | None = None
) -> kept.Kept:
    """Start a command that outlives this connection, as ``kept.start``. Raises NotRunning too."""
    with _explained(container_id):
        return kept.start(container_id, command_id, wanted, is_silent=is_silent, stdin=stdin)


def attach(container_id: UUID, command_id: str, after: int = 0, *, is_silent: bool) -> kept.Kept:
    """Come back to such a command. Raises CommandNotFound, NeedsAgent, NotRunning, TooManyKept, CommandLost."""
    with _explained(container_id):
        try:
            return kept.attach(container_id, command_id, after, is_silent=is_silent)
        except NoAgent as error:
            raise errors.NeedsAgent from error


def started(container_id: UUID) -> list[kept.Entry]:
    """Those that run, or ended recently, newest first. Raises NeedsAgent, NotRunning, CommandLost."""
    with _explained(container_id):
        try:
            return kept.entries(container_id)
        except NoAgent as error:
            raise errors.NeedsAgent from error


@contextmanager
def _explained(container_id: UUID) -> Iterator[None]:
    """Raise NotRunning where that is why the agent did not answer."""
    try:
        yield
    except (errors.CommandLost, errors.NeedsAgent):
        if _has_ended(runtime_name(container_id)):
            raise errors.NotRunning from None
        raise


def _has_ended(name: str) -> bool:
    try:
        observed = get_runtime().inspect(name)
    except errors.EngineUnavailable:
        return False  # nobody knows
    return observed is None or not observed.is_running


def open_terminal(container_id: UUID, command: tuple[str, ...], columns: int, rows: int) -> Terminal:
    """Run a command on a terminal. Raises NotRunning, ContainerMissing."""
    try:
        return guest.open_terminal(container_id, command, columns, rows)
    except (NoAgent, OSError) as error:
        log.debug("terminal goes by the engine", container=str(container_id), detail=str(error))
    return get_runtime().terminal(runtime_name(container_id), command, columns, rows)

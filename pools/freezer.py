"""Freezes a container briefly with the kernel's freezer, or with the engine's pause where the freezer is not
accessible.

A freeze never outlives the process that requested it: a watchdog process, started before, thaws the container when our
end of its pipe closes (even after kill -9) or its time is over. If both die, the controller finds the container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

import structlog
from django.conf import settings

from boilerhouse.core.errors import BoilerhouseError
from pools import host, lifecycle
from pools.errors import DirectoryGone, EngineUnavailable, Locked
from pools.fencing import state as fence_state
from pools.models import Container
from pools.nodes import at_home, here
from pools.runtime.base import ContainerRuntime
from pools.states import ContainerState

log = structlog.get_logger(__name__)

CGROUP = Path("/sys/fs/cgroup")
FREEZES_WITHIN_S = 0.5
"""The kernel's freezer takes 0.2 ms, but never finishes while a process waits for a hung disk."""
GUARD_SPARE_S = 0.5
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
"""Errors of the kernel for a deleted cgroup: before its file is opened, and after (ENODEV)."""


class CannotFreeze(BoilerhouseError):
    """The container could not be frozen in time, or not at all."""

    code = "cannot_freeze"


class Freezer(Protocol):
    """One way to freeze a container."""

    def freeze(self) -> None:
        """Freeze it. Raises CannotFreeze if it is not frozen in time; then nothing has changed."""

    def thaw(self) -> None:
        """Thaw it; harmless if it is not frozen or does not exist."""

    def is_frozen(self) -> bool: ...

    def guard(self, after_s: float) -> list[str]:
        """The command of a process that thaws when its standard input ends, or after that time."""


@dataclass(frozen=True, slots=True)
class Group:
    """The container's own cgroup."""

    control: Path
    freezes: str
    thaws: str
    state: Path
    is_done: str
    """Yields a line of ``state`` once everything is frozen."""

    def freeze(self) -> None:
        until = time.monotonic() + FREEZES_WITHIN_S
        try:
            self.control.write_text(self.freezes)
            while not self.is_frozen():
                if time.monotonic() > until:
                    self.thaw()
                    raise CannotFreeze("A process of the container cannot be frozen; it may be waiting for a disk.")
                time.sleep(0.0001)
        except OSError as error:
            raise CannotFreeze(f"Cannot use the freezer {self.control}: {error.strerror}.") from error

    def thaw(self) -> None:
        try:
            self.control.write_text(self.thaws)
        except OSError as error:
            if error.errno not in GONE:
                raise

    def is_frozen(self) -> bool:
        return self.is_done in self.state.read_text().splitlines()

    def processes(self) -> list[int]:
        """All of its processes, as this process's namespace numbers them."""
        return [int(pid) for pid in (self.control.parent / "cgroup.procs").read_text().split() if int(pid) > 0]

    def guard(self, after_s: float) -> list[str]:
        script = 'timeout "$2" cat >/dev/null; echo "$1" > "$0"'
        return ["/bin/sh", "-c", script, str(self.control), self.thaws, f"{after_s:.1f}"]


@dataclass(frozen=True, slots=True)
class EnginePause:
    """The engine's pause, for engines whose cgroups are not visible here."""

    runtime: ContainerRuntime
    name: str

    def freeze(self) -> None:
        try:
            self.runtime.pause(self.name)
        except BoilerhouseError as error:
            raise CannotFreeze(error.detail) from error

    def thaw(self) -> None:
        self.runtime.unpause(self.name)

    def is_frozen(self) -> bool:
        observed = self.runtime.inspect(self.name)
        return observed is not None and observed.status == "paused"

    def guard(self, after_s: float) -> list[str]:
        arguments = [settings.DOCKER_HOST, self.name, f"{after_s:.1f}"]
        return [sys.executable, "-m", "pools.runtime.unpause", *arguments]


def group_of(runtime_id: str, root: Path = CGROUP) -> Group | None:
    """The freezer of a running container; None if it does not run, or its cgroup is not visible here."""
    is_v2 = (root / "cgroup.controllers").exists()
    for parent in (f"docker/{runtime_id}", f"system.slice/docker-{runtime_id}.scope"):
        path = root / parent if is_v2 else root / "freezer" / parent
        if is_v2 and (path / "cgroup.freeze").exists():
            return Group(path / "cgroup.freeze", "1", "0", path / "cgroup.events", "frozen 1")
        state = path / "freezer.state"
        if not is_v2 and state.exists():
            return Group(state, "FROZEN", "THAWED", state, "FROZEN")
    return None


def is_visible(root: Path = CGROUP) -> bool:
    """Whether this process can freeze containers by the kernel."""
    at = root if (root / "cgroup.controllers").exists() else root / "freezer"
    return at.is_dir() and os.access(at, os.W_OK)


def of(runtime: ContainerRuntime, runtime_id: str, name: str) -> Freezer | None:
    """How to freeze the container; None if it does not run. Raises the engine's errors."""
    if runtime_id and (group := group_of(runtime_id)):
        return group
    observed = runtime.inspect(name)
    return EnginePause(runtime, name) if observed is not None and observed.is_running else None


def is_frozen(runtime_id: str) -> bool:
    """Whether the kernel reports the container as frozen."""
    group = group_of(runtime_id)
    try:
        return group is not None and group.is_frozen()
    except OSError:
        return False  # it has ended meanwhile


def left_frozen() -> list[UUID]:
    """Frozen tenant containers of this node: during a save, or left over by a killed one. None while the node's fence
    keeps them frozen."""
    if fence_state.is_frozen():
        return []
    rows = list(Container.objects.here().filter(state=ContainerState.CLAIMED).values_list("pk", "runtime_id"))
    groups = {pk: group_of(runtime_id) for pk, runtime_id in rows}
    frozen = [pk for pk, runtime_id in rows if groups[pk] and is_frozen(runtime_id)]
    if any(groups.values()) or not rows:
        return frozen
    listed = host.of_this_node(here().runtime.list(host.labels()))
    paused = {observed.handle.name for observed in listed if observed.status == "paused"}
    return [pk for pk, _ in rows if lifecycle.runtime_name(pk) in paused]


def thaw_forgotten(container_id: UUID) -> bool:
    """Thaw the container if no save is using it; returns whether it was frozen."""
    runtime_id = Container.objects.filter(pk=container_id).values_list("runtime_id", flat=True).first()
    node = at_home(container_id) if runtime_id is not None else None
    if runtime_id is None or node is None:
        return False
    try:
        with node.volumes.locked(container_id):
            was_frozen = thaw(node.runtime, runtime_id, lifecycle.runtime_name(container_id))
    except (Locked, DirectoryGone):
        return False
    if was_frozen:
        log.warning("container thawed that a save had left frozen", container=str(container_id))
    return was_frozen


def thaw(runtime: ContainerRuntime, runtime_id: str, name: str) -> bool:
    """Thaw a container that was left frozen or paused; returns whether it was."""
    observed = runtime.inspect(name)
    if observed is not None and observed.status == "paused":
        runtime.unpause(name)
        return True
    group = group_of(runtime_id)
    if group is None or not is_frozen(runtime_id):
        return False
    group.thaw()
    return True


def end(runtime_id: str) -> None:
    """Kill a frozen container's processes: they are thawed with SIGKILL pending, so none of them runs again.

    Does nothing if the container is not frozen by the kernel; the engine ends others itself.
    """
    group = group_of(runtime_id)
    if group is None or not is_frozen(runtime_id):
        return
    for pid in group.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    group.thaw()


PROBES_WITHIN_S = 0.3
"""How late the engine may start a health check that is due."""
PROBE_PATIENCE_S = 3.0


def wait_for_probe(runtime: ContainerRuntime, name: str, most_s: float) -> None:
    """Wait until no health check of the engine is about to start, because one that meets a frozen container fails."""
    due = _next_probe(runtime, name)
    if due is None or not -PROBES_WITHIN_S < due - time.time() < most_s:
        return
    while time.time() < due + PROBE_PATIENCE_S:
        time.sleep(0.05)
        if _next_probe(runtime, name) != due:
            return


def _next_probe(runtime: ContainerRuntime, name: str) -> float | None:
    """When the next check is due, in Unix seconds; None without one, or if the engine does not answer (then it checks
    nothing)."""
    try:
        observed = runtime.inspect(name)
    except EngineUnavailable:
        return None
    return observed.next_probe_at if observed else None


@dataclass(slots=True)
class Freeze:
    """One period in which a container was frozen."""

    seconds: float = 0.0
    """Its duration in seconds, once it is over."""


@contextmanager
def frozen(freezer: Freezer, most_s: float) -> Iterator[Freeze]:
    """The container is frozen within the block, for at most about ``most_s``. Raises CannotFreeze.

    Also raised at the end if the container was thawed too early: what was read in the block is then not consistent.
    """
    freeze = Freeze()
    with _guarded(freezer, most_s):
        began = time.monotonic()
        freezer.freeze()
        try:
            yield freeze
            try:
                stood_still = freezer.is_frozen()
            except OSError:
                stood_still = False  # it has ended meanwhile
        finally:
            freezer.thaw()
            freeze.seconds = time.monotonic() - began
    if not stood_still:
        raise CannotFreeze("The container was thawed too early, or has ended.")


@contextmanager
def _guarded(freezer: Freezer, most_s: float) -> Iterator[None]:
    command = freezer.guard(FREEZES_WITHIN_S + most_s + GUARD_SPARE_S)
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        cwd=settings.BASE_DIR,
    )  # fmt: skip
    try:
        yield
    finally:
        assert guard.stdin
        guard.stdin.close()
        # Its last action must be over before another freeze of the container.
        guard.wait(timeout=30)

"""Hold a container still for a moment, by the kernel's freezer; where that cannot be reached, by the engine's pause.

A freeze never outlives whoever asked for it: a guard, a process of its own started before, thaws the container when
our end of its pipe closes (also by a kill -9) or its time is over. Should both die, the controller finds out.
"""

from __future__ import annotations

import errno
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
from pools import host, lifecycle, nodes, volumes
from pools.errors import DirectoryGone, EngineUnavailable, Locked
from pools.models import Container
from pools.runtime import get_runtime
from pools.states import ContainerState

log = structlog.get_logger(__name__)

CGROUP = Path("/sys/fs/cgroup")
FREEZES_WITHIN_S = 0.5
"""The kernel's freezer takes 0.2 ms; a process that waits for a disk that hangs keeps it from ever being done."""
GUARD_SPARE_S = 0.5
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
"""What the kernel says of a cgroup that is gone: before its file is opened, and (ENODEV) after."""


class CannotFreeze(BoilerhouseError):
    """The container could not be frozen in time, or not at all."""

    code = "cannot_freeze"


class Freezer(Protocol):
    """One way to hold one container still."""

    def freeze(self) -> None:
        """Raises CannotFreeze when it is not still in time; whatever was done is then undone."""

    def thaw(self) -> None:
        """It goes on; also where it did not stand still, or is gone."""

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
    """A line of ``state`` once everything stands still."""

    def freeze(self) -> None:
        until = time.monotonic() + FREEZES_WITHIN_S
        try:
            self.control.write_text(self.freezes)
            while not self.is_frozen():
                if time.monotonic() > until:
                    self.thaw()
                    raise CannotFreeze("A process of the container cannot be frozen; it may wait for a disk.")
                time.sleep(0.0001)
        except OSError as error:
            raise CannotFreeze(f"The freezer {self.control} cannot be used: {error.strerror}.") from error

    def thaw(self) -> None:
        try:
            self.control.write_text(self.thaws)
        except OSError as error:
            if error.errno not in GONE:
                raise

    def is_frozen(self) -> bool:
        return self.is_done in self.state.read_text().splitlines()

    def guard(self, after_s: float) -> list[str]:
        script = 'timeout "$2" cat >/dev/null; echo "$1" > "$0"'
        return ["/bin/sh", "-c", script, str(self.control), self.thaws, f"{after_s:.1f}"]


@dataclass(frozen=True, slots=True)
class EnginePause:
    """The engine's pause, for engines whose cgroups are not to be seen from here."""

    name: str

    def freeze(self) -> None:
        try:
            get_runtime().pause(self.name)
        except BoilerhouseError as error:
            raise CannotFreeze(error.detail) from error

    def thaw(self) -> None:
        get_runtime().unpause(self.name)

    def is_frozen(self) -> bool:
        seen = get_runtime().inspect(self.name)
        return seen is not None and seen.status == "paused"

    def guard(self, after_s: float) -> list[str]:
        arguments = [settings.DOCKER_HOST, self.name, f"{after_s:.1f}"]
        return [sys.executable, "-m", "pools.runtime.unpause", *arguments]


def group_of(runtime_id: str, root: Path = CGROUP) -> Group | None:
    """The freezer of a running container; None if it does not run, or its cgroup is not to be seen from here."""
    is_v2 = (root / "cgroup.controllers").exists()
    for parent in (f"docker/{runtime_id}", f"system.slice/docker-{runtime_id}.scope"):
        found = root / parent if is_v2 else root / "freezer" / parent
        if is_v2 and (found / "cgroup.freeze").exists():
            return Group(found / "cgroup.freeze", "1", "0", found / "cgroup.events", "frozen 1")
        state = found / "freezer.state"
        if not is_v2 and state.exists():
            return Group(state, "FROZEN", "THAWED", state, "FROZEN")
    return None


def of(runtime_id: str, name: str) -> Freezer | None:
    """How the container is held still; None if nothing of it runs. Raises an error of the engine's."""
    if runtime_id and (group := group_of(runtime_id)):
        return group
    seen = get_runtime().inspect(name)
    return EnginePause(name) if seen is not None and seen.is_running else None


def is_frozen(runtime_id: str) -> bool:
    """Whether the kernel holds the container still now."""
    group = group_of(runtime_id)
    try:
        return group is not None and group.is_frozen()
    except OSError:
        return False  # it has ended in between


def left_frozen() -> list[UUID]:
    """Tenants' containers of this node that stand still now: held for a save, or left so by one that was killed."""
    rows = list(Container.objects.here().filter(state=ContainerState.CLAIMED).values_list("pk", "runtime_id"))
    groups = {pk: group_of(runtime_id) for pk, runtime_id in rows}
    frozen = [pk for pk, runtime_id in rows if groups[pk] and is_frozen(runtime_id)]
    if any(groups.values()) or not rows:
        return frozen
    listed = host.of_this_node(get_runtime().list(host.labels()))
    paused = {one.handle.name for one in listed if one.status == "paused"}
    return [pk for pk, _ in rows if lifecycle.runtime_name(pk) in paused]


def thaw_forgotten(container_id: UUID) -> bool:
    """Let the container go on if no save holds it; returns whether it stood still."""
    runtime_id = Container.objects.filter(pk=container_id).values_list("runtime_id", flat=True).first()
    if runtime_id is None or not nodes.at_home(container_id):
        return False
    try:
        with volumes.locked(container_id):
            was_frozen = thaw(runtime_id, lifecycle.runtime_name(container_id))
    except (Locked, DirectoryGone):
        return False
    if was_frozen:
        log.warning("a container that a save had left standing still goes on", container=str(container_id))
    return was_frozen


def thaw(runtime_id: str, name: str) -> bool:
    """Let a container go on that somebody left frozen or paused; returns whether it stood still."""
    seen = get_runtime().inspect(name)
    if seen is not None and seen.status == "paused":
        get_runtime().unpause(name)
        return True
    group = group_of(runtime_id)
    if group is None or not is_frozen(runtime_id):
        return False
    group.thaw()
    return True


PROBES_WITHIN_S = 0.3
"""So long after its time the engine may only be about to start a health check."""
PROBE_PATIENCE_S = 3.0


def wait_for_probe(name: str, most_s: float) -> None:
    """Wait until no health check of the engine's is about to begin: one that meets a frozen container fails."""
    due = _next_probe(name)
    if due is None or not -PROBES_WITHIN_S < due - time.time() < most_s:
        return
    while time.time() < due + PROBE_PATIENCE_S:
        time.sleep(0.05)
        if _next_probe(name) != due:
            return


def _next_probe(name: str) -> float | None:
    """When it is due, in Unix seconds; None where there is none, or the engine does not answer: it probes nothing."""
    try:
        seen = get_runtime().inspect(name)
    except EngineUnavailable:
        return None
    return seen.next_probe_at if seen else None


@dataclass(slots=True)
class Freeze:
    """One time that a container was held still."""

    seconds: float = 0.0
    """How long, once it is over."""


@contextmanager
def held(freezer: Freezer, most_s: float) -> Iterator[Freeze]:
    """The container stands still in the block, for at most about ``most_s``. Raises CannotFreeze.

    Also when it turns out at the end that it was let go before: then what was seen in the block was not one moment.
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
        raise CannotFreeze("The container was let go before its time, or has ended.")


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
        # Its last word must be over before anybody freezes the container again.
        guard.wait(timeout=30)

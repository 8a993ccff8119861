"""A consistent copy of what changed in a running container since its last save (ADR 30).

First, changed files are copied while the tenant works. Then the container is frozen, the files are counted again, and
what has changed since is copied again, which is quick. The copies are sent. If no freeze is possible in time, each file
is copied so that at least it is complete by itself.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
from django.conf import settings

from boilerhouse.core import failpoints
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.process import giving_way, stalls
from pools import freezer, lifecycle, quota, volumes
from pools.file_names import folders, plain, show
from pools.models import Container
from pools.volumes import Census, Stamp, copies
from pools.volumes.copies import Copied, Copies
from syncing import errors
from syncing.instruments import FREEZE_SECONDS
from syncing.models import SyncMapping
from syncing.states import Quiesce
from syncing.targets import TransferTarget, planted

log = structlog.get_logger(__name__)

PAUSES_S = (0.0, 0.5, 3.0)
"""The pause before each try of a freeze: on a busy disk, a process that waits for it cannot be frozen for a while."""
TRIES = 3
"""How often a changing file is copied without a freeze; the last copy counts, and is reported as torn."""
WALK_SHARE = 0.8
"""If counting alone takes this fraction of the longest freeze, no freeze is tried."""
LEASE_S = 60.0
"""The kernel breaks a tenant's lease on a file before this time (``/proc/sys/fs/lease-break-time``)."""
LOOK_EVERY_S = 0.5


@dataclass(slots=True)
class Part:
    """One mapping's part of a snapshot."""

    mapping: SyncMapping
    volume: Path
    relative: PurePosixPath
    recorded: dict[str, Stamp] | None
    """What the sink certainly has; None: unknown."""
    suspects: frozenset[str]
    """Names at the sink that an unfinished save may have touched, as written by ``names.plain``."""
    count: Callable[[int, float], Census]
    root: int = -1
    """The mapping's directory, open, as it was at the last look."""
    is_missing: bool = False
    failure: errors.SyncFailed | None = None
    """Why it cannot be saved; other mappings can."""
    census: Census = field(default_factory=Census)
    counted_ns: int = 0
    """When the census began."""
    copied: dict[str, Copied] = field(default_factory=dict)
    direct: set[str] = field(default_factory=set)
    """Files without space for a copy: they are sent while the tenant works."""
    torn: int = 0
    tree: Path = Path()
    """The copies, laid out to be sent."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """A note for the run's step."""

    def look(self, until: float) -> None:
        """Open the directory as it is now, and count. Raises TimeoutError."""
        self.close()
        self.counted_ns = time.time_ns()
        try:
            with planted(self.mapping):
                self.root = volumes.descend(self.volume, self.relative)
            self.census, self.is_missing, self.failure = self.count(self.root, until), False, None
        except FileNotFoundError:
            self.census, self.is_missing = Census(), True
        except errors.SyncFailed as error:
            self.census, self.failure = Census(), error

    @property
    def size(self) -> int:
        """Of the copies, in bytes."""
        return sum(copy.stamp.size for copy in self.copied.values())

    def close(self) -> None:
        if self.root >= 0:
            os.close(self.root)
        self.root = -1

    def changed(self) -> list[str]:
        """Files that the sink may not have in their present form, last changed first, because they need a copy most."""
        recorded, suspects = self.recorded, self.suspects
        if recorded is None:
            paths = list(self.census.stamps)
        else:
            paths = [path for path, stamp in self.census.stamps.items() if recorded.get(path) != stamp]
        if recorded is not None and suspects:
            more = [path for path in self.census.stamps if plain(path) in suspects]
            paths = list(dict.fromkeys([*paths, *more]))
        return sorted(paths, key=lambda path: -self.census.stamps[path].ctime_ns)

    def lacking(self) -> list[str]:
        """Changed files without a copy."""
        stamps, copied = self.census.stamps, self.copied
        return [
            path
            for path in self.changed()
            if path not in self.direct and not ((copy := copied.get(path)) and copy.is_of(stamps[path]))
        ]

    def settled(self) -> dict[str, Stamp]:
        """For the record: stamps of files that the sink now has, if no later change can go unnoticed."""
        changed = set(self.changed())
        stamps = {path: stamp for path, stamp in self.census.stamps.items() if path not in changed}
        for path in changed:
            stamp, copy = self.census.stamps[path], self.copied.get(path)
            at_ns = copy.began_ns if copy and copy.is_whole else self.counted_ns if path in self.direct else 0
            if stamp.is_settled(at_ns):
                stamps[path] = stamp
        return stamps


@contextmanager
def snapshot_of(
    target: TransferTarget, parts: list[Part], quiesce: str, keep_going: Callable[[], bool]
) -> Iterator[None]:
    """Within the block, the parts' trees contain what changed, and their census describes that point in time.

    Raises SyncFailed; TransferCancelled if ``keep_going`` returns False.
    """
    with needs_room():
        directory = _fresh_directory(target)
    floor = settings.BOILERHOUSE_DISK_FLOOR_MB << 20
    try:
        with needs_room():
            (directory / "files").mkdir(mode=0o700)
        with Copies(directory / "files", settings.BOILERHOUSE_SNAPSHOT_MAX_BYTES, floor) as copies:
            _Taking(target, parts, copies, keep_going).run(quiesce)
        with needs_room():
            for part in parts:
                _plant(part, directory)
        failpoints.reach("save.snapshot-taken")
        yield
    finally:
        for part in parts:
            part.close()
        volumes.destroy(directory)


@contextmanager
def needs_room() -> Iterator[None]:
    """Raises DiskFull instead of the kernel's error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise errors.DiskFull(
            "The node's disk is full. A running container's files are copied before they are saved, so it cannot"
            " be saved. A release copies nothing and saves it."
        ) from error


def _fresh_directory(target: TransferTarget) -> Path:
    """On the volumes' own file system if that clones files, otherwise on the node's disk, because the limit is the
    tenant's."""
    target.node.volumes.clear_snapshots(target.container_id)
    home = target.node.volumes.home(target.container_id)
    own = quota.root(home)
    directory = volumes.snapshot_dir(own if own != home and copies.can_clone(own) else home)
    directory.mkdir(mode=0o700)
    return directory


def _plant(part: Part, directory: Path) -> None:
    """Lay the copies out to be sent by another user, who may read them."""
    part.tree = directory / f"tree-{part.mapping.pk}"
    for parent in ["", *sorted(folders(part.copied), key=lambda folder: folder.count("/"))]:
        stalls.step()
        (part.tree / parent).mkdir()
        (part.tree / parent).chmod(0o755)
    for path, copy in part.copied.items():
        stalls.step()
        (directory / "files" / copy.name).rename(part.tree / path)


@contextmanager
def _urgent() -> Iterator[None]:
    """Raise this thread's priority while a tenant is frozen for it, if the system permits that."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    try:
        os.setpriority(os.PRIO_PROCESS, thread, -20)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, before)


class _Taking:
    def __init__(
        self, target: TransferTarget, parts: list[Part], copies: Copies, keep_going: Callable[[], bool]
    ) -> None:
        self._target, self._parts, self._copies, self._keep_going = target, parts, copies, keep_going
        self._most_s = settings.BOILERHOUSE_FREEZE_MAX_MS / 1000
        self._looked_at = time.monotonic()
        self._frozen_s: list[float] = []
        self._reason = ""
        rows = Container.objects.filter(pk=target.container_id)
        self._runtime_id = rows.values_list("runtime_id", flat=True).first() or ""

    def run(self, quiesce: str) -> None:
        if freezer.is_frozen(self._runtime_id):  # by a killed save, whose watchdog died too
            freezer.thaw(self._target.node.runtime, self._runtime_id, lifecycle.runtime_name(self._target.container_id))
        is_moment = quiesce == Quiesce.FREEZE and self._at_one_moment()
        if not is_moment:
            self._one_by_one()
        for part in self._parts:
            self._settle(part)
            part.statistics = {
                "pointInTime": is_moment,
                "freezeMs": round(1000 * max(self._frozen_s, default=0.0), 1),
                "copiedFiles": len(part.copied),
                "copiedBytes": part.size,
                "copiedBy": "reflink" if self._copies.cloned else "copy",
                **({"reason": self._reason} if self._reason and not is_moment else {}),
                **({"sentLive": len(part.direct)} if part.direct else {}),
            }

    def _settle(self, part: Part) -> None:
        """Keep only copies of files that existed at the end, and make the census describe the copies."""
        for path in [path for path in part.copied if path not in part.census.stamps]:
            self._copies.drop(part.copied.pop(path).name)
        for path in part.changed():
            if path not in part.direct:
                copy = part.copied.get(path)
                part.census.correct(path, copy.stamp if copy else None)
        part.torn = sum(not copy.is_whole for copy in part.copied.values())

    def _at_one_moment(self) -> bool:
        name = lifecycle.runtime_name(self._target.container_id)
        try:
            runtime = self._target.node.runtime
            how = freezer.of(runtime, self._runtime_id, name)
            for pause_s in PAUSES_S:
                time.sleep(pause_s)
                if self._pass(math.inf, tries=1) > WALK_SHARE * self._most_s:
                    self._reason = f"Counting the files alone takes longer than {round(self._most_s * 1000)} ms."
                    return False
                if how is None:  # nothing runs, so nothing changes
                    self._pass(math.inf, tries=1)
                    return True
                freezer.wait_for_probe(runtime, name, self._most_s)
                if self._is_done_frozen(how):
                    return True
        except errors.SyncFailed:
            raise
        except BoilerhouseError as error:
            self._reason = error.detail
        return False

    def _is_done_frozen(self, how: freezer.Freezer) -> bool:
        try:
            self._frozen(how)
        except copies.Busy:
            self._reason = "A program holds a lease on a file."
        except TimeoutError:
            self._reason = f"The copy did not finish within {round(self._most_s * 1000)} ms."
        except freezer.CannotFreeze as error:
            self._reason = error.detail
        else:
            return True
        log.info("freeze aborted", reason=self._reason)
        return False

    def _frozen(self, how: freezer.Freezer) -> None:
        was_enabled = gc.isenabled()
        gc.disable()  # a garbage collection in a worker takes longer than the rest
        freeze = freezer.Freeze()
        try:
            with _urgent(), freezer.frozen(how, self._most_s) as freeze:
                failpoints.reach("save.frozen")
                self._pass(time.monotonic() + self._most_s, tries=0)
        finally:
            if was_enabled:
                gc.enable()
            if freeze.seconds:
                self._frozen_s.append(freeze.seconds)
                FREEZE_SECONDS.observe(freeze.seconds)

    def _one_by_one(self) -> None:
        self._pass(math.inf, tries=TRIES)

    def _pass(self, until: float, tries: int) -> float:
        """Count, and copy what has no copy yet; returns how long counting took, without pauses.

        With ``tries`` 0, the container is frozen: nothing waits for the tenant or the database.
        """
        walked_s = 0.0
        for part in self._parts:
            began, rested_s = time.monotonic(), giving_way.rested_s()
            with nullcontext() if tries else stalls.quietly():
                part.look(until)
            walked_s += time.monotonic() - began - (giving_way.rested_s() - rested_s)
            for path in part.lacking():
                self._copy(part, path, until, tries)
        return walked_s

    def _copy(self, part: Part, path: str, until: float, tries: int) -> None:
        for _ in range(tries or 1):
            if old := part.copied.pop(path, None):
                self._copies.drop(old.name)
            try:
                copy = self._take(part, path, until, can_wait=tries > 0)
            except FileNotFoundError:
                return
            if copy is None:
                part.direct.add(path)
                return
            part.copied[path] = copy
            if copy.is_whole:
                return

    def _take(self, part: Part, path: str, until: float, *, can_wait: bool) -> Copied | None:
        give_up = time.monotonic() + LEASE_S
        while True:
            if can_wait:
                self._look()
            try:
                # While the container is frozen, nothing waits for the disk; the next save copies such a file again.
                return self._copies.take(part.root, path, until, writes_out=can_wait)
            except copies.Busy as error:
                if not can_wait:
                    raise
                if time.monotonic() > give_up:
                    raise errors.Unsaveable(f"{path}: the tenant's lease on it is not released.") from error
            time.sleep(0.2)

    def _look(self) -> None:
        giving_way.give_way()
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            stalls.moved()
            if not self._keep_going():
                raise errors.TransferCancelled


def still(root: int, paths: list[str], *, writes_out: bool = False) -> dict[str, Stamp]:
    """The current stamps of those files that exist; with ``writes_out``, a later change gets another one."""
    for path in paths if writes_out else ():
        try:
            is_out = copies.write_out(root, path)
        except FileNotFoundError:
            continue  # it has none then
        except copies.Busy as error:
            raise errors.Unsaveable(f"{show(path)}: the tenant holds a lease on it.") from error
        if not is_out:
            raise errors.Unsaveable(f"{show(path)} could not be written to the node's disk.")
    stamps = ((path, copies.stamp_of(root, path)) for path in paths)
    return {path: stamp for path, stamp in stamps if stamp is not None}

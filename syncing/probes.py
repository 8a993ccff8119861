"""Probes: whether a sink can be used, tested with the steps of a save and a restore on a few small files, and undone.

The checks go from cheap to thorough and end at the first failure. The last is a save and a restore by rclone in the
sandbox of every transfer, with a uid like a container's and the same flags, certificates, proxy and keys. It works at
the mappings' own locations, for a tenant that cannot exist, so permissions limited by prefix are tested too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings

from boilerhouse.core import file_locks
from boilerhouse.core.deployment import data_dir, deployment_id
from boilerhouse.process import priority
from pools.spec import Owner
from syncing import backups, errors, rclone, syscalls
from syncing.jail import Jail
from syncing.locations import marker_key
from syncing.models import SyncMapping
from syncing.runs import RETRY_AFTER_S
from syncing.sinks import RUN_DEADLINE_S, Sink, deadlines

log = structlog.get_logger(__name__)

ANSWER_DEADLINE_S = 8
"""For the checks by the client in this process: a sink that does not answer is detected after this time."""
TRANSFER_DEADLINE_S = 20
"""For the check by rclone."""
DEADLINE_S = ANSWER_DEADLINE_S + TRANSFER_DEADLINE_S
"""Creating a spec waits for its first probe."""
LOCKED_S = 5.0
JOURNAL = "journal.json"
TENANT_PREFIX = ".boilerhouse-probe-"
"""No tenant id begins with a dot."""
_FIRST = {"a file é": b"first", "changes": b"one", "empty": b"", "goes": b"gone"}
_SECOND = {"a file é": b"first", "changes": b"two", "empty": b""}
_PUT_ASIDE = {"changes": b"one", "goes": b"gone"}
_RIGHTS = (
    "The keys need the permissions of docs/sync.md at this prefix, below .boilerhouse/ and below .boilerhouse-trash/."
)
_probers = ThreadPoolExecutor(8, thread_name_prefix="probes", initializer=priority.be_ordinary)


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one sink."""

    sink: Sink
    mappings: Sequence[SyncMapping]
    spec_id: str = ""
    """Empty for a spec that is not stored."""
    tenant_id: str = field(default_factory=lambda: f"{TENANT_PREFIX}{secrets.token_hex(8)}")
    findings: dict[str, Any] = field(default_factory=dict)
    """Results of the checks, with the names of a spec's ``sinkHealth``."""

    @property
    def uploads(self) -> list[SyncMapping]:
        return [mapping for mapping in self.mappings if mapping.uploads]

    @property
    def downloads(self) -> list[SyncMapping]:
        """Mappings that only restore."""
        return [mapping for mapping in self.mappings if not mapping.uploads]


Check = Callable[[Probe], None]


def answers(probe: Probe) -> None:
    """The sink accepts an object, returns it, and deletes it; without uploads it is only listed."""
    if probe.uploads or not probe.mappings:
        probe.sink.probe()


def conditional_writes(probe: Probe) -> None:
    """Test whether the sink refuses a write whose condition does not hold."""
    if probe.uploads or not probe.mappings:
        probe.findings["conditionalWrites"] = probe.sink.has_conditional_writes()


def locations(probe: Probe) -> None:
    """Each mapping's location can be listed and its marker read; if it saves, objects are written, read and deleted."""
    saved = {mapping.location(probe.tenant_id) for mapping in probe.uploads}
    restored = {mapping.location(probe.tenant_id) for mapping in probe.mappings} - saved
    for location in sorted(restored):
        _list(probe.sink, location)
    for location in sorted(saved):
        with _workplace(probe) as place, _undone(place, [_root(location, probe.tenant_id)]):
            _list(probe.sink, location)
            _put_and_get(probe.sink, location)


def _list(sink: Sink, location: str) -> None:
    with _prefixed_error(f"The location {location} cannot be read"):
        sink.has_objects(location, RUN_DEADLINE_S)
        sink.get(marker_key(location), RUN_DEADLINE_S)


def _put_and_get(sink: Sink, location: str) -> None:
    with _prefixed_error(f"The location {location} cannot be used"):
        sink.put(f"{location}/probe", b"probe")
        if sink.get(f"{location}/probe", RUN_DEADLINE_S) != b"probe":
            raise errors.SinkUnreliable("An object there was not returned as it was written.")


def transfers(probe: Probe) -> None:
    """A save, a second one that overwrites and deletes, and a restore have the right results; nothing is left."""
    with _workplace(probe) as place:
        for mapping in probe.uploads[:1]:
            _save_and_restore(place, mapping)
        for mapping in probe.downloads[:1]:
            _look(place, mapping)


IN_PROCESS: list[Check] = [answers, conditional_writes, locations]
"""In this order. They need only network access to the sink."""
BY_RCLONE: list[Check] = [transfers]
"""In this order, after the others. They need a process that may create the sandbox."""


def run(probe: Probe, checks: list[Check], deadline_s: float) -> None:
    """Run the checks in order. Raises the first SyncFailed; SinkUnreachable if they take too long."""
    deployment_id()  # read here, because the checks' own threads do not use the database

    def all_of_them() -> None:
        with deadlines.within(2 * deadline_s):  # the caller has given up, but objects must still be removed
            for check in checks:
                check(probe)

    future = _probers.submit(all_of_them)
    try:
        future.result(deadline_s)
    except TimeoutError:
        raise errors.SinkUnreachable(f"The sink has not answered within {deadline_s:.0f} s.") from None


def can_jail() -> bool:
    """Whether this process may create rclone's sandbox; compose grants that only to workers."""
    return not jail_problem()


@cache
def jail_problem() -> str:
    """Why this process cannot start rclone in its sandbox; empty if it can."""
    owner = _owner()
    with _directory(f"try-{secrets.token_hex(8)}", owner) as place, syscalls.refused() as refused:
        command = Jail(place, owner, writable=False).wrap(["version"], refused)
        result = subprocess.run(command, capture_output=True, timeout=30, check=False, env={}, pass_fds=(refused,))
    return "" if result.returncode == 0 else result.stderr.decode(errors="replace").strip()[:300]


@dataclass(frozen=True, slots=True)
class _Place:
    """The directory of a probe on this node, and its deadline."""

    probe: Probe
    directory: Path
    owner: Owner
    lock: int
    deadline: float

    @property
    def volume(self) -> Path:
        return self.directory / "volume"

    @property
    def restored(self) -> Path:
        return self.directory / "restored"

    def rclone(self, arguments: list[str], jail: Jail, location: str) -> None:
        """Run it, and retry where a save or a restore would. Raises SyncFailed."""
        self.attempt(lambda _: self.transfer(arguments, jail, location))

    def attempt(self, step: Callable[[int], None]) -> None:
        """Run the step with the number of the attempt, from 1, and retry where a save or a restore would.

        Raises SyncFailed.
        """
        for number, pause in enumerate(RETRY_AFTER_S, start=1):
            try:
                return step(number)
            except errors.SyncFailed as error:
                if not error.may_pass or not self._is_in_time():
                    raise
                log.info("probe step retried", spec=self.probe.spec_id, code=error.code, detail=error.detail[:300])
            time.sleep(pause)
        return step(len(RETRY_AFTER_S) + 1)

    def transfer(self, arguments: list[str], jail: Jail, location: str) -> None:
        try:
            rclone.run(
                arguments, self.probe.sink, jail, self.lock, location=location, keep_going=self._is_in_time,
                lane=rclone.PROBES, is_awaited=False,
            )  # fmt: skip
        except errors.TransferCancelled:
            raise errors.SinkUnreachable(f"The transfer did not end within {TRANSFER_DEADLINE_S} s.") from None

    def _is_in_time(self) -> bool:
        return time.monotonic() < self.deadline


def _save_and_restore(place: _Place, mapping: SyncMapping) -> None:
    probe, sink = place.probe, place.probe.sink
    location = mapping.location(probe.tenant_id)
    with _undone(place, [_root(location, probe.tenant_id)]) as remains:
        with _prefixed_error("rclone cannot save to it"):
            _write(place, _FIRST)
            _upload(place, location, remains)
            _expect(sink, location, _FIRST)
        with _prefixed_error("rclone cannot overwrite and delete, which moves the old files aside"):
            _write(place, _SECOND)
            moved_to = _upload(place, location, remains)
            _expect(sink, location, _SECOND)
            _expect_aside(sink, moved_to)
        with _prefixed_error("rclone cannot restore from it"):
            _restore(place, location)


def _upload(place: _Place, location: str, remains: _Remains) -> list[str]:
    """Upload as a save does, each attempt with a backup location of its own; return these."""
    sink, used = place.probe.sink, list[str]()

    def step(attempt: int) -> None:
        backup = remains.backup(location, attempt)
        used.append(backup)
        binds = tuple(sink.binds([location, backup], place.owner.uid))
        arguments = rclone.upload(sink, location, [], deletes=True, inside="", backup=backup, paths=_FIRST)
        place.transfer(arguments, Jail(place.volume, place.owner, writable=False, binds=binds), location)

    place.attempt(step)
    return used


def _restore(place: _Place, location: str) -> None:
    sink = place.probe.sink
    binds = tuple(sink.binds([location], None))
    jail = Jail(place.restored, place.owner, writable=True, binds=binds)
    place.rclone(rclone.download(sink, location, []), jail, location)
    contents = {path.name: path.read_bytes() for path in place.restored.iterdir()}
    if contents != _SECOND:
        odd = sorted(name for name in {*contents, *_SECOND} if contents.get(name) != _SECOND.get(name))
        raise errors.SinkUnreliable(f"The restored files differ in {', '.join(map(repr, odd))}.")


def _look(place: _Place, mapping: SyncMapping) -> None:
    """List a location that is only restored from, and read one byte of its content."""
    sink, location = place.probe.sink, mapping.location(place.probe.tenant_id)
    with _prefixed_error("rclone cannot restore from it"):
        first = next(sink.names(location), None)
        if first is None:
            return  # a restore of nothing does not use rclone either
        binds = tuple(sink.binds([location], None))
        arguments = rclone.peek(sink, location, first[0])
        place.rclone(arguments, Jail(place.restored, place.owner, writable=True, binds=binds), location)


def _write(place: _Place, files: dict[str, bytes]) -> None:
    for path in place.volume.iterdir():
        path.unlink()
    for name, content in files.items():
        path = place.volume / name
        path.write_bytes(content)
        os.chown(path, *place.owner)


def _expect_aside(sink: Sink, backup_locations: list[str]) -> None:
    """What the second upload replaced is in the backup of one of its attempts."""
    for name, content in _PUT_ASIDE.items():
        if not any(sink.get(f"{location}/{name}", RUN_DEADLINE_S) == content for location in backup_locations):
            raise errors.SinkUnreliable(f"{backup_locations[0]} does not have {name!r} as it was before.")


def _expect(sink: Sink, location: str, files: dict[str, bytes]) -> None:
    listed = {name for name, _ in sink.names(location)}
    if listed != set(files):
        raise errors.SinkUnreliable(f"{location} lists {sorted(listed)}, but {sorted(files)} were written.")
    for name, content in files.items():
        if sink.get(f"{location}/{name}", RUN_DEADLINE_S) != content:
            raise errors.SinkUnreliable(f"{location} does not have {name!r} as it was written.")


def _root(location: str, tenant_id: str) -> str:
    """The topmost location of the probe: no other has its name in it."""
    above, own, _ = location.partition(tenant_id)
    return above + own


class _Remains:
    """The locations that a probe has to clear, in a journal that outlives its process."""

    def __init__(self, place: _Place, roots: list[str]) -> None:
        self.journal, self.roots = place.directory / JOURNAL, list[str]()
        self._probe, self._backups = place.probe, dict[int, str]()
        for root in roots:
            self.add(root)

    def add(self, root: str) -> None:
        """Note it before anything is written there."""
        if root not in self.roots:
            self.roots.append(root)
            draft = self.journal.with_suffix(".draft")
            draft.write_text(json.dumps({"specId": self._probe.spec_id, "roots": self.roots}))
            draft.replace(self.journal)

    def backup(self, location: str, attempt: int) -> str:
        """The backup location of this attempt of any upload."""
        if attempt not in self._backups:
            self._backups[attempt] = backups.location_of(location, self._probe.tenant_id, attempt)
            self.add(self._backups[attempt].removesuffix(f"/{location}"))
        return self._backups[attempt]


@contextlib.contextmanager
def _undone(place: _Place, roots: list[str]) -> Iterator[_Remains]:
    """Delete the content of these locations at the end; a journal lets a later probe do it, should this one be
    killed."""
    sink, remains = place.probe.sink, _Remains(place, roots)
    try:
        yield remains
    except errors.SyncFailed:
        try:
            _clear(sink, remains.roots)
        except errors.SyncFailed as error:  # the first failure is more informative
            log.info("probe left objects to the next one", roots=remains.roots, code=error.code, detail=error.detail)
        else:
            remains.journal.unlink()
        raise
    with _prefixed_error("The probe's objects cannot be deleted"):
        _clear(sink, remains.roots)
    remains.journal.unlink()


def _clear(sink: Sink, roots: list[str]) -> None:
    for root in roots:
        sink.delete_all(root)
        if above := root.rpartition("/")[0]:
            sink.tidy(above)
        if leftover := next(sink.names(root), None):
            raise errors.SinkUnreliable(f"{root}/{leftover[0]} is still listed after it was deleted.")


@contextlib.contextmanager
def _workplace(probe: Probe) -> Iterator[_Place]:
    owner = _owner()
    _tidy(probe)
    with (
        _directory(probe.tenant_id, owner) as directory,
        file_locks.locked(directory / "lock", within_s=LOCKED_S) as lock,
    ):
        if lock is None:
            raise errors.SyncFailed(f"Another probe is working in {directory}. Probe the sink again.")
        yield _Place(probe, directory, owner, lock, time.monotonic() + TRANSFER_DEADLINE_S)


@contextlib.contextmanager
def _directory(name: str, owner: Owner) -> Iterator[Path]:
    """A directory for one probe. It stays while a journal in it records remains at the sink."""
    path = _directories() / name
    path.mkdir(exist_ok=True, mode=0o700)
    for inside in ("volume", "restored"):
        (path / inside).mkdir(exist_ok=True, mode=0o700)
        os.chown(path / inside, *owner)
    try:
        yield path
    finally:
        if not (path / JOURNAL).exists():
            shutil.rmtree(path)


def _tidy(probe: Probe) -> None:
    """Undo killed or unfinished probes of this spec, and old ones of other specs."""
    for path in _directories().iterdir():
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            age_s = time.time() - path.stat().st_mtime
            if age_s > 2 * DEADLINE_S:
                _undo(probe, path, is_over=age_s > settings.BOILERHOUSE_PROBE_RETENTION_S)


def _undo(probe: Probe, path: Path, *, is_over: bool) -> None:
    with file_locks.locked(path / "lock") as lock:
        if lock is None:
            return  # in progress
        journal = path / JOURNAL
        entries = json.loads(journal.read_text()) if journal.exists() else None
        if entries and probe.spec_id and entries["specId"] == probe.spec_id:
            _clear(probe.sink, entries["roots"])
        elif entries and not is_over:
            return
        shutil.rmtree(path)


def _directories() -> Path:
    path = data_dir() / "probes"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def _owner() -> Owner:
    """A uid of no container: beyond those that are leased, and beyond that of dry runs."""
    uid = settings.BOILERHOUSE_UID_RANGE[1] + 1
    return Owner(uid, uid)


@contextlib.contextmanager
def _prefixed_error(what: str) -> Iterator[None]:
    """Add the failing step and the remedy to an error."""
    try:
        yield
    except errors.SyncFailed as error:
        hint = f" {_RIGHTS}" if isinstance(error, errors.SinkDenied) else ""
        error.detail = f"{what}: {error.detail}{hint}"
        raise

"""Runs rclone; the only module that starts it.

One process per mapping, in the sandbox, with a clean environment (rclone reads variables as flags) and bounded output.
It may run as long as it makes progress. It inherits the container's lock and a slot of the host, so that the kernel
frees both when it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog
from django.conf import settings

from boilerhouse.core import context, file_locks
from boilerhouse.core.deployment import data_dir
from boilerhouse.process import pids, processes, stalls
from boilerhouse.process.processes import DEAD_AFTER_S, HEARTBEAT_S
from boilerhouse.queues import slow_work
from boilerhouse.telemetry import tracing
from pools.file_names import show
from syncing import connect_guard, errors, syscalls
from syncing.jail import VOLUME, Jail
from syncing.locations import MARKER_ROOT
from syncing.rclone_binary import rclone_path
from syncing.sinks import Sink, network_settings, outbound

log = structlog.get_logger(__name__)

TERM_GRACE_S = 5
PROGRESS_EVERY_S = 0.5
ASK_EVERY_S = 0.5
READ_BYTES = 1 << 20
"""Reading this much counts as progress, for example while it compares files; a waiting rclone reads far less."""
STUCK_LOOKS = 3
KEPT_FREE = 2
"""Slots that large transfers, and the transfers with one sink, leave free: they may hold theirs for hours."""
UNCONFIRMED_S = DEAD_AFTER_S - HEARTBEAT_S
WATCH_EVERY_S = 0.5
_KEPT_LINES = 20
_COUNTERS = (
    "bytes", "checks", "deletedDirs", "deletes", "listed", "renames", "serverSideCopies", "serverSideCopyBytes",
    "serverSideMoveBytes", "serverSideMoves", "transfers",
)  # fmt: skip
COUNTED_BYTES = 65_536
"""The bytes that a file, a check, a deletion or a listed name counts for when progress is measured."""
TRANSFERS, PROBES = "transfer", "probe"
"""Kinds of slots: probes do not wait for transfers, which may take hours."""
PARALLEL_PROBES = 2
UNANSWERED = 4
"""After this many consecutive files without an answer of the sink, the transfer is aborted."""

_UNANSWERED_WORDS = (
    "connection refused", "i/o timeout", "no such host", "connection reset",
    "proxy authentication required", "statuscode: 407",
)  # fmt: skip
NICENESS = 10
"""The niceness of background transfers: on a busy machine they get a ninth of the processor time of others."""
NAMES = "/names"
"""The path in the sandbox of the list of files to upload, if there is one."""

COMMON = [
    "--fast-list", "--transfers=32", "--checkers=32", "--retries=1", "--low-level-retries=3", "--contimeout=5s",
    "--timeout=30s", "--use-json-log", "--stats=500ms", "--stats-log-level=NOTICE", "--skip-links",
    "--no-unicode-normalization", "--local-encoding=Raw",
]  # fmt: skip
"""The last two keep names unchanged. Otherwise rclone treats two Unicode forms alike and quotes its quote character."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The last progress that rclone reported of a transfer."""

    bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    total_files: int = 0
    checks: int = 0
    deletes: int = 0
    bytes_per_second: float = 0.0
    eta_ms: int | None = None


@dataclass(slots=True)
class Outcome:
    progress: Progress = field(default_factory=Progress)
    lines: list[str] = field(default_factory=list)
    """The last few error lines of rclone."""
    unanswered: int = 0
    """Consecutive files that failed because the sink did not answer."""
    counters: tuple[int, ...] = ()
    """All counters of rclone; a change of one is progress."""


def download(sink: Sink, location: str, filters: list[str], *, spares_places: bool = False) -> list[str]:
    """``copy`` from the sink: a restore never deletes and never runs ``sync``.

    With ``spares_places`` it skips the objects of Boilerhouse, in case the location is a place itself.
    """
    chosen = _includes(filters)
    if spares_places:
        chosen = [f"--filter=- /{MARKER_ROOT}/**", *(f"--filter=+ {pattern}" for pattern in filters)]
        chosen += ["--filter=- **"] if filters else []
    return ["copy", sink.remote(location), VOLUME, *chosen, *COMMON, *sink.flags(location)]


def upload(
    sink: Sink,
    location: str,
    filters: list[str],
    *,
    deletes: bool,
    inside: str,
    backup: str,
    paths: Collection[str] = (),
) -> list[str]:
    """``sync`` or ``copy`` of ``/vol/<inside>`` to the sink, compared by checksum.

    Overwritten and deleted objects are moved to the location ``backup`` first. ``paths`` are the paths of the files;
    raises Unsaveable if the sink cannot store one of them.
    """
    verb = "sync" if deletes else "copy"
    source = f"{VOLUME}/{inside}" if inside else VOLUME
    own = [*sink.compares, "--local-no-check-updated", f"--backup-dir={sink.remote(backup)}"]
    return [
        verb,
        source,
        sink.remote(location),
        *_includes(filters),
        *COMMON,
        *own,
        *sink.flags(location),
        *sink.respelling(paths),
    ]


def upload_named(sink: Sink, location: str, *, inside: str, backup: str, paths: Collection[str]) -> list[str]:
    """``copy`` to the sink of the files below ``/vol/<inside>`` that the file ``NAMES`` lists, separated by NUL."""
    plain = upload(sink, location, [], deletes=False, inside=inside, backup=backup, paths=paths)
    return [*plain, f"--files-from0={NAMES}"]


def _includes(filters: list[str]) -> list[str]:
    return [f"--include={pattern}" for pattern in filters]


def _always() -> bool:
    return True


def peek(sink: Sink, location: str, name: str) -> list[str]:
    """Read and discard one byte of a file there."""
    return ["cat", f"{sink.remote(location)}{name}", "--head=1", *COMMON, *sink.flags(location)]


@contextlib.contextmanager
def slot(
    size: int = 0, keep_going: Callable[[], bool] = _always, lane: str = TRANSFERS, far_end: str = ""
) -> Iterator[tuple[int, ...]]:
    """One of the host's transfer slots, held as long as its descriptors are open; ``size`` is in bytes.

    Waits while all slots are in use, or the ``far_end`` has its maximum. Raises TransferCancelled as soon as
    ``keep_going`` returns False.
    """
    all_of_them = {TRANSFERS: settings.BOILERHOUSE_PARALLEL_TRANSFERS, PROBES: PARALLEL_PROBES}[lane]
    most = max(1, all_of_them - KEPT_FREE)
    count = most if size >= settings.BOILERHOUSE_LARGE_BYTES else all_of_them
    with contextlib.ExitStack() as slots:
        own = (
            [slots.enter_context(_numbered(f"{lane}-{slow_work.named(far_end)}", most, keep_going))] if far_end else []
        )
        yield (*own, slots.enter_context(_numbered(lane, count, keep_going)))


@contextlib.contextmanager
def _numbered(lane: str, count: int, keep_going: Callable[[], bool]) -> Iterator[int]:
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    began = time.monotonic()
    while True:
        for number in reversed(range(count)):
            with file_locks.locked(directory / f"{lane}-{number}") as descriptor:
                if descriptor is not None:
                    yield descriptor
                    return
        if time.monotonic() - began >= ASK_EVERY_S:
            began = time.monotonic()
            stalls.moved()  # a transfer that waits for a slot has not stalled
            if not keep_going():
                raise errors.TransferCancelled
        time.sleep(0.05)


def run(
    arguments: list[str],
    sink: Sink,
    jail: Jail,
    lock: int,
    *,
    location: str = "",
    size: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    keep_going: Callable[[], bool] = _always,
    lane: str = TRANSFERS,
    is_awaited: bool = True,
) -> Outcome:
    """Run one transfer to its end. Raises a SyncFailed with the reason and rclone's message.

    If it is not ``is_awaited``, it gives way to everything else on the machine (ADR 54).

    ``location`` is the location at the sink, ``size`` the approximate number of bytes. ``on_progress`` and
    ``keep_going`` are called at most twice a second; if ``keep_going`` returns False, the transfer is cancelled. A
    transfer without progress, or with almost none, for the time limit has stalled.
    """
    began, verb = time.monotonic(), arguments[0]
    if request_id := context.request_id():
        # Sinks write it into their access logs.
        arguments = [*arguments, f"--user-agent=boilerhouse/{settings.VERSION} (request {request_id})"]
    with tracing.span(f"rclone {verb}"), slot(size, keep_going, lane, sink.far_end(location)) as descriptors:
        follower = _Follower(on_progress, keep_going, sink.scrub)
        outcome, code = _run(arguments, sink, jail, (lock, *descriptors), follower, is_awaited=is_awaited)
    ms = round((time.monotonic() - began) * 1000)
    progress = outcome.progress
    log.info(
        "transfer ended",
        verb=verb,
        code=code,
        ms=ms,
        bytes=progress.bytes,
        files=progress.files,
        deletes=progress.deletes,
    )
    if code != 0:
        raise _failure(code, outcome, sink)
    return outcome


def _run(
    arguments: list[str], sink: Sink, jail: Jail, descriptors: tuple[int, ...], follower: _Follower, *, is_awaited: bool
) -> tuple[Outcome, int]:
    def prepare() -> None:
        if not is_awaited:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # of this thread and what it starts
        jail.show()

    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "PATH": "/bin",
        "HOME": "/tmp",  # noqa: S108
        **network_settings.rclone_environment(sink.address),
        **sink.environment(),
    }
    reach = outbound.reach(sink)
    with connect_guard.Guard(reach.allows) as guard:
        with syscalls.refused() as refused, _hosts_file(reach) as hosts:
            process = guard.popen(
                jail.wrap(arguments, refused, hosts),
                prepare,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(*descriptors, refused, *([] if hosts is None else [hosts])),
                umask=0o022,
                start_new_session=True,
            )
        try:
            with _Supervisor(process) as supervisor:
                outcome = follower.follow(process, supervisor)
        finally:
            _end(process)
            if guard.refused:
                log.warning("rclone was redirected", sink=sink.place_name, to=guard.refused[:5])
    if process.returncode != 0 and guard.refused:
        raise errors.SinkRedirects(sink.address, reach.words(guard.refused[0]))
    return outcome, process.returncode


@contextlib.contextmanager
def _hosts_file(reach: outbound.Reach) -> Iterator[int | None]:
    if reach.asks_resolver:
        yield None
        return
    file = os.memfd_create("hosts")
    try:
        os.write(file, reach.hosts.encode())
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


class _Supervisor:
    """Kills rclone if its claim has not been confirmed for some time (hazards.md#c8).

    The query of the database may itself hang, and a new claim elsewhere waits for this process for at most
    ``DEAD_AFTER_S``.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._confirmed = process, time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rclone-supervisor", daemon=True)
        self.has_killed = False

    def confirm(self, began: float) -> None:
        """Record that the transfer may continue; ``began`` is the monotonic time before the check."""
        self._confirmed = began

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(WATCH_EVERY_S):
            unconfirmed_s = max(time.monotonic() - self._confirmed, processes.unconfirmed_s())
            if unconfirmed_s > UNCONFIRMED_S and self._process.poll() is None:
                self.has_killed = True
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Follower:
    """Follows a transfer to its end, checks whether it may continue, and ends it if it stalls."""

    on_progress: Callable[[Progress], None] | None
    keep_going: Callable[[], bool]
    scrub: Callable[[str], str]
    """Removes the sink's secrets from rclone's output, which repeats messages of the server."""
    still: stalls.StallTimer = field(default_factory=stalls.StallTimer)
    _counters: tuple[int, ...] = ()
    _read: int = 0
    _stuck_for: int = 0

    def follow(self, process: subprocess.Popen[bytes], supervisor: _Supervisor) -> Outcome:
        """Return the outcome when rclone closes its output. Raises SyncFailed if it has to be ended before."""
        outcome, buffer, reported_at = Outcome(), b"", time.monotonic()
        assert process.stderr
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=PROGRESS_EVERY_S):
                    chunk = os.read(process.stderr.fileno(), 65536)
                    if not chunk:
                        if supervisor.has_killed:
                            raise errors.TransferInterrupted
                        self._wait(process)
                        return outcome
                    *complete, buffer = (buffer + chunk).split(b"\n")
                    for line in complete:
                        _read(line, outcome, self.scrub)
                    buffer = buffer[-65536:]
                    if outcome.unanswered >= UNANSWERED:  # it would try all other files, for ten seconds each
                        raise errors.SinkUnreachable(outcome.lines[0])
                if time.monotonic() - reported_at >= PROGRESS_EVERY_S:
                    reported_at = time.monotonic()
                    self._look(process, outcome)
                    if self.on_progress:
                        self.on_progress(outcome.progress)
                    if not self.keep_going():
                        raise errors.TransferCancelled
                    supervisor.confirm(reported_at)
                    if supervisor.has_killed:
                        raise errors.TransferInterrupted

    def _look(self, process: subprocess.Popen[bytes], outcome: Outcome) -> None:
        """Raise TransferStalled if its counters have hardly changed and it has hardly read anything for the time
        limit, or at once if it waits in the opening of a pipe, which may never end."""
        read = max((stalls.bytes_read(pid) for pid in pids.descendants(process.pid)), default=0)
        least = settings.BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S * self.still.bound_s
        has_moved = len(self._counters) != len(outcome.counters)  # the first count
        has_moved = has_moved or _moved_bytes(self._counters, outcome.counters) >= least
        if has_moved or read - self._read >= max(least, READ_BYTES):
            self._counters, self._read, self._stuck_for = outcome.counters, read, 0
            self.still.moved()
            return
        is_stuck = any(stalls.waits_for_pipe(pid) for pid in pids.descendants(process.pid))
        self._stuck_for = self._stuck_for + 1 if is_stuck else 0
        if self._stuck_for > STUCK_LOOKS:
            raise errors.TransferStalled("A pipe has replaced a file, and no process writes to it.")
        if self.still.is_too_long:
            self._raise_stalled(outcome)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(timeout=self.still.bound_s)
        except subprocess.TimeoutExpired as error:
            raise errors.TransferStalled("rclone has closed its output but does not end.") from error

    def _raise_stalled(self, outcome: Outcome) -> None:
        output = f" rclone's last message: {outcome.lines[-1]}" if outcome.lines else ""
        progress, for_s = outcome.progress, f"for {self.still.bound_s:.0f} s"
        after = f"after {progress.files} files and {progress.bytes} bytes.{output}"
        if _moved_bytes(self._counters, outcome.counters) == 0:
            raise errors.TransferStalled(f"The transfer has made no progress {for_s}, {after}")
        least = settings.BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S
        raise errors.TooSlow(
            f"The transfer was slower than {least} bytes a second (BOILERHOUSE_TRANSFER_MIN_BYTES_PER_S) {for_s},"
            f" {after}"
        )


def _moved_bytes(before: tuple[int, ...], now: tuple[int, ...]) -> int:
    """The progress between two states of the counters, in bytes; each counted object counts as a small file."""
    grown = zip(_COUNTERS, before, now, strict=False)  # before the first count there is none
    return sum((new - old) * (1 if name.lower().endswith("bytes") else COUNTED_BYTES) for name, old, new in grown)


def _read(line: bytes, outcome: Outcome, scrub: Callable[[str], str]) -> None:
    try:
        record = json.loads(line)
    except ValueError:
        outcome.lines.append(scrub(line.decode(errors="replace"))[:500])
        record = {}
    before = outcome.progress.files
    if stats := record.get("stats"):
        eta = stats.get("eta")
        outcome.progress = Progress(
            stats["bytes"], stats["totalBytes"], stats["transfers"], stats["totalTransfers"],
            stats["checks"], stats["deletes"], stats["speed"], None if eta is None else int(eta * 1000),
        )  # fmt: skip
        outcome.counters = tuple(int(stats.get(name, 0)) for name in _COUNTERS)
        if outcome.progress.files > before:
            outcome.unanswered = 0
    elif record.get("level") in ("error", "critical", "fatal"):
        name = show(record.get("object", ""))
        outcome.unanswered += _is_unanswered(str(record.get("msg", "")).lower())
        outcome.lines.append(scrub(f"{name}: {record.get('msg', '')}".lstrip(": "))[:500])
    del outcome.lines[:-_KEPT_LINES]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=TERM_GRACE_S)
            except subprocess.TimeoutExpired:  # it keeps the container's lock and its slot until its system call ends
                log.error("rclone does not end", pid=process.pid, hint="A mount of the node or of a sink hangs.")
    if process.stderr:
        process.stderr.close()


def _failure(code: int, outcome: Outcome, sink: Sink) -> errors.SyncFailed:
    text = "\n".join(outcome.lines)
    detail = outcome.lines[0] if outcome.lines else f"rclone ended with exit code {code}."
    lower = text.lower()
    if "no space left" in lower or "file too big for remaining disk space" in lower or "disk quota" in lower:
        return errors.DiskFull(detail)
    if refused := sink.rclone_failure(outcome.lines):
        return refused
    if "x509:" in lower:
        return errors.SinkUntrusted(next(line for line in outcome.lines if "x509:" in line.lower()))
    if code == 5 or _is_unanswered(lower):
        return errors.SinkUnreachable(detail)
    if "is a directory" in lower or "not a directory" in lower or "permission denied" in lower:
        return errors.Unsaveable(detail)
    if code == 2 or "glob pattern" in lower or "in glob" in lower:
        return errors.BadFilter(detail)
    return errors.TransferBroke(detail)


def _is_unanswered(text: str) -> bool:
    return any(words in text for words in _UNANSWERED_WORDS)


def version() -> str:
    """The first line of ``rclone version``."""
    result = subprocess.run([rclone_path(), "version"], capture_output=True, text=True, timeout=30, check=True)
    return result.stdout.splitlines()[0]


def serve_s3(
    directory: Path, address: str, access_key: str, secret_key: str, log: Path, *flags: str
) -> subprocess.Popen[bytes]:
    """Start the embedded S3, ``rclone serve s3`` over a directory, for demos, tests and single machines."""
    command, environment = s3_server(directory, address, access_key, secret_key, *flags)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=pids.die_with_parent,
        )


def s3_server(
    directory: Path, address: str, access_key: str, secret_key: str, *flags: str
) -> tuple[list[str], dict[str, str]]:
    """The command and environment of an S3 server over the directory, which exists when this returns."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"',
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/root"),
    }
    command = [rclone_path(), "serve", "s3", "--addr", address, "--dir-cache-time", "1s", "--no-unicode-normalization"]
    return [*command, *flags, str(directory)], environment

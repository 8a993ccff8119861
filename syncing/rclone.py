"""Run rclone; the only module that starts it.

One process per mapping, in the jail, with a clean environment (its own variables would act as flags), a deadline, and
bounded output. It inherits the container's lock and a slot of the host, so the kernel frees both when it is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog
from django.conf import settings

from boilerhouse.core import context, tracing
from boilerhouse.core.deployment import data_dir
from boilerhouse.core.processes import DEAD_AFTER_S, HEARTBEAT_S
from syncing import errors
from syncing.jail import VOLUME, Jail
from syncing.sinks import Sink, reaching

log = structlog.get_logger(__name__)

TERM_GRACE_S = 5
PROGRESS_EVERY_S = 0.5
UNCONFIRMED_S = DEAD_AFTER_S - HEARTBEAT_S
_KEPT_LINES = 20
UNANSWERED = 4
"""After so many files in a row that the sink did not answer, the transfer is given up."""

_UNANSWERED_WORDS = (
    "connection refused", "i/o timeout", "no such host", "connection reset",
    "proxy authentication required", "statuscode: 407",
)  # fmt: skip

COMMON = [
    "--fast-list", "--transfers=32", "--checkers=32", "--retries=1", "--low-level-retries=3", "--contimeout=5s",
    "--timeout=30s", "--use-json-log", "--stats=500ms", "--stats-log-level=NOTICE", "--skip-links",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """What rclone said last about a transfer."""

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
    """rclone's own error lines, the last few."""
    unanswered: int = 0
    """Files in a row that failed because the sink did not answer."""


def download(sink: Sink, location: str, filters: list[str]) -> list[str]:
    """``copy`` from the sink: a restore never deletes and never runs ``sync``."""
    return ["copy", sink.remote(location), VOLUME, *_includes(filters), *COMMON, *sink.flags()]


def upload(sink: Sink, location: str, filters: list[str], *, deletes: bool, inside: str, backup: str) -> list[str]:
    """``sync`` or ``copy`` of ``/vol/<inside>`` to the sink, compared by checksum.

    What it overwrites or deletes there goes to the location ``backup`` first.
    """
    verb = "sync" if deletes else "copy"
    source = f"{VOLUME}/{inside}" if inside else VOLUME
    own = [*sink.compares, "--local-no-check-updated", f"--backup-dir={sink.remote(backup)}"]
    return [verb, source, sink.remote(location), *_includes(filters), *COMMON, *own, *sink.flags()]


def _includes(filters: list[str]) -> list[str]:
    return [f"--include={one}" for one in filters]


@contextlib.contextmanager
def slot(deadline: float) -> Iterator[int]:
    """One of the host's transfer slots, held by whoever holds the descriptor. Raises TransferTimedOut."""
    directory = data_dir() / "slots"
    directory.mkdir(exist_ok=True, mode=0o700)
    while True:
        for number in range(settings.BOILERHOUSE_PARALLEL_TRANSFERS):
            descriptor = os.open(directory / f"transfer-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        if time.monotonic() > deadline:
            raise errors.TransferTimedOut("No transfer slot became free in time.")
        time.sleep(0.05)


def run(
    arguments: list[str],
    sink: Sink,
    jail: Jail,
    lock: int,
    *,
    on_progress: Callable[[Progress], bool] | None = None,
) -> Outcome:
    """Run one transfer to its end. Raises a SyncFailed that says why, with rclone's own words.

    ``on_progress`` is called at most twice a second; when it returns False the transfer is cancelled.
    """
    began, verb = time.monotonic(), arguments[0]
    if request_id := context.request_id():
        # Sinks write it into their own logs of access.
        arguments = [*arguments, f"--user-agent=boilerhouse/{settings.VERSION} (request {request_id})"]
    with tracing.span(f"rclone {verb}"):
        outcome, code = _run(arguments, sink, jail, lock, on_progress)
    ms = round((time.monotonic() - began) * 1000)
    done = outcome.progress
    log.info("transfer ended", verb=verb, code=code, ms=ms, bytes=done.bytes, files=done.files, deletes=done.deletes)
    if code != 0:
        raise _failure(code, outcome)
    return outcome


def _run(
    arguments: list[str], sink: Sink, jail: Jail, lock: int, on_progress: Callable[[Progress], bool] | None
) -> tuple[Outcome, int]:
    deadline = time.monotonic() + settings.BOILERHOUSE_TRANSFER_TIMEOUT_S
    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "PATH": "/bin",
        "HOME": "/tmp",  # noqa: S108
        **reaching.rclone_environment(sink.address),
        **sink.environment(),
    }
    with slot(deadline) as held:
        process = subprocess.Popen(
            jail.wrap(arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(lock, held),
            umask=0o022,
            start_new_session=True,
        )
        try:
            with _Supervisor(process) as supervisor:
                outcome = _follow(process, deadline, supervisor, on_progress)
        finally:
            _end(process)
    return outcome, process.returncode


class _Supervisor:
    """Kills rclone when nobody has confirmed for a while that its claim still stands (hazard C8).

    Asking the database may itself hang; a new claim elsewhere waits no longer than ``DEAD_AFTER_S`` for this process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._confirmed = process, time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rclone-supervisor", daemon=True)
        self.has_killed = False

    def confirm(self) -> None:
        """Somebody has just seen that the transfer may go on."""
        self._confirmed = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            if time.monotonic() - self._confirmed > UNCONFIRMED_S and self._process.poll() is None:
                self.has_killed = True
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)


def _follow(
    process: subprocess.Popen[bytes],
    deadline: float,
    supervisor: _Supervisor,
    on_progress: Callable[[Progress], bool] | None,
) -> Outcome:
    outcome, buffer, told = Outcome(), b"", time.monotonic()
    assert process.stderr
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise errors.TransferTimedOut
            if selector.select(timeout=PROGRESS_EVERY_S):
                chunk = os.read(process.stderr.fileno(), 65536)
                if not chunk:
                    if supervisor.has_killed:
                        raise errors.TransferInterrupted
                    process.wait(timeout=max(1.0, deadline - time.monotonic()))
                    return outcome
                *complete, buffer = (buffer + chunk).split(b"\n")
                for line in complete:
                    _read(line, outcome)
                buffer = buffer[-65536:]
                if outcome.unanswered >= UNANSWERED:  # it would go through all other files, at ten seconds each
                    raise errors.SinkUnreachable(outcome.lines[0])
            if on_progress and time.monotonic() - told >= PROGRESS_EVERY_S:
                told = time.monotonic()
                if not on_progress(outcome.progress):
                    raise errors.TransferCancelled
                supervisor.confirm()
                if supervisor.has_killed:
                    raise errors.TransferInterrupted
            elif not on_progress:
                supervisor.confirm()


def _read(line: bytes, outcome: Outcome) -> None:
    try:
        record = json.loads(line)
    except ValueError:
        outcome.lines.append(line.decode(errors="replace")[:500])
        record = {}
    before = outcome.progress.files
    if stats := record.get("stats"):
        eta = stats.get("eta")
        outcome.progress = Progress(
            stats["bytes"], stats["totalBytes"], stats["transfers"], stats["totalTransfers"],
            stats["checks"], stats["deletes"], stats["speed"], None if eta is None else int(eta * 1000),
        )  # fmt: skip
        if outcome.progress.files > before:
            outcome.unanswered = 0
    elif record.get("level") in ("error", "critical", "fatal"):
        name = record.get("object", "")
        outcome.unanswered += _is_unanswered(str(record.get("msg", "")).lower())
        outcome.lines.append(f"{name}: {record.get('msg', '')}".lstrip(": ")[:500])
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
            process.wait()
    if process.stderr:
        process.stderr.close()


def _failure(code: int, outcome: Outcome) -> errors.SyncFailed:
    text = "\n".join(outcome.lines)
    detail = outcome.lines[0] if outcome.lines else f"rclone ended with exit code {code}."
    lower = text.lower()
    if "no space left" in lower or "file too big for remaining disk space" in lower or "disk quota" in lower:
        return errors.DiskFull(detail)
    if "nosuchbucket" in lower:
        return errors.SinkMissing(detail)
    if any(
        word in lower for word in ("accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch", "statuscode: 403")
    ):
        return errors.SinkDenied(detail)
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


def serve_s3(
    directory: Path, address: str, access_key: str, secret_key: str, log: Path, *flags: str
) -> subprocess.Popen[bytes]:
    """The embedded S3: ``rclone serve s3`` over a directory, for demos, tests and single machines."""
    from syncing.jail import rclone_path

    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"',
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/root"),
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            [rclone_path(), "serve", "s3", "--addr", address, "--dir-cache-time", "1s", *flags, str(directory)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)

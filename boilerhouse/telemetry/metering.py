"""Counters and histograms of all processes, summed when they are scraped.

Each process counts in its own files in ``<data>/metrics`` (prometheus_client's multiprocess format) and holds a lock on
a file beside them while it lives. Counts of dead processes are merged into one file, so totals never decrease and files
do not accumulate.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from boilerhouse.core import file_locks
from boilerhouse.core.errors import Unavailable

LOCKED_S = 5.0
"""Processes that read or merge counts finish within this time, or are stopped."""
FOLDED = "folded"
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Seconds: operations that answer immediately."""
SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: operations that wait for the engine, a sink or another tenant."""

directory = Path(settings.BOILERHOUSE_DATA_DIR) / "metrics"
_unregistered = CollectorRegistry()
"""The registry of the instruments. Only the sum over all processes is published."""
_mine: tuple[int, str, int] | None = None


def _identifier() -> str:
    """A name for this process's files that no other process, living or dead, has used."""
    global _mine
    pid = os.getpid()
    if _mine is None or _mine[0] != pid:
        if _mine is not None:
            os.close(_mine[2])  # a fork's parent keeps its own lock
        name = f"{pid}-{secrets.token_hex(4)}"
        draft = directory / f"{name}.draft"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Locked before it is visible, so no process takes it for a dead one's.
        draft.rename(directory / f"{name}.alive")
        _mine = (pid, name, descriptor)
    return _mine[1]


directory.mkdir(parents=True, exist_ok=True, mode=0o700)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
values.ValueClass = values.MultiProcessValue(_identifier)  # type: ignore[no-untyped-call]


def counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(f"boilerhouse_{name}", words, labels, registry=_unregistered)


def histogram(name: str, words: str, *labels: str, buckets: tuple[float, ...] = SLOW) -> Histogram:
    """A histogram of seconds; the name must say so."""
    assert name.endswith("_seconds"), name
    return Histogram(f"boilerhouse_{name}", words, labels, registry=_unregistered, buckets=buckets)


def gauge(name: str, words: str, *labels: str) -> Gauge:
    """A gauge: the sum over living processes."""
    return Gauge(f"boilerhouse_{name}", words, labels, registry=_unregistered, multiprocess_mode="livesum")


@contextmanager
def timed(instrument: Histogram) -> Iterator[None]:
    """Observe the duration of the block, even if it raises."""
    began = time.monotonic()
    try:
        yield
    finally:
        instrument.observe(time.monotonic() - began)


class ProcessesCollector(Collector):
    """Collects the counts of all processes of this node."""

    def collect(self) -> Iterator[object]:  # type: ignore[override]
        with _reading(is_shared=True):
            for pid in _dead():
                for path in directory.glob(f"gauge_live*_{pid}.db"):
                    path.unlink(missing_ok=True)
            counted = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]
            yield from list(counted.collect())  # type: ignore[no-untyped-call]


@contextmanager
def _reading(*, is_shared: bool) -> Iterator[None]:
    with (directory / "lock").open("a") as file:
        if not file_locks.take(file.fileno(), LOCKED_S, is_shared=is_shared):
            raise Unavailable(
                f"Another process has been reading the counters for {LOCKED_S:.0f} s; it holds {file.name}."
            )
        yield


def _dead() -> list[str]:
    """Processes that no longer hold their lock."""
    pids = []
    for path in directory.glob("*.alive"):
        with contextlib.suppress(FileNotFoundError), path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            pids.append(path.stem)
    return pids


def fold() -> int:
    """Merge the counts of dead processes into one file and delete theirs. Returns how many there were.

    If it is killed in between, some counts are lost, but none is counted twice.
    """
    with _reading(is_shared=False):
        dead = _dead()
        for kind in ("counter", "histogram"):
            paths = [path for pid in dead if (path := directory / f"{kind}_{pid}.db").exists()]
            if paths:
                _fold(kind, paths)
        for pid in dead:
            for path in directory.glob(f"*_{pid}.db"):
                path.unlink()
            (directory / f"{pid}.alive").unlink()
    return len(dead)


def _fold(kind: str, paths: list[Path]) -> None:
    target = directory / f"{kind}_{FOLDED}.db"
    draft = directory / f"{kind}.draft"
    draft.unlink(missing_ok=True)
    if target.exists():
        shutil.copyfile(target, draft)
    total = MmapedDict(str(draft))  # type: ignore[no-untyped-call]
    for path in paths:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            before, _ = total.read_value(key)  # type: ignore[no-untyped-call]
            total.write_value(key, before + value, 0.0)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]
    for path in paths:
        path.unlink()
    draft.rename(target)

"""A tenant's process in its own freezer cgroup, as an engine creates it. Uses real cgroups of this kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pools import freezer

PARENT = freezer.CGROUP / "freezer" / "docker"


@contextmanager
def group() -> Iterator[str]:
    """The engine's id of a container that has no engine, only a cgroup."""
    runtime_id = f"test{uuid.uuid4().hex}"
    path = PARENT / runtime_id if PARENT.parent.exists() else freezer.CGROUP / "docker" / runtime_id
    path.mkdir(parents=True)
    try:
        yield runtime_id
    finally:
        found = freezer.group_of(runtime_id)
        assert found
        found.thaw()
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):  # it may have ended since the list was read
                os.kill(int(pid), signal.SIGKILL)
        until = time.monotonic() + 60
        while (path / "cgroup.procs").read_text().split():
            assert time.monotonic() < until
            time.sleep(0.01)
        path.rmdir()


def start(runtime_id: str, script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Run Python source in that cgroup; it has started when it prints a line."""
    procs = next(path for path in freezer.CGROUP.glob(f"**/{runtime_id}/cgroup.procs"))

    def enter() -> None:
        procs.write_text(str(os.getpid()))

    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, preexec_fn=enter
    )
    assert process.stdout
    process.stdout.readline()
    return process

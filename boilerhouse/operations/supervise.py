"""The supervisor: the program that ``up`` replaces itself with. It starts children and restarts those that end.

It runs as long as the deployment does, so it does not import Django, which would take 40 MB for nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import NoReturn

import structlog

from boilerhouse.process import pids
from boilerhouse.telemetry import logs

log = structlog.get_logger("boilerhouse.up")

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 8.0
"""How long children have to end by themselves; in total it stays below the ten seconds promised."""
LAST_WAIT_S = 1.0
"""Time for the kernel to end killed processes."""
MIN_LIFE_S = 5.0
SETTLED_S = 60.0
"""A process that fails earlier than this never came up; on a busy machine that takes longer than MIN_LIFE_S."""
START_AGAIN_S = 2.0
LOOK_EVERY_S = 0.3


@dataclass(frozen=True, slots=True)
class Program:
    """How to start a child. It dies with the supervisor."""

    name: str
    command: list[str]
    environment: dict[str, str] | None = None
    """None: the supervisor's own."""
    sockets: list[int] = field(default_factory=list)
    """File descriptors that it inherits."""
    log: str | None = None
    """The file that its output is appended to; None: the supervisor's output."""
    ends_as_a_group: bool = False
    """Whether processes of its own outlive its first one. It gets SIGTERM, not SIGKILL, when the supervisor dies, and
    what is left of its process group is killed before it is started again."""

    def start(self) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if self.log else None
        try:
            return subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.sockets,
                start_new_session=True,
                preexec_fn=pids.end_with_parent if self.ends_as_a_group else pids.die_with_parent,
            )
        finally:
            if output is not None:
                os.close(output)


@dataclass(slots=True)
class Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_after: float = 0.0
    quick_ends: int = 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def has_ended_early(self) -> bool:
        """Whether another start would probably fail too, which is not so for a process that was killed or stopped."""
        assert self.process is not None
        has_failed = (self.process.returncode or 0) > 0
        return time.monotonic() - self.started < (SETTLED_S if has_failed else MIN_LIFE_S)


class Supervisor:
    """Starts children, restarts those that die, and stops all within ten seconds. One failing child does not block the
    others."""

    def __init__(self, programs: list[Program]) -> None:
        self._children = [Child(program) for program in programs]

    def run(self, stop: Event) -> None:
        """Run until ``stop`` is set. The restart delay of a child that keeps failing at its start grows."""
        for child in self._children:
            self._start(child)
        while not stop.wait(LOOK_EVERY_S):
            for child in self._children:
                self._look_after(child)
        self.stop()

    def _look_after(self, child: Child) -> None:
        if child.is_running or time.monotonic() < child.start_after:
            return
        if child.process is not None:
            child.quick_ends = child.quick_ends + 1 if child.has_ended_early else 0
            child.start_after = time.monotonic() + min(10, child.quick_ends)
            log.error("process ended", process=child.program.name, code=child.process.returncode)
            if child.program.ends_as_a_group:
                pids.kill_group(child.process.pid)
            child.process = None
        if time.monotonic() >= child.start_after:
            self._start(child)

    def _start(self, child: Child) -> None:
        try:
            child.process, child.started = child.program.start(), time.monotonic()
        except OSError as error:  # no memory or no process available at the moment
            child.start_after = time.monotonic() + START_AGAIN_S
            log.error("process not started", process=child.program.name, error=str(error))

    def stop(self) -> None:
        """SIGTERM in reverse order of starting, then SIGKILL for the rest: everything has ended within ten seconds."""
        for child in reversed(self._children):
            if child.process and child.is_running:
                child.process.send_signal(signal.SIGTERM)
        self._wait(STOP_S)
        for child in self._children:
            if child.process and child.is_running:
                log.warning("process killed", process=child.program.name)
                pids.kill_tree(child.process.pid)
        self._wait(LAST_WAIT_S)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(child.is_running for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.02)


def become(programs: list[Program]) -> NoReturn:
    """Replace this process with a supervisor of these programs. It keeps the process id. Raises OSError.

    Environments may hold secrets, so the programs are passed in a memory file and not as arguments.
    """
    memory = os.memfd_create("programs", 0)
    os.write(memory, json.dumps([asdict(program) for program in programs]).encode())
    for number in {memory, *(number for program in programs for number in program.sockets)}:
        os.set_inheritable(number, True)
    os.chdir(ROOT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", __spec__.name, str(memory)])  # noqa: S606


def main(memory: int) -> None:
    with os.fdopen(memory, "rb") as memory_file:
        memory_file.seek(0)
        programs = [Program(**fields) for fields in json.load(memory_file)]
    for program in programs:
        for number in program.sockets:
            os.set_inheritable(number, False)
    logs.configure(os.environ.get("BOILERHOUSE_LOG_FORMAT", "console"), os.environ.get("BOILERHOUSE_LOG_LEVEL", "INFO"))
    with pids.stopping() as stop:
        Supervisor(programs).run(stop)


if __name__ == "__main__":
    main(int(sys.argv[1]))

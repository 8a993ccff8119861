"""Freezes the containers of this node when its time is over: a process of its own, with the standard library alone.

It needs no database, no engine and no memory that it has not got already, so whatever ails the machine, this works
last. It is told on its standard input, a JSON document a line:

    {"until": 123.4, "groups": [[claimed, control, freeze, thaw], ...]}

``until`` is the time, by CLOCK_BOOTTIME, from which containers must stand still. ``groups`` may be left out if they
are the same as before. ``claimed`` is a file that exists once
a tenant has used the container; ``freeze`` and ``thaw`` are what is written to the file ``control``. It answers each
line with one of its own, ``free`` or ``frozen``. When its input ends, the last line holds. A signal that ends it thaws
nothing.
"""

import contextlib
import ctypes
import json
import os
import select
import sys
import time

AGAIN_S = 0.2
"""While they must stand still, it freezes them this often: something else may thaw one."""
PAGES_STAY = 1 | 2  # MCL_CURRENT, MCL_FUTURE


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Guard:
    """``mark`` is a file that exists while containers are frozen, by this process or the one before."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.until: float | None = None
        """None before the first line: nothing is frozen, and nothing thawed."""
        self.groups: list[list[str]] = []
        self.frozen: set[str] = set()
        """Control files."""
        self.is_frozen = os.path.exists(mark)
        self.is_heir = self.is_frozen
        """Whether another process froze them. It took their names with it, so all are thawed."""

    def run(self) -> None:
        """For ever; returns if its input ends before the first line."""
        rest, has_input = b"", True
        while has_input or self.until is not None:
            if not has_input:
                time.sleep(self.wait_s())
            elif select.select([0], [], [], self.wait_s())[0]:
                read = os.read(0, 1 << 20)
                has_input = bool(read)
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    self.until, self.groups = told["until"], told.get("groups", self.groups)
                if lines:
                    self.act()
                    self.say()
            self.act()

    def wait_s(self) -> float:
        if self.is_frozen or self.until is None:
            return AGAIN_S
        return max(0.01, min(1.0, self.until - now()))

    def act(self) -> None:
        if self.until is None:
            return
        if now() >= self.until:
            self.freeze()
        elif self.is_frozen:
            self.thaw()

    def freeze(self) -> None:
        if not self.is_frozen:
            with open(self.mark, "w") as file:
                file.write(str(now()))
        self.is_frozen = True
        for claimed, control, freeze, _ in self.groups:
            if os.path.exists(claimed) and write(control, freeze):
                self.frozen.add(control)

    def thaw(self) -> None:
        """Thaw the present groups. A frozen container that is not among them any more has lost its row, so its tenant
        may have another: it stays frozen until it is removed."""
        present = {control: thaw for _, control, _, thaw in self.groups}
        if self.is_heir:
            self.frozen |= present.keys()
            self.is_heir = False
        for control in self.frozen & present.keys():
            write(control, present[control])
        self.frozen = set()
        self.is_frozen = False
        with contextlib.suppress(OSError):
            os.unlink(self.mark)

    def say(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads; it goes on by what it was told
            os.write(1, b"frozen\n" if self.is_frozen else b"free\n")


def write(path: str, text: str) -> bool:
    """Whether there is such a file. A container that has ended has none."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def come_first() -> None:
    """Run before everything else, and never wait for memory. Where this process may not, it goes on without."""
    libc = ctypes.CDLL(None)
    libc.mlockall(PAGES_STAY)
    write("/proc/self/oom_score_adj", "-1000")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))


if __name__ == "__main__":
    come_first()
    Guard(sys.argv[1]).run()

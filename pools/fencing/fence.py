"""Renews this node's lease, and has the guard freeze its tenants' containers when that fails for too long (ADR 101).

The guard is a process that needs nothing (``guard.py``). This one feeds it: after each confirmed renewal the guard may
wait longer. While no renewal is confirmed, the other nodes are asked. If most of them do not reach the database either,
no controller can give this node up, and the guard waits as long as their word holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog
from django.db import DatabaseError, connection

from boilerhouse.core import node_leases
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.events import emit
from boilerhouse.core.node_leases import ASK_S, FREEZE_S, RENEW_S, WORD_S
from boilerhouse.process import processes
from pools import freezer
from pools.fencing import peers as peers_words
from pools.fencing import state
from pools.fencing.state import Known
from pools.models import Container
from pools.nodes import here

log = structlog.get_logger("boilerhouse.fence")

LOOK_S = 0.5
TAKES_WITHIN_S = 0.5
RENEWS_WITHIN_S = 7.0
ANSWERS_WITHIN_S = 2.0
"""A guard that has not answered for so long is stopped or hung: it is replaced, and no lease is renewed meanwhile."""
PEERS_EVERY_S = 8.0
FROZEN_WITHIN_S = 3.0
NOW = -1.0
"""A time that has passed: freeze immediately."""
GUARD = Path(__file__).with_name("guard.py")


def boottime() -> float:
    """Seconds since the machine started, including those for which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class GuardProcess:
    """The guard, as its parent knows it. It goes on when its parent is gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(state.mark())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        os.set_blocking(self._process.stdin.fileno(), False)
        self.pid = self._process.pid
        self.answered_at = boottime()
        self.is_frozen = False
        self._groups: list[list[str]] | None = None
        """What it was told last; another list means that they have changed."""

    def tell(self, until: float, groups: list[list[str]]) -> None:
        """Tell it until when it may wait, and of the groups if they have changed. It is killed if it takes nothing."""
        told: dict[str, object] = {"until": until}
        if groups is not self._groups:
            told["groups"] = groups
        line = memoryview(json.dumps(told).encode() + b"\n")
        assert self._process.stdin
        pipe = self._process.stdin.fileno()
        try:
            while line and select.select([], [pipe], [], TAKES_WITHIN_S)[1]:  # a line may be longer than a pipe holds
                line = line[os.write(pipe, line) :]
        except OSError as error:  # it has ended
            log.warning("guard does not listen", error=type(error).__name__)
        if line:
            self.end()  # whatever it has read, half a line must not be the beginning of the next
        else:
            self._groups = groups

    def listen(self, within_s: float) -> None:
        """Read its answers."""
        out = self._process.stdout
        assert out
        if select.select([out], [], [], within_s)[0] and (said := os.read(out.fileno(), 4096)):
            self.answered_at = boottime()
            self.is_frozen = said.split()[-1] == b"frozen"

    @property
    def is_well(self) -> bool:
        return self._process.poll() is None and boottime() - self.answered_at < ANSWERS_WITHIN_S

    def end(self) -> None:
        """It ends, and changes nothing."""
        self._process.kill()
        self._process.wait()


def end_other(known: Known) -> None:
    """End the guard of the fence before this one, if it still runs."""
    if known.guard_started is not None and processes.pid_started(known.guard_pid) == known.guard_started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(known.guard_pid, signal.SIGKILL)


class Fence:
    """The fence of this node. ``address`` is where other fences ask it; empty: nowhere."""

    def __init__(self, address: str) -> None:
        self._me, self._address = here().id, address
        self._lock = threading.Lock()
        self._before = state.load()
        known = self._before or Known(boottime(), None, 0, None)
        self._leased_at, self._epoch = known.leased_at, known.epoch
        self._groups, self._peers = known.groups, known.peers
        self._counted = [frozenset(known.peers)]
        """The lists of peers that the database may have: one, or two while it has not confirmed the second."""
        self._reached_at = known.leased_at
        self._listed_at = float("-inf")
        self._word_until = float("-inf")
        self._is_refused = False
        self._frozen_since: float | None = None
        self._guard = GuardProcess()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set. The guard stays if nobody knows whether the lease was given back."""
        answering = peers_words.Answering(self._address, self._me, self.unreached_s) if self._address else None
        renewing = threading.Thread(target=self._renew_for_ever, args=(stop,), name="lease", daemon=True)
        renewing.start()
        while not stop.is_set():
            self.look()
        renewing.join(RENEWS_WITHIN_S)  # a renewal after the lease is given back would take it again
        if answering is not None:
            answering.close()
        self._leave(is_renewing=renewing.is_alive())

    def unreached_s(self) -> float:
        """Seconds since the database last answered."""
        return boottime() - self._reached_at

    def look(self) -> None:
        """Tell the guard how long it may wait, and see that there is one. Takes about ``LOOK_S``."""
        time.sleep(LOOK_S)
        self._guard.listen(0)
        if not self._guard.is_well:
            self._replace_guard()
        with self._lock:
            leased_at, refused = self._leased_at, self._is_refused
        if not refused and boottime() - leased_at >= ASK_S:
            self._ask()
        until = NOW if refused else max(leased_at + FREEZE_S, self._word_until)
        self._guard.tell(until, self._groups)
        self._note()

    def _replace_guard(self) -> None:
        log.error("guard replaced", pid=self._guard.pid)
        self._guard.end()
        self._guard = GuardProcess()

    def _note(self) -> None:
        """Log when containers are frozen and thawed; the database learns of it afterwards."""
        is_frozen = self._guard.is_frozen
        if is_frozen and self._frozen_since is None:
            self._frozen_since = boottime()
            log.error("containers frozen", node=self._me, unleased_s=round(boottime() - self._leased_at, 1))
        elif not is_frozen and self._frozen_since is not None:
            log.warning("containers thawed", node=self._me, after_s=round(boottime() - self._frozen_since, 1))

    def _ask(self) -> None:
        """The others' word, if most nodes do not reach the database."""
        began = boottime()
        ages = peers_words.ask(self._peers) if self._peers else {}
        ages[self._me] = self.unreached_s()
        saying_no = {node for node, age in ages.items() if age >= ASK_S}
        if all(is_most(saying_no, peers | {self._me}) for peers in self._counted):
            self._word_until = began + WORD_S

    def _renew_for_ever(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.renew()
            except (DatabaseError, BoilerhouseError, OSError) as error:
                log.warning("lease not renewed", error=type(error).__name__, detail=str(error)[:200])
                with contextlib.suppress(Exception):
                    connection.close()
            stop.wait(RENEW_S)

    def renew(self) -> None:
        """Ask the database for the lease once. Raises what the database does."""
        if not self._guard.is_well:
            return  # nobody would freeze anything
        began = boottime()
        if self._epoch is None:
            self._epoch = node_leases.epoch_of(self._me)
        if began - self._listed_at > PEERS_EVERY_S:
            self._peers = node_leases.peers_of(self._me)
            self._listed_at = began
        peers = frozenset(self._peers)
        self._counted = [*(one for one in self._counted if one != peers), peers][-2:]
        has_it = self._epoch is not None and node_leases.renew(self._me, self._epoch, self._address, sorted(peers))
        self._reached_at = began
        if not has_it:
            self._refused()
            return
        groups = _groups()
        if groups == self._groups:
            groups = self._groups
        with self._lock:
            self._counted = [peers]
            self._leased_at, self._groups, self._is_refused = began, groups, False
        self._save()
        self._tell_of_freeze()

    def _refused(self) -> None:
        """The node was given up. It freezes, and takes a new lease once it has cleaned up."""
        if not self._is_refused:
            log.error("lease refused: the node was given up", node=self._me, epoch=self._epoch)
        with self._lock:
            self._is_refused = True
        self._epoch = None

    def _save(self) -> None:
        pid = self._guard.pid
        known = Known(self._leased_at, self._epoch, pid, processes.pid_started(pid), dict(self._peers), self._groups)
        known.store()
        if self._before is not None:
            end_other(self._before)
            self._before = None

    def _tell_of_freeze(self) -> None:
        if self._frozen_since is not None and not self._guard.is_frozen:
            emit("node.thawed", node=self._me, frozenS=round(boottime() - self._frozen_since, 1))
            self._frozen_since = None

    def _leave(self, *, is_renewing: bool = False) -> None:
        """Without a lease, a node is given up only by an operator. If the database does not confirm that it has none,
        the containers stand still before this process ends: whoever ends the guard too, the kernel keeps them so."""
        if not is_renewing and self._has_given_back():
            self._guard.end()
            state.forget()
            return
        log.error("containers frozen: the lease could not be given back", node=self._me)
        until = boottime() + FROZEN_WITHIN_S
        while not self._guard.is_frozen and boottime() < until:
            self._guard.tell(NOW, self._groups)
            self._guard.listen(LOOK_S)

    def _has_given_back(self) -> bool:
        with self._lock:
            epoch = None if self._is_refused else self._epoch
        if epoch is None:
            return False
        try:
            return node_leases.give_back(self._me, epoch)
        except DatabaseError as error:
            log.warning("lease not given back", error=type(error).__name__)
            return False


def is_most(some: set[str], of: frozenset[str]) -> bool:
    """More than half. A controller gives a node up only if at least half of the same nodes renew their leases."""
    return 2 * len(some & of) > len(of)


def _groups() -> list[list[str]]:
    """Of each container of this node that runs: the file that says that a tenant used it, and how to freeze it."""
    groups = []
    for pk, runtime_id in Container.objects.here().exclude(runtime_id="").values_list("pk", "runtime_id"):
        if group := freezer.group_of(runtime_id):
            groups.append([str(here().volumes.home(pk) / "claimed"), str(group.control), group.freezes, group.thaws])
    return groups

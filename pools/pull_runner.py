"""The threads of each controller that pull images; they only wait for sockets, so they need no processes."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import close_old_connections, connection

from boilerhouse.core import clock
from boilerhouse.process.steps import steps
from boilerhouse.queues import wakeup_pipes
from pools import image_pulls
from pools.models import Container, ImagePull, Pool
from pools.pull_runs import PullRun, is_any_requested, take
from pools.states import ContainerState

LOOK_EVERY_S, OTHERS_EVERY_S, REST_EVERY_S = 1.0, 2.0, 6.0
"""The interval of two looks: while a pull runs here, while others run this node's pulls and may die, and while there is
none. Who requests a pull on this machine wakes the thread; a request of another machine waits for at most the last."""
WANTED_EVERY_S = 3.0
UNWANTED_AFTER = timedelta(seconds=5)
"""Requesting a pull and waiting for it are one transaction; this covers small differences between clocks."""


class PullRunner:
    """Executes pulls until ``stop``; running ones are then continued by the next controller."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._runs: dict[int, tuple[PullRun, threading.Thread]] = {}
        self._looked_at = 0.0
        self._interval_s = LOOK_EVERY_S

    def start(self) -> None:
        threading.Thread(target=self._forever, name="pulls", daemon=True).start()

    def _forever(self) -> None:
        pipe = wakeup_pipes.WakeupPipe(image_pulls.BELL)
        try:
            while not self._stop.is_set():
                pipe.silence()
                if not steps.attempt("pulls", self.turn):
                    connection.close()
                pipe.wait(self._interval_s)
        finally:
            connection.close()

    def turn(self) -> None:
        """Remove ended pulls, abort stalled or unneeded ones, and start new ones if there is a free slot."""
        self._interval_s = LOOK_EVERY_S
        close_old_connections()
        self._runs = {pk: (run, thread) for pk, (run, thread) in self._runs.items() if thread.is_alive()}
        self._give_up_stalled()
        if time.monotonic() - self._looked_at > WANTED_EVERY_S:
            self._looked_at = time.monotonic()
            self._give_up_unwanted()
        has_requests = is_any_requested()
        while has_requests and not self._stop.is_set() and (row := take(self._runs.keys())) is not None:
            run = PullRun(row)
            thread = threading.Thread(target=_work, args=(run,), name=f"pull {row.pk}", daemon=True)
            self._runs[row.pk] = (run, thread)
            thread.start()
        if not self._runs:
            self._interval_s = OTHERS_EVERY_S if has_requests else REST_EVERY_S

    def _give_up_stalled(self) -> None:
        """A pull in the engine's queue is silent while another makes progress; if none makes progress, it has
        stalled."""
        runs = [run for run, _ in self._runs.values()]
        last = max((run.moved_at for run in runs), default=0.0)
        for run in runs:
            moved_at = last if run.is_in_line else run.moved_at
            if time.monotonic() - moved_at > settings.BOILERHOUSE_TRANSFER_STALL_S:
                run.give_up(is_stalled=True)

    def _give_up_unwanted(self) -> None:
        if not self._runs:
            return
        rows = ImagePull.objects.filter(pk__in=self._runs.keys(), asked_at__lt=clock.now() - UNWANTED_AFTER)
        waiting = Container.objects.filter(state=ContainerState.STARTING).exclude(pull=None).values("pull")
        rows = rows.exclude(pk__in=waiting).exclude(pk__in=Pool.objects.exclude(failed_pull=None).values("failed_pull"))
        for pk in rows.exclude(wanted_until__gt=clock.now()).values_list("pk", flat=True):
            self._runs[pk][0].give_up(is_stalled=False)


def _work(run: PullRun) -> None:
    """An error here leaves a row marked as running; the next round notices that it is not, and restarts it."""
    try:
        steps.attempt("pull", run.run)
    finally:
        connection.close()

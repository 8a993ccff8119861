"""Run a worker until SIGTERM; several may run on a node."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from importlib import import_module
from typing import Any

import structlog
from django.apps import apps
from django.conf import settings
from django.db import connections
from django.utils.module_loading import module_has_submodule

from boilerhouse.core.deployment import check_node, deployment_id
from boilerhouse.process import commands, garbage_collection, pids, processes
from boilerhouse.queues.worker import Worker

log = structlog.get_logger("boilerhouse.worker")

STOP_S = 6.0
LEAVE_S = 1.0
LOOK_EVERY_S = 1.0
STUCK_S = 120.0
"""If not even the main thread has run for this long, Python itself hangs."""
MOST_HANGING = 3
"""The maximum of hanging threads: each uses memory, a connection and locks."""
EX_SOFTWARE = 70


class Command(commands.Command):
    help = "Run the tasks of every queue until SIGTERM; those under way are finished first."

    def handle(self, *args: Any, **options: Any) -> None:
        processes.describe("worker")
        deployment_id()
        check_node()
        _load_tasks()
        garbage_collection.tune()
        connections.close_all()
        worker = Worker(settings.QUEUES)
        with pids.stopping() as stop:
            limit = _HangLimit()
            worker.start()
            code = 0
            while not code and not stop.wait(LOOK_EVERY_S):
                limit.extend()
                code = _judge(worker)
            unfinished = worker.stop(STOP_S)
        if unfinished:
            log.warning("tasks killed", tasks=unfinished)
        _leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a hanging thread would keep the interpreter from ending


class _HangLimit:
    """Ends the process when ``extend`` has not been called for ``STUCK_S``."""

    def __init__(self) -> None:
        self._set()

    def _set(self) -> None:
        self._set_at = time.monotonic()
        faulthandler.dump_traceback_later(STUCK_S, exit=True)

    def extend(self) -> None:
        """Each new limit costs a thread, so the limit is renewed when a tenth of it has passed."""
        if time.monotonic() - self._set_at > STUCK_S / 10:
            self._set()


def _leave() -> None:
    """Let others take over this process's rows immediately. If the database does not answer, they notice its missing
    heartbeat."""
    leaving = threading.Thread(target=processes.leave, daemon=True)
    leaving.start()
    leaving.join(LEAVE_S)


def _load_tasks() -> None:
    """So that no task waits for an import inside its transaction."""
    for app in apps.get_app_configs():
        if module_has_submodule(app.module, "tasks"):
            tasks = import_module(f"{app.name}.tasks")
            getattr(tasks, "warm", _nothing)()


def _nothing() -> None:
    pass


def _judge(worker: Worker) -> int:
    """The exit code with which another worker has to take over; 0 while there is no problem."""
    for task in worker.retire_overdue():
        log.error("task hangs", task=task, why="it takes longer than its queue allows")
    # The row of a hanging task is taken over only after this process has ended; a transfer of hours is worth more.
    if (hanging := worker.hanging()) and (len(hanging) >= MOST_HANGING or not worker.is_at_work(STOP_S)):
        log.error("worker exits", tasks=hanging, why="tasks hang")
        return EX_SOFTWARE
    if not worker.is_serving:
        log.error("worker exits", why="a thread has ended")
        return EX_SOFTWARE
    if worker.is_stuck:
        log.error("worker exits", why="the database does not answer")
        return EX_SOFTWARE
    return 0

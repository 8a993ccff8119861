"""The worker: one process whose threads run the tasks of every queue (ADR 55).

Tasks wait for the engine, for rclone and for the database, not for Python; threads serve them as processes would, with
a tenth of the memory. Each queue has its own threads, so that long tasks of one do not delay the others. The functions
that run a task and store its failure are django-q2's.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django_q import monitor
from django_q.signing import SignedPackage
from django_q.worker import worker as run_tasks

from boilerhouse.core import compiled, context
from boilerhouse.core.compiled import Compiled
from boilerhouse.core.models import QueueHealth
from boilerhouse.process import giving_way, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.queues import wakeup_pipes
from boilerhouse.queues.broker import Broker, Message
from boilerhouse.queues.tasks import is_joining

log = structlog.get_logger("boilerhouse.worker")

HEALTH_EVERY_S = 4.0
IDLE_S = 10.0
"""A thread that has been idle for this long closes its database connection. How often the worker asks whether another
machine sends messages, and how long after a message it asks when a delayed one is due."""
AWAITED = ("claim", "save")
"""Queues of tasks that a client waits for: those of others give way to them."""
SAY_EVERY_S = 60.0
"""How often the log repeats why the queues cannot be read."""
LOOK_STUCK_S = 60.0
"""Reading the queues takes milliseconds. If it takes this long, the database does not answer: SQLite gives up after 20
s, and a new connection to PostgreSQL after 5 s."""


class Bounded:
    """Where django-q2's function stores its deadline. A thread cannot be interrupted, so the worker watches it
    instead."""

    value: float = -1

    @contextlib.contextmanager
    def get_lock(self) -> Iterator[None]:
        yield


@dataclass(slots=True)
class Work:
    """A task that a thread runs."""

    task: dict[str, Any]
    began: float
    """By the monotonic clock."""
    is_kept: bool = False
    """Whether its message is locked for the longest time that the queue's tasks may take."""


class Thread:
    """Runs one task of its queue at a time. To django-q2's function, it is the queue of tasks and of results."""

    def __init__(self, of: Worker, name: str, number: int) -> None:
        self._of, self._queue = of, name
        self._tasks: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next: deque[dict[str, Any]] = deque()
        self._broker = Broker(name)
        self.work: Work | None = None
        """None while it is free. Other threads read it once, because it may change at any moment."""
        self.thread = threading.Thread(target=self._run, name=f"{name} {number}", daemon=True)

    @property
    def is_free(self) -> bool:
        return self.work is None

    def give(self, task: dict[str, Any]) -> None:
        self.work = Work(task, time.monotonic())
        self._tasks.put(task)

    def end(self) -> None:
        """End the thread when its task is done."""
        self._tasks.put(None)

    def get(self) -> dict[str, Any] | str:
        """What django-q2's function calls: returns the task, and then the value that ends it."""
        return self._next.popleft() if self._next else "STOP"

    def put(self, task: dict[str, Any]) -> None:
        """Take a task's result: acknowledge its message, and store a failure for people."""
        try:
            monitor.save_task(task, self._broker)
            self._broker.acknowledge(task["ack_id"])
        except DATABASE_LOST:
            connection.close()
            self._of.unacknowledged.append((self._broker, task["ack_id"]))

    def _run(self) -> None:
        context.serve(self._queue)
        while (task := self._wait()) is not None:
            self._next.append(task)
            try:
                with giving_way.task(is_awaited=self._queue in AWAITED):
                    # The task's log context and actor end with it.
                    copy_context().run(run_tasks, self, self, Bounded(), -1)
            except Exception:
                log.exception("thread broke", queue=self._queue, task=str(task["func"]))
            finally:
                self._next.clear()
                self.work = None
                self._of.wake()
        connection.close()

    def _wait(self) -> dict[str, Any] | None:
        """The next task; None to end."""
        try:
            return self._tasks.get(timeout=IDLE_S)
        except queue.Empty:
            connection.close()
            return self._tasks.get()


class Worker:
    """Takes messages from the queues, as many as there are free threads; ``run`` returns when it has stopped."""

    def __init__(self, queues: Mapping[str, Mapping[str, Any]]) -> None:
        self._queues = queues
        self._threads = {
            name: [Thread(self, name, number) for number in range(int(own["workers"]))]
            for name, own in queues.items()
        }  # fmt: skip
        self._pipe = wakeup_pipes.WakeupPipe(*queues)
        self._stopping = threading.Event()
        self._retired: list[tuple[str, Thread]] = []
        """Threads whose tasks hang. Other threads have replaced them."""
        self._say_again: dict[str, float] = {}
        """Why the queues cannot be read, and when the log may repeat it; empty while they can."""
        self._next_health = 0.0
        self._asked_at, self._is_alone = -IDLE_S, False
        self._look_began: float | None = None
        self.unacknowledged: deque[tuple[Broker, Any]] = deque()
        """Messages of finished tasks that could not be acknowledged yet."""
        self._taker = threading.Thread(target=self._take, name="messages", daemon=True)

    def start(self) -> None:
        for thread in self._all():
            thread.thread.start()
        self._taker.start()

    def wake(self) -> None:
        """Make it look for messages now."""
        self._pipe.notify()

    def retire_overdue(self) -> list[str]:
        """Replace each thread whose task exceeds its queue's time limit; return these tasks."""
        hung = []
        for name, threads in self._threads.items():
            for number, thread in enumerate(threads):
                work = thread.work
                if work is None or time.monotonic() - work.began <= float(self._queues[name]["timeout"]):
                    continue
                thread.end()
                self._retired.append((name, thread))
                threads[number] = Thread(self, name, number)
                threads[number].thread.start()
                hung.append(_work_text(name, work))
        if hung:
            self.wake()
        return hung

    def hanging(self) -> list[str]:
        """Tasks that still hang, with their queue."""
        return [_work_text(name, work) for name, thread in self._retired if (work := thread.work) is not None]

    def is_at_work(self, for_s: float) -> bool:
        """Whether a task that does not hang has run for this long already."""
        return any(time.monotonic() - work.began > for_s for _, work in self._work())

    @property
    def is_serving(self) -> bool:
        return self._taker.is_alive() and all(thread.thread.is_alive() for thread in self._all())

    @property
    def is_stuck(self) -> bool:
        """Whether the queues are not being read, because the database does not answer."""
        began = self._look_began
        return began is not None and time.monotonic() - began > LOOK_STUCK_S

    def stop(self, within_s: float) -> list[str]:
        """Take no more messages and wait for running tasks; return those that have not ended by then."""
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + within_s
        self._taker.join(within_s)
        for thread in self._all():
            thread.end()
        for thread in self._all() + [thread for _, thread in self._retired]:
            thread.thread.join(max(0.0, deadline - time.monotonic()))
        return self.hanging() + [_work_text(name, work) for name, work in self._work()]

    def _all(self) -> list[Thread]:
        return [thread for threads in self._threads.values() for thread in threads]

    def _work(self) -> list[tuple[str, Work]]:
        """The running tasks, each with its queue."""
        threads = [(name, thread) for name, threads in self._threads.items() for thread in threads]
        return [(name, work) for name, thread in threads if (work := thread.work) is not None]

    def _free(self) -> dict[str, list[Thread]]:
        free = {name: [thread for thread in threads if thread.is_free] for name, threads in self._threads.items()}
        return {name: threads for name, threads in free.items() if threads}

    def _take(self) -> None:
        """Until it is stopped: pass messages to free threads. It continues when the database is unavailable."""
        last, is_woken = time.monotonic(), True
        while not self._stopping.is_set():
            self._pipe.silence()
            self._look_began = time.monotonic()
            pause_s: float = settings.QUEUE_LOOK_S
            try:
                if self._look(is_woken=is_woken):
                    last, pause_s = time.monotonic(), 0.0
                else:
                    pause_s = self._pause_s(is_recent=time.monotonic() - last < IDLE_S)
                self._say_again.clear()
            except Exception as error:
                self._say_failed(error)
                connection.close()
            self._look_began = None
            is_woken = not pause_s or self._pipe.wait(pause_s)
        connection.close()

    def _pause_s(self, *, is_recent: bool) -> float:
        """The seconds until the next look. With ``is_recent``, a task may just have sent a delayed message."""
        often, rarely = float(settings.QUEUE_LOOK_S), float(settings.QUEUE_IDLE_LOOK_S)
        if not self._is_woken():
            return often
        due_s = Broker.next_due_s(self._free()) if is_recent else None
        return rarely if due_s is None else min(max(due_s, often), rarely)

    def _is_woken(self) -> bool:
        """Whether every process that enqueues wakes this one. Another machine's is noticed after a while."""
        if time.monotonic() > self._asked_at + IDLE_S:
            self._asked_at = time.monotonic()
            try:
                self._is_alone = processes.all_share_wakeups()
            except DATABASE_LOST:
                self._is_alone = False
        return self._is_alone

    def _say_failed(self, error: Exception) -> None:
        kind, now = type(error).__name__, time.monotonic()
        if now < self._say_again.get(kind, now):
            return
        self._say_again[kind] = now + SAY_EVERY_S
        if isinstance(error, DATABASE_LOST):
            log.warning("queues cannot be looked at", error=kind)
        else:
            log.error("queues cannot be looked at", error=kind, exc_info=error)

    def _look(self, *, is_woken: bool) -> bool:
        """Whether there was something to do. Without a wake-up there is nearly never a message, so a cheaper query asks
        for that first."""
        while self.unacknowledged:
            broker, message = self.unacknowledged[0]
            broker.acknowledge(message)
            self.unacknowledged.popleft()
        if time.monotonic() >= self._next_health:
            self._next_health = time.monotonic() + HEALTH_EVERY_S
            _say_served(self._queues)
            self._keep()
        free = self._free()
        if not is_woken and not Broker.has_due(free):
            return False
        messages, passed = Broker.take({name: len(threads) for name, threads in free.items()})
        for task in _joined(messages, passed):
            free[task["cluster"]].pop().give(task)
        return bool(messages)

    def _keep(self) -> None:
        """Keep other workers from taking the messages of running tasks. Most tasks end before this costs anything."""
        begun: dict[str, list[Work]] = {}
        for name, work in self._work():
            if not work.is_kept:
                begun.setdefault(name, []).append(work)
        for name, tasks in begun.items():
            Broker.keep(name, [one.task["ack_id"] for one in tasks])
            for work in tasks:
                work.is_kept = True


def _joined(messages: list[Message], passed: list[Message]) -> list[dict[str, Any]]:
    """The tasks of the taken messages, one for all that join; the other messages are deleted, also those in ``passed``.

    The task has not begun, so it sees what was committed with the deleted messages. If this process dies, the message
    of the task is taken again.
    """
    tasks: dict[Hashable, dict[str, Any]] = {}
    doubles = []
    for message in messages:
        if (task := _unpacked(message)) is not None and tasks.setdefault(_work_of(task), task) is not task:
            doubles.append(message.id)
    joining = {task["cluster"] for task in tasks.values() if is_joining(task["func"])}
    behind = [
        message.id
        for message in passed
        if message.queue in joining and (task := _unpacked(message)) is not None and _work_of(task) in tasks
    ]
    if doubles or behind:
        try:
            Broker.drop(doubles, behind)
        except DATABASE_LOST as error:  # their tasks run too
            log.warning("messages not joined", error=type(error).__name__)
            connection.close()
    return list(tasks.values())


def _work_of(task: dict[str, Any]) -> Hashable:
    """Equal for the tasks of messages that join."""
    return (task["func"], task["args"]) if is_joining(task["func"]) else task["ack_id"]


def _work_text(name: str, work: Work) -> str:
    return f"{name}: {work.task['func']}"


def _unpacked(message: Message) -> dict[str, Any] | None:
    """The message's task; None if it cannot be read, because it is not this deployment's; it is then deleted."""
    try:
        task: dict[str, Any] = SignedPackage.loads(message.payload)
    except Exception:  # otherwise it would fail again and block the messages behind it
        log.exception("message cannot be read", queue=message.queue)
        Broker(message.queue).fail(message.id)
        return None
    return task | {"cluster": message.queue, "ack_id": message.id}


def _say_served(queues: Mapping[str, object]) -> None:
    """Record that the queues are served, whether or not a thread is free at the moment."""
    processes.current()
    if _served(tuple(queues)).run() < len(queues):
        for name in queues:
            QueueHealth.objects.get_or_create(name=name)


@compiled.cached
def _served(queues: tuple[str, ...]) -> Compiled:
    return compiled.update(QueueHealth.objects.filter(pk__in=queues), served_at=Now())

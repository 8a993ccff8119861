"""The worker: threads of one process run the tasks of all queues. None is lost, run twice, or delayed by another
queue."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import structlog
from django.db import OperationalError
from django_q.models import OrmQ, Task

from boilerhouse.core import clock, context
from boilerhouse.core.models import Node, Process, QueueHealth
from boilerhouse.operations import supervise
from boilerhouse.process import processes
from boilerhouse.queues import broker, in_progress, wakeup_pipes
from boilerhouse.queues import worker as worker_module
from boilerhouse.queues.broker import Broker
from boilerhouse.queues.management.commands import run_worker
from boilerhouse.queues.tasks import enqueue, task
from boilerhouse.queues.worker import Worker
from tests.waiting import eventually

QUEUES = {"fast": {"workers": 2, "timeout": 5, "retry": 60}, "slow": {"workers": 1, "timeout": 5, "retry": 60}}
HERE = __name__
done: list[str] = []
rescheduled: list[str] = []
gate = threading.Event()

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@task
def note(word: str) -> None:
    done.append(word)


@task
def note_later(word: str) -> None:
    """Reschedules itself once."""
    if word in rescheduled:
        done.append(word)
        return
    rescheduled.append(word)
    enqueue("fast", f"{HERE}.note_later", word, after_s=1)


@task
def wait(word: str) -> None:
    gate.wait(30)
    done.append(word)


def binds(word: str) -> None:
    structlog.contextvars.bind_contextvars(tenant=word)
    context.set_actor(word)


def tells_what_is_bound() -> None:
    tenant = structlog.contextvars.get_contextvars().get("tenant", "none")
    done.append(f"actor={context.actor()} tenant={tenant} queue={context.queue()}")


def breaks(word: str) -> None:
    raise ValueError(word)


@pytest.fixture
def start(data_dir: Path, settings) -> Iterator[Callable[[], Worker]]:
    settings.QUEUES = QUEUES
    settings.QUEUE_LOOK_S = 0.1
    done.clear()
    rescheduled.clear()
    gate.clear()
    workers = []

    def started() -> Worker:
        workers.append(Worker(QUEUES))
        workers[-1].start()
        return workers[-1]

    yield started
    gate.set()
    for worker in workers:
        assert worker.stop(20) == []


def test_a_full_queue_holds_up_no_other_and_goes_on_when_a_thread_is_free(start):
    """Its messages stay in the database for the workers of other machines."""
    for number in range(5):
        enqueue("slow", f"{HERE}.wait", f"slow-{number}")
    for number in range(20):
        enqueue("fast", f"{HERE}.note", f"fast-{number}")
    start()
    eventually(lambda: len(done) == 20, 20)
    assert {word.partition("-")[0] for word in done} == {"fast"}
    assert OrmQ.objects.filter(key="slow").count() == 5
    gate.set()
    eventually(lambda: not OrmQ.objects.exists(), 20)
    assert [word for word in done if word.startswith("slow")] == [f"slow-{number}" for number in range(5)]


def test_a_backlog_of_one_queue_hides_no_message_of_another(settings):
    settings.QUEUES = QUEUES
    for number in range(3 * broker.PAGE):
        enqueue("slow", f"{HERE}.note", f"slow-{number}")
    enqueue("fast", f"{HERE}.note", "fast")
    assert [one.queue for one in Broker.take({"slow": 1, "fast": 1})[0]] == ["slow", "fast"]


def test_messages_that_were_taken_as_the_database_failed_come_back_soon(start, monkeypatch):
    """Two of them are locked already, and no process runs them (P8)."""
    monkeypatch.setattr(broker, "TAKEN_FOR", broker.NEARLY + timedelta(seconds=0.5))
    for number in range(2):
        enqueue("fast", f"{HERE}.note", str(number))
    failures = iter([OperationalError("gone")])
    load = worker_module._unpacked

    def unpacked(message: broker.Message) -> object:
        for error in failures:
            raise error
        return load(message)

    monkeypatch.setattr(worker_module, "_unpacked", unpacked)
    start()
    eventually(lambda: sorted(done) == ["0", "1"], 20)


def test_a_worker_that_looks_rarely_is_woken_by_a_message(start, settings, monkeypatch):
    monkeypatch.setattr(worker_module, "IDLE_S", 0.1)
    settings.QUEUE_IDLE_LOOK_S = 600.0
    start()
    time.sleep(0.5)
    enqueue("fast", f"{HERE}.note", "woken")
    eventually(lambda: done == ["woken"], 20)


def test_a_worker_that_has_just_worked_looks_as_rarely_as_at_rest(start, settings, monkeypatch):
    """Each node's regular maintenance would otherwise keep it looking often for ever."""
    settings.QUEUE_LOOK_S, settings.QUEUE_IDLE_LOOK_S = 0.01, 600.0
    looks = []
    monkeypatch.setattr(Worker, "_look", counted(Worker._look, looks))
    start()
    enqueue("fast", f"{HERE}.note", "once")
    eventually(lambda: done == ["once"], 20)
    time.sleep(0.5)
    before = len(looks)
    time.sleep(1)
    assert len(looks) == before


def counted(look: Callable[..., bool], looks: list[float]) -> Callable[..., bool]:
    def counting(worker: Worker, **arguments: bool) -> bool:
        looks.append(time.monotonic())
        return look(worker, **arguments)

    return counting


def test_a_delayed_message_is_taken_when_it_is_due(start, settings):
    """Nothing wakes the worker at that time: a task that reschedules itself has ended long before."""
    settings.QUEUE_IDLE_LOOK_S = 600.0
    start()
    enqueue("fast", f"{HERE}.note_later", "later")
    eventually(lambda: done == ["later"], 20)


def test_a_message_after_a_long_rest_starts_at_once(start, settings, monkeypatch):
    """The worker sleeps for as long as it likes: the message wakes it."""
    monkeypatch.setattr(worker_module, "IDLE_S", 0.1)
    settings.QUEUE_IDLE_LOOK_S = 600.0
    start()
    for word in ("first", "second", "third"):
        time.sleep(0.5)
        enqueue("fast", f"{HERE}.note", word)
        eventually(lambda word=word: word in done, 20)


def test_what_has_no_message_that_is_due_is_not_read(settings):
    settings.QUEUES = QUEUES
    assert not Broker.has_due(["fast", "slow"])
    assert Broker.next_due_s(["fast", "slow"]) is None
    enqueue("fast", f"{HERE}.note", "delayed", after_s=30)
    assert not Broker.has_due(["fast", "slow"])
    assert 20 < Broker.next_due_s(["fast", "slow"]) <= 30
    enqueue("slow", f"{HERE}.note", "now")
    assert Broker.has_due(["fast", "slow"])
    assert not Broker.has_due(["fast"])
    assert Broker.next_due_s(["slow"]) is None
    enqueue("fast", f"{HERE}.note", "elsewhere", node="elsewhere")
    assert not Broker.has_due(["fast"])


def test_a_worker_looks_often_while_another_machine_may_send_messages(start, settings, monkeypatch):
    """Wake-up pipes reach only processes with the same data directory on the same machine."""
    assert processes.all_share_wakeups()
    elsewhere = Node.objects.create(pk="elsewhere")
    Process.objects.create(kind="web", node=elsewhere, pid_space="other", boot_id="x", pid=1, pid_started=1)
    assert not processes.all_share_wakeups()
    monkeypatch.setattr(worker_module, "IDLE_S", 0.1)
    monkeypatch.setattr(wakeup_pipes, "notify", lambda queue: None)
    settings.QUEUE_IDLE_LOOK_S = 600.0
    start()
    time.sleep(0.5)
    enqueue("fast", f"{HERE}.note", "found")
    eventually(lambda: done == ["found"], 20)


def test_nobody_else_gets_the_message_of_a_task_that_runs_for_long(start, monkeypatch):
    monkeypatch.setattr(broker, "TAKEN_FOR", broker.NEARLY + timedelta(seconds=0.5))
    monkeypatch.setattr(worker_module, "HEALTH_EVERY_S", 0.1)
    enqueue("slow", f"{HERE}.wait", "long")
    start()
    eventually(lambda: OrmQ.objects.filter(lock__gt=clock.now() + timedelta(seconds=40)).exists(), 20)
    time.sleep(0.6)
    assert Broker.take({"slow": 1})[0] == []


def test_workers_share_a_queue_and_no_message_is_done_twice(start):
    gate.set()
    for _ in range(3):
        start()
    for number in range(60):
        enqueue("fast", f"{HERE}.note", str(number))
    eventually(lambda: not OrmQ.objects.exists(), 20)
    assert sorted(map(int, done)) == list(range(60))


def test_a_task_that_breaks_or_cannot_be_read_leaves_its_thread_in_place(start):
    OrmQ.objects.create(key="slow", payload="not signed", lock="2020-01-01T00:00:00Z")
    enqueue("slow", f"{HERE}.breaks", "word")
    enqueue("slow", f"{HERE}.is_nowhere", "word")
    enqueue("slow", f"{HERE}.note", "after")
    worker = start()
    eventually(lambda: done == ["after"], 20)
    eventually(lambda: not OrmQ.objects.exists(), 20)
    assert worker.is_serving
    assert Task.objects.filter(success=False).count() == 2, "people see what broke"


def test_a_database_that_goes_away_ends_neither_taking_nor_what_is_done(start, monkeypatch):
    """A task that ended in between is acknowledged when the database is back, and not run again (P8)."""
    enqueue("slow", f"{HERE}.wait", "once")
    worker = start()
    eventually(lambda: not worker._threads["slow"][0].is_free, 20)

    def lost(*_: object) -> None:
        raise OperationalError

    with monkeypatch.context() as away:
        away.setattr(Broker, "take", lost)
        away.setattr(Broker, "acknowledge", lost)
        gate.set()
        eventually(lambda: len(worker.unacknowledged) == 1, 20)
        time.sleep(0.3)
    eventually(lambda: not OrmQ.objects.exists(), 20)
    assert done == ["once"]
    assert worker.is_serving


def test_everybody_sees_that_the_queues_are_served_though_all_threads_are_busy(start):
    for _ in range(2):
        enqueue("slow", f"{HERE}.wait", "busy")
    start()
    eventually(lambda: QueueHealth.objects.filter(name__in=QUEUES).count() == 2, 20)
    assert Process.objects.count() == 1


def test_a_task_that_takes_longer_than_its_queue_allows_leaves_its_place_to_others(start, monkeypatch):
    """A hung task ended the whole worker, with transfers that had run for hours."""
    monkeypatch.setitem(QUEUES["slow"], "timeout", 0.2)
    monkeypatch.setattr(run_worker, "STOP_S", 0.5)
    enqueue("fast", f"{HERE}.wait", "transfer")
    enqueue("slow", f"{HERE}.wait", "hangs")
    worker = start()
    assert run_worker._judge(worker) == 0
    eventually(lambda: worker.is_at_work(run_worker.STOP_S), 20)
    assert run_worker._judge(worker) == 0, "a transfer runs"
    assert worker.hanging() == [f"slow: {HERE}.wait"]
    enqueue("slow", f"{HERE}.note", "next")
    eventually(lambda: done == ["next"], 20)
    assert run_worker._judge(worker) == 0
    assert worker.is_serving
    gate.set()
    eventually(lambda: worker.hanging() == [], 20)
    assert run_worker._judge(worker) == 0, "it has ended after all"


def test_a_worker_whose_task_hangs_ends_when_nothing_else_is_at_work(start, monkeypatch):
    """The task's row names this process, and is taken over when the process has ended."""
    monkeypatch.setitem(QUEUES["slow"], "timeout", 0.2)
    enqueue("slow", f"{HERE}.wait", "hangs")
    worker = start()
    eventually(lambda: run_worker._judge(worker) == run_worker.EX_SOFTWARE, 20)


def test_a_worker_with_many_tasks_that_hang_ends_whatever_else_is_at_work(start, monkeypatch):
    monkeypatch.setitem(QUEUES["slow"], "timeout", 0.2)
    monkeypatch.setattr(run_worker, "STOP_S", 0.1)
    enqueue("fast", f"{HERE}.wait", "transfer")
    worker = start()
    eventually(lambda: worker.is_at_work(run_worker.STOP_S), 20)
    for number in range(run_worker.MOST_HANGING):
        assert run_worker._judge(worker) == 0
        enqueue("slow", f"{HERE}.wait", str(number))
        eventually(lambda number=number: worker.retire_overdue() or len(worker.hanging()) > number, 20)
    assert run_worker._judge(worker) == run_worker.EX_SOFTWARE


def test_why_the_queues_cannot_be_looked_at_is_logged_once(start, monkeypatch):
    """It logged four tracebacks a second."""
    looks = []

    def fails(_: object, **__: bool) -> bool:
        looks.append(1)
        raise RuntimeError("this look fails")

    with structlog.testing.capture_logs() as logs, monkeypatch.context() as broken:
        broken.setattr(Worker, "_look", fails)
        start()
        eventually(lambda: len(looks) > 5, 20)
    told = [one for one in logs if one["event"] == "queues cannot be looked at"]
    assert [one["error"] for one in told] == ["RuntimeError"]
    assert told[0]["exc_info"]


def test_a_task_that_ends_while_it_is_judged_is_not_overdue(start):
    """The monitoring thread failed, and the worker ended with all its tasks."""

    class Ends(worker_module.Thread):
        @property
        def work(self) -> worker_module.Work | None:
            return next(self.reads, None)

        @work.setter
        def work(self, value: worker_module.Work | None) -> None:
            pass

    worker = start()
    ends = Ends(worker, "slow", 1)
    ends.reads = iter([worker_module.Work({"func": "f"}, time.monotonic())])
    worker._threads["slow"].append(ends)
    try:
        assert worker.retire_overdue() == []
        assert next(ends.reads, None) is None, "it was looked at"
    finally:
        worker._threads["slow"].remove(ends)


def test_what_a_task_adds_to_its_logs_is_gone_in_the_next_one_of_its_thread(start):
    """A log line named another tenant."""
    enqueue("slow", f"{HERE}.binds", "tenant-1")
    enqueue("slow", f"{HERE}.tells_what_is_bound")
    start()
    eventually(lambda: len(done) == 1, 20)
    assert done == ["actor=system tenant=none queue=slow"]


def test_stopping_waits_for_tasks_as_long_as_it_may(start):
    """The message of an unfinished task stays for the process that takes its row over."""
    enqueue("slow", f"{HERE}.wait", "first")
    worker = start()
    eventually(lambda: not worker._threads["slow"][0].is_free, 20)
    enqueue("slow", f"{HERE}.wait", "second")
    assert worker.stop(0.3) == [f"slow: {HERE}.wait"]
    assert OrmQ.objects.filter(key="slow").count() == 2


def test_two_messages_of_a_row_are_not_worked_on_at_once():
    """A row names the process, not the thread: P2 in a process of many threads."""
    inside, most, row = [], [], uuid4()

    @in_progress.alone
    def work(_row: UUID) -> str:
        inside.append(1)
        most.append(len(inside))
        gate.wait(0.005)
        inside.pop()
        return "done"

    gate.clear()
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(work(row))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert answers == ["done"] * 8

    held, leave = threading.Event(), threading.Event()

    @in_progress.alone
    def hold(_row: UUID) -> str:
        held.set()
        leave.wait(30)
        return "held"

    holder = threading.Thread(target=hold, args=(row,))
    holder.start()
    assert held.wait(30)
    assert hold(row) is None, "who works on it for longer is not waited for"
    assert work(row) == "done", "a release comes while the claim's restore still runs"
    assert work(uuid4()) == "done"
    leave.set()
    holder.join()


def test_the_times_of_stopping_fit_into_each_other():
    """C: ``up`` stops in ten seconds; a worker ends by itself before it is killed."""
    assert run_worker.STOP_S + run_worker.LEAVE_S < supervise.STOP_S
    assert supervise.STOP_S + supervise.LAST_WAIT_S < 10


def test_the_supervisor_of_up_needs_no_django():
    """It keeps its loaded modules for as long as the deployment runs."""
    program = "import sys, boilerhouse.operations.supervise; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


HANGS = """
import ctypes, os, threading
from boilerhouse.queues import worker
from boilerhouse.queues.management.commands import run_worker
run_worker.STUCK_S, run_worker.LOOK_EVERY_S = 2, 0.2
worker.Worker._look = lambda self, **_: ctypes.PyDLL(None).sleep(600)  # with Python's lock held
"""


SILENT = """
import time
from boilerhouse.process import processes
from boilerhouse.queues import worker
from boilerhouse.queues.management.commands import run_worker
worker.LOOK_STUCK_S, run_worker.LOOK_EVERY_S, run_worker.STOP_S = 1, 0.2, 0.5
worker.Worker._look = lambda self, **_: time.sleep(600)  # as a query does whose answer never comes
processes.leave = lambda: time.sleep(600)
"""


TASKS = """
import os, pathlib, time

def work(name):
    directory = pathlib.Path(os.environ["BOILERHOUSE_DATA_DIR"])
    (directory / f"{name}.{os.getpid()}.begun").touch()
    while not (directory / "go").exists():
        time.sleep(0.02)
    (directory / f"{name}.{os.getpid()}.done").touch()
"""
SERVES = """
import sys
from datetime import timedelta
import django; django.setup()
from django.core.management import call_command
from boilerhouse.queues import broker, tasks, worker
broker.TAKEN_FOR, worker.HEALTH_EVERY_S = broker.NEARLY + timedelta(seconds=1), 600
call_command("migrate", verbosity=0)
for queue in sys.argv[1:]:
    tasks.enqueue(queue, "work_of_two_queues.work", queue)
call_command("run_worker", skip_checks=True)
"""


class Serving:
    """Worker processes of a separate deployment, whose tasks wait for a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "work_of_two_queues.py").write_text(TASKS)
        self.environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(directory), "PYTHONPATH": str(directory)}
        self.environment["DJANGO_SETTINGS_MODULE"] = "boilerhouse.settings"
        self.environment.pop("DATABASE_URL", None)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *queues: str) -> subprocess.Popen[bytes]:
        program = f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{SERVES}"
        self.processes.append(subprocess.Popen([sys.executable, "-c", program, *queues], env=self.environment))
        return self.processes[-1]

    def are(self, what: str, process: subprocess.Popen[bytes]) -> set[str]:
        """The queues whose task has started or finished in this process."""
        return {path.name.partition(".")[0] for path in self.directory.glob(f"*.{process.pid}.{what}")}

    def messages(self) -> int:
        with closing(sqlite3.connect(self.directory / "boilerhouse.sqlite3")) as database:
            return int(database.execute("SELECT count(*) FROM django_q_ormq").fetchone()[0])


@pytest.fixture
def serving(tmp_path) -> Iterator[Serving]:
    one = Serving(tmp_path)
    yield one
    for process in one.processes:
        process.kill()
        process.wait()


@pytest.mark.any_database  # its deployment has an SQLite of its own
def test_tasks_of_two_queues_are_finished_before_a_worker_ends(serving):
    worker = serving.start("pool", "save")
    eventually(lambda: serving.are("begun", worker) == {"pool", "save"}, 60)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert worker.poll() is None, "it waits for its tasks"
    (serving.directory / "go").touch()
    assert worker.wait(30) == 0
    assert serving.are("done", worker) == {"pool", "save"}
    assert serving.messages() == 0


@pytest.mark.any_database  # its deployment has an SQLite of its own
def test_tasks_of_two_queues_whose_worker_is_killed_run_in_the_next_one(serving):
    """kill -9 at their start: their messages return in seconds, not after the maximum time of a task."""
    killed = serving.start("pool", "save")
    eventually(lambda: serving.are("begun", killed) == {"pool", "save"}, 60)
    killed.kill()
    killed.wait()
    following = serving.start()
    eventually(lambda: serving.are("begun", following) == {"pool", "save"}, 60)
    (serving.directory / "go").touch()
    eventually(lambda: serving.messages() == 0, 30)
    assert serving.are("done", following) == {"pool", "save"}
    assert serving.are("done", killed) == set()


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.any_database  # its deployment has an SQLite of its own
@pytest.mark.parametrize(("hangs", "code"), [("", 0), (HANGS, 1), (SILENT, 70)], ids=["SIGTERM", "hangs", "silent"])
def test_a_worker_ends_when_it_is_told_to_and_when_it_cannot_go_on(tmp_path, hangs, code):
    """Its parent starts another; if it did not exit by itself it would serve nothing for ever."""
    environment = {
        **os.environ,
        "BOILERHOUSE_DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "boilerhouse.settings",
    }
    environment.pop("DATABASE_URL", None)
    program = f"import django; django.setup()\n{hangs}\nfrom django.core.management import call_command\n"
    program += "call_command('migrate', verbosity=0)\ncall_command('run_worker', skip_checks=True)"
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        if not hangs:
            bells = tmp_path / "bells"
            eventually(lambda: bells.is_dir() and list(bells.iterdir()) and catches_sigterm(process.pid), 60)
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == code
        assert process.stderr
        assert ("Timeout" in process.stderr.read()) == (hangs == HANGS)
    finally:
        process.kill()
        process.wait()

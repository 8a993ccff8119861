"""A failing part does not stop the rest: steps, watchers, liveness checks, watchdogs, start and stop."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ

from boilerhouse.attention import causes
from boilerhouse.controller import controller, engine_watch
from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from boilerhouse.core.errors import Unavailable
from boilerhouse.core.models import FailingStep, Lease, Process
from boilerhouse.operations import health
from boilerhouse.process import processes
from boilerhouse.process import steps as core_steps
from boilerhouse.process.steps import Steps, each, earlier, later
from boilerhouse.queues.broker import Broker
from boilerhouse.queues.tasks import enqueue
from boilerhouse.web import event_pump
from pools import pull_runner, pull_runs, tags, volumes
from pools.errors import EngineTimeout
from pools.models import ImagePull, Pool, WorkloadVersion
from pools.states import PullState
from pools.tasks import tidy
from pools.volumes import staged_restores
from syncing import rclone
from syncing.models import SyncSpec
from tenants import claims, idle, syncs, upkeep, validation
from tenants.models import Assignment
from tests.make import make_assignment, make_container, make_held, make_pool, make_sync_spec, make_workload
from tests.waiting import eventually

HUGE_MS = 2**53 - 1


@pytest.fixture
def steps(monkeypatch, transactional_db, data_dir) -> Steps:
    """The steps of a process that has just started."""
    fresh = Steps()
    for module in (controller, engine_watch, core_steps):
        monkeypatch.setattr(module, "steps", fresh)
    for threads in ("EngineWatch", "PullRunner", "DiskWatch", "Courier"):
        monkeypatch.setattr(controller, threads, lambda *_: type("Nobody", (), {"start": lambda _: None})())
    return fresh


def make_controller() -> controller.Controller:
    return controller.Controller(threading.Event())


# Steps (O1) -----------------------------------------------------------------------------------------


def test_a_step_that_always_fails_leaves_the_others_their_turn_and_is_said(steps, monkeypatch, capsys):
    """If a step raises on every run, the steps after it run, and the failure is logged once and shown."""
    ran: list[str] = []

    def breaks() -> int:
        raise OverflowError("date value out of range")

    def works() -> int:
        ran.append("works")
        return 0

    monkeypatch.setattr(controller, "STEPS", [(0.0, breaks), (0.0, works)])
    leader = make_controller()
    for _ in range(5):
        leader.tick()
    assert ran == ["works"] * 5
    row = FailingStep.objects.get()
    assert (row.name, row.error) == ("breaks", "OverflowError")
    assert "test_steadiness.py" in row.detail
    assert health.failing_steps() == ["breaks"]
    assert [cause.subject for cause in causes.present()] == ["breaks"]

    monkeypatch.setattr(controller, "STEPS", [(0.0, lambda: 0)])
    steps.attempt("breaks", lambda: 0)
    assert not FailingStep.objects.exists()


def test_the_leader_rests_only_while_nothing_is_assigned_and_no_step_had_work(steps, monkeypatch):
    work = [1]
    monkeypatch.setattr(controller, "STEPS", [(0.0, lambda: work[0])])
    monkeypatch.setattr(controller, "REST_AFTER_S", 0.0)
    leader = make_controller()
    assert leader.interval_s == controller.TICK_S  # it does not lead yet
    work[0] = 0
    leader.tick()
    assert leader.interval_s == controller.REST_TICK_S
    monkeypatch.setattr(controller, "REST_AFTER_S", 60.0)
    work[0] = 1
    leader.tick()
    assert leader.interval_s == controller.TICK_S
    monkeypatch.setattr(controller, "REST_AFTER_S", 0.0)
    work[0] = 0
    make_assignment("ann")
    leader.tick()
    assert leader.interval_s == controller.TICK_S


def test_a_step_runs_only_while_there_are_assignments_that_it_concerns(steps, monkeypatch):
    """A step that failed before counts as working when it has nothing to do."""
    ran: list[str] = []

    def resume() -> int:
        ran.append("resume")
        return 0

    FailingStep.objects.create(name="resume", error="KeyError")
    monkeypatch.setattr(controller, "STEPS", [(0.0, resume)])
    monkeypatch.setattr(controller, "CONCERNS", {resume: (controller.PENDING,)})
    leader = make_controller()
    leader.tick()
    assert ran == []
    assert not FailingStep.objects.exists()
    make_assignment("ann")
    leader.tick()
    assert ran == ["resume"]


def test_every_step_that_is_left_out_is_one_of_the_controller():
    assert set(controller.CONCERNS) <= {step for _, step in controller.STEPS}


def test_a_failing_step_of_a_process_that_died_is_forgotten_when_another_does_it(steps):
    """The row must not outlive the failure."""
    FailingStep.objects.create(name="fill_pools", error="KeyError")
    assert steps.attempt("fill_pools", lambda: 0)
    assert not FailingStep.objects.exists()


@pytest.mark.parametrize("error", [Unavailable("away"), OperationalError("locked"), OSError(28, "full")])
def test_what_is_expected_to_pass_is_shown_only_when_it_lasts(steps, error):
    """A single locked database is not reported; three failures in a row are."""

    def breaks() -> None:
        raise error

    for shown in (False, False, True, True):
        assert not steps.attempt("probe", breaks)
        assert FailingStep.objects.exists() is shown
    assert steps.attempt("probe", lambda: None)
    assert not FailingStep.objects.exists()


def test_the_turn_of_a_leader_survives_even_its_own_lease(steps, monkeypatch):
    """Whatever taking the lease raises, the controller runs the next tick."""
    monkeypatch.setattr(controller, "lead", lambda: 1 // 0)
    leader = make_controller()
    leader.tick()
    monkeypatch.undo()
    leader.tick()
    assert leader.is_leading()


def test_a_watchers_thread_survives_any_exception(steps, monkeypatch):
    """The threads of EngineWatch continue after any exception of an event or a reconcile."""
    stop, turns = threading.Event(), []

    def breaks() -> None:
        turns.append(1)
        if len(turns) == 3:
            stop.set()
        raise RecursionError

    watch = engine_watch.EngineWatch(lambda: True, stop)
    thread = threading.Thread(target=watch._forever, args=(breaks,), daemon=True)
    thread.start()
    thread.join(15)
    assert len(turns) == 3


@pytest.mark.parametrize(("error", "times"), [(AttributeError("no such thing"), 1), (OperationalError("away"), 3)])
def test_a_pull_that_breaks_is_said_and_taken_up_again(steps, monkeypatch, error, times):
    """Its thread died with a traceback on standard error, and the failure was neither counted nor shown."""
    monkeypatch.setattr(pull_runner, "steps", steps)
    row = ImagePull.objects.create(node_id=node_id(), image="registry.test/a:1", state=PullState.WAITING)

    def breaks(_: pull_runs.PullRun) -> None:
        raise error

    monkeypatch.setattr(pull_runs.PullRun, "run", breaks)
    runner = pull_runner.PullRunner(threading.Event())
    for _ in range(times):
        assert not FailingStep.objects.exists()
        runner.turn()
        [(run, thread)] = runner._runs.values()
        assert run.row == row
        thread.join(15)
    failing = FailingStep.objects.get()
    assert (failing.name, failing.error) == ("pull", type(error).__name__)


@pytest.mark.parametrize("busy", [volumes.trash_dir, lambda: staged_restores.directory() / "alice"])
def test_what_cannot_be_removed_keeps_nothing_else_on_the_disk(data_dir, transactional_db, settings, busy):
    """One directory with a mount in it ended the pruning, so discarded state was never removed again."""
    settings.BOILERHOUSE_DISCARD_RETENTION_S = settings.BOILERHOUSE_STAGED_RETENTION_S = 0
    places = [busy() / "held" / "mount", *(volumes.trash_dir() / f"{n}.discarded-0" for n in range(4))]
    places += [staged_restores.directory() / "bob" / f"{n}" for n in range(4)]
    for place in places:
        place.mkdir(parents=True)
        os.utime(place, (1, 1))
    os.utime(places[0].parent, (2, 2))  # the first in each order
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(places[0])], check=True)
    try:
        tidy()
        assert [place for place in places if place.exists()] == places[:1]
    finally:
        subprocess.run(["umount", str(places[0])], check=True)
    tidy()
    assert not places[0].exists()


def test_a_tag_that_cannot_be_asked_about_keeps_no_other_from_its_turn(data_dir, monkeypatch):
    """It remained the oldest, and ended each round before the others."""
    for name in ("first", "second", "third"):
        pool = make_pool(workload=make_workload(name, image=f"registry.test/{name}:1"))
        WorkloadVersion.objects.filter(workload=pool.workload).update(image_digest="sha256:1")
    asked = []

    def look(version: WorkloadVersion) -> None:
        asked.append(version.workload_id)
        if len(asked) == 1:
            raise ZeroDivisionError
        WorkloadVersion.objects.filter(pk=version.pk).update(tag_asked_at=timezone.now())

    monkeypatch.setattr(tags, "look", look)
    with pytest.raises(ZeroDivisionError):
        tags.look_around()
    assert sorted(asked) == ["first", "second", "third"]

    def hangs(version: WorkloadVersion) -> None:
        asked.append(version.workload_id)
        raise EngineTimeout("silent")

    WorkloadVersion.objects.update(tag_asked_at=None)
    asked.clear()
    monkeypatch.setattr(tags, "look", hangs)
    with pytest.raises(EngineTimeout):
        tags.look_around()
    assert len(asked) == 1, "an engine that is away is so for all of them"


def test_each_row_has_its_turn_though_one_of_them_breaks():
    """The first failure is raised after all items; a lost database ends the loop at once."""
    done = []

    def work(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError(number)
        done.append(number)
        return number

    with pytest.raises(ZeroDivisionError):
        each([1, 2, 3, 2, 4], work)
    assert done == [1, 3, 4]
    assert each([1, 3], work) == 4

    def lost(number: int) -> int:
        done.append(number)
        raise OperationalError

    with pytest.raises(OperationalError):
        each([9, 9], lost)
    assert done.count(9) == 1


@pytest.mark.parametrize("milliseconds", [HUGE_MS, 2**63 - 1, 10**30])
def test_durations_of_any_size_that_rows_hold_are_dates(milliseconds):
    """Values stored before numbers had a maximum."""
    now = timezone.now()
    assert later(now, milliseconds) == datetime(9999, 1, 1, tzinfo=UTC)
    assert earlier(now, milliseconds) == datetime(1970, 1, 1, tzinfo=UTC)
    assert later(now, 1000) - now == now - earlier(now, 1000) == timedelta(seconds=1)


def test_a_huge_idle_timeout_and_interval_stop_neither_their_steps_nor_other_rows(data_dir):
    """idleTimeoutMs 9007199254740991 killed the controller again and again."""
    upkeep.orphans.tried.clear()
    huge, usual = make_pool(idle_timeout_ms=1000), make_pool(idle_timeout_ms=1000)
    for pool in (huge, usual):
        make_sync_spec(pool, interval_ms=5000)
    make_held(huge, "huge", minutes=10)
    make_held(usual, "usual", minutes=10)
    Pool.objects.filter(pk=huge.pk).update(idle_timeout_ms=HUGE_MS)
    SyncSpec.objects.filter(pool=huge).update(interval_ms=HUGE_MS)
    Assignment.objects.update(last_activity_at=timezone.now() - timedelta(minutes=10))

    assert upkeep.find_idle() == 1
    assert syncs.queue_periodic_saves() == 1
    assert syncs.warn_of_unsaved() == 1
    held = Assignment.objects.select_related("pool").get(tenant_id="huge")
    assert idle.due_at(held).year == 9999


def test_pages_show_what_fails(steps, data_dir, admin_client: Client):
    """The settings page names the step, the class, and the place."""
    FailingStep.objects.create(name="find_idle", error="OverflowError", detail="idle.py:36")
    page = admin_client.get(reverse("settings")).content.decode()
    assert "find_idle" in page
    assert "idle.py:36" in page
    assert "find_idle" in admin_client.get("/").content.decode()


def test_the_pump_survives_any_exception(steps, monkeypatch):
    """Every waiting request of a web process depends on this thread."""
    turns: list[int] = []
    tried_again, for_ever = threading.Event(), threading.Event()

    def follow(_: event_pump.Pump) -> None:
        turns.append(1)
        if len(turns) < 3:
            raise ZeroDivisionError
        tried_again.set()
        for_ever.wait()

    monkeypatch.setattr(event_pump.Pump, "_follow_sqlite", follow)
    monkeypatch.setattr(event_pump.Pump, "_follow_postgresql", follow)
    pulses: list[int] = []
    event_pump.Pump().subscribe(lambda: pulses.append(1))
    assert tried_again.wait(15)
    assert len(pulses) == 2


# Clocks and machines (F6, F7) ------------------------------------------------------------------------


@pytest.fixture(params=[-9, 9])
def skew(request, monkeypatch, data_dir, transactional_db) -> timedelta:
    """This machine's clock is wrong; the database's is right."""
    off = timedelta(seconds=request.param)
    real, real_time = timezone.now, time.time
    monkeypatch.setattr(timezone, "now", lambda: real() + off)
    monkeypatch.setattr(time, "time", lambda: real_time() + request.param)
    monkeypatch.setattr(clock, "_measured", None)
    return off


def another_machine(**over) -> Process:
    """A process elsewhere, with our host name and pid namespace number, with a fresh heartbeat."""
    values = {"kind": "worker", "pid_space": processes.pid_space(), "boot_id": "another-kernel", "pid": 2**22}
    row = Process.objects.create(**{**values, "pid_started": 1, **over})
    Process.objects.filter(pk=row.pk).update(heartbeat_at=Now())
    return row


def test_a_living_process_of_another_machine_with_our_name_is_not_dead(data_dir, transactional_db):
    """Equal host names, the first pid namespace's number, another boot id: it was dead at once."""
    there = another_machine()
    here = another_machine(boot_id=processes.boot_id())
    assert there.pk in processes.living()
    assert here.pk not in processes.living(), "here its pid can be looked at, and it is gone"


def test_a_clock_that_is_wrong_makes_nobody_dead_and_nobody_immortal(skew):
    """A clock nine seconds behind made a live process look dead."""
    me, there = processes.current(), another_machine()
    assert {me, there.pk} <= processes.living()
    Process.objects.filter(pk=there.pk).update(heartbeat_at=Now() - timedelta(seconds=processes.DEAD_AFTER_S + 1))
    assert there.pk not in processes.living()


def test_a_beat_is_written_by_the_databases_clock(skew, monkeypatch):
    """Times written by a machine with a wrong clock are compared on another machine."""
    monkeypatch.setattr(processes, "HEARTBEAT_S", 0.05)
    me = processes.current()
    Process.objects.filter(pk=me).update(heartbeat_at=Now() - timedelta(hours=1))
    fresh = Process.objects.filter(pk=me, heartbeat_at__gte=Now() - timedelta(seconds=3))
    fresh = fresh.filter(heartbeat_at__lte=Now() + timedelta(seconds=3))
    eventually(fresh.exists, 10)


def test_a_lease_is_neither_robbed_nor_kept_by_a_clock_that_is_wrong(skew):
    """The lease says "database clock", the code used the host's."""
    there = another_machine()
    Lease.objects.create(name=controller.LEASE, holder=there.pk, expires_at=Now() + timedelta(seconds=3))
    assert not controller.lead()
    Lease.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert controller.lead()
    assert Lease.objects.filter(
        expires_at__gt=Now(), expires_at__lt=Now() + controller.LEASE_TTL + timedelta(seconds=1)
    ).exists()


def test_deadlines_ages_and_retries_are_judged_by_the_databases_clock(skew):
    """A claim made on one machine is aborted, and resumed, on another."""
    upkeep.orphans.tried.clear()
    pool = make_pool()
    make_assignment("waits", pool=pool, deadline=Now() + timedelta(seconds=5))
    make_assignment("late", pool=pool, deadline=Now() - timedelta(seconds=5))
    assert upkeep.abort_overdue_claims() == 1
    assert Assignment.objects.get(tenant_id="late").state == "ended"

    young, old = (make_container(pool, state="claimed") for _ in range(2))
    for tenant, container, age in (("young", young, 0), ("old", old, 6)):
        at = Now() - timedelta(seconds=age)
        one = make_assignment(tenant, pool=pool, container=container, container_ref=container.pk)
        Assignment.objects.filter(pk=one.pk).update(state_changed_at=at)
    assert upkeep.resume_claims() == 1
    begun = claims.begin(validation.Claim(tenant_id="new", pool_id=pool.pk, timeout_ms=30_000))
    row = Assignment.objects.filter(pk=begun.assignment_id)
    assert row.filter(deadline__gt=Now() + timedelta(seconds=25), deadline__lt=Now() + timedelta(seconds=35)).exists()


def test_a_message_of_a_machine_with_a_wrong_clock_is_seen_at_once(skew, monkeypatch):
    """A message from a machine with a fast clock waited in the queue until the other clocks had reached its time."""
    enqueue("pool", "pools.tasks.refill", "p")
    monkeypatch.undo()
    [message], _ = Broker.take({"pool": 1})
    Broker.keep("pool", [message.id])
    assert OrmQ.objects.get(pk=message.id).lock > timezone.now() + timedelta(hours=1)
    assert Broker.take({"pool": 1})[0] == []


def test_times_of_files_are_put_into_the_databases_terms(skew):
    """A file's change time is compared with rows."""
    assert abs((clock.of_host(time.time()) - clock.now()).total_seconds()) < 1


def test_a_transfer_ends_before_anybody_takes_its_process_for_dead(data_dir, transactional_db, monkeypatch):
    """The fence of rclone is tied to the heartbeat that the database took, with room before others give it up."""
    room_s = processes.DEAD_AFTER_S - rclone.UNCONFIRMED_S - rclone.WATCH_EVERY_S
    assert room_s >= 1
    processes.current()
    sleeping = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with rclone._Supervisor(sleeping) as supervisor:
        monkeypatch.setattr(processes, "_beaten", time.monotonic() - rclone.UNCONFIRMED_S - 1)
        supervisor.confirm(time.monotonic())
        sleeping.wait(10)
    assert supervisor.has_killed

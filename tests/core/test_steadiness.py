"""What must go on whatever one part of it does: steps, watchers, liveness, watchdogs, start and stop."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core import live
from boilerhouse.core import steps as core_steps
from boilerhouse.core.errors import Unavailable
from boilerhouse.core.models import FailingStep
from boilerhouse.core.steps import Steps, each, earlier, later
from boilerhouse.dashboard import controller, engine_watch, health, overview
from pools.models import Pool
from syncing.models import SyncSpec
from tenants import idle, syncs, upkeep
from tenants.models import Assignment
from tests.make import make_pool, make_sync_spec
from tests.tenants.test_syncs import hold

HUGE_MS = 2**53 - 1


@pytest.fixture
def steps(monkeypatch, transactional_db, data_dir) -> Steps:
    """Steps of a process that has just begun."""
    fresh = Steps()
    for module in (controller, engine_watch, core_steps):
        monkeypatch.setattr(module, "steps", fresh)
    monkeypatch.setattr(controller, "EngineWatch", lambda *_: type("Nobody", (), {"start": lambda _: None})())
    return fresh


def make_controller() -> controller.Controller:
    return controller.Controller(threading.Event())


# Steps (O1) -----------------------------------------------------------------------------------------


def test_a_step_that_always_fails_leaves_the_others_their_turn_and_is_said(steps, monkeypatch, capsys):
    """O1: any exception of one step, each time; the steps after it run, the failure is logged once, and shown."""
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
    assert [need.subject for need in overview.needs([])] == ["breaks"]

    monkeypatch.setattr(controller, "STEPS", [(0.0, lambda: 0)])
    steps.attempt("breaks", lambda: 0)
    assert not FailingStep.objects.exists()


def test_a_failing_step_of_a_process_that_died_is_forgotten_when_another_does_it(steps):
    """O1: the row must not outlive the failure."""
    FailingStep.objects.create(name="fill_pools", error="KeyError")
    assert steps.attempt("fill_pools", lambda: 0)
    assert not FailingStep.objects.exists()


@pytest.mark.parametrize("error", [Unavailable("away"), OperationalError("locked"), OSError(28, "full")])
def test_what_is_expected_to_pass_is_shown_only_when_it_lasts(steps, error):
    """O1: one locked database is no news; three failures in a row are."""

    def breaks() -> None:
        raise error

    for shown in (False, False, True, True):
        assert not steps.attempt("probe", breaks)
        assert FailingStep.objects.exists() is shown
    assert steps.attempt("probe", lambda: None)
    assert not FailingStep.objects.exists()


def test_the_turn_of_a_leader_survives_even_its_own_lease(steps, monkeypatch):
    """O1: whatever taking the lease raises, the controller is there for the next tick."""
    monkeypatch.setattr(controller, "lead", lambda: 1 // 0)
    leader = make_controller()
    leader.tick()
    monkeypatch.undo()
    leader.tick()
    assert leader.is_leading()


def test_a_watchers_thread_survives_any_exception(steps, monkeypatch):
    """O1: EngineWatch's threads go on, whatever an event or a reconcile raised."""
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


def test_each_row_has_its_turn_though_one_of_them_breaks():
    """O1: the first failure is raised when all had theirs; a database that is away ends it at once."""
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
    """O1: what was stored before numbers had a maximum."""
    now = timezone.now()
    assert later(now, milliseconds) == datetime(9999, 1, 1, tzinfo=UTC)
    assert earlier(now, milliseconds) == datetime(1970, 1, 1, tzinfo=UTC)
    assert later(now, 1000) - now == now - earlier(now, 1000) == timedelta(seconds=1)


def test_a_huge_idle_timeout_and_interval_stop_neither_their_steps_nor_other_rows(data_dir):
    """O1: idleTimeoutMs 9007199254740991 killed the controller again and again."""
    upkeep._tried.clear()
    huge, usual = make_pool(idle_timeout_ms=1000), make_pool(idle_timeout_ms=1000)
    for pool in (huge, usual):
        make_sync_spec(pool, interval_ms=5000)
    hold(huge, "huge", minutes=10)
    hold(usual, "usual", minutes=10)
    Pool.objects.filter(pk=huge.pk).update(idle_timeout_ms=HUGE_MS)
    SyncSpec.objects.filter(pool=huge).update(interval_ms=HUGE_MS)
    Assignment.objects.update(last_activity_at=timezone.now() - timedelta(minutes=10))

    assert upkeep.find_idle() == 1
    assert syncs.queue_beats() == 1
    assert syncs.warn_of_unsaved() == 1
    held = Assignment.objects.select_related("pool").get(tenant_id="huge")
    assert idle.due_at(held).year == 9999


def test_pages_show_what_fails(steps, data_dir, admin_client: Client):
    """O1: the settings page names the step, the class, and the place."""
    FailingStep.objects.create(name="find_idle", error="OverflowError", detail="idle.py:36")
    page = admin_client.get(reverse("settings")).content.decode()
    assert "find_idle" in page
    assert "idle.py:36" in page
    assert "find_idle" in admin_client.get("/").content.decode()


def test_the_pump_survives_any_exception(steps, monkeypatch):
    """O1: every waiting request of a web process hangs on this thread."""
    turns: list[int] = []
    tried_again, for_ever = threading.Event(), threading.Event()

    def follow(_: live.Pump) -> None:
        turns.append(1)
        if len(turns) < 3:
            raise ZeroDivisionError
        tried_again.set()
        for_ever.wait()

    monkeypatch.setattr(live.Pump, "_follow_sqlite", follow)
    monkeypatch.setattr(live.Pump, "_follow_postgresql", follow)
    pulses: list[int] = []
    live.Pump().subscribe(lambda: pulses.append(1))
    assert tried_again.wait(15)
    assert len(pulses) == 2

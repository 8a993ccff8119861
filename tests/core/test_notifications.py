"""What is told: once when a cause begins and once when it is gone, whoever dies in between, and to whom."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Cause, Kind, Severity, Thing
from boilerhouse.core import failpoints
from boilerhouse.core.models import Process
from boilerhouse.notifications import courier, deliveries, incidents, mutes, targets
from boilerhouse.notifications.courier import Courier
from boilerhouse.notifications.errors import DeliveryPending, TargetOff, Undelivered
from boilerhouse.notifications.models import Delivery, Incident, Mute, Target
from boilerhouse.notifications.states import DEFAULT_RULES, RULES, DeliveryState, Moment
from boilerhouse.notifications.targets import TargetSettings
from boilerhouse.process import processes
from boilerhouse.queues import wakeup_pipes
from tests.receivers import Receiver, receiving
from tests.waiting import eventually

pytestmark = pytest.mark.django_db


def cause(key: str = "pool:p:start_failed", kind: Kind = Kind.POOL_CANNOT_START, **over: Any) -> Cause:
    about: dict[str, Any] = {
        "severity": Severity.ERROR, "what": "{} cannot start containers", "thing": Thing.POOL, "subject": "p",
        "why": "The image does not exist.", "since": timezone.now(), "pool_ids": ("p",),
    }  # fmt: skip
    return Cause(key=key, kind=kind, **{**about, **over})


class World:
    """The present causes, and the time as the rows see it."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def look(self, *present: Cause, after_s: float = 0) -> int:
        """Look once, this long after everything that the rows remember."""
        self.causes = list(present)
        earlier = timedelta(seconds=after_s)
        for row in Incident.objects.filter(resolved_at=None):
            row.first_seen_at -= earlier
            row.absent_since = row.absent_since and row.absent_since - earlier
            row.save(update_fields=["first_seen_at", "absent_since"])
        return incidents.look()

    def open(self, *present: Cause) -> int:
        self.look(*present)
        return self.look(*present, after_s=HOLD)

    def resolve(self, *present: Cause) -> int:
        self.look(*present)
        return self.look(*present, after_s=HOLD)


HOLD = 60.0


def before_now() -> datetime:
    """The database's clock may be a little behind this machine's."""
    return timezone.now() - timedelta(seconds=2)


@pytest.fixture
def world(data_dir, monkeypatch, settings) -> World:
    settings.BOILERHOUSE_NOTIFICATION_HOLD_S = HOLD
    world = World()
    monkeypatch.setattr(causes, "present", lambda _pools=None: world.causes)
    return world


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def make_target(url: str = "http://127.0.0.1:1/hook", name: str = "T", **more: Any) -> Target:
    settings = TargetSettings(name=name, kind="webhook", url=url, **{"kinds": DEFAULT_RULES, **more})
    return targets.create(id=None, settings=settings)[0]


def told() -> list[tuple[str, str, str]]:
    rows = Delivery.objects.order_by("created_at", "pk").select_related("incident")
    return [(row.target_id, row.incident.key if row.incident else "", row.moment) for row in rows]


def send_due() -> None:
    """As the courier does, in this thread."""
    for row in courier.due():
        row.owner = processes.current()
        row.save(update_fields=["owner"])
        deliveries.attempt(row, row.target)


# When -------------------------------------------------------------------------------------------------


def test_a_cause_is_told_once_when_it_has_lasted_and_once_when_it_is_gone(world):
    make_target()
    assert world.look(cause()) == 0
    assert world.look(cause(), after_s=HOLD) == 1
    for _ in range(3):
        assert world.look(cause(why="It still does not exist."), after_s=HOLD) == 0
    assert world.look() == 0
    assert world.look(after_s=HOLD) == 1
    assert world.look(after_s=HOLD) == 0
    assert told() == [("t", "pool:p:start_failed", "opened"), ("t", "pool:p:start_failed", "resolved")]
    assert world.open(cause()) == 1, "a new occurrence"


def test_what_flaps_is_told_once(world):
    make_target()
    for _ in range(5):  # never as long as the hold time
        assert world.look(cause(), after_s=HOLD / 2) == 0
        assert world.look(after_s=HOLD / 2) == 0
    assert told() == []
    assert world.open(cause()) == 1
    for _ in range(5):
        assert world.look(after_s=HOLD / 2) == 0
        assert world.look(cause(), after_s=HOLD / 2) == 0
    assert world.resolve() == 1
    assert [moment for _, _, moment in told()] == ["opened", "resolved"]


def test_without_a_target_nothing_is_asked(world, monkeypatch):
    monkeypatch.setattr(causes, "present", lambda _pools=None: pytest.fail("asked"))
    assert incidents.look() == 0


# To whom ----------------------------------------------------------------------------------------------


def test_rules_and_pools_say_who_is_told(world):
    make_target(name="all")
    make_target(name="sinks", kinds=[Kind.SINK_DOWN])
    make_target(name="unsaved", kinds=[Kind.STATE_NOT_SAVED])
    make_target(name="q", pool_ids=["q"])
    make_target(name="off", is_on=False)
    sink = cause("sink:s3", Kind.SINK_DOWN, unsaved=("alice",), pool_ids=("p", "r"))
    node = cause("node:n", Kind.NODE_LOST, pool_ids=())
    world.open(sink, node, cause("pool:q:start_failed", pool_ids=("q",)))
    assert sorted(told()) == [
        ("all", "node:n", "opened"), ("all", "pool:q:start_failed", "opened"), ("all", "sink:s3", "opened"),
        ("q", "node:n", "opened"), ("q", "pool:q:start_failed", "opened"),
        ("sinks", "sink:s3", "opened"),
        ("unsaved", "sink:s3", "opened"),
    ]  # fmt: skip


def test_the_end_is_told_to_those_who_were_told_of_the_beginning(world):
    make_target(name="one")
    world.open(cause())
    make_target(name="two", kinds=[Kind.SINK_DOWN])
    world.resolve()
    make_target(name="three")
    world.look()
    assert [name for name, _, moment in told() if moment == "resolved"] == ["one"]


def test_a_later_target_is_told_of_what_lasts(world):
    make_target(name="one")
    world.open(cause())
    make_target(name="two")
    assert world.look(cause()) == 1
    assert world.look(cause()) == 0


def test_a_later_target_is_not_told_of_what_is_gone(world):
    """The incident waits for the hold time, in case the cause comes back."""
    make_target(name="one")
    world.open(cause())
    world.look()
    make_target(name="two")
    assert world.look() == 0
    assert world.look(cause()) == 1


def test_a_kind_that_joins_later_is_told_to_its_targets(world):
    """A sink is down; then a release fails because of it."""
    make_target(name="unsaved", kinds=[Kind.STATE_NOT_SAVED])
    assert world.open(cause("sink:s3", Kind.SINK_DOWN)) == 0
    assert world.look(cause("sink:s3", Kind.SINK_DOWN, unsaved=("alice",))) == 1
    assert world.look(cause("sink:s3", Kind.SINK_DOWN, unsaved=("alice",))) == 0


def test_a_muted_cause_is_told_when_the_mute_ends_if_it_lasts(world):
    make_target()
    mutes.mute("pool:p:start_failed", timezone.now() + timedelta(hours=1))
    assert world.open(cause()) == 0
    assert world.look(cause("node:n", Kind.NODE_LOST)) == 0
    Mute.objects.update(until=before_now())
    assert world.look(cause()) == 1


def test_the_end_of_what_was_told_comes_after_the_mute(world):
    target = make_target()
    world.open(cause())
    target.muted_until = timezone.now() + timedelta(hours=1)
    target.save(update_fields=["muted_until"])
    assert world.resolve() == 0
    assert Incident.objects.get().settled_at is None
    target.muted_until = None
    target.save(update_fields=["muted_until"])
    assert world.look() == 1
    assert Incident.objects.get().settled_at is not None


def test_a_storm_of_causes_does_not_flood_a_target(world, monkeypatch):
    monkeypatch.setattr(incidents, "MOST_PER_HOUR", 3)
    make_target()
    many = [cause(f"unsaved:t{n}", Kind.STATE_NOT_SAVED) for n in range(10)]
    assert world.open(*many) == 3
    assert world.look(*many) == 0
    Delivery.objects.update(created_at=timezone.now() - timedelta(hours=2))
    assert world.look(*many) == 3
    assert world.resolve() == 6, "each end of what was told"


def test_every_kind_of_cause_but_one_is_a_rule():
    assert set(RULES) == set(Kind) - {Kind.CONTROLLER_LOST}
    assert set(DEFAULT_RULES) < set(RULES)


def test_a_long_key_is_kept(world):
    make_target()
    long = cause("sink:" + "x" * 5000, Kind.SINK_DOWN)
    assert world.open(long) == 1
    assert world.look(long) == 0
    mutes.mute(long.key, timezone.now() + timedelta(hours=1))
    assert set(mutes.muted()) == {incidents.key_of(long.key)}


# Crashes and two controllers --------------------------------------------------------------------------


def test_a_death_between_the_decision_and_the_message_loses_nothing(world):
    make_target()

    class Death(BaseException):
        pass

    def die() -> None:
        raise Death

    world.look(cause())
    failpoints.hooks["notifications.observed"] = die
    try:
        with pytest.raises(Death):
            world.look(cause(), after_s=HOLD)
    finally:
        del failpoints.hooks["notifications.observed"]
    assert Incident.objects.get().opened_at is not None
    assert told() == []
    assert world.look(cause()) == 1


def test_a_death_after_the_sending_sends_again_with_the_same_id(world, receiver):
    make_target(receiver.url)
    world.open(cause())

    class Death(BaseException):
        pass

    def die() -> None:
        raise Death

    failpoints.hooks["notifications.sent"] = die
    try:
        with pytest.raises(Death):
            send_due()
    finally:
        del failpoints.hooks["notifications.sent"]
    Delivery.objects.update(owner=uuid4())  # of a process that is dead
    send_due()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert Delivery.objects.get().state == DeliveryState.DELIVERED


@pytest.mark.django_db(transaction=True)
def test_two_controllers_create_and_send_each_once(world, receiver):
    """Both look at once, and the couriers of both send."""
    make_target(receiver.url)
    many = [cause(f"pool:p{n}:start_failed") for n in range(5)]
    world.look(*many)
    Incident.objects.update(first_seen_at=timezone.now() - timedelta(hours=1))
    at_once = threading.Barrier(2)

    def look() -> None:
        at_once.wait()
        try:
            incidents.look()
        finally:
            connection.close()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Incident.objects.count() == Delivery.objects.count() == 5
    stop = threading.Event()
    couriers = [Courier(stop), Courier(stop)]
    give_up = time.monotonic() + 20
    while Delivery.objects.exclude(state=DeliveryState.DELIVERED).exists() and time.monotonic() < give_up:
        for one in couriers:
            one.turn()
        time.sleep(0.05)
    for one in couriers:
        for _, thread in one._sending.values():
            thread.join()
    ids = [got.headers["webhook-id"] for got in receiver.received]
    assert len(ids) == len(set(ids)) == 5


@pytest.mark.django_db(transaction=True)
def test_targets_that_hang_leave_a_thread_to_the_others(world, monkeypatch):
    """Six hang; the message to the one that does not is sent meanwhile."""
    asked, release = [], threading.Event()

    def attempt(delivery: Delivery, target: Target) -> None:
        asked.append(target.pk)
        if target.pk != "quick":
            release.wait(20)

    for n in range(6):
        make_target(name=f"hung-{n}")
    Target.objects.update(failing_since=timezone.now())
    make_target(name="quick")
    world.open(cause())
    Delivery.objects.filter(target="quick").update(next_attempt_at=before_now())
    one = Courier(threading.Event(), attempt)
    try:
        one.turn()
        give_up = time.monotonic() + 10
        while len(asked) < courier.THREADS and time.monotonic() < give_up:
            time.sleep(0.02)
        assert "quick" in asked
        assert len(asked) == courier.THREADS, "no more threads than there may be, and one for each target"
        assert len(set(asked)) == len(asked)
    finally:
        release.set()
        for _, thread in one._sending.values():
            thread.join()


@pytest.mark.django_db(transaction=True)
def test_a_courier_at_rest_is_woken_by_a_message(world, receiver, monkeypatch):
    """It sleeps for as long as it likes while nothing is pending."""
    for name in ("LOOK_EVERY_S", "REST_LOOK_EVERY_S"):
        monkeypatch.setattr(courier, name, 600.0)
    make_target(receiver.url)
    stop = threading.Event()
    Courier(stop).start()
    try:
        time.sleep(0.5)
        world.open(cause())
        eventually(lambda: receiver.received, 20)
    finally:
        stop.set()
        wakeup_pipes.notify(incidents.BELL)
        eventually(lambda: "notifications" not in {thread.name for thread in threading.enumerate()}, 20)


@pytest.mark.django_db(transaction=True)
def test_a_courier_at_rest_asks_only_whether_anything_is_pending(world, django_assert_num_queries):
    one = Courier(threading.Event(), lambda *_: pytest.fail("sent"))
    with django_assert_num_queries(1):
        one.turn()


@pytest.mark.django_db(transaction=True)
def test_a_process_that_lives_keeps_its_message(world):
    make_target()
    world.open(cause())
    mine = Process.objects.get(pk=processes.current())
    other = Process.objects.create(
        kind="web", node=mine.node, pid_space=mine.pid_space, boot_id=mine.boot_id, pid=mine.pid,
        pid_started=mine.pid_started,
    )  # fmt: skip
    Delivery.objects.update(owner=other.pk, next_attempt_at=before_now())
    assert len(courier.due()) == 1
    one = Courier(threading.Event(), lambda *_: pytest.fail("sent"))
    one.turn()
    assert one._sending == {}


# Attempts ---------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_later_and_later_until_the_deadline(world, receiver):
    receiver.status = 500
    make_target(receiver.url)
    world.open(cause())
    pauses = []
    for _ in range(40):
        send_due()
        row = Delivery.objects.get()
        if row.state != DeliveryState.PENDING:
            break
        pauses.append((row.next_attempt_at - row.last_attempt_at).total_seconds())
        assert list(courier.due()) == []
        earlier = row.next_attempt_at - timezone.now()
        Delivery.objects.update(next_attempt_at=before_now(), give_up_at=row.give_up_at - earlier)
    assert row.state == DeliveryState.FAILED
    assert (row.status_code, row.detail) == (500, "The target answered 500.")
    assert row.attempts == len(receiver.received) == len(pauses) + 1
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:9]))
    assert sum(pauses) < 24 * 3600
    assert Target.objects.get().failing_since is not None
    assert world.look(cause()) == 0, "what failed is not told again by itself"


def test_a_target_says_when_it_wants_the_next_try(world, receiver):
    receiver.status, receiver.headers = 429, {"Retry-After": "50"}
    make_target(receiver.url)
    world.open(cause())
    send_due()
    row = Delivery.objects.get()
    assert (row.next_attempt_at - row.last_attempt_at).total_seconds() >= 49


def test_success_ends_the_failing(world, receiver):
    receiver.status = 500
    make_target(receiver.url)
    world.open(cause())
    send_due()
    receiver.status = 200
    Delivery.objects.update(next_attempt_at=before_now())
    send_due()
    row, target = Delivery.objects.get(), Target.objects.get()
    assert (row.state, row.attempts, row.status_code, row.detail) == (DeliveryState.DELIVERED, 2, 200, "")
    assert target.failing_since is None
    assert target.last_delivered_at is not None


def test_the_end_is_sent_after_the_beginning(world, receiver):
    receiver.status = 500
    make_target(receiver.url)
    world.open(cause())
    send_due()
    world.resolve()
    assert list(courier.due()) == []
    receiver.status = 200
    Delivery.objects.update(next_attempt_at=before_now())
    send_due()
    send_due()
    assert [got.json["type"] for got in receiver.received[1:]] == [
        "boilerhouse.cause.opened",
        "boilerhouse.cause.resolved",
    ]


def test_a_dead_target_is_disabled_and_its_messages_are_cancelled(world, receiver, settings):
    receiver.status = 500
    make_target(receiver.url)
    world.open(cause("a"), cause("b"))
    send_due()
    patience = timedelta(seconds=settings.BOILERHOUSE_NOTIFICATION_DISABLE_AFTER_S)
    Target.objects.update(failing_since=timezone.now() - patience - timedelta(minutes=1))
    Delivery.objects.filter(incident__key="a").update(next_attempt_at=before_now())
    send_due()
    target = Target.objects.get()
    assert target.disabled_at is not None
    assert target.disabled_detail == "Nothing was delivered for 5 days. Last: The target answered 500."
    assert set(Delivery.objects.values_list("state", flat=True)) == {DeliveryState.CANCELLED}
    assert world.look(cause("a"), cause("b")) == 0

    receiver.status = 200
    targets.replace(target, TargetSettings(name="T", kind="webhook", kinds=DEFAULT_RULES))
    assert world.look(cause("a"), cause("b")) == 2, "enabled again: what lasts is told"
    send_due()
    assert set(Delivery.objects.values_list("state", flat=True)) == {DeliveryState.DELIVERED}


def test_other_targets_are_told_of_a_dead_one(world):
    make_target(name="dead")
    make_target(name="other")
    targets.disable("dead", "Nothing was delivered for 5 days.")
    world.open()
    assert told() == [("other", "notification:dead", "opened")]
    targets.replace(targets.find("dead"), TargetSettings(name="dead", kind="webhook", kinds=DEFAULT_RULES))
    world.resolve()
    assert told()[1:] == [("other", "notification:dead", "resolved")]


def test_a_target_that_is_gone_is_disabled_at_once(world, receiver):
    receiver.status = 410
    make_target(receiver.url)
    world.open(cause())
    send_due()
    assert "410" in Target.objects.get().disabled_detail


def test_a_muted_target_gets_nothing_that_waits(world, receiver):
    make_target(receiver.url, muted_until=None)
    world.open(cause())
    Target.objects.update(muted_until=timezone.now() + timedelta(hours=1))
    assert list(courier.due()) == []


def test_an_unforeseen_error_is_a_failure_too(world, monkeypatch):
    """Otherwise it would be tried again at once, for ever."""
    make_target()
    world.open(cause())
    monkeypatch.setattr("boilerhouse.notifications.transports.send", lambda *_: 1 / 0)
    send_due()
    row = Delivery.objects.get()
    assert (row.state, row.detail) == (DeliveryState.PENDING, "Internal error (ZeroDivisionError). See the log.")
    assert row.next_attempt_at > timezone.now()


# By hand ----------------------------------------------------------------------------------------------


def test_a_test_is_sent_now_and_once(world, receiver):
    target = make_target(receiver.url, is_on=False)
    assert deliveries.test(target).state == DeliveryState.DELIVERED
    assert receiver.received[0].json["type"] == "boilerhouse.test"
    receiver.status = 500
    row = deliveries.test(target)
    assert (row.state, row.status_code, row.attempts) == (DeliveryState.FAILED, 500, 1)
    assert Target.objects.get().failing_since is None, "somebody is about to repair it"
    assert list(courier.due()) == []


def test_sending_again_keeps_the_id(world, receiver):
    target = make_target(receiver.url)
    world.open(cause())
    row = Delivery.objects.get()
    with pytest.raises(DeliveryPending):
        deliveries.resend(target, row)
    send_due()
    row.refresh_from_db()
    deliveries.resend(target, row)
    send_due()
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len(receiver.received) == 2
    targets.disable(target.pk, "dead")
    with pytest.raises(TargetOff):
        deliveries.resend(Target.objects.get(), Delivery.objects.get())


def test_the_log_is_kept_as_long_as_runs(world, receiver, settings):
    make_target(receiver.url)
    world.open(cause())
    send_due()
    world.resolve()
    deliveries.forget_old()
    assert Delivery.objects.count() == 2
    long_ago = timezone.now() - timedelta(seconds=settings.BOILERHOUSE_RUN_RETENTION_S + 60)
    Delivery.objects.update(created_at=long_ago)
    Incident.objects.update(settled_at=long_ago)
    Mute.objects.create(key="x", until=long_ago)
    deliveries.forget_old()
    assert [row.state for row in Delivery.objects.all()] == [DeliveryState.PENDING], "it is still to be sent"
    assert not Incident.objects.exists()
    assert not Mute.objects.exists()


def test_the_moments_and_the_errors_are_those_that_are_documented():
    assert {moment.value for moment in Moment} == {"opened", "resolved", "test"}
    assert Undelivered("x").status is None

"""Concurrent claims run one after the other in order of arrival, and a stuck claim does not delay the others."""

from __future__ import annotations

import threading
import time

import pytest

from boilerhouse.process import fair_semaphore


def start(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def stand_in_line(of: fair_semaphore.FairSemaphore, count: int) -> None:
    """Wait until this many threads wait for a slot."""
    give_up = time.monotonic() + 30
    while len(of._line) != count:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_who_came_first_goes_first_and_nobody_beside_it():
    of, order, inside, most = fair_semaphore.FairSemaphore(patience_s=60), [], [0], [0]

    def work(number):
        def one():
            with of.turn():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.05)
                order.append(number)
                inside[0] -= 1

        return one

    threads = []
    with of.turn():
        for number in range(5):
            threads.append(start(work(number)))
            stand_in_line(of, number + 1)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert most[0] == 1


def test_who_waits_for_somebody_else_steps_aside_and_comes_back_before_those_who_came_later():
    of, order, answered = fair_semaphore.FairSemaphore(patience_s=60), [], threading.Event()
    is_aside, second_began = threading.Event(), threading.Event()

    def first():
        with of.turn():
            with fair_semaphore.yield_slot():
                is_aside.set()
                answered.wait(30)
            order.append("first")

    def second():
        with of.turn():
            order.append("second begins")
            second_began.set()
            answered.set()
            stand_in_line(of, 2)
            order.append("second ends")

    def third():
        with of.turn():
            order.append("third")

    threads = []
    for work, is_set in ((first, is_aside), (second, second_began), (third, None)):
        threads.append(start(work))
        assert is_set is None or is_set.wait(30)
    for thread in threads:
        thread.join()
    assert order == ["second begins", "second ends", "first", "third"]


def test_who_is_stuck_with_its_turn_holds_nobody_up_for_longer_than_patience():
    of, stuck, done = fair_semaphore.FairSemaphore(patience_s=0.1), threading.Event(), []
    is_stuck = threading.Event()

    def holder():
        with of.turn():
            is_stuck.set()
            stuck.wait(60)

    def other():
        with of.turn():
            done.append(not stuck.is_set())

    held = start(holder)
    assert is_stuck.wait(30)
    for thread in [start(other), start(other)]:
        thread.join(30)
    assert done == [True, True]
    stuck.set()
    held.join()
    assert of._free == 1, "nobody's leaving was lost"


def test_an_error_gives_the_turn_back():
    of = fair_semaphore.FairSemaphore(patience_s=5)
    for _ in range(2):
        with pytest.raises(ValueError), of.turn():
            raise ValueError
    with of.turn(), fair_semaphore.yield_slot():
        assert of._free == 1
    assert of._free == 1


def test_without_a_turn_stepping_aside_frees_no_place():
    of = fair_semaphore.FairSemaphore(patience_s=0.1)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with of.turn():
            taken.set()
            done.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(5)
    with fair_semaphore.yield_slot(), of.turn():
        assert not fair_semaphore._mine.turn.is_held
    done.set()
    holder.join(5)
    with of.turn():
        assert fair_semaphore._mine.turn.is_held

"""Claims that come at once go one after the other, in the order they came; nobody who is stuck holds up the rest."""

from __future__ import annotations

import threading
import time

from boilerhouse.core import turns


def run(works) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
        time.sleep(0.02)  # they come in this order
    return threads


def test_who_came_first_goes_first_and_nobody_beside_it():
    of, order, inside, most = turns.Turns(patience_s=5), [], [0], [0]

    def work(number):
        def one():
            with of.turn():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.05)
                order.append(number)
                inside[0] -= 1

        return one

    for thread in run([work(number) for number in range(5)]):
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert most[0] == 1


def test_who_waits_for_somebody_else_steps_aside_and_comes_back_before_those_who_came_later():
    of, order, answered = turns.Turns(patience_s=5), [], threading.Event()

    def first():
        with of.turn():
            with turns.aside():
                answered.wait(5)
            order.append("first")

    def second():
        with of.turn():
            order.append("second begins")
            answered.set()
            time.sleep(0.1)
            order.append("second ends")

    def third():
        with of.turn():
            order.append("third")

    for thread in run([first, second, third]):
        thread.join()
    assert order == ["second begins", "second ends", "first", "third"]


def test_who_is_stuck_with_its_turn_holds_nobody_up_for_longer_than_patience():
    of, stuck, done = turns.Turns(patience_s=0.1), threading.Event(), []

    def holder():
        with of.turn():
            stuck.wait(10)

    def other():
        began = time.monotonic()
        with of.turn():
            done.append(time.monotonic() - began)

    threads = run([holder, other, other])
    for thread in threads[1:]:
        thread.join(5)
    assert len(done) == 2
    assert max(done) < 2
    stuck.set()
    threads[0].join()
    began = time.monotonic()
    with of.turn():  # free again: nobody's leaving was lost
        assert time.monotonic() - began < 0.1


def test_an_error_gives_the_turn_back():
    of = turns.Turns(patience_s=5)
    for _ in range(2):
        try:
            with of.turn():
                raise ValueError
        except ValueError:
            pass
    began = time.monotonic()
    with of.turn(), turns.aside():
        pass
    assert time.monotonic() - began < 1


def test_without_a_turn_stepping_aside_does_nothing():
    with turns.aside():
        pass

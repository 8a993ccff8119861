"""Work that takes hours leaves one worker of its queue free for other work (P14)."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from boilerhouse.queues import slow_work


def test_large_work_takes_all_workers_but_one(data_dir, settings, serve):
    serve("claim")
    large, workers = settings.BOILERHOUSE_LARGE_BYTES, settings.QUEUES["claim"]["workers"]
    with ExitStack() as held:
        assert [held.enter_context(slow_work.entered(large)) for _ in range(workers)] == [True] * (workers - 1) + [
            False
        ]
        assert held.enter_context(slow_work.entered(large - 1))
        serve("save")
        assert held.enter_context(slow_work.entered(large))
    serve("claim")
    with slow_work.entered(large) as may_begin:
        assert may_begin
    serve("")
    with ExitStack() as held:
        assert all(held.enter_context(slow_work.entered(large)) for _ in range(9))


def test_of_slow_work_a_queue_does_one_at_a_time_beside_all_else(data_dir, settings, serve):
    """A sink that hardly answers occupies one worker; outside queues nothing is limited."""
    with slow_work.entered_slow(is_slow=True) as first, slow_work.entered_slow(is_slow=True) as second:
        assert (first, second) == (True, True)
    serve("claim")
    with slow_work.entered_slow(is_slow=True) as first, slow_work.entered_slow(is_slow=True) as second:
        assert (first, second) == (True, False)
        with (
            slow_work.entered_slow(is_slow=False) as other,
            slow_work.entered(settings.BOILERHOUSE_LARGE_BYTES) as large,
        ):
            assert (other, large) == (True, True)
    with slow_work.entered_slow(is_slow=True) as again:
        assert again


def test_work_with_one_sink_takes_all_workers_but_one(data_dir, settings, monkeypatch, serve):
    """Whether that sink delivers or not, work with another begins at once; outside of queues nothing is
    limited (P14)."""
    monkeypatch.setattr(slow_work, "BRIEF_S", -1.0)
    with ExitStack() as held:
        assert all(held.enter_context(slow_work.entered_for(["slow"])) for _ in range(9))
    for queue in ("claim", "save", "sync"):
        serve(queue)
        workers = settings.QUEUES[queue]["workers"]
        assert workers > 2
        with ExitStack() as held:
            begun = [held.enter_context(slow_work.entered_for(["slow"])) for _ in range(workers)]
            assert begun == [True] * (workers - 1) + [False]
            assert not held.enter_context(slow_work.entered_for(["other", "slow"])), "it has to do with both"
        with slow_work.entered_for(["slow", "other"]) as again:
            assert again, "who could not begin holds nothing"


def test_a_place_that_is_about_to_be_free_is_waited_for(data_dir, settings, monkeypatch, serve):
    """Claims with a responsive sink continue in order, without returning to the queue (P14)."""
    serve("sync")
    monkeypatch.setattr(slow_work, "BRIEF_S", 60.0)
    monkeypatch.setattr(slow_work, "PATIENCE_S", 30.0)
    held = ExitStack()
    for _ in range(settings.QUEUES["sync"]["workers"] - 1):
        assert held.enter_context(slow_work.entered_for(["sink"]))
    ending = threading.Timer(0.2, held.close)
    ending.start()
    with slow_work.entered_for(["sink"]) as may_begin:
        assert may_begin
    ending.join()


def test_what_stands_in_line_for_long_is_looked_at_less_often():
    """Many claims with a dead sink must not keep the queue busy with their failures (P14)."""
    assert [slow_work.pause_s(stood) for stood in (0, 1, 4, 60)] == [0.5, 0.5, 1.0, 5.0]

"""P14, B28: work of hours leaves a worker of its queue to all other work."""

from __future__ import annotations

from contextlib import ExitStack

from boilerhouse.core import lanes


def test_large_work_takes_all_workers_but_one(data_dir, settings, monkeypatch):
    monkeypatch.setenv("Q_CLUSTER_NAME", "claim")
    large, workers = settings.BOILERHOUSE_LARGE_BYTES, settings.QUEUES["claim"]["workers"]
    with ExitStack() as held:
        assert [held.enter_context(lanes.entered(large)) for _ in range(workers)] == [True] * (workers - 1) + [False]
        assert held.enter_context(lanes.entered(large - 1))
        monkeypatch.setenv("Q_CLUSTER_NAME", "save")
        assert held.enter_context(lanes.entered(large))
    monkeypatch.setenv("Q_CLUSTER_NAME", "claim")
    with lanes.entered(large) as may_begin:
        assert may_begin
    monkeypatch.delenv("Q_CLUSTER_NAME")
    with ExitStack() as held:
        assert all(held.enter_context(lanes.entered(large)) for _ in range(9))


def test_of_slow_work_a_queue_does_one_at_a_time_beside_all_else(data_dir, settings, monkeypatch):
    """D10: a sink that hardly answers holds one worker; outside of queues nothing is limited."""
    with lanes.entered_slow(is_slow=True) as first, lanes.entered_slow(is_slow=True) as second:
        assert (first, second) == (True, True)
    monkeypatch.setenv("Q_CLUSTER_NAME", "claim")
    with lanes.entered_slow(is_slow=True) as first, lanes.entered_slow(is_slow=True) as second:
        assert (first, second) == (True, False)
        with lanes.entered_slow(is_slow=False) as other, lanes.entered(settings.BOILERHOUSE_LARGE_BYTES) as large:
            assert (other, large) == (True, True)
    with lanes.entered_slow(is_slow=True) as again:
        assert again

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

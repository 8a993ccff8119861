"""What an open page shows of time stays the same until something has changed, or ticks in the browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from boilerhouse.attention import words
from boilerhouse.dashboard import charts, sink_strips, sparklines, time_steps
from boilerhouse.dashboard.templatetags import ui
from pools.models import PoolUsage
from syncing.models import SinkProbe, SyncRun
from tests.make import make_pool, make_sync_spec

pytestmark = pytest.mark.any_database


def test_a_time_is_between_two_whole_steps():
    at, step = datetime(2026, 11, 28, 12, 0, 7, 500, tzinfo=UTC), timedelta(seconds=15)
    assert time_steps.floor(at, step) == datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    assert time_steps.ceil(at, step) == datetime(2026, 11, 28, 12, 0, 15, tzinfo=UTC)
    whole = time_steps.floor(at, step)
    assert time_steps.floor(whole, step) == time_steps.ceil(whole, step) == whole


def test_an_age_in_a_sentence_stays_for_some_seconds():
    assert words.age(41) == words.age(44) == "40 s"
    assert words.age(3) == "3 s"
    assert words.age(-1) == "0 s"
    assert words.age(119) == "120 s"
    assert words.age(120) == words.age(123) == "2 min"


def test_a_run_that_is_not_over_ticks_in_the_browser():
    at = timezone.now() - timedelta(seconds=70)
    assert 'data-rel="age"' in ui.took(SyncRun(started_at=at))
    assert ui.took(SyncRun(started_at=at, finished_at=at + timedelta(seconds=42))) == "42 s"
    assert ui.took(SyncRun()) == ""


def test_what_is_drawn_stays_until_the_next_step(data_dir, db, monkeypatch):
    """Charts, sparklines and strips moved on by parts of a pixel in each rendering."""
    pool = make_pool("p1")
    spec = make_sync_spec(pool)
    began = datetime(2026, 11, 28, 12, 0, 1, tzinfo=UTC)
    for minutes in range(0, 60, 7):
        PoolUsage.objects.create(
            pool=pool, at=began - timedelta(minutes=minutes), size=2, idle=1, claimed=minutes % 2, waiting=0,
            desired_size=2, cpu_cores=1, memory_bytes=1, disk_bytes=1,
        )  # fmt: skip
        SinkProbe.objects.create(
            spec=spec, at=began - timedelta(minutes=20 * minutes), is_healthy=minutes % 2, duration_ms=1
        )
    drawings = []
    for seconds in (0, 3, 3600):
        now = began + timedelta(seconds=seconds)
        monkeypatch.setattr("django.utils.timezone.now", lambda now=now: now)
        monkeypatch.setattr("boilerhouse.core.clock.now", lambda now=now: now)
        cache.clear()
        points = list(PoolUsage.objects.order_by("at").values_list("at", "claimed"))
        drawings.append(
            (
                charts.chart("Used", "1h", {"used": points}, str),
                sparklines.of_pools({"p1": 2}),
                sink_strips.of_specs([spec.pk])[spec.pk].cells,
            )
        )
    assert drawings[0] == drawings[1]
    assert all(one != other for one, other in zip(drawings[1], drawings[2], strict=True))

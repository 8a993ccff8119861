"""Charts: the times of their tables, as precise as their axes and to be written in the reader's zone."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from django.template.loader import render_to_string
from django.utils import timezone

from boilerhouse.dashboard import charts

pytestmark = pytest.mark.any_database


def drawn(span: str, **more: object) -> charts.Chart:
    now = timezone.now()
    points = [(now - timedelta(minutes=minutes), float(minutes)) for minutes in (3, 2, 1)]
    return charts.chart("Used", span, {"used": points}, lambda value: f"{value:g}", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("span", "clock"), [("1h", "minute"), ("24h", "minute"), ("7d", "day")])
def test_a_table_has_the_times_of_its_axis_for_the_reader_to_see_in_the_own_zone(span, clock):
    """B7: the axis was local and the table UTC."""
    chart = drawn(span)
    page = render_to_string("components/chart.html", {"chart": chart})
    at = chart.rows[0][0]

    assert isinstance(at, datetime)
    assert chart.clock == clock
    assert f'datetime="{at.isoformat()}"' in page
    assert f'data-clock="{clock}"' in page
    assert at.strftime(charts.CLOCKS[clock]) in page
    assert "<span data-zone>UTC</span>" in page


def test_a_chart_of_minutes_has_seconds():
    now = timezone.now()
    assert drawn("1h", period=(now - timedelta(minutes=5), now)).clock == "second"


def test_the_samples_for_the_cursor_are_those_of_the_chart_and_weigh_little():
    now = charts.end_of("1h")
    chance = random.Random(4)
    at = [now - timedelta(seconds=15 * number + chance.random() / 5) for number in range(230, 0, -1)]
    del at[100:130]
    points = [(one, chance.random() * 5e8) for one in at]
    sent = charts.chart("Used", "1h", {"used": points, "free": points[:50]}, str).data
    known = json.loads(sent)
    times = list(accumulate(known["steps"]))
    used, free = (one["values"] for one in known["series"])

    shown = [(second, value) for second, value in zip(times, used, strict=True) if value is not None]
    assert [second for second, _ in shown] == pytest.approx([one.timestamp() for one in at], abs=0.06)
    assert [value for _, value in shown] == pytest.approx([value for _, value in points], rel=1e-4)
    assert used.count(None) == 1, "what is missing is a gap"
    assert free[50:] == [None] * (len(times) - 50)
    assert len(gzip.compress(sent.encode())) < 8 * len(points)


@pytest.mark.parametrize(("value", "sent"), [(2.0, "2"), (0.0312451, "0.031245"), (734_003_200.0, "734000000")])
def test_a_sample_has_the_digits_that_a_reader_sees(value, sent):
    at = datetime(2026, 11, 28, 12, tzinfo=UTC)
    period = (at - timedelta(minutes=1), at + timedelta(minutes=1))
    known = charts.chart("Used", "1h", {"used": [(at, value)]}, str, period=period).data
    assert f'"values":[{sent}]' in known
    assert '"steps":[1795867200]' in known

"""Charts: the times of their tables, as precise as their axes and to be written in the reader's zone."""

from __future__ import annotations

from datetime import datetime, timedelta

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

"""Server-side SVG charts: geometry in attributes, with a text and a table for screen readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from django.utils import timezone

from boilerhouse.dashboard import time_steps

WIDTH, HEIGHT = 600.0, 120.0
RANGES = {"1h": timedelta(hours=1), "6h": timedelta(hours=6), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
POINTS = 240
CLOCKS = {"day": "%d %b %H:%M", "minute": "%H:%M", "second": "%H:%M:%S"}
TABLE_ROWS = 12
DIGITS = 5
Point = tuple[datetime, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its name, its stroke class (``a`` or ``b``), and runs of points without a gap."""

    name: str
    stroke: str
    runs: list[str]
    fills: list[str]


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    now: str
    lines: list[Line]
    top: str
    middle: str
    ticks: list[str]
    gaps: list[tuple[float, float]]
    description: str
    """The text for screen readers."""
    rows: list[tuple[datetime, list[str]]]
    is_empty: bool
    clock: str
    """How precise its times are: ``day`` (with the date), ``minute`` or ``second``."""
    data: str
    """The samples as JSON, for the chart's cursor in the browser."""
    limit: str = ""
    """The highest possible value, drawn as a line; empty: none."""
    limit_y: float = 0.0


Mark = tuple[datetime, str]
"""An event during the chart's time range, shown in the chart."""


def asked_range(text: str | None) -> str:
    return text if text in RANGES else "1h"


def end_of(span: str) -> datetime:
    """Where the chart of the last ``span`` ends: now, or up to a point's width later, so that it stays as it is
    meanwhile."""
    return time_steps.ceil(timezone.now(), RANGES[span] / POINTS)


def thin(rows: Sequence[Point]) -> list[Point]:
    """At most ``POINTS`` samples, evenly chosen, including the last."""
    step = max(1, len(rows) // POINTS)
    return list(rows[::step]) + ([rows[-1]] if rows and (len(rows) - 1) % step else [])


def chart(
    title: str,
    span: str,
    series: Mapping[str, Sequence[Point]],
    show: Callable[[float], str],
    *,
    least: float = 1,
    unit: str = "",
    marks: Sequence[Mark] = (),
    now: str = "",
    every: timedelta = timedelta(0),
    period: tuple[datetime, datetime] | None = None,
    limit: tuple[float, str] | None = None,
) -> Chart:
    """Draw one or two series over the last ``span``, or over ``period``; missing samples become a gap, not a line.

    ``every`` is the interval of samples if it is long, which is then not a gap. ``unit`` is how the browser formats
    values: ``bytes``, ``cores`` or nothing. ``now`` replaces the newest samples in the chart's figures. ``limit``, a
    value and its words, is drawn as a line, and the chart is high enough to show it.
    """
    end = end_of(span)
    start, end = period or (end - RANGES[span], end)
    length = end - start
    points_of = {name: thin([point for point in points if point[0] >= start]) for name, points in series.items()}
    top = max([least, limit[0] if limit else 0, *(value for points in points_of.values() for _, value in points)])
    quiet = max(timedelta(seconds=60), length / POINTS * 4, every * 2)

    def x(at: datetime) -> float:
        return round(WIDTH * ((at - start) / length), 1)

    def y(value: float) -> float:
        return round(HEIGHT * (1 - value / top), 1)

    gaps: list[tuple[float, float]] = []
    lines = []
    for number, (name, points) in enumerate(points_of.items()):
        runs: list[list[Point]] = []
        for point in points:
            if runs and point[0] - runs[-1][-1][0] <= quiet:
                runs[-1].append(point)
            else:
                if runs and number == 0:
                    start_x = x(runs[-1][-1][0])
                    gaps.append((start_x, round(x(point[0]) - start_x, 1)))
                runs.append([point])
        drawn = [" ".join(f"{x(at)},{y(value)}" for at, value in run) for run in runs]
        fills = []
        if number == 0:
            for run in runs:
                inside = " ".join(f"{x(at)} {y(value)}" for at, value in run)
                fills.append(f"M{x(run[0][0])} {HEIGHT}L{inside} {x(run[-1][0])} {HEIGHT}Z")
        lines.append(Line(name, "ab"[number], drawn, fills))
    newest = {name: points[-1][1] for name, points in points_of.items() if points}
    clock = "day" if length > timedelta(days=1) else "minute" if length > timedelta(minutes=8) else "second"
    form = CLOCKS[clock]
    ticks = [(start + length * part / 4).strftime(form) for part in range(5)]
    first = next(iter(points_of.values()), [])
    sample = first[:: max(1, len(first) // TABLE_ROWS)]
    rows = [
        (at, [show(_near(points, at)) if points else "not known" for points in points_of.values()]) for at, _ in sample
    ]
    ranges = [
        f"{name} between {show(min(v for _, v in points))} and {show(max(v for _, v in points))}"
        for name, points in points_of.items()
        if points
    ]
    return Chart(
        title,
        now or ", ".join(f"{show(value)}{f' {name}' if len(points_of) > 1 else ''}" for name, value in newest.items()),
        lines,
        show(top),
        show(top / 2),
        ticks,
        gaps,
        "; ".join(ranges) or "no samples",
        rows,
        not newest,
        clock,
        _data(points_of, quiet, (start, end), unit, marks, top, limit[0] if limit else None),
        limit[1] if limit else "",
        y(limit[0]) if limit else 0.0,
    )


def _data(
    points_of: dict[str, list[Point]],
    quiet: timedelta,
    period: tuple[datetime, datetime],
    unit: str,
    marks: Sequence[Mark],
    top: float,
    limit: float | None = None,
) -> str:
    """A shared time axis for all series; a missing value is a gap.

    ``steps`` are the seconds from the epoch to the first sample, then from each to the next. They are nearly equal, and
    so weigh little in a compressed page.
    """
    by_time: dict[float, dict[str, float]] = {}
    for name, points in points_of.items():
        for at, value in points:
            by_time.setdefault(round(at.timestamp(), 1), {})[name] = value
    times: list[float] = []
    for second in sorted(by_time):
        if times and second - times[-1] > quiet.total_seconds():
            times.append(times[-1] + 0.1)
        times.append(second)
    steps = [_brief(round(at - before, 1)) for before, at in pairwise([0.0, *times])]
    document = {
        "steps": steps, "from": period[0].timestamp(), "to": period[1].timestamp(), "unit": unit, "top": top,
        "limit": limit,
        "series": [
            {"name": name, "values": [_seen(by_time.get(second, {}).get(name)) for second in times]}
            for name in points_of
        ],
        "marks": [[at.timestamp(), label] for at, label in marks if at >= period[0]],
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":"))


def _seen(value: float | None) -> float | None:
    """The value with as many digits as a reader of the chart sees."""
    return None if value is None else _brief(float(f"{value:.{DIGITS}g}"))


def _brief(value: float) -> float:
    """The same number without a needless fraction."""
    return int(value) if value.is_integer() else value


def _near(points: Sequence[Point], at: datetime) -> float:
    return min(points, key=lambda point: abs(point[0] - at))[1]

"""This week beside the week before, as rows with words: an arrow and a colour alone would not say what is better."""

from __future__ import annotations

from dataclasses import dataclass

from boilerhouse.dashboard.templatetags.ui import duration_ms
from tenants import weeks
from tenants.weeks import Week


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of both weeks."""

    label: str
    now: str
    before: str
    """Empty if the week before is not known."""
    change: str
    """In words; empty if there is nothing to compare."""
    arrow: str = ""
    """The icon; empty if nothing has changed."""
    tone: str = ""
    """``ok`` for better, ``warn`` for worse, empty for neither."""


@dataclass(frozen=True, slots=True)
class Comparison:
    lines: list[Line]
    has_last: bool


def of(pool_id: str = "") -> Comparison:
    """The comparison for one pool, or for the deployment."""
    weeks_of_pool = weeks.compare(pool_id)
    this, last = weeks_of_pool.this, weeks_of_pool.last
    lines = [
        _counts("Claims", this.claims, last.claims if last else None),
        _times(this, last),
        _shares(this, last),
        _counts("Failed claims", this.failed_claims, last.failed_claims if last else None, is_bad=True),
        _counts("Failed syncs", this.failed_runs, last.failed_runs if last else None, is_bad=True),
    ]
    return Comparison(lines, last is not None)


def _line(label: str, now: str, before: str, words: str, difference: float, *, is_bad: bool) -> Line:
    """``difference`` is above 0 if the figure has grown; ``is_bad``: growth is worse."""
    if not difference or not words:
        return Line(label, now, before, "no change" if before else "")
    arrow = "i-arrow-up" if difference > 0 else "i-arrow-down"
    tone = ("warn" if difference > 0 else "ok") if is_bad else ""
    return Line(label, now, before, words, arrow, tone)


def _counts(label: str, now: int, before: int | None, *, is_bad: bool = False) -> Line:
    if before is None:
        return Line(label, f"{now:,}", "", "")
    difference = now - before
    amount = f"{abs(difference) / before:.0%}" if before and abs(difference) >= before / 100 else f"{abs(difference):,}"
    words = f"{amount.replace('%', ' %')} {'more' if difference > 0 else 'fewer'}"
    return _line(label, f"{now:,}", f"{before:,}", words, difference, is_bad=is_bad)


def _times(this: Week, last: Week | None) -> Line:
    label = "Claim time, p95"
    now, before = this.p95_ms, last.p95_ms if last else None
    text = duration_ms(now) if now is not None else "no claims"
    if last is None or before is None or now is None:
        unknown = "" if last is None else "no claims"
        return Line(label, text, unknown if before is None else duration_ms(before), "")
    difference = now - before
    words = f"{duration_ms(abs(difference))} {'slower' if difference > 0 else 'faster'}"
    return _line(label, text, duration_ms(before), words, difference, is_bad=True)


def _shares(this: Week, last: Week | None) -> Line:
    label = "Cold claims"
    now, before = this.cold_share, last.cold_share if last else None
    text = _percent(now)
    if last is None or before is None or now is None:
        return Line(label, text, _percent(before) if last else "", "")
    points = round(100 * (now - before), 1)
    words = f"{abs(points):g} {'point' if abs(points) == 1 else 'points'} {'more' if points > 0 else 'less'}"
    return _line(label, text, _percent(before), words, points, is_bad=True)


def _percent(share: float | None) -> str:
    return "no claims" if share is None else f"{100 * share:.1f} %"

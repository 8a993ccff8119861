"""This week beside the week before: claims, their times, cold ones and failures."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.utils import timezone

from boilerhouse.core import deployment_settings
from boilerhouse.dashboard import comparison
from pools.models import Pool
from syncing.models import SyncRun
from tenants import weeks
from tenants.models import Assignment
from tenants.percentiles import percentile
from tests.make import make_assignment, make_pool, make_sync_spec
from tests.pages import text_of


@pytest.fixture(autouse=True)
def _database(db, data_dir) -> None:
    pass


def claims(pool: Pool, days: float, *times_ms: int, cold: int = 0) -> None:
    at = timezone.now() - timedelta(days=days)
    for number, ms in enumerate(times_ms):
        make_assignment(
            f"t{Assignment.objects.count()}", pool=pool, state="ended", outcome="released", latency_ms=ms, created_at=at,
            assigned_at=at, ended_at=at, was_assigned=True, source="cold" if number < cold else "warm",
        )  # fmt: skip


def failed(pool: Pool, days: float, outcome: str) -> None:
    at = timezone.now() - timedelta(days=days)
    make_assignment(
        f"t{Assignment.objects.count()}", pool=pool, state="ended", outcome=outcome, created_at=at, ended_at=at
    )


def test_each_week_has_its_own_claims_and_failures():
    pool, other = make_pool("notes"), make_pool("other")
    claims(pool, 1, 10, 20, 30, 4000, cold=1)
    claims(pool, 8, 10, 50)
    claims(pool, 15, 9999)
    claims(other, 1, 5)
    failed(pool, 2, "claim_timeout")
    failed(pool, 2, "claim_aborted")
    failed(pool, 9, "pool_exhausted")
    spec = make_sync_spec(pool)
    for days, state in ((1, "failed"), (1, "succeeded"), (10, "failed"), (10, "failed"), (20, "failed")):
        at = timezone.now() - timedelta(days=days)
        SyncRun.objects.create(
            spec=spec, tenant_id="t", generation=1, direction="upload", trigger="release", state=state, finished_at=at
        )
    known = weeks.compare("notes")

    assert (known.this.claims, known.this.p95_ms, known.this.cold_share) == (4, 4000, 0.25)
    assert (known.this.failed_claims, known.this.failed_runs) == (1, 1)
    assert known.last is not None
    assert (known.last.claims, known.last.p95_ms, known.last.cold_share) == (2, 50, 0.0)
    assert (known.last.failed_claims, known.last.failed_runs) == (1, 2)
    assert weeks.compare().this.claims == 5


def test_changes_are_words_and_say_what_is_better():
    pool = make_pool("notes")
    claims(pool, 1, *[40] * 12)
    claims(pool, 8, *[100] * 10, cold=5)
    failed(pool, 1, "claim_timeout")
    lines = {line.label: line for line in comparison.of("notes").lines}

    assert (lines["Claims"].now, lines["Claims"].before, lines["Claims"].change) == ("12", "10", "20 % more")
    assert lines["Claims"].tone == "", "more claims are neither better nor worse"
    assert (lines["Claim time, p95"].change, lines["Claim time, p95"].tone) == ("60 ms faster", "ok")
    assert (lines["Cold claims"].change, lines["Cold claims"].tone) == ("50 points less", "ok")
    assert (lines["Failed claims"].change, lines["Failed claims"].tone) == ("1 more", "warn")
    assert (lines["Failed syncs"].change, lines["Failed syncs"].arrow) == ("no change", "")


def test_a_young_pool_has_no_week_before():
    claims(make_pool("notes"), 1, 40)
    shown = comparison.of("notes")
    assert not shown.has_last
    assert {line.change for line in shown.lines} == {""}


def test_rows_that_are_not_kept_for_two_weeks_are_not_compared(monkeypatch, settings):
    """The week before would seem to have had few claims."""
    pool = make_pool("notes")
    claims(pool, 1, 40)
    claims(pool, 13, 40)
    assert weeks.compare("notes").last is not None
    cache.clear()
    settings.BOILERHOUSE_RUN_RETENTION_S = 10 * 86_400
    assert deployment_settings.current().retention_s["runs"] == 10 * 86_400
    assert weeks.compare("notes").last is None


def test_weeks_without_claims_say_so():
    pool = make_pool("notes")
    failed(pool, 9, "claim_timeout")
    lines = {line.label: line for line in comparison.of("notes").lines}
    assert (lines["Claim time, p95"].now, lines["Cold claims"].now) == ("no claims", "no claims")
    assert (lines["Claim time, p95"].before, lines["Claim time, p95"].change) == ("no claims", "")


@pytest.mark.parametrize(
    ("counts", "percent", "value"),
    [({}, 95, None), ({7: 1}, 95, 7), ({1: 95, 9: 5}, 95, 1), ({1: 94, 9: 6}, 95, 9), ({5: 2, 3: 2}, 50, 3)],
)
def test_a_percentile_is_a_value_that_occurred(counts, percent, value):
    assert percentile(counts, percent) == value


def test_the_figures_are_read_once_a_minute(django_assert_num_queries):
    make_pool("notes")
    comparison.of("notes")
    with django_assert_num_queries(0):
        comparison.of("notes")


def test_the_overview_and_a_pool_show_both_weeks(client):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    pool = make_pool("notes")
    claims(pool, 1, 40)
    for path in ("/", "/pools/notes/?tab=usage"):
        assert "No data for the 7 days before." in text_of(client.get(path)), path
    cache.clear()
    claims(pool, 8, 50)
    for path in ("/", "/pools/notes/?tab=usage"):
        page = text_of(client.get(path)).split('id="weeks"')[1].split("</section>")[0]
        assert "10 ms faster" in page, path
        assert "No data" not in page

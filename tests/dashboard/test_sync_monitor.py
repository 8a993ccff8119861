"""The sync monitor: what is not saved, what runs, sinks by time, and failures that nothing has made up for."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core import deployment
from boilerhouse.dashboard import failures, sink_strips
from syncing.models import SinkProbe, SyncRun
from tests.make import make_assignment, make_held, make_pool, make_sync_spec
from tests.pages import text_of


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def run(spec: Any, tenant: str = "alice", state: str = "failed", *, minutes: float = 5, **over: Any) -> SyncRun:
    at = timezone.now() - timedelta(minutes=minutes)
    values = {"direction": "upload", "trigger": "interval", "generation": 1}
    return SyncRun.objects.create(
        spec=spec, tenant_id=tenant, state=state, created_at=at, finished_at=at, **{**values, **over}
    )


def test_the_monitor_lists_the_tenants_whose_state_is_not_saved(staff):
    """C7: it showed sinks and runs, and not who waits."""
    pool = make_pool("notes")
    spec = make_sync_spec(pool, id="s", sink_health={"state": "healthy"})
    later = timezone.now() + timedelta(minutes=4)
    make_assignment(
        "alice", pool=pool, state="release_failed", outcome="denied", outcome_detail="It answered 403 AccessDenied: No.",
        next_attempt_at=later, directory_node=deployment.node_id(),
    )  # fmt: skip
    make_assignment("bob", pool=pool, state="releasing", attempt=3, outcome="unreachable", step="saving")
    run(spec, trigger="release", minutes=90)
    page = text_of(staff.get("/sync/"))
    table = page.split('id="unsaved"')[1].split("</table>")[0]

    assert '<span class="count">2</span>' in page.split('id="unsaved"')[1]
    assert "The keys may not read, write or delete there (403 AccessDenied)." in table
    assert re.search(r"<time[^>]*>in 3 min[^<]*</time>|<time[^>]*>in 4 min[^<]*</time>", table)
    assert "being saved now" in table
    assert table.index("alice") < table.index("bob"), "who has waited longest comes first"
    assert 'action="/tenants/alice/release"' in table
    assert 'action="/tenants/bob/release"' not in table


def test_a_run_is_listed_once_it_has_taken_two_seconds(staff):
    """The rows of brief saves moved all that stands below them."""
    spec = make_sync_spec(make_pool())
    brief = run(spec, "brief", "running", minutes=0)
    for path in ("/sync/", "/tenants/brief/"):
        assert f'id="xfer-{brief.pk}"' not in text_of(staff.get(path)), path
    page = text_of(staff.get("/sync/"))
    assert 'Running <span class="count">1</span>' in page
    assert "1 began less than 2 s ago." in page
    older = run(spec, "older", "queued", minutes=0.1)
    lasting = run(spec, "lasting", "running", minutes=0.05)
    page = text_of(staff.get("/sync/"))
    assert page.index(f'id="xfer-{older.pk}"') < page.index(f'id="xfer-{lasting.pk}"')
    assert f'id="xfer-{brief.pk}"' not in page
    assert 'Running <span class="count">3</span>' in page
    assert f'id="xfer-{lasting.pk}"' in text_of(staff.get("/tenants/lasting/"))


def test_nothing_unsaved_and_nothing_running_takes_one_line(staff):
    make_sync_spec(make_pool(), sink_health={"state": "healthy"})
    page = text_of(staff.get("/sync/"))
    assert "Nothing is running." in page
    assert 'id="unsaved"' not in page
    assert "All saves are on time." in page


def test_a_strip_is_the_last_day_and_a_span_without_a_check_is_a_gap(data_dir, db):
    """B9: nine checks of four minutes filled it."""
    spec, other = make_sync_spec(), make_sync_spec()
    now = timezone.now()
    for minutes, is_healthy in ((5, True), (4, False), (3, True), (65, True), (23 * 60, False), (25 * 60, False)):
        SinkProbe.objects.create(spec=spec, at=now - timedelta(minutes=minutes), is_healthy=is_healthy, duration_ms=1)
    strips = sink_strips.of_specs([spec.pk, other.pk])
    cells = strips[spec.pk].cells

    assert len(cells) == sink_strips.SLOTS
    assert cells[-1] == "e", "one failure among good checks shows"
    assert cells[1] == cells[2] == "e" or cells[1] == "e" or cells[2] == "e"
    assert cells.count("u") == sink_strips.SLOTS - 3
    assert strips[spec.pk].words == "5 checks, 2 failed"
    assert strips[other.pk].is_empty
    assert strips[other.pk].words == "no checks in 24 h"


def test_failures_that_a_later_run_made_up_for_are_no_warning(staff):
    """C8: 18 failed stayed amber for a day beside Nothing needs you."""
    spec = make_sync_spec(make_pool(), sink_health={"state": "healthy"})
    make_held(spec.pool, "alice", minutes=0.1)
    run(spec)
    run(spec, minutes=6)
    assert failures.of_last_day().words == "2 failed"
    run(spec, state="succeeded", minutes=1)
    assert failures.of_last_day().words == "2 failed, all repaired"
    tile = text_of(staff.get("/")).split('id="tiles"')[1].split("</section>")[0]
    assert "2 failed, all repaired" in tile
    assert "t-warn" not in tile
    assert "2 failed, all repaired." in text_of(staff.get("/sync/"))
    run(spec, minutes=0.5)
    assert failures.of_last_day().words == "3 failed, 1 not repaired"
    assert "t-warn" in text_of(staff.get("/")).split('id="tiles"')[1].split("</section>")[0]


@pytest.mark.parametrize(
    ("failed", "later", "is_repaired"),
    [
        ({}, {}, True),
        ({}, {"direction": "download"}, False),
        ({}, {"tenant": "bob"}, False),
        ({}, {"minutes": 9}, False),
        ({"direction": "download", "trigger": "claim"}, {"direction": "download", "trigger": "claim"}, True),
        ({"direction": "download", "trigger": "claim", "generation": 0}, {}, False),
        ({"trigger": "erase", "generation": 0}, {"trigger": "release"}, False),
        ({"trigger": "erase", "generation": 0}, {"trigger": "erase"}, True),
        ({"generation": 0}, {"direction": "download"}, True),
    ],
    ids=[
        "a later save", "a restore is no save", "another tenant's", "an earlier save", "the next claim",
        "a restore that nobody tried again", "a save does not erase", "erased later", "the claim ended: saved or discarded",
    ],
)  # fmt: skip
def test_what_makes_up_for_a_failed_run(data_dir, db, failed, later, is_repaired):
    spec = make_sync_spec()
    make_held(spec.pool, "alice")
    run(spec, **failed)
    run(spec, state="succeeded", **{"minutes": 1, **later})
    assert failures.of_last_day().are_repaired == is_repaired


def test_a_failure_of_yesterday_is_not_counted(data_dir, db):
    run(make_sync_spec(), minutes=25 * 60)
    assert failures.of_last_day().words == ""

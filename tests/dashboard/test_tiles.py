"""C8: each figure of the overview leads to the list of exactly what it counts."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core import deployment
from syncing.models import SyncRun
from tests.make import make_assignment, make_container, make_held, make_pool, make_sync_spec
from tests.pages import text_of


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def tile(client, label: str) -> str:
    tiles = text_of(client.get("/")).split('id="tiles"')[1].split("</section>")[0].split('<div class="tile">')
    return next(one for one in tiles if f">{label}</a>" in one)


def rows(client, path: str) -> int:
    body = text_of(client.get(path)).split("<tbody>")
    return body[1].split("</tbody>")[0].count("<tr") if len(body) > 1 else 0


def test_pools_that_need_attention_lead_to_these_pools(staff):
    make_container(make_pool("good"))
    make_pool("broken", trouble="start_failed", last_error="x")
    make_pool("paused", is_paused=True)
    make_held(make_pool("full", max_size=1))
    shown = tile(staff, "Pools")

    assert "2 need attention" in shown
    assert 'href="/pools/?state=attention"' in shown
    assert rows(staff, "/pools/?state=attention") == 2
    assert rows(staff, "/pools/") == 4


def test_tenants_that_are_assigned_or_not_saved_lead_to_these_tenants(staff):
    pool = make_pool()
    make_sync_spec(pool, sink_health={"state": "healthy"})
    make_held(pool, "alice")
    make_assignment("bob", pool=pool, state="release_failed", outcome="denied", directory_node=deployment.node_id())
    make_assignment("carol", pool=pool, state="releasing", attempt=1, outcome="denied", step="saving")
    make_assignment("dave", pool=pool, state="releasing", step="saving")
    shown = tile(staff, "Tenants")

    assert re.search(r"1 <small>assigned</small>", shown)
    assert "2 not saved" in shown
    (where,) = re.findall(r'href="(/sync/[^"]*)"', shown)
    assert where == "/sync/#unsaved"
    assert rows(staff, "/sync/") == 2, "the first table of the monitor"


def test_a_deployment_in_which_all_is_well_has_no_warning(staff):
    make_container(make_pool())
    assert "t-warn" not in text_of(staff.get("/")).split('id="tiles"')[1].split("</section>")[0]
    assert "All healthy" in tile(staff, "Pools")
    assert "No failed saves" in tile(staff, "Tenants")


def test_failed_syncs_lead_to_the_runs_that_failed_in_the_last_day(staff):
    spec = make_sync_spec(make_pool())
    for hours, state in ((1, "failed"), (2, "failed"), (1, "succeeded"), (25, "failed")):
        at = timezone.now() - timedelta(hours=hours)
        SyncRun.objects.create(
            spec=spec, tenant_id="alice", generation=1, direction="download", trigger="claim", state=state,
            created_at=at, finished_at=at, error_code="denied", error_detail="It answered 403 AccessDenied: No.",
        )  # fmt: skip
    shown = tile(staff, "Sync")
    assert "2 failed" in shown
    (where,) = re.findall(r'href="(/sync/[?][^"]*)"', shown)
    page = text_of(staff.get(html.unescape(where)))
    assert len(re.findall(r'<tr id="run-', page)) == 2
    assert "The keys may not read, write or delete there (403 AccessDenied)." in page

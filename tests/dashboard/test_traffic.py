"""A5: what was sent and how large the state is are two figures."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core.events import recording
from boilerhouse.core.models import Event
from syncing.models import SyncMapping, SyncRun, bytes_moved
from syncing.runs import add_step
from syncing.states import SyncRunState
from tests.make import make_sync_spec
from tests.pages import text_of

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]
WHOLE = 734_000_000


@pytest.fixture
def staff(client, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def saved(spec, sent: int, minutes: int = 0) -> SyncRun:
    run = SyncRun.objects.create(
        spec=spec, tenant_id="acme-007", generation=1, direction="upload", trigger="interval", state="running",
        started_at=timezone.now(),
    )  # fmt: skip
    mapping = SyncMapping.objects.filter(spec=spec).first()
    add_step(run, mapping, "t/acme-007/state", 1, WHOLE, transferred=sent)
    with recording():
        SyncRun.objects.filter(pk=run.pk).transition(
            SyncRunState.RUNNING, SyncRunState.SUCCEEDED, progress=run.progress, steps=run.steps,
        )  # fmt: skip
    SyncRun.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(minutes=minutes))
    return run


def test_a_save_that_sent_nothing_counts_as_no_traffic(staff):
    spec = make_sync_spec(id="notes-sync")
    saved(spec, WHOLE, 3)
    quiet = [saved(spec, 0, number) for number in range(3)]
    saved(spec, 1_500_000)

    assert bytes_moved(SyncRun.objects.all()) == WHOLE + 1_500_000
    page = text_of(staff.get("/sync/"))
    assert "735.5 MB saved, 0 B restored" in page
    assert page.count("unchanged") == 3
    assert "State size" in page
    one = text_of(staff.get(f"/sync/runs/{quiet[0].pk}/"))
    assert "<dt>Sent</dt> <dd>0 B</dd>" in one
    assert "<dt>State size</dt> <dd> 734.0 MB" in one


def test_the_feed_says_what_was_sent(staff):
    spec = make_sync_spec()
    for sent in (WHOLE, 1_500_000, 0):
        saved(spec, sent)
    page = text_of(staff.get("/activity/?routine=show"))

    for words in (": 1 file, 734.0 MB<", ": sent 1.5 MB of 1 file, 734.0 MB", ": nothing to send, 1 file, 734.0 MB"):
        assert words in page
    assert [event.payload["sentBytes"] for event in Event.objects.filter(type="sync.completed").order_by("id")] == [
        WHOLE, 1_500_000, 0,
    ]  # fmt: skip


def test_a_run_of_an_earlier_version_has_only_one_figure(staff):
    spec = make_sync_spec()
    SyncRun.objects.create(
        spec=spec, tenant_id="t", generation=1, direction="upload", trigger="manual", state="succeeded",
        progress={"bytes": 7, "files": 1}, finished_at=timezone.now(),
    )  # fmt: skip
    assert bytes_moved(SyncRun.objects.all()) == 7
    assert "7 B saved, 0 B restored" in text_of(staff.get("/sync/"))

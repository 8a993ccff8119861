from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from syncing.models import SavedState, SyncRun
from tenants.status import tenant_status
from tests.make import make_pool, make_sync_spec


def test_the_status_of_a_tenant_never_seen(db):
    found = tenant_status("nobody")

    assert found["assigned"] is False
    assert found["state"] is None
    assert found["syncStatus"] == {"lastSync": None, "ageMs": None, "pending": 0, "errors": []}


def test_errors_are_those_since_the_last_success(db):
    spec = make_sync_spec(make_pool())
    now = timezone.now()

    def run(state, minutes, **over):
        at = now - timedelta(minutes=minutes)
        values = {"tenant_id": "alice", "container_id": uuid4(), "generation": 1, "direction": "upload"}
        return SyncRun.objects.create(
            spec=spec, trigger="release", state=state, finished_at=at, error_code=over.pop("code", ""), **values
        )

    run("failed", 30, code="denied")
    run("succeeded", 20)
    run("failed", 10, code="unreachable")
    run("queued", 0)
    SavedState.objects.create(
        tenant_id="alice", place="p", location="l", container_path="/state", pool_id="x", generation=1, run_id=uuid4(),
        files=1, bytes=1, saved_at=now - timedelta(minutes=20),
    )  # fmt: skip
    found = tenant_status("alice")["syncStatus"]

    assert [error["code"] for error in found["errors"]] == ["unreachable"]
    assert found["pending"] == 1
    assert 19 * 60_000 < found["ageMs"] < 21 * 60_000

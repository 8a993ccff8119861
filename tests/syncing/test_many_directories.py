"""Markers and restores with many directories, links and modes."""

from __future__ import annotations

import time

import pytest

from boilerhouse.process import stalls
from syncing import sink_checks
from syncing.models import SavedState
from tests.tenant_state import TENANT, TenantState

pytestmark = pytest.mark.any_database

MANY = 5000


@pytest.fixture
def tenant(s3, data_dir, transactional_db):
    from tests.sink_servers import RcloneS3

    end = RcloneS3(s3)
    end.clear()
    return TenantState(end)


def test_many_empty_directories_come_back_and_say_that_they_move(tenant, monkeypatch):
    """A claim with `wait: false` continues while directories arrive; its marker is read in the time that it needs."""
    for number in range(MANY):
        (tenant.state / f"{number:0190}").mkdir(0o700)
    (tenant.state / "link").symlink_to("nowhere")
    tenant.save()
    assert SavedState.objects.get(tenant_id=TENANT).marker_bytes > 20_000
    assert sink_checks.patience_s(TENANT) > sink_checks.PATIENT_DEADLINE_S
    moved = []
    monkeypatch.setattr(stalls, "REPORT_EVERY_S", 0.0)
    with stalls.reporting_to(lambda: moved.append(time.monotonic())):
        tenant.claim()
    assert len(moved) >= 2 * MANY
    made = [path for path in tenant.state.iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(made) == MANY
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
    assert (tenant.state / "link").is_symlink()

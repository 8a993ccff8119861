"""Background transfers give way to those that a tenant waits for (P14). Real rclone, a local directory."""

from __future__ import annotations

import os

import pytest

from pools import volumes
from syncing import connect_guard, rclone, restores, saves, sink_checks
from syncing.states import Trigger
from tests.sink_servers import Directory
from tests.tenant_state import TenantState

pytestmark = pytest.mark.any_database
AWAITED = {Trigger.CLAIM, Trigger.RELEASE}


@pytest.fixture
def niceness(monkeypatch) -> list[int]:
    """The niceness of each started rclone, in order."""
    known: list[int] = []
    popen = connect_guard.Guard.popen

    def start(self, *arguments, **options):
        process = popen(self, *arguments, **options)
        known.append(os.getpriority(os.PRIO_PROCESS, process.pid))
        return process

    monkeypatch.setattr(connect_guard.Guard, "popen", start)
    return known


@pytest.fixture
def tenant(tmp_path, settings, data_dir, transactional_db) -> TenantState:
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(tmp_path / "sink")
    return TenantState(Directory(tmp_path / "sink"))


@pytest.mark.parametrize("trigger", [Trigger.RELEASE, Trigger.INTERVAL, Trigger.MANUAL])
def test_a_save_is_as_urgent_as_what_waits_for_it(tenant, niceness, trigger):
    tenant.write(a="1")
    with volumes.locked(tenant.container_id, within_s=30) as lock:
        saves.save(tenant.target(lock), [tenant.fresh()], trigger, lambda: True)

    assert niceness
    assert set(niceness) == {0 if trigger in AWAITED else rclone.NICENESS}


@pytest.mark.parametrize("trigger", [Trigger.CLAIM, Trigger.MANUAL])
def test_a_restore_is_as_urgent_as_what_waits_for_it(tenant, niceness, trigger):
    tenant.write(a="1")
    tenant.save()
    niceness.clear()
    with volumes.locked(tenant.container_id, within_s=30) as lock:
        sink_states = sink_checks.check_spec(tenant.fresh(), "alice").answer()
        restores.restore(tenant.target(lock), sink_states, trigger, lambda: True)

    assert niceness
    assert set(niceness) == {0 if trigger in AWAITED else rclone.NICENESS}


def test_the_thread_that_asks_stays_as_urgent_as_it_was(tenant):
    before = os.getpriority(os.PRIO_PROCESS, 0)
    tenant.write(a="1")
    with volumes.locked(tenant.container_id, within_s=30) as lock:
        saves.save(tenant.target(lock), [tenant.fresh()], Trigger.MANUAL, lambda: True)

    assert os.getpriority(os.PRIO_PROCESS, 0) == before

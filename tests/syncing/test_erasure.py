"""A tenant's state is erased everywhere, and nothing else is; an admin can forget state that was lost."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from django.utils import timezone

from boilerhouse.core import failpoints
from boilerhouse.core.models import AuditEntry
from pools import volumes
from syncing import errors as sync_errors
from syncing import sink_checks
from syncing.locations import BACKUP_ROOT, MARKER_ROOT, marker_key
from syncing.models import Backup, SavedState, SyncRun
from tenants import claims, errors, sink_runs, state_erasure
from tenants.models import Tenant
from tests.make import make_assignment, make_pool, make_spec, make_sync_spec
from tests.power_cut import PowerCut
from tests.tenant_state import LOCATION, TENANT, TenantState

pytestmark = pytest.mark.any_database


@pytest.fixture
def state(empty_sink_server, data_dir, transactional_db):
    state = TenantState(empty_sink_server)
    Tenant.objects.create(id=TENANT)
    return state


def saved_twice(state) -> None:
    state.write(a="1", b="1")
    state.save()
    state.claim()
    state.write(a="2")
    state.remove("b")
    state.save()


def other_tenants_things(state) -> dict[str, int]:
    sink = state.sink
    for key in ("t/alice2/state/keep", "t/alic/state/keep", f"{MARKER_ROOT}/other.json", f"{BACKUP_ROOT}/x/keep"):
        sink.put(key, b"kept")
    return state.sink_server.keys()


def test_everything_of_the_tenant_is_erased_and_nothing_else(state, run_tasks):
    before = other_tenants_things(state)
    saved_twice(state)
    assert Backup.objects.exists()
    discarded = uuid4()
    volumes.prepare(discarded, 200_778, make_spec())
    volumes.latch(discarded, TENANT, 1)
    volumes.discard(discarded)
    strangers = uuid4()
    volumes.prepare(strangers, 200_779, make_spec())
    volumes.latch(strangers, "alice2", 1)
    volumes.discard(strangers)

    erasure = state_erasure.begin(TENANT)
    assert not state_erasure.settle(erasure)
    assert state_erasure.begin(TENANT) == erasure, "asked twice, it is the same erasure"
    run_tasks()

    assert state_erasure.settle(erasure)
    assert state.sink_server.keys() == before
    assert not SavedState.objects.exists()
    assert not Backup.objects.exists()
    assert [path.name.partition(".")[0] for path in volumes.trash_dir().iterdir()] == [str(strangers)]
    assert Tenant.objects.get(pk=TENANT).busy_run is None
    run = SyncRun.objects.get(trigger="erase")
    assert run.state == "succeeded"
    assert run.deleted >= 2
    assert AuditEntry.objects.get(action="tenant.erase_state").object_id == TENANT
    state.claim()
    assert state.look() == {}
    assert state_erasure.settle(state_erasure.begin("never-seen"))


def test_no_claim_begins_while_state_is_erased_and_none_is_erased_while_held(state, run_tasks):
    saved_twice(state)
    held = make_assignment(TENANT, pool=state.spec.pool)
    with pytest.raises(errors.Held):
        state_erasure.begin(TENANT)
    assert state.sink_server.keys(LOCATION)
    held.delete()
    state_erasure.begin(TENANT)
    with pytest.raises(errors.Erasing):
        claims.begin(claims.Claim(tenant_id=TENANT, pool_id=state.spec.pool_id))
    run_tasks()
    assert not state.sink_server.keys(LOCATION)


def test_an_erasure_that_was_cut_is_carried_on_and_never_half_restored(state, run_tasks, monkeypatch):
    """The objects are lost but the marker exists: a claim must refuse instead of starting with the remaining files."""
    saved_twice(state)
    real, gone = type(state.sink).delete, []

    def cut(self, key):
        if key == marker_key(LOCATION) and not gone:
            gone.append(key)
            raise PowerCut
        return real(self, key)

    monkeypatch.setattr(type(state.sink), "delete", cut)
    state_erasure.begin(TENANT)
    with pytest.raises(PowerCut):
        run_tasks()
    with pytest.raises(sync_errors.SyncFailed):
        state.claim()
    SyncRun.objects.filter(trigger="erase").update(state="failed", error_detail="interrupted")
    sink_runs.resume()
    with pytest.raises(errors.EraseFailed):
        state_erasure.settle(state_erasure.Erasure(TENANT, SyncRun.objects.get(trigger="erase").generation))

    again = state_erasure.begin(TENANT)
    run_tasks()
    assert state_erasure.settle(again)
    state.claim()
    assert state.look() == {}


def test_what_no_spec_reaches_any_more_is_named_and_nothing_is_erased(state):
    saved_twice(state)
    SavedState.objects.update(place="https://old.example bucket")
    with pytest.raises(errors.Unerasable, match=r"old\.example"):
        state_erasure.begin(TENANT)
    assert state.sink_server.keys(LOCATION)


def test_a_sink_that_refuses_fails_the_erasure_and_frees_the_tenant(data_dir, transactional_db, run_tasks):
    spec = make_sync_spec(make_pool(), mappings=[{"sink_path": "t/${tenantId}/state/"}])
    Tenant.objects.create(id=TENANT)
    SavedState.objects.create(
        tenant_id=TENANT, mapping=spec.mappings.get(), place=spec.resolved_sink().place_name, location=LOCATION,
        container_path="/state", pool_id=spec.pool_id, generation=1, run_id=uuid4(), files=1, bytes=1,
    )  # fmt: skip
    erasure = state_erasure.begin(TENANT)
    run_tasks()
    with pytest.raises(errors.EraseFailed, match="cannot be reached"):
        state_erasure.settle(erasure)
    assert Tenant.objects.get(pk=TENANT).busy_run is None
    assert SavedState.objects.exists()


def test_vanished_state_is_forgotten_only_after_a_claim_met_it(state):
    """A typo in a prefix must not look like a first claim; only an admin may declare it one."""
    saved_twice(state)
    state.sink_server.clear()
    with pytest.raises(sync_errors.StateMissing):
        state.claim()
    with pytest.raises(errors.NotMissing):
        state_erasure.forget_state(TENANT)
    make_assignment(TENANT, pool=state.spec.pool, state="ended", outcome="state_missing", ended_at=timezone.now())

    assert state_erasure.forget_state(TENANT) == 1
    state.claim()
    assert state.look() == {}
    assert SavedState.objects.get().forgotten_at, "the record is kept"
    assert AuditEntry.objects.get(action="tenant.forget_state").before["saved"][0]["files"] == 1
    state.write(new="1")
    state.save()
    assert SavedState.objects.count() == 2
    assert json.dumps(sink_checks.check_spec(state.fresh(), TENANT).answer()[0].marker.manifest.files) == "1"
    assert not failpoints.hooks

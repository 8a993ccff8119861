"""A backup is restored at the sink, exactly, once, and not while the tenant has its state in use."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.core import failpoints
from boilerhouse.core.models import Event
from boilerhouse.process import processes
from syncing import errors as sync_errors
from syncing.models import Backup, SavedState, SyncRun
from tenants import backups, claims, errors, sink_runs, upkeep
from tenants.models import Tenant
from tenants.states import AssignmentState
from tests.make import make_assignment
from tests.power_cut import PowerCut
from tests.tenant_state import TENANT, UID, TenantState

pytestmark = pytest.mark.any_database


@pytest.fixture
def state(empty_sink_server, data_dir, transactional_db):
    return TenantState(empty_sink_server)


@pytest.fixture
def one_sink_server(s3, data_dir, transactional_db):
    from tests.sink_servers import RcloneS3

    end = RcloneS3(s3)
    end.clear()
    return TenantState(end)


def put_back(backup: Backup, run_tasks) -> SyncRun:
    run = backups.restore(TENANT, backup.pk)
    run_tasks()
    run.refresh_from_db()
    return run


def claim(state) -> dict[str, str]:
    state.generation = Tenant.objects.get(pk=TENANT).generation
    state.claim()
    return state.look()


def test_what_a_save_took_comes_back_and_what_it_replaces_is_kept(state, run_tasks):
    state.write(a="1", b="1", c="1")
    state.save()
    state.claim()
    state.write(a="2", d="2")
    state.remove("b")
    state.save()
    backup = Backup.objects.order_by("created_at").first()
    run = put_back(backup, run_tasks)

    assert (run.state, run.trigger, run.container_id) == ("succeeded", "backup", None), run.error_detail
    found = claim(state)
    assert {name: found[name] for name in "abcd"} == {"a": "1", "b": "1", "c": "1", "d": "2"}
    assert Tenant.objects.get(pk=TENANT).busy_run is None
    assert SavedState.objects.get().files == 4
    assert "backup" in {event.payload["trigger"] for event in Event.objects.filter(type="sync.completed")}

    newest = Backup.objects.latest("created_at")
    assert newest.files >= 1, "a of the second save"
    put_back(newest, run_tasks)
    assert claim(state)["a"] == "2"


def test_a_folder_comes_back_where_a_file_stands_now(state, run_tasks):
    (state.state / "x").mkdir()
    os.chown(state.state / "x", UID, UID)
    state.write(**{"x/y": "deep"})
    state.save()
    state.claim()
    (state.state / "x" / "y").unlink()
    (state.state / "x").rmdir()
    state.write(x="a file")
    state.save()
    run = put_back(Backup.objects.order_by("created_at").first(), run_tasks)

    assert run.state == "succeeded", run.error_detail
    assert claim(state) == {"x/y": "deep"}


@pytest.mark.parametrize("place", ["backup.marker-open", "backup.copied"])
def test_cut_in_the_middle_it_is_taken_back_and_the_tenant_may_claim(one_sink_server, run_tasks, monkeypatch, place):
    state = one_sink_server
    state.write(a="1", b="1")
    state.save()
    state.write(a="2", b="2")
    state.save()

    def cut() -> None:
        raise PowerCut

    run = backups.restore(TENANT, Backup.objects.get().pk)
    failpoints.hooks[place] = cut
    try:
        with pytest.raises(PowerCut):
            backups.put_back(run.pk)
    finally:
        failpoints.hooks.clear()
    assert sink_runs.resume() == 0, "its process lives"
    monkeypatch.setattr(processes, "living", lambda: set())
    upkeep.bury_dead_runs()
    assert sink_runs.resume() == 1
    run.refresh_from_db()

    assert (run.state, run.error_code) == ("failed", "interrupted")
    assert claim(state) == {"a": "2", "b": "2"}


def test_no_claim_begins_meanwhile_and_none_is_put_back_beside_a_claim(one_sink_server, run_tasks):
    state = one_sink_server
    state.write(a="1")
    state.save()
    state.write(a="2")
    state.save()
    backup = Backup.objects.get()
    run = backups.restore(TENANT, backup.pk)
    with pytest.raises(errors.RestoringBackup):
        backups.restore(TENANT, backup.pk)
    with pytest.raises(errors.RestoringBackup):
        claims.begin(claims.Claim(tenant_id=TENANT, pool_id=state.spec.pool_id))
    SyncRun.objects.filter(pk=run.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    sink_runs._resent.clear()
    assert sink_runs.resume() == 1, "a lost message is sent again"
    run_tasks()
    assert claim(state) == {"a": "1"}

    make_assignment(TENANT, pool=state.spec.pool, state=AssignmentState.RELEASE_FAILED)
    with pytest.raises(errors.Held):
        backups.restore(TENANT, backup.pk)
    with pytest.raises(errors.BackupNotFound):
        backups.restore("mallory", backup.pk)


def test_a_backup_that_is_gone_or_belongs_elsewhere_changes_nothing(one_sink_server, run_tasks):
    state = one_sink_server
    state.write(a="1")
    state.save()
    state.write(a="2")
    state.save()
    backup = Backup.objects.get()
    state.sink.delete_all(backup.backup)
    assert put_back(backup, run_tasks).error_code == sync_errors.StateMissing.code
    state.spec.mappings.update(sink_path="t/${tenantId}/elsewhere/")
    assert put_back(backup, run_tasks).error_code == sync_errors.StateMoved.code
    state.spec.mappings.update(sink_path="t/${tenantId}/state/")
    assert claim(state) == {"a": "2"}


def test_old_runs_and_probes_are_forgotten_but_the_newest_of_each_tenant(one_sink_server, settings):
    from syncing import services
    from syncing.models import MappingRestore, SinkProbe

    state = one_sink_server
    for number in range(3):
        state.write(a=str(number))
        state.save()
    services.probe(state.spec)
    settings.BOILERHOUSE_RUN_RETENTION_S = settings.BOILERHOUSE_PROBE_RETENTION_S = -1
    newest = SyncRun.objects.latest("created_at").pk
    upkeep.forget_old()

    assert [run.pk for run in SyncRun.objects.filter(direction="upload")] == [newest]
    assert not SinkProbe.objects.exists()
    assert not MappingRestore.objects.exists()


def test_the_admin_puts_back_what_is_selected_and_confirmed(one_sink_server, run_tasks, client, admin_user):
    state = one_sink_server
    state.write(a="1")
    state.save()
    state.write(a="2")
    state.save()
    backup = Backup.objects.get()
    form = {"action": "put_back", "_selected_action": [str(backup.pk)]}
    client.force_login(admin_user)
    asked = client.post("/admin/syncing/backup/", form, follow=True).content.decode()
    assert "replaced files become a backup themselves" in asked
    assert not SyncRun.objects.filter(trigger="backup").exists()
    said = client.post("/admin/syncing/backup/", {**form, "confirmed": "yes"}, follow=True).content.decode()
    assert "1 of 1" in said
    run_tasks()
    assert claim(state) == {"a": "1"}

    type(admin_user).objects.filter(pk=admin_user.pk).update(is_superuser=False)
    assert client.post("/admin/syncing/backup/", form).status_code == 403

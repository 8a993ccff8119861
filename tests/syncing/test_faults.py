"""Sinks that refuse, fail, hang, disconnect and fill up: each error has its own message, and no state is lost (P4,
P5)."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time

import pytest

from boilerhouse.core import deployment
from boilerhouse.core.models import Deployment
from syncing import backups, errors, rclone, runs, saves
from syncing.locations import BACKUP_ROOT
from syncing.models import SyncRun
from tests import sink_servers
from tests.providers import FaultyProxy
from tests.tenant_state import TENANT, TenantState
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

DATA = f"/t/{TENANT}/"


@pytest.fixture
def proxy(s3):
    made = FaultyProxy(s3.endpoint)
    yield made
    made.stop()


@pytest.fixture
def tenant(s3, proxy, data_dir, transactional_db, monkeypatch):
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    quick = [
        {"--timeout=30s": "--timeout=1s", "--low-level-retries=3": "--low-level-retries=1"}.get(f, f)
        for f in rclone.COMMON
    ]
    monkeypatch.setattr(rclone, "COMMON", quick)
    end = sink_servers.RcloneS3(s3)
    end.clear()
    end.definition = {**end.definition, "endpoint": proxy.endpoint}
    return TenantState(end)


FAULTS = {
    "403": {errors.SinkDenied.code},
    "500": {errors.SinkUnreachable.code, errors.SyncFailed.code},
    "503": {errors.SinkThrottled.code},
    "cut": {errors.SinkUnreachable.code, errors.SyncFailed.code},
    "hang": {errors.SinkUnreachable.code, errors.SyncFailed.code, errors.TransferStalled.code},
    "full": {errors.DiskFull.code, errors.SyncFailed.code},
}


QUICK = {("403", 0), ("403", 7), ("full", 0)}
"""rclone waits long for what may pass: those take half a minute each."""


def table(faults, afters):
    cases = [(fault, after) for fault in faults for after in afters]
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.long) for case in cases]


@pytest.mark.parametrize(("fault", "after"), table(FAULTS, (0, 7)))
def test_a_save_that_the_sink_fails_is_taken_back(tenant, proxy, fault, after):
    """From the first object on, and in the middle."""
    saved = {f"f{number}": f"old {number}" for number in range(12)}
    tenant.write(**saved)
    tenant.save()
    tenant.write(**dict.fromkeys(saved, "new"), more="new")
    proxy.fault, proxy.only, proxy.methods, proxy.after = fault, DATA, ("PUT",), after
    with pytest.raises(errors.SyncFailed) as raised:
        tenant.save()
    assert raised.value.code in FAULTS[fault], raised.value.detail
    run = SyncRun.objects.filter(direction="upload").latest("created_at")
    assert (run.state, run.error_code) == ("failed", raised.value.code)
    assert run.error_detail

    proxy.heal()
    tenant.lose_host()
    tenant.claim()
    assert tenant.look() == saved


@pytest.mark.parametrize(("fault", "after"), table(("403", "500", "cut", "hang"), (0,)))
def test_a_restore_that_the_sink_fails_is_an_error_and_never_an_empty_start(tenant, proxy, fault, after):
    tenant.write(**{f"f{number}": "x" for number in range(12)})
    tenant.save()
    saved = tenant.look()
    proxy.fault, proxy.only, proxy.methods, proxy.after = fault, DATA, ("GET",), 3 + after
    with pytest.raises(errors.SyncFailed) as raised:
        tenant.claim()
    assert raised.value.code in FAULTS[fault], raised.value.detail

    proxy.heal()
    tenant.claim()
    assert tenant.look() == saved


@pytest.mark.parametrize("fault", ["403", "500", "cut"])
def test_a_sink_that_fails_the_first_question_fails_the_claim(tenant, proxy, fault):
    proxy.fault, proxy.only = fault, ""
    with pytest.raises(errors.SyncFailed) as raised:
        tenant.claim()
    assert raised.value.code in FAULTS[fault]


def test_a_fault_that_passes_costs_a_retry_and_nothing_else(tenant, proxy):
    """Some servers occasionally fail a PUT into a new folder."""
    tenant.write(**{f"f{number}": "x" for number in range(5)})
    struck = []
    real = proxy.strikes

    def once(method, path):
        if method == "PUT" and DATA in path and len(struck) < 2:
            struck.append(path)
            return "500"
        return real(method, path)

    proxy.strikes = once
    tenant.save()
    assert SyncRun.objects.get(direction="upload").retries >= 1
    tenant.claim()
    assert len(tenant.look()) == 5


def test_a_sink_that_fills_up_keeps_the_last_save(data_dir, transactional_db, settings, tmp_path):
    """A real full disk: the save fails with its own error, and the earlier save is complete."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)], check=True)
    try:
        settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(root)
        end = sink_servers.Directory.__new__(sink_servers.Directory)
        end.root, end.definition = root, {"type": "local", "path": str(root)}
        tenant = TenantState(end)
        tenant.write(a="first", b="first")
        tenant.save()
        tenant.write(a="second", big="x" * 3_000_000)
        with pytest.raises(errors.DiskFull):
            tenant.save()
        tenant.lose_host()
        tenant.claim()
        assert tenant.look() == {"a": "first", "b": "first"}
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_keys_that_are_rotated_between_two_saves(tmp_path, data_dir, transactional_db):
    from tests.s3 import S3Server

    server = S3Server(tmp_path / "rotated")
    server.start()
    try:
        tenant = TenantState(sink_servers.RcloneS3(server))
        tenant.write(a="1")
        tenant.save()
        server.stop()
        server.access_key, server.secret_key = "AKIDROTATED", "another-secret-key"
        server.start()
        tenant.write(a="2")
        with pytest.raises(errors.SinkDenied):
            tenant.save()
        tenant.spec.sink_secrets = {"accessKeyId": server.access_key, "secretAccessKey": server.secret_key}
        tenant.spec.save()
        tenant.save()
        tenant.claim()
        assert tenant.look() == {"a": "2"}
    finally:
        server.stop()


def test_two_deployments_on_one_bucket_leave_each_other_alone(
    empty_sink_server, data_dir, transactional_db, settings, tmp_path
):
    """One deployment takes over another's state only by a claim that restores; neither expires the other's backups."""
    ours = TenantState(empty_sink_server)
    ours.write(a="1")
    ours.save()
    ours.write(a="2")
    ours.save()
    before = set(empty_sink_server.keys(BACKUP_ROOT))
    settings.BOILERHOUSE_DATA_DIR = tmp_path / "other"
    settings.BOILERHOUSE_DATA_DIR.mkdir()
    settings.BOILERHOUSE_RAM_DIR = str(tmp_path / "other-ram")
    Deployment.objects.all().delete()
    deployment._checked.cache_clear()
    deployment.deployment_id()
    theirs = TenantState(empty_sink_server, is_settled=True)
    assert theirs.look() == {"a": "2"}
    theirs.generation = ours.generation + 1
    theirs.write(a="theirs")
    theirs.save()
    settings.BOILERHOUSE_BACKUP_RETENTION_S = -60
    assert backups.expire(theirs.spec) >= 1
    assert set(empty_sink_server.keys(BACKUP_ROOT)) == before

    settings.BOILERHOUSE_DATA_DIR, settings.BOILERHOUSE_RAM_DIR = tmp_path, str(tmp_path / "ram")
    Deployment.objects.all().delete()
    deployment._checked.cache_clear()
    ours.write(a="3")
    with pytest.raises(errors.RemoteChanged):
        ours.save()
    assert empty_sink_server.sink().get(f"t/{TENANT}/state/a", 15) == b"theirs"


def test_rclone_is_ended_when_nobody_confirms_the_claim(tenant, proxy, monkeypatch):
    """The check whether the claim is still valid hangs; a new claim elsewhere must not run next to this rclone."""
    proxy.delay_s = 0.3
    tenant.write(**{f"f{number}": "x" * 1000 for number in range(400)})
    stuck, asked, ended = threading.Event(), threading.Event(), []

    def hangs() -> bool:
        monkeypatch.setattr(rclone, "UNCONFIRMED_S", 1.0)  # not before: a busy machine is slow to ask
        asked.set()
        stuck.wait(120)
        return True

    def save() -> None:
        from pools import volumes
        from syncing.states import Trigger

        with volumes.locked(tenant.container_id, within_s=30) as lock:
            try:
                saves.save(tenant.target(lock), [tenant.fresh()], Trigger.RELEASE, hangs)
            except errors.TransferInterrupted as error:
                ended.append(error)

    process = []
    real = rclone._Supervisor.__init__
    monkeypatch.setattr(rclone._Supervisor, "__init__", lambda self, p: (process.append(p), real(self, p))[1])
    thread = threading.Thread(target=save)
    thread.start()
    assert asked.wait(60)
    deadline = time.monotonic() + 60
    while process[0].poll() is None:
        assert time.monotonic() < deadline, "rclone goes on"
        time.sleep(0.05)
    stuck.set()
    thread.join(60)
    assert ended


def test_nothing_reaches_the_server_behind_a_proxy_that_was_stopped(s3, proxy):
    """The tests share the server: what arrives late would lie in the sink that the next test has emptied."""
    end = sink_servers.RcloneS3(s3)
    end.clear()
    proxy.delay_s = 0.5
    behind = sink_servers.RcloneS3(s3)
    behind.definition = {**end.definition, "endpoint": proxy.endpoint}

    def put() -> None:
        with contextlib.suppress(errors.SyncFailed):
            behind.sink().put(f"t/{TENANT}/state/late", b"x")

    thread = threading.Thread(target=put)
    thread.start()
    eventually(lambda: any(asked.is_write for asked in proxy.log), every=0.01)
    proxy.stop()
    end.clear()
    time.sleep(2 * proxy.delay_s)
    assert end.keys() == {}
    thread.join(60)


def test_a_credential_that_is_rotated_while_a_save_runs(s3, data_dir, transactional_db):
    """The running save continues with its credentials; the next one uses the new ones."""
    end = sink_servers.RcloneS3(s3)
    end.clear()
    end.definition = {**end.definition, "rcloneFlags": ["--bwlimit=1M"]}
    tenant = TenantState(end)
    tenant.write(big="x" * 3_000_000)
    failed: list[BaseException] = []

    def save() -> None:
        try:
            tenant.save()
        except errors.SyncFailed as error:
            failed.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    deadline = time.monotonic() + 60
    while not SyncRun.objects.filter(direction="upload", state="running", progress__bytes__gt=0).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    type(tenant.spec).objects.update(sink_secrets={"accessKeyId": "ROTATED", "secretAccessKey": "not-yet-known"})
    thread.join(120)
    assert not failed
    assert end.sink().get(f"t/{TENANT}/state/big", 15) == b"x" * 3_000_000
    with pytest.raises(errors.SinkDenied):
        tenant.save()


@pytest.mark.parametrize("after_ms", [5, *(pytest.param(n, marks=pytest.mark.long) for n in range(60, 400, 40))])
def test_s3_is_killed_in_the_middle_of_a_save(tmp_path, data_dir, transactional_db, monkeypatch, settings, after_ms):
    """However much of the save arrived, the next claim gets the last complete one (P5)."""
    from tests.s3 import S3Server

    settings.BOILERHOUSE_TRANSFER_STALL_S = 10  # rclone alone would go on asking the dead for minutes
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    server = S3Server(tmp_path / "killed")
    server.start()
    try:
        tenant = TenantState(sink_servers.RcloneS3(server))
        saved = {f"f{number}": "old" * 1000 for number in range(60)}
        tenant.write(**saved)
        tenant.save()
        new = {f"f{number}": "new" * 1000 for number in range(30, 90)}
        tenant.write(**new)

        def kill() -> None:
            time.sleep(after_ms / 1000)
            server.process.kill()
            server.process.wait()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            tenant.save()
            saved |= new
        except errors.SyncFailed:
            pass
        killer.join()
        server.process = None
        server.start()
        tenant.lose_host()
        tenant.claim()
        assert tenant.look() == saved
    finally:
        server.stop()


def test_a_save_ends_when_its_sink_dies_after_some_files_have_arrived(tmp_path, data_dir, transactional_db):
    """The files of an earlier attempt are no progress of attempts that transfer nothing (P5)."""
    from pools import volumes
    from syncing.states import Trigger
    from tests.s3 import S3Server

    server = S3Server(tmp_path / "dying")
    server.start()
    end = sink_servers.RcloneS3(server)
    end.definition = {**end.definition, "rcloneFlags": ["--bwlimit=1M"]}
    tenant = TenantState(end)
    tenant.write(small="x", big="x" * 10_000_000)
    until = time.monotonic() + 60

    def kills_it() -> bool:
        if server.process and SyncRun.objects.filter(direction="upload", progress__files__gt=0).exists():
            server.process.kill()
            server.process.wait()
            server.process = None
        return time.monotonic() < until

    try:
        with volumes.locked(tenant.container_id, within_s=30) as lock, pytest.raises(errors.SyncFailed) as ended:
            saves.save(tenant.target(lock), [tenant.fresh()], Trigger.RELEASE, kills_it)
    finally:
        server.stop()
    assert time.monotonic() < until, "it was still at it"
    assert ended.value.code == "unreachable"
    assert SyncRun.objects.get(direction="upload").state == "failed"


def test_one_of_two_specs_fails_and_the_other_saves(s3, data_dir, transactional_db, settings, tmp_path):
    """Several specs of one pool: the same path to two sinks; what one saved stays saved."""
    from pools import volumes
    from syncing import saves
    from syncing.states import Trigger
    from tests.make import make_sync_spec

    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(tmp_path / "second")
    (tmp_path / "second").mkdir()
    end = sink_servers.RcloneS3(s3)
    end.clear()
    tenant = TenantState(end)
    mapping = {"sink_path": "copy/${tenantId}/", "direction": "upload", "mode": "copy"}
    second = make_sync_spec(
        tenant.spec.pool,
        sink={"type": "local", "path": str(tmp_path / "second")},
        sink_secrets=None,
        mappings=[mapping],
    )
    tenant.write(a="1")

    def both() -> None:
        with volumes.locked(tenant.container_id, within_s=30) as lock:
            saves.save(tenant.target(lock), [tenant.fresh(), second], Trigger.RELEASE, lambda: True)

    both()
    assert end.sink().get(f"t/{TENANT}/state/a", 15) == b"1"
    assert (tmp_path / "second" / "copy" / TENANT / "a").read_text() == "1"
    type(tenant.spec).objects.filter(pk=tenant.spec.pk).update(
        sink_secrets={"accessKeyId": "X", "secretAccessKey": "y"}
    )
    tenant.write(a="2")
    with pytest.raises(errors.SinkDenied):
        both()
    assert (tmp_path / "second" / "copy" / TENANT / "a").read_text() == "2"
    assert end.sink().get(f"t/{TENANT}/state/a", 15) == b"1"

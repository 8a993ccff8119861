"""Behaviour common to every kind of sink: P4, P5, hazards.md#b8, #b9, #c6, #c9, and attacks by a tenant."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from boilerhouse.core.models import Event
from syncing import errors, marker_steps, rclone, runs
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.models import Backup, SyncRun
from tests import sink_servers
from tests.tenant_state import LOCATION, UID, TenantState

pytestmark = pytest.mark.any_database


def own(tenant, *paths):
    for path in paths:
        os.chown(tenant.state / path, UID, UID, follow_symlinks=False)


def test_a_probe_writes_reads_and_deletes(empty_sink_server):
    sink = empty_sink_server.sink()
    sink.probe()

    assert sink.has_conditional_writes() is empty_sink_server.has_conditional_writes
    assert not empty_sink_server.keys()


def test_everything_a_directory_can_hold_comes_back(tenant):
    """Bytes, names, modes, times, links, empty directories; sockets and FIFOs are named, not kept (P4)."""
    state = tenant.state
    tenant.write(**{"plain": "text", "empty": "", "ünïcode ☃": "snow", "new\nline": "n", "-dash": "d", " space ": "s",
                    "back\\slash": "b", "per%cent": "p", "co:lon": "c", "que?ry": "q", "#hash": "h", "plus+": "+"})  # fmt: skip
    (state / "deep" / "er").mkdir(parents=True)
    (state / "deep" / "er" / "file").write_bytes(bytes(range(256)) * 100)
    (state / "hollow").mkdir()
    (state / "script").write_text("#!/bin/sh")
    (state / "script").chmod(0o750)
    (state / "sparse").touch()
    os.truncate(state / "sparse", 3_000_000)
    os.symlink("plain", state / "link")
    os.symlink("/etc/passwd", state / "out")
    os.mkfifo(state / "pipe")
    own(tenant, "deep", "deep/er", "deep/er/file", "hollow", "script", "sparse", "link", "out", "pipe")
    os.utime(state / "plain", (1_000_000_000, 1_000_000_000))
    if isinstance(tenant.sink_server, sink_servers.MotoS3):
        tenant.remove("new\nline")  # moto's routes do not match it
    before = {p.name: p.read_bytes() for p in state.rglob("*") if p.is_file() and not p.is_symlink()}
    tenant.save()
    tenant.lose_host()
    tenant.claim()

    state = tenant.state
    assert {p.name: p.read_bytes() for p in state.rglob("*") if p.is_file() and not p.is_symlink()} == before
    assert (state / "hollow").is_dir()
    assert (state / "script").stat().st_mode & 0o777 == 0o750
    assert (state / "plain").stat().st_mtime == 1_000_000_000
    assert (os.readlink(state / "link"), os.readlink(state / "out")) == ("plain", "/etc/passwd")
    assert SyncRun.objects.filter(direction="upload").latest("created_at").skipped == ["/state/pipe"]
    assert {p.stat().st_uid for p in state.rglob("*") if not p.is_symlink()} == {UID}


def test_a_change_of_the_same_size_and_time_is_saved(tenant):
    tenant.write(a="one")
    os.utime(tenant.state / "a", (1_000_000_000, 1_000_000_000))
    tenant.save()
    tenant.write(a="two")
    os.utime(tenant.state / "a", (1_000_000_000, 1_000_000_000))
    tenant.save()
    tenant.claim()

    assert tenant.look() == {"a": "two"}


@pytest.mark.parametrize("mode", ["sync", "copy"])
def test_a_file_may_take_a_folders_place_and_back(empty_sink_server, data_dir, transactional_db, mode):
    """An obstacle is moved to the backup; the slot does not get stuck."""
    tenant = TenantState(empty_sink_server, mode=mode)
    (tenant.state / "x" / "y").mkdir(parents=True)
    own(tenant, "x", "x/y")
    tenant.write(**{"x/y/z": "deep", "w": "flat"})
    tenant.save()
    (tenant.state / "x" / "y" / "z").unlink()
    (tenant.state / "x" / "y").rmdir()
    (tenant.state / "x").rmdir()
    tenant.write(x="now a file")
    tenant.remove("w")
    (tenant.state / "w").mkdir()
    own(tenant, "w")
    tenant.write(**{"w/inner": "now a folder"})
    tenant.save()
    tenant.claim()
    assert tenant.look() == {"x": "now a file", "w/inner": "now a folder"}

    tenant.remove("x")
    os.symlink("w", tenant.state / "x")
    own(tenant, "x")
    tenant.save()
    tenant.claim()
    assert os.readlink(tenant.state / "x") == "w"
    assert {os.path.basename(key) for key in empty_sink_server.keys(".boilerhouse-trash")} >= {"z", "w", "x"}


def test_a_cut_save_that_changed_types_is_taken_back(tenant):
    (tenant.state / "x").mkdir()
    own(tenant, "x")
    tenant.write(**{"x/y": "deep", "w": "flat"})
    tenant.save()
    (tenant.state / "x" / "y").unlink()
    (tenant.state / "x").rmdir()
    tenant.write(x="now a file")
    tenant.remove("w")
    (tenant.state / "w").mkdir()
    own(tenant, "w")
    tenant.write(**{"w/inner": "now a folder"})
    tenant.cut("save.uploaded")
    tenant.lose_host()
    tenant.claim()

    assert tenant.look() == {"x/y": "deep", "w": "flat"}


def test_emptied_on_purpose_is_saved_kept_and_said(tenant):
    tenant.write(a="1", b="2")
    tenant.save()
    tenant.claim()
    tenant.remove("a", "b")
    tenant.save()
    tenant.claim()

    assert tenant.look() == {}
    warning = Event.objects.get(type="pool.warning")
    assert warning.payload["code"] == "emptied"
    (backup,) = Backup.objects.all()
    assert (backup.files, backup.bytes, backup.location) == (2, 2, LOCATION)
    assert set(tenant.sink_server.keys(backup.backup)) == {"a", "b"}


@sink_servers.SOME
def test_too_many_or_too_much_is_said_before_the_first_byte(tenant, settings):
    tenant.write(a="1", b="2", c="3")
    settings.BOILERHOUSE_MAX_SAVE_FILES = 2
    with pytest.raises(errors.TooLarge, match="more than 2 files"):
        tenant.save()
    (tenant.state / "d").mkdir()
    (tenant.state / "e").symlink_to("d")
    settings.BOILERHOUSE_MAX_SAVE_FILES = 4
    with pytest.raises(errors.TooLarge, match="more than 4 files, links and directories"):
        tenant.save()
    (tenant.state / "e").unlink()
    (tenant.state / "d").rmdir()
    settings.BOILERHOUSE_MAX_SAVE_FILES, settings.BOILERHOUSE_MAX_SAVE_BYTES = 3, 2
    with pytest.raises(errors.TooLarge, match="3 bytes; the limit is 2"):
        tenant.save()
    assert not tenant.sink_server.keys()

    settings.BOILERHOUSE_MAX_SAVE_BYTES = 3
    tenant.save()
    assert set(tenant.sink_server.keys(LOCATION)) == {"a", "b", "c"}


@sink_servers.SOME
def test_a_state_that_cannot_fit_is_refused_before_the_first_byte(tenant, settings):
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 0
    tenant.write(a="1")
    tenant.save()
    key = marker_key(LOCATION)
    marker = Marker.load(tenant.sink.get(key, 15))
    huge = replace(marker, manifest=replace(marker.manifest, bytes=10**18))
    tenant.sink.put(key, huge.dump())
    with pytest.raises(errors.DiskFull, match="are free on this node"):
        tenant.claim()


def test_two_who_write_the_marker_at_once(tenant, monkeypatch):
    """If the sink supports it, the second save is refused before it changes anything."""
    tenant.write(a="1")
    tenant.save()
    tenant.claim()
    tenant.write(a="2")
    key, real = marker_key(LOCATION), marker_steps.check_unchanged

    def overtaken(known, mapping, target):
        real(known, mapping, target)
        tenant.sink.put(key, replace(known, run_id="another", generation=99).dump())

    monkeypatch.setattr(marker_steps, "check_unchanged", overtaken)
    if tenant.sink_server.has_conditional_writes:
        with pytest.raises(errors.RemoteChanged):
            tenant.save()
        assert tenant.sink.get(f"{LOCATION}/a", 15) == b"1"
    else:
        tenant.save()


@sink_servers.SOME
def test_a_transfer_that_broke_is_tried_again_and_a_refusal_is_not(tenant, monkeypatch):
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    real, said = rclone.run, [errors.TransferBroke("object not found"), errors.SinkUnreachable("reset")]

    def flaky(*arguments, **options):
        if said:
            raise said.pop(0)
        return real(*arguments, **options)

    monkeypatch.setattr(rclone, "run", flaky)
    tenant.write(a="1")
    tenant.save()
    assert SyncRun.objects.get(direction="upload").retries == 2

    said += [errors.SinkDenied("403")]
    with pytest.raises(errors.SinkDenied):
        tenant.save()
    assert not said
    tenant.save()
    tenant.claim()
    assert tenant.look() == {"a": "1"}


def test_tenants_whose_ids_look_alike_have_their_own(empty_sink_server, data_dir, transactional_db):
    seen, spec = {}, None
    for tenant_id in ("a", "A", "a.b", "a:b", "a@b", "a-b", "a_b", "x" * 128, "a"):
        one = seen.get(tenant_id) or TenantState(empty_sink_server, tenant_id=tenant_id, spec=spec)
        seen[tenant_id], spec = one, one.spec
        one.write(mine=tenant_id)
        one.save()
    for tenant_id, one in seen.items():
        one.claim()
        assert one.look() == {"mine": tenant_id}


def test_a_location_that_vanished_is_an_error_with_its_name(tenant):
    tenant.write(a="1")
    tenant.save()
    tenant.sink.delete_all(LOCATION)
    with pytest.raises(errors.SyncFailed) as raised:
        tenant.claim()
    assert LOCATION in raised.value.detail


def test_many_who_use_one_sink_at_once(empty_sink_server):
    """Markers and probes share a folder: none reads a half-written object of another."""
    from concurrent.futures import ThreadPoolExecutor

    sink = empty_sink_server.sink()
    for folder in ("t/0", "t/1", "t/2", "t/3", "t/copies"):  # `rclone serve s3` loses a file that is put into a folder
        sink.put(f"{folder}/stays", b"")  # while it deletes the folder's last one

    def one(number: int) -> None:
        for turn in range(6):
            key = f"t/{number % 4}/x{number}"
            sink.put(key, str(turn).encode() * 100)
            assert sink.get(key, 15) == str(turn).encode() * 100
            sink.copy(key, f"t/copies/{number}")
            sink.delete(key)
            sink.delete(key)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(16)))
    found = {name for name, _ in sink.names("t") if not name.endswith("/stays")}
    assert found == {f"copies/{number}" for number in range(16)}

"""A restore returns the saved state bit by bit, and state that cannot be restored is not reported as saved."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from django.apps import apps

from pools import quota, volumes
from pools.file_names import show
from syncing import errors, markers
from syncing.locations import marker_key
from syncing.markers import Marker
from syncing.models import SyncRun
from tests import sink_servers
from tests.make import make_spec, make_sync_spec
from tests.tenant_state import LOCATION, UID, TenantState

pytestmark = pytest.mark.any_database

COMPOSED, DECOMPOSED = "\u00fc", "u\u0308"


def put(tenant, name: bytes | str, content: bytes = b"") -> bytes:
    """Create a file and its parent directories as the container's user would; returns its path."""
    path = os.fsencode(tenant.state)
    *above, last = os.fsencode(name).split(b"/")
    for part in above:
        path += b"/" + part
        if not os.path.isdir(path):
            os.mkdir(path, 0o755)
            os.chown(path, UID, UID)
    path += b"/" + last
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, UID, UID)
    return path


def look(tenant) -> dict[bytes, bytes]:
    """Every file's content, by its path in bytes."""
    top, found = os.fsencode(tenant.state), {}
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = file.read()
    return found


def forgets(empty_sink_server) -> None:
    """Afterwards an embedded S3 holds nothing in memory: it names and times what it reads from its disk."""
    if isinstance(empty_sink_server, sink_servers.RcloneS3):
        empty_sink_server.server.stop()
        empty_sink_server.server.start()


# Names --------------------------------------------------------------------------------------------------


def test_both_unicode_forms_of_a_name_live_side_by_side(tenant):
    """NFC and NFD twins in one directory, of the same size and of different ones, and as directories."""
    put(tenant, COMPOSED, b"one")
    put(tenant, DECOMPOSED, b"two")
    put(tenant, f"dir-{COMPOSED}/x", b"composed")
    put(tenant, f"dir-{DECOMPOSED}/x", b"decomposed, longer")
    before = look(tenant)
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert look(tenant) == before

    os.remove(tenant.state / COMPOSED)
    tenant.save()
    tenant.claim()
    assert look(tenant) == {name: was for name, was in before.items() if name != COMPOSED.encode()}


def test_a_rename_from_one_unicode_form_to_the_other_is_a_rename(tenant):
    """The name that comes back is the new one."""
    os.rename(put(tenant, "\u00e9", b"one"), tenant.state / "e\u0301")
    put(tenant, "\u00e9", b"one")
    tenant.remove("e\u0301")
    tenant.save()
    os.rename(tenant.state / "\u00e9", tenant.state / "e\u0301")
    tenant.save()
    tenant.claim()

    assert look(tenant) == {"e\u0301".encode(): b"one"}
    assert set(tenant.sink_server.keys(LOCATION)) == {"e\u0301"}


ODD = [
    b"bad\xff\xfe", b"caf\xe9", "caf\u00e9".encode(), b"a:b=c,d\"\xf6", b"d\xffr/in\x02", b"d\xffr/\xc0",
    b"ctl\x01\x7f", "sym\u2421bol".encode(), b"sym\x7fbol", "\u201bFF".encode(), "\u201b\u201bx".encode(),
    "\uff0f\uff0e".encode(), b"tab\there", b"trail. ", "\u9700\u2400".encode(), b"new\nline", b"x\xf0\x9f",
]  # fmt: skip


def test_names_that_sinks_spell_in_their_own_way_come_back_byte_for_byte(tenant):
    """Invalid UTF-8, control characters and rclone's own quote characters, also after a restart of the server."""
    names = [name for name in ODD if not (isinstance(tenant.sink_server, sink_servers.MotoS3) and b"\n" in name)]
    for number, name in enumerate(names):
        path = put(tenant, name, b"%d" % number)
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    os.mkdir(os.fsencode(tenant.state) + b"/empty\xff", 0o755)
    before = look(tenant)
    tenant.save()
    forgets(tenant.sink_server)
    keys = tenant.sink_server.keys(LOCATION)
    for _ in range(2):
        tenant.lose_host()
        tenant.claim()
        assert look(tenant) == before
        assert os.path.isdir(os.fsencode(tenant.state) + b"/empty\xff")
        tenant.save()
        forgets(tenant.sink_server)
        assert tenant.sink_server.keys(LOCATION) == keys, "nothing new, and nothing gone"

    os.remove(os.fsencode(tenant.state) + b"/bad\xff\xfe")
    put(tenant, b"caf\xe9", b"changed")
    tenant.save()
    forgets(tenant.sink_server)
    tenant.claim()
    assert look(tenant) == {**{n: was for n, was in before.items() if n != b"bad\xff\xfe"}, b"caf\xe9": b"changed"}


def test_a_name_that_cannot_be_told_from_part_of_another_fails_by_its_name(tenant):
    """Servers that run rclone cannot represent a single byte of a multi-byte character."""
    put(tenant, b"\xbc", b"1")
    put(tenant, COMPOSED, b"2")  # b"\xc3\xbc"
    if isinstance(tenant.sink_server, sink_servers.RcloneS3 | sink_servers.WebDav):
        with pytest.raises(errors.Unsaveable, match=r"'\\udcbc'"):
            tenant.save()
        assert not tenant.sink_server.keys(LOCATION)
    else:
        tenant.save()
        tenant.claim()
        assert look(tenant) == {b"\xbc": b"1", COMPOSED.encode(): b"2"}


def test_a_server_that_merges_unicode_forms_is_found_by_the_save_which_names_both(data_dir, transactional_db, tmp_path):
    """The error names the colliding files, distinguishes look-alikes, and does not name correct ones."""
    sink_server = sink_servers.WebDav(tmp_path, more=())
    try:
        tenant = TenantState(sink_server)
        for name in ("right", "new\nline", b"\xff", "\u00f6", COMPOSED, DECOMPOSED):
            put(tenant, name, b"same")
        with pytest.raises(errors.SyncFailed) as raised:
            tenant.save()
    finally:
        sink_server.stop()
    assert "\\xfc" in raised.value.detail
    assert "u\\u0308" in raised.value.detail
    assert not [name for name in ("right", "line", "udcff", "f6") if name in raised.value.detail]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b", "a b"),
        (COMPOSED, "\u00fc (\\xfc)"),
        (DECOMPOSED, "u\u0308 (u\\u0308)"),
        ("x\n", "x\\n"),
        ("\udcff", "\\udcff"),
    ],
)
def test_names_in_words(name, shown):
    assert show(name) == shown


@pytest.mark.parametrize("state", ["closed", "open"])
def test_what_an_older_client_saved_at_the_embedded_s3_is_found_under_its_names(tenant, state):
    """It listed keys as they were put, and differently after a restart."""
    if not isinstance(tenant.sink_server, sink_servers.RcloneS3):
        pytest.skip("only there are keys listed in two ways")
    put(tenant, b"bad\xff\xfe", b"1")
    put(tenant, b"ctl\x01\x7f", b"22")
    before = look(tenant)
    tenant.save()
    key = marker_key(LOCATION)
    marker = Marker.load(tenant.sink.get(key, 15))
    old = replace(marker, names={"bad\u201bFF\u201bFE": 1, "ctl\x01\x7f": 2}, state=state)
    tenant.sink.put(key, old.dump())
    forgets(tenant.sink_server)
    tenant.claim()
    assert look(tenant) == before


# Modes --------------------------------------------------------------------------------------------------


def modes(tenant) -> dict[str, int]:
    """Every file's and directory's permission bits, by its path; the mapping's own directory is ``.``."""
    found = {".": tenant.state.stat().st_mode & 0o7777}
    for directory, folders, files in os.walk(tenant.state):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, tenant.state)] = os.lstat(path).st_mode & 0o7777
    return found


def closed_things(tenant) -> dict[str, int]:
    """Files and directories that their owner may not read; their modes."""
    for name in ("g/sub/b", "closed/in", "zero", "plain"):
        put(tenant, name, name.encode())
    for name, mode in {"g/sub/b": 0, "g/sub": 0o555, "g": 0o555, "closed": 0, "zero": 0}.items():
        (tenant.state / name).chmod(mode)
    return modes(tenant)


@sink_servers.SOME
def test_a_save_changes_no_mode_on_disk_also_when_it_failed(tenant, monkeypatch):
    """Refused at the first attempt, interrupted, then complete: all modes are as the tenant set them."""
    before = closed_things(tenant)
    with monkeypatch.context() as patched:
        patched.setattr(type(tenant.sink), "put", denied)
        patched.setattr(type(tenant.sink), "put_if", denied, raising=False)
        with pytest.raises(errors.SinkDenied):
            tenant.save()
    assert modes(tenant) == before
    for place in ("save.marker-open", "save.uploaded"):
        tenant.cut(place)
        assert modes(tenant) == before
    tenant.save()
    assert modes(tenant) == before

    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == before
    assert look(tenant)[b"closed/in"] == b"closed/in"


def denied(*_: object) -> str:
    raise errors.SinkDenied("403")


@sink_servers.SOME
def test_a_periodic_save_reads_what_its_owner_closed(tenant, monkeypatch):
    """``mkdir -m 0000 d`` in a live container does not fail a save, and the save does not make it readable."""
    before = closed_things(tenant)
    target = tenant.target
    monkeypatch.setattr(tenant, "target", lambda lock: replace(target(lock), is_stopped=False))
    tenant.save()
    assert modes(tenant) == before
    monkeypatch.undo()
    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == before
    assert look(tenant)[b"closed/in"] == b"closed/in"


@sink_servers.SOME
@pytest.mark.parametrize("below", ["", "pg", "a/pg"])
def test_the_mappings_own_directory_keeps_its_mode(empty_sink_server, data_dir, transactional_db, below):
    """0700 as PostgreSQL requires, at the volume's root and below it, with the parent directories."""
    tenant = TenantState(empty_sink_server, container_path=f"/state/{below}".rstrip("/"))
    top = tenant.state
    put(tenant, f"{below}/PG_VERSION".lstrip("/"), b"15")
    wanted = {path: 0o2710 - number for number, path in enumerate(("a", "a/pg") if below == "a/pg" else (below,))}
    for path, mode in wanted.items():
        os.chown(top / path, UID, UID)
        (top / path).chmod(mode)
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert {path: (tenant.state / path).stat().st_mode & 0o7777 for path in wanted} == wanted
    assert (tenant.state / below / "PG_VERSION").read_text() == "15"
    assert (tenant.state / below).stat().st_uid == UID


@sink_servers.SOME
def test_setgid_and_sticky_bits_are_kept_and_setuid_is_not(tenant):
    """2775, 1777 and 2755 come back; 4755 comes back as 0755, which docs/workloads.md says."""
    for name, mode in {"group/f": 0o644, "sticky/f": 0o644, "sgid": 0o2755, "suid": 0o4755, "all": 0o6711}.items():
        os.chmod(put(tenant, name), mode)
    (tenant.state / "group").chmod(0o2775)
    (tenant.state / "sticky").chmod(0o1777)
    wanted = {**modes(tenant), "suid": 0o755, "all": 0o2711}
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == wanted


@sink_servers.SOME
def test_a_sync_inward_brings_new_directories_with_their_modes(tenant):
    """Files merged into an existing directory do not change the modes there."""
    put(tenant, "new/deep/f")
    put(tenant, "old/f")
    for name, mode in {"new/deep": 0o1770, "new": 0o700, "old": 0o700}.items():
        (tenant.state / name).chmod(mode)
    tenant.save()
    shutil.rmtree(tenant.state / "new")
    (tenant.state / "old").chmod(0o750)
    tenant.inward()
    assert {name: modes(tenant)[name] for name in ("new", "new/deep", "old")} == {
        "new": 0o700, "new/deep": 0o1770, "old": 0o750,
    }  # fmt: skip


def git(at: Path, *words: str) -> str:
    who = ("-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(["git", "-C", str(at), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout


@sink_servers.SOME
def test_what_people_work_with_goes_on_where_it_was(tenant):
    """A Go module cache (0555, 0444), a repository with a hook, a venv with absolute links."""
    module = put(tenant, "go/pkg/mod/example.com/m@v1.0.0/sub/m.go", b"package m")
    for path, mode in ((module, 0o444), (os.path.dirname(module), 0o555), (tenant.state / "go/pkg/mod", 0o555)):
        os.chmod(path, mode)
    venv = tenant.state / "venv" / "bin"
    script = put(tenant, "venv/bin/run", b"#!/bin/sh\necho ran\n")
    os.chmod(script, 0o755)
    (venv / "python3").symlink_to("/usr/bin/python3")
    (venv / "python").symlink_to("python3")

    repository = tenant.state / "repo"
    repository.mkdir()
    git(repository, "init", "-q")
    for number in range(30):
        (repository / f"f{number}").write_text(f"{number}")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    subprocess.run(["chown", "-Rh", f"{UID}:{UID}", str(tenant.state)], check=True)
    before = modes(tenant)
    assert oct(before["repo/.git/HEAD"]) == oct(0o600), "by the umask of this process"

    tenant.save()
    forgets(tenant.sink_server)
    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == before
    repository, venv = tenant.state / "repo", tenant.state / "venv" / "bin"
    assert git(repository, "fsck", "--strict") == git(repository, "status", "--porcelain") == ""
    (repository / "f0").write_text("changed")
    git(repository, "commit", "-qam", "two")
    assert (repository / "hooked").exists()
    assert os.readlink(venv / "python3") == "/usr/bin/python3"
    assert subprocess.run([venv / "python", "-c", "print(6 * 7)"], capture_output=True, check=True).stdout == b"42\n"
    assert subprocess.run([venv / "run"], capture_output=True, check=True).stdout == b"ran\n"
    shutil.rmtree(tenant.state / "repo")
    subprocess.run(["chown", "-Rh", f"{UID}:{UID}", str(tenant.state)], check=True)
    tenant.save()
    tenant.claim()
    assert modes(tenant) == {name: mode for name, mode in before.items() if not name.startswith("repo")}


def test_times_come_back_to_the_nanosecond_also_of_what_was_only_touched(tenant):
    """A file whose time alone has changed is not sent again; the embedded S3 keeps milliseconds."""
    path = put(tenant, "a", b"content")
    os.utime(path, ns=(1, 1_500_000_000_123_456_789))
    tenant.save()
    forgets(tenant.sink_server)
    tenant.lose_host()
    tenant.claim()
    assert (tenant.state / "a").stat().st_mtime_ns == 1_500_000_000_123_456_789

    os.utime(path := os.fsencode(tenant.state / "a"), ns=(1, 1_400_000_000_000_000_001))
    tenant.save()
    tenant.claim()
    assert (tenant.state / "a").stat().st_mtime_ns == 1_400_000_000_000_000_001


def test_a_restore_that_does_not_give_a_files_name_back_fails_by_that_name(tenant):
    """A file is never silently stored under another name, whatever the totals are."""
    put(tenant, "r\u00e9sum\u00e9", b"1234")
    tenant.save()
    tenant.sink.move(f"{LOCATION}/r\u00e9sum\u00e9", f"{LOCATION}/resume")
    with pytest.raises(errors.Incomplete, match=r"r\\xe9sum\\xe9"):
        tenant.claim()


@sink_servers.SOME
def test_a_marker_of_an_older_version_is_read_and_a_newer_one_is_refused_by_it(tenant):
    """Old manifests lack modes of parents and some times; an older version refuses a manifest that it cannot read."""
    put(tenant, "a", b"1")
    tenant.save()
    key = marker_key(LOCATION)
    kept = json.loads(tenant.sink.get(key, 15))
    for name in ("way", "is_exact"):
        del kept["manifest"][name]
    kept["manifest"]["mtimes"] = {"vanished": 1}
    tenant.sink.put(key, json.dumps(kept).encode())
    tenant.claim()
    assert look(tenant) == {b"a": b"1"}
    kept["manifest"]["of a later version"] = 1
    with pytest.raises(ValueError, match="unknown shape"):
        Marker.load(json.dumps(kept).encode())


@sink_servers.SOME
def test_a_marker_of_many_files_is_short(tenant, monkeypatch):
    """It names every file and its time, and a claim reads it."""
    monkeypatch.setattr(markers, "PLAIN_BYTES", 1000)
    for number in range(60):
        put(tenant, f"directory-{number % 7}/file-{number}")
    tenant.save()
    content = tenant.sink.get(marker_key(LOCATION), 15)
    assert content.startswith(b"\x1f\x8b")
    assert len(Marker.load(content).manifest.mtimes) == 60
    for half in (content[: len(content) // 2], b"\x1f\x8b"):
        with pytest.raises(ValueError, match="truncated"):
            Marker.load(half)
    tenant.claim()
    assert len(look(tenant)) == 60


# Contents -----------------------------------------------------------------------------------------------

PART = 5 * 1024**2


def in_parts(empty_sink_server, name: str, content: bytes) -> None:
    """Put an object as other clients put large ones: its ETag is no MD5."""
    sink = empty_sink_server.sink()
    client, key = sink._client(15), {"Bucket": sink.bucket, "Key": f"{LOCATION}/{name}"}
    upload = {**key, "UploadId": client.create_multipart_upload(**key)["UploadId"]}
    parts = []
    for number, start in enumerate(range(0, len(content), PART), 1):
        done = client.upload_part(**upload, PartNumber=number, Body=content[start : start + PART])
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def overwrite(tenant, name: str) -> bytes:
    """Change some bytes but neither size nor time; returns the content."""
    path = tenant.state / name
    was = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"CHANGED")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    return path.read_bytes()


def transferred() -> int:
    return int(SyncRun.objects.filter(direction="upload").latest("created_at").steps[0]["transferred"])


def only_s3(empty_sink_server) -> None:
    if not isinstance(empty_sink_server, sink_servers.RcloneS3 | sink_servers.MotoS3):
        pytest.skip("only S3 has objects without an MD5")


@pytest.mark.parametrize("mode", ["sync", "copy"])
def test_a_change_of_the_same_size_in_an_object_that_others_put_in_parts_is_saved(
    empty_sink_server, data_dir, transactional_db, mode
):
    """Adopted, restored, changed and saved: the change is restored. Unchanged objects are sent once more."""
    only_s3(empty_sink_server)
    content = os.urandom(PART) * 2 + b"end"
    for name in ("changed", "same", "elsewhere"):
        in_parts(empty_sink_server, name, content)
    tenant = TenantState(empty_sink_server, mode=mode)
    changed = overwrite(tenant, "changed")
    tenant.remove("elsewhere")
    tenant.save()
    kept = {b"elsewhere": content} if mode == "copy" else {}
    tenant.save()
    assert transferred() == 0, "not sent on every save for ever"
    tenant.lose_host()
    tenant.claim()
    assert look(tenant) == {b"changed": changed, b"same": content, **kept}


def test_what_was_saved_without_checksums_is_sent_again_with_them(empty_sink_server, data_dir, transactional_db):
    """A spec with ``--s3-disable-checksum`` has left multipart objects without a known MD5."""
    only_s3(empty_sink_server)
    flags = ["--s3-upload-cutoff=5M", "--s3-disable-checksum=true"]
    tenant = TenantState(empty_sink_server)
    tenant.spec.sink["rcloneFlags"] = flags
    tenant.spec.save()
    put(tenant, "db.bin", os.urandom(PART) * 2)
    tenant.save()
    tenant.spec.sink["rcloneFlags"] = flags[:1]
    tenant.spec.save()
    tenant.claim()
    changed = overwrite(tenant, "db.bin")
    tenant.save()
    tenant.save()
    assert transferred() == 0
    tenant.claim()
    assert look(tenant) == {b"db.bin": changed}


def test_a_save_that_is_cut_while_it_sends_such_objects_again_is_taken_back(
    empty_sink_server, data_dir, transactional_db
):
    """Objects moved away to be sent again are in the attempt's backup."""
    only_s3(empty_sink_server)
    content = os.urandom(PART) * 2 + b"end"
    in_parts(empty_sink_server, "db.bin", content)
    tenant = TenantState(empty_sink_server)
    overwrite(tenant, "db.bin")
    # The embedded S3 reads an object's MD5 off its disk, however it came.
    aside = [] if isinstance(empty_sink_server, sink_servers.RcloneS3) else ["save.unhashed-aside"]
    for place in (*aside, "save.uploaded"):
        tenant.cut(place)
    tenant.lose_host()
    tenant.claim()
    assert look(tenant) == {b"db.bin": content}


def test_the_flag_that_leaves_checksums_out_is_gone_from_specs_and_refused(call, transactional_db):
    """Stored specs lose it, so that the body of a GET can be PUT; a PUT that contains it explains the refusal."""
    spec = make_sync_spec()
    spec.sink["rcloneFlags"] = ["--s3-disable-checksum=true", "--transfers=4"]
    spec.save()
    importlib.import_module("syncing.migrations.0009_drop_disable_checksum").drop(apps, None)
    shown = call("GET", f"sync-specs/{spec.pk}").json()
    assert shown["sink"]["rcloneFlags"] == ["--transfers=4"]
    assert call("PUT", f"sync-specs/{spec.pk}", shown).status_code == 200
    shown["sink"]["rcloneFlags"].append("--s3-disable-checksum=true")
    refused = call("PUT", f"sync-specs/{spec.pk}", shown)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/sink/rcloneFlags/1"
    assert "would not be saved" in refused.json()["errors"][0]["detail"]


# Disk limits ---------------------------------------------------------------------------------------------

MB = 1024**2


class Limited(TenantState):
    """A tenant whose containers have a disk of 16 MB."""

    workload = make_spec(resources={"disk_mb": 16})

    def __init__(self, empty_sink_server, **mapping) -> None:
        self.homes: list[Path] = []
        super().__init__(empty_sink_server, **mapping)

    def claim(self) -> None:
        try:
            super().claim()
        finally:
            self.homes.append(volumes.home(self.container_id))

    def lose_host(self) -> None:
        self.release()
        super().lose_host()

    def release(self) -> None:
        for home in self.homes:
            quota.release(home)


@pytest.fixture
def limited(empty_sink_server, data_dir, transactional_db):
    if not quota.is_enforced():
        pytest.skip("needs loop mounts")
    if not isinstance(empty_sink_server, sink_servers.Directory | sink_servers.RcloneS3):
        pytest.skip("the disk is the same whatever the sink")
    made: list[Limited] = []

    def make(**mapping) -> Limited:
        made.append(Limited.__new__(Limited))
        made[0].__init__(empty_sink_server, **mapping)
        return made[0]

    yield make
    for one in made:
        one.release()


def sparse(tenant, name: str, size: int, data: bytes = b"") -> None:
    with open(put(tenant, name), "r+b") as file:
        file.write(data)
        file.truncate(size)


@pytest.mark.parametrize("live", [False, True])
def test_what_would_not_fit_the_disk_limit_when_it_comes_back_is_refused_before_the_first_byte(
    limited, live, monkeypatch
):
    """A sparse file, then hard links: named with the remedy, by releases and live saves alike."""
    tenant = limited()
    if live:
        target = tenant.target
        monkeypatch.setattr(tenant, "target", lambda lock: replace(target(lock), is_stopped=False))
    sparse(tenant, "img", 200 * MB, b"data" * 1000)
    with pytest.raises(errors.TooLarge) as raised:
        tenant.save()
    assert "diskMb 16" in raised.value.detail
    assert "/state/img" in raised.value.detail
    assert not tenant.sink_server.keys()

    tenant.remove("img")
    put(tenant, "a", os.urandom(6 * MB))
    for name in ("b", "c"):
        os.link(tenant.state / "a", tenant.state / name)
    with pytest.raises(errors.TooLarge, match="under one name"):
        tenant.save()
    assert not tenant.sink_server.keys()

    tenant.remove("b")
    before = look(tenant)
    tenant.save()
    tenant.claim()
    assert look(tenant) == before


def test_the_largest_file_with_holes_that_is_accepted_comes_back(limited):
    """The check before a save agrees with the restore."""
    tenant = limited()
    disk = quota.capacity(volumes.home(tenant.container_id), tenant.workload.resources)
    room = disk.bytes - disk.bytes % disk.block - disk.block  # the mapping's directory
    sparse(tenant, "img", room + 1)
    with pytest.raises(errors.TooLarge):
        tenant.save()
    os.truncate(tenant.state / "img", room)
    tenant.save()
    tenant.claim()
    assert (tenant.state / "img").stat().st_size == room


def test_a_file_with_holes_that_fits_comes_back_with_its_holes(limited):
    """The zeros use no disk space again."""
    tenant = limited()
    data = os.urandom(MB)
    sparse(tenant, "img", 10 * MB, data)
    put(tenant, "zeros", bytes(MB))
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert look(tenant) == {b"img": data + bytes(9 * MB), b"zeros": bytes(MB)}
    assert (tenant.state / "img").stat().st_blocks * 512 < 2 * MB
    assert (tenant.state / "zeros").stat().st_blocks * 512 >= MB


def test_many_small_files_that_fit_come_back(limited):
    """A restore reserves no more space than the files need."""
    tenant = limited()
    if not isinstance(tenant.sink_server, sink_servers.Directory):
        pytest.skip("a directory is the fastest of them")
    for number in range(2500):
        put(tenant, f"{number % 10}/{number}", b"x")
    os.link(tenant.state / "0" / "0", tenant.state / "again")
    before = look(tenant)
    tenant.save()
    tenant.claim()
    assert look(tenant) == before


def test_a_disk_that_is_full_to_the_last_block_comes_back(limited):
    """Without sparse files and links, the state fits the disk again, with room for the restore's own directories."""
    tenant = limited()
    (tenant.state / "dir").mkdir()
    os.chown(tenant.state / "dir", UID, UID)
    size = 5 * MB
    for number in range(10_000):
        try:
            put(tenant, f"dir/{number}", os.urandom(size))
        except OSError:
            tenant.remove(f"dir/{number}")
            if size <= 4096:
                break
            size = max(size // 2, 4096)
    assert os.statvfs(tenant.state).f_bavail < 16
    before = look(tenant)
    tenant.save()
    tenant.claim()
    assert look(tenant) == before


def test_what_mode_copy_keeps_at_the_sink_counts_too(limited):
    """Files that were deleted here come back with the next claim."""
    tenant = limited(mode="copy")
    put(tenant, "old", os.urandom(9 * MB))
    tenant.save()
    tenant.remove("old")
    put(tenant, "new", os.urandom(9 * MB))
    with pytest.raises(errors.TooLarge, match="1 files that the container no longer has"):
        tenant.save()
    assert set(tenant.sink_server.keys(LOCATION)) == {"old"}


def test_a_sync_inward_that_has_no_room_to_be_staged_says_so(limited):
    """It needs its own space next to the existing files, on the container's disk."""
    tenant = limited()
    put(tenant, "large", os.urandom(9 * MB))
    tenant.save()
    with pytest.raises(errors.DiskFull, match=r"\(diskMb 16\). It is staged beside"):
        tenant.inward()


@pytest.mark.parametrize(("limits", "named"), [("loop", True), ("watch", True), ("watch", False)])
def test_what_does_not_fit_a_limit_is_refused_however_that_is_kept(any_sink_server, limited, settings, limits, named):
    """With enforced and watched limits, diskMb or the default: no save that a restore would refuse."""
    if not isinstance(any_sink_server, sink_servers.Directory):
        pytest.skip("a directory is the fastest of them")
    settings.BOILERHOUSE_DISK_LIMITS = limits
    settings.BOILERHOUSE_DEFAULT_DISK_MB = 16
    told = "diskMb 16" if named else "BOILERHOUSE_DEFAULT_DISK_MB 16"
    workload, Limited.workload = Limited.workload, Limited.workload if named else make_spec()
    try:
        tenant = limited()
        sparse(tenant, "img", 200 * MB, b"data" * 1000)
        with pytest.raises(errors.TooLarge, match=told):
            tenant.save()
        tenant.remove("img")

        for number in range(2500):
            put(tenant, f"f{number}", b"")
            os.link(tenant.state / f"f{number}", tenant.state / f"g{number}")
        with pytest.raises(errors.TooLarge, match=f"5001 files, links and directories when it is restored; {told}"):
            tenant.save()
        assert not tenant.sink_server.keys()
        for number in range(2500):
            tenant.remove(f"g{number}")
        before = look(tenant)
        tenant.save()
        tenant.claim()
        assert look(tenant) == before
    finally:
        Limited.workload = workload


def test_more_than_a_watched_limit_is_neither_saved_nor_restored(limited, settings):
    """With a watched limit, a tenant may temporarily have more than a restore would accept."""
    settings.BOILERHOUSE_DISK_LIMITS = "watch"
    tenant = limited()
    put(tenant, "large", os.urandom(17 * MB))
    too_large = r"diskMb 16 allows 16777216\. Remove files; or raise the workload's diskMb"
    with pytest.raises(errors.TooLarge, match=too_large):
        tenant.save()
    put(tenant, "large", os.urandom(15 * MB))
    tenant.save()
    tenant.workload = make_spec(resources={"disk_mb": 8})
    with pytest.raises(errors.DiskFull, match=r"diskMb 8 allows 8388608\. To restore it, raise the workload's diskMb"):
        tenant.claim()
    tenant.workload = Limited.workload
    tenant.claim()
    assert (tenant.state / "large").stat().st_size == 15 * MB

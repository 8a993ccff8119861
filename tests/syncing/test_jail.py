"""rclone in its sandbox: what it can see, which user it runs as, and that it dies with its parent."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pools.spec import Owner
from syncing import errors, jail, rclone, syscalls
from syncing.jail import Jail
from tests.s3 import S3Server
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

UID = 234_568


@pytest.fixture
def volume(data_dir, tmp_path):
    path = tmp_path / "volume"
    path.mkdir(mode=0o700)
    os.chown(path, UID, UID)
    return path


@pytest.fixture
def lock(tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def upload(s3, volume, lock, location):
    sink = s3.sink()
    return rclone.run(
        rclone.upload(sink, location, [], deletes=False, inside="", backup=".boilerhouse-trash/test"),
        sink,
        Jail(volume, Owner(UID, UID), False),
        lock,
    )


@pytest.mark.parametrize("gid", [UID, 0])
def test_files_go_up_and_come_back_as_the_containers_user(s3, volume, lock, tmp_path, gid):
    """Its group too; rclone itself sets it."""
    (volume / "a").write_text("hello")
    os.chown(volume / "a", UID, UID)
    upload(s3, volume, lock, "jail/one")
    target = tmp_path / "back"
    target.mkdir()
    os.chown(target, UID, UID)
    sink = s3.sink()
    rclone.run(rclone.download(sink, "jail/one", []), sink, Jail(target, Owner(UID, gid), True), lock)

    assert (target / "a").read_text() == "hello"
    assert ((target / "a").stat().st_uid, (target / "a").stat().st_gid) == (UID, gid)


def test_a_link_to_the_host_leads_nowhere(s3, volume, lock, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("HOST")
    (volume / "dir").symlink_to(tmp_path / "host")
    (volume / "file").symlink_to("/etc/passwd")
    upload(s3, volume, lock, "jail/links")

    assert s3.keys("jail/links") == {}


INSIDE = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
said = {"bounding": [c for c in range(64) if libc.prctl(23, c, 0, 0, 0) == 1],
        "ambient": [c for c in range(64) if libc.prctl(47, 1, c, 0, 0) == 1],
        "noNewPrivileges": libc.prctl(39, 0, 0, 0, 0), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups()}
def tried(what):
    try:
        return what() or "done"
    except OSError as error:
        return error.strerror
said["writable"] = []
for top, directories, files in os.walk("/"):
    directories[:] = [one for one in directories if os.path.join(top, one) not in ("/vol", "/usr", sys.base_prefix)]
    said["writable"] += [path for path in (os.path.join(top, one) for one in [".", *files]) if os.access(path, os.W_OK)]
said["read"] = tried(lambda: open("/vol/closed/file").read())
said["write"] = tried(lambda: open("/vol/closed/file", "a"))
said["mode"] = tried(lambda: os.chmod("/vol/closed", 0o777))
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("inode", ctypes.c_uint), ("generation", ctypes.c_uint)]
at = os.open("/vol", os.O_RDONLY | os.O_DIRECTORY)
root = libc.open_by_handle_at(at, ctypes.byref(Handle(8, 1, 2, 0)), os.O_RDONLY)
said["host"] = sorted(os.listdir(root)) if root >= 0 else os.strerror(ctypes.get_errno())
print(json.dumps(said))
"""


@pytest.fixture
def inside(volume, monkeypatch):
    """What a program can see and do in rclone's sandbox."""
    python = Path(sys.executable).resolve()
    base = Path(sys.base_prefix)
    binds = [(path, str(path)) for path in (Path("/usr/lib"), base)]
    binds += [(path.resolve(), str(path)) for path in (Path("/lib"), Path("/lib64")) if path.exists()]
    monkeypatch.setattr(jail, "rclone_path", lambda: str(python))
    (volume / "closed").mkdir(mode=0o700)
    (volume / "closed" / "file").write_text("content")
    for path in (volume, volume / "closed", volume / "closed" / "file"):
        os.chown(path, UID, UID)
    for path in (volume / "closed" / "file", volume / "closed"):
        path.chmod(0)

    def run(writable, gid=UID):
        with syscalls.refused() as refused:
            command = Jail(volume, Owner(UID, gid), writable, tuple(binds)).wrap(["-I", "-c", INSIDE], refused)
            environment = {"PYTHONHOME": str(base), "PATH": "/bin"}
            done = subprocess.run(command, pass_fds=(refused,), env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_save_may_read_what_its_owner_closed_and_nothing_else(inside, volume):
    """One capability, in the sandbox of saves only; it permits neither writes nor access beyond the mount (P11)."""
    said = inside(writable=False)
    assert said == {
        "bounding": [2], "ambient": [2], "noNewPrivileges": 1, "uid": UID, "gid": UID, "groups": [],
        "writable": [], "read": "content",
        "write": "Permission denied", "mode": "Read-only file system", "host": "Operation not permitted",
    }  # fmt: skip
    assert (volume / "closed").stat().st_mode & 0o7777 == 0


def test_a_restore_has_no_capability(inside):
    """B46, P11."""
    said = inside(writable=True)
    assert (said["bounding"], said["ambient"], said["read"]) == ([], [], "Permission denied")


@pytest.mark.parametrize("writable", [False, True], ids=["save", "restore"])
def test_the_root_group_reaches_no_more_than_a_group_of_its_own(inside, writable):
    """If a workload's group is 0, rclone has it too (P11)."""
    own, root = inside(writable), inside(writable, gid=0)
    assert (root.pop("gid"), own.pop("gid")) == (0, UID)
    assert root == own
    assert root["writable"] == []


def test_without_the_filter_a_save_would_open_the_hosts_root_by_its_number(inside, monkeypatch, volume):
    """The attack that the filter prevents, on file systems whose root is inode 2 (ext4)."""
    if os.stat(volume).st_dev != os.stat("/").st_dev or os.stat("/").st_ino != 2:
        pytest.skip("needs the volume on an ext4 root")
    monkeypatch.setattr(syscalls, "_filter", lambda _machine: struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    assert "etc" in inside(writable=False)["host"]


def test_a_mapping_root_that_is_a_link_gives_nothing_of_the_host(s3, volume, lock):
    (volume / "data").symlink_to("/etc")
    sink = s3.sink()
    arguments = rclone.upload(sink, "jail/root", [], deletes=False, inside="data", backup=".boilerhouse-trash/test")
    try:
        rclone.run(arguments, sink, Jail(volume, Owner(UID, UID), False), lock)
    except errors.SyncFailed:
        pass

    assert set(s3.keys("jail/root")) <= {"hosts", "resolv.conf", "nsswitch.conf", "ssl/certs/ca-certificates.crt"}


def test_rclone_finds_an_https_sink_by_name_and_verifies_it(volume, lock, tmp_path):
    """Only the private authority signs its certificate, and only /etc/hosts knows its name."""
    server = S3Server(tmp_path / "s3", tls=True)
    server.start()
    try:
        (volume / "a").write_text("hello")
        os.chown(volume / "a", UID, UID)
        upload(server, volume, lock, "jail/tls")
        target = tmp_path / "back"
        target.mkdir()
        os.chown(target, UID, UID)
        sink = server.sink()
        rclone.run(rclone.download(sink, "jail/tls", []), sink, Jail(target, Owner(UID, UID), True), lock)

        assert (target / "a").read_text() == "hello"
        assert sink.get("jail/tls/a", 15) == b"hello"  # the in-process client says the same
    finally:
        server.stop()


def test_a_sink_that_nobody_vouches_for_is_not_used(volume, lock, tmp_path, settings):
    """For rclone and the client alike, and the error says what to do."""
    settings.BOILERHOUSE_CA_BUNDLE = ""
    server = S3Server(tmp_path / "s3", tls=True)
    server.start()
    try:
        (volume / "a").write_text("hello")
        os.chown(volume / "a", UID, UID)
        with pytest.raises(errors.SinkUntrusted) as by_rclone:
            upload(server, volume, lock, "jail/tls")
        with pytest.raises(errors.SinkUntrusted) as by_client:
            server.sink().put("a", b"")
        assert "BOILERHOUSE_CA_BUNDLE" in by_rclone.value.detail
        assert "BOILERHOUSE_CA_BUNDLE" in by_client.value.detail
    finally:
        server.stop()


@pytest.fixture
def refused():
    with syscalls.refused() as descriptor:
        yield descriptor


def test_every_directory_of_the_jail_is_open_to_the_containers_user(volume, refused):
    """bwrap makes the parents of a bind readable by root only, unless told otherwise."""
    words = Jail(volume, Owner(UID, UID), False, ((volume, "/sink/a/b"), (volume, "/sink/a/c"))).wrap([], refused)
    shown = [words[i + 2] for i, word in enumerate(words) if word.removeprefix("--ro-").startswith("bind")]
    above = {str(parent) for path in [*shown, "/sink/a/b"] for parent in Path(path).parents}
    look = f"import os\nfor d in {above!r}: assert os.access(d, os.R_OK | os.X_OK), d\n"
    python = ["--ro-bind", "/usr", "/usr", "--ro-bind", "/lib", "/lib", "--ro-bind", "/lib64", "/lib64"]
    at = words.index("--tmpfs")
    command = [*words[:at], *python, *words[at:-1], "/usr/bin/python3", "-c", look]

    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, pass_fds=(refused,))

    assert done.returncode == 0, done.stderr


def test_nothing_of_the_host_is_seen_but_what_rclone_needs(volume, refused):
    """Certificates, the resolver's files, two programs and the libraries of one, and the files of the run (P11)."""
    (volume / "mine").touch()
    command = Jail(volume, Owner(UID, UID), False).wrap(["lsf", "-R", "--files-only", "--links", "/"], refused)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, pass_fds=(refused,), env={})
    seen = {path for path in done.stdout.splitlines() if not re.match(r"lib(64)?/.*\.so[.\d]*$", path)}

    assert seen - {"etc/resolv.conf", "etc/hosts", "etc/nsswitch.conf"} == {
        "bin/rclone", "bin/setpriv", "etc/ssl/certs/ca-certificates.crt", "vol/mine",
    }  # fmt: skip


def test_the_resolvers_file_may_be_a_link(volume, tmp_path, refused):
    """As with systemd-resolved."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "real.conf").write_text("nameserver 192.0.2.53\n")
    (etc / "real.conf").chmod(0o644)
    (etc / "resolv.conf").symlink_to("real.conf")
    words = Jail(volume, Owner(UID, UID), False).wrap([], refused)
    at = next(i for i, word in enumerate(words) if word == "/etc/resolv.conf" and words[i - 1] == "--ro-bind-try")
    words[at] = str(etc / "resolv.conf")
    command = [*words[:-1], "/bin/rclone", "cat", "/etc/resolv.conf"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, pass_fds=(refused,))

    assert done.stdout == "nameserver 192.0.2.53\n"


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"bucket": "no-such-bucket"}, errors.SinkMissing),
        ({"secret_access_key": "wrong"}, errors.SinkDenied),
        ({"endpoint": "http://127.0.0.1:1"}, errors.SinkUnreachable),
    ],
)
def test_each_failure_of_a_transfer_has_its_own_error(s3, volume, lock, over, error):
    (volume / "a").write_text("x")
    os.chown(volume / "a", UID, UID)
    sink = s3.sink(**over)

    with pytest.raises(error):
        rclone.run(
            rclone.upload(sink, "x", [], deletes=False, inside="", backup=".boilerhouse-trash/test"),
            sink,
            Jail(volume, Owner(UID, UID), False),
            lock,
        )


def test_a_transfer_is_cancelled_when_its_owner_says_so(s3, volume, lock):
    with (volume / "big").open("wb") as file:
        file.truncate(400_000_000)
    os.chown(volume / "big", UID, UID)
    sink = s3.sink(rclone_flags=("--bwlimit=1M",))
    started = time.monotonic()
    with pytest.raises(errors.TransferCancelled):
        rclone.run(rclone.upload(sink, "big", [], deletes=False, inside="", backup=".boilerhouse-trash/test"), sink, Jail(volume, Owner(UID, UID), False), lock,
                   keep_going=lambda: False)  # fmt: skip

    assert time.monotonic() - started < 15


def test_rclone_dies_with_the_process_that_started_it(s3, volume, tmp_path):
    """kill -9 of the worker; the kernel ends bwrap, its pid namespace, and with them rclone."""
    with (volume / "big").open("wb") as file:
        file.truncate(400_000_000)
    os.chown(volume / "big", UID, UID)
    marker = f"kill-marker-{os.getpid()}"  # the same test may run on the other database meanwhile
    script = f"""
import os, django
os.environ["BOILERHOUSE_DATA_DIR"] = {str(tmp_path)!r}
django.setup()
from pathlib import Path
from pools.spec import Owner
from syncing import rclone
from syncing.jail import Jail
from syncing.sinks import S3Sink
sink = S3Sink("{s3.bucket}", "us-east-1", "", "{s3.endpoint}", "Rclone", "{s3.access_key}", "{s3.secret_key}", ("--bwlimit=1M",))
lock = os.open({str(tmp_path / "lock2")!r}, os.O_RDWR | os.O_CREAT)
rclone.run(rclone.upload(sink, {marker!r}, [], deletes=False, inside="", backup=".boilerhouse-trash/test"), sink, Jail(Path({str(volume)!r}), Owner({UID}, {UID}), False), lock)
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    worker = subprocess.Popen([sys.executable, "-c", script], env=environment)

    def running() -> bool:
        return (
            subprocess.run(["pgrep", "-f", f"bin/rclone.*{marker}"], capture_output=True, check=False).returncode == 0
        )

    eventually(running, 20)
    worker.kill()
    worker.wait()
    eventually(lambda: not running(), 5, 0.02)

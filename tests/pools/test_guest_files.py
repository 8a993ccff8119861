"""Files by the real guest agent: what a tenant plants there, what breaks in the middle, and hostile archives."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import socket
import subprocess
import tarfile
import threading
import time
from uuid import uuid4

import pytest

from boilerhouse.process import pids
from pools import file_errors as errors
from pools import guest
from pools.guest import connections, file_frames, file_sessions, files, frames, kept, sealing
from pools.guest.files import Conditions, Place
from tests.guest_agent import Agent, lying_agent

BROKEN = b"b\xff\xfe\nname"


@pytest.fixture
def agent(tmp_path, monkeypatch):
    with Agent(tmp_path / "run") as running:
        monkeypatch.setattr(connections, "run_dir", lambda _: running.directory)
        monkeypatch.setattr(sealing, "run_dir", lambda _: running.directory)
        assert guest.seal(None, running.process_1())
        yield running


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    return path


def at(path, *, hidden=()):
    return Place(None, os.fsencode(path), tuple(map(str, hidden)))


def put(path, data=b"", mode=None, *, parents=False, **conditions):
    return files.write(at(path), data, mode, Conditions(**conditions), parents=parents)


def get(path, **more):
    return files.read(at(path, **more), 1 << 30)[1]


def tree(path):
    return sorted(os.path.relpath(os.path.join(at_, name), path) for at_, ds, fs in os.walk(path) for name in ds + fs)


def sh(script):
    return guest.run(None, ("sh", "-c", script), 20_000)


# Reading and writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"plain", b"two\nlines", BROKEN, "ä ö".encode(), b"-rf", b"%41"])
def test_every_name_and_every_byte_survive(agent, home, name):
    content = bytes(range(256)) * 5000
    path = os.fsencode(home) + b"/" + name
    wrote = files.write(at(path), content, 0o640, Conditions())
    info, data = files.read(at(path), 1 << 30)
    assert (data, info.etag, info.size, info.mode, info.type) == (content, wrote.etag, len(content), 0o640, "file")
    entries, has_more = files.list_directory(at(home), 1, 100, b"")
    assert ([entry.path for entry in entries], has_more) == ([name], False)
    files.move(at(path), path + b"2", overwrite=False)
    assert files.remove(at(path + b"2"), recursive=False) == 1
    assert tree(home) == []


def test_a_part_of_a_file_is_exact(agent, home):
    (home / "file").write_bytes(bytes(range(256)) * 4096)
    file = files.OpenFile(at(home / "file"))
    try:
        assert file.read(255, 2) == b"\xff\0"
        assert file.read(0, 0) == b""
        assert len(file.read(1, 1_000_000)) == 1_000_000
    finally:
        file.close()


def test_a_mode_is_kept_unless_one_is_given(agent, home):
    assert put(home / "new").mode == 0o644
    assert put(home / "new", mode=0o600).mode == 0o600
    assert put(home / "new").mode == 0o600


def test_writing_replaces_at_once_and_keeps_links(agent, home):
    (home / "real").write_bytes(b"old")
    (home / "link").symlink_to("real")
    put(home / "link", b"new")
    assert (home / "link").is_symlink()
    assert (home / "real").read_bytes() == b"new"
    assert tree(home) == ["link", "real"], "no draft is left"


def test_parents_are_made_on_request(agent, home):
    with pytest.raises(errors.FileMissing):
        put(home / "a" / "b" / "c", b"x")
    put(home / "a" / "b" / "c", b"x", parents=True)
    assert (home / "a" / "b" / "c").read_bytes() == b"x"


def test_conditions_are_decided_when_the_name_is_given(agent, home):
    first = put(home / "f", b"1", is_new=True)
    with pytest.raises(errors.FileChanged):
        put(home / "f", b"2", is_new=True)
    second = put(home / "f", b"2", etags=('"1-1-1-1"', first.etag))
    with pytest.raises(errors.FileChanged):
        put(home / "f", b"3", etags=(first.etag,))
    with pytest.raises(errors.FileChanged):
        put(home / "f", b"3", etags=("no-etag",))
    with pytest.raises(errors.FileChanged):
        put(home / "missing", b"3", must_exist=True)
    late = files.begin_put(at(home / "f"), None, 0, Conditions(etags=(second.etag,)))
    late.write(b"late")
    put(home / "f", b"meanwhile")
    with pytest.raises(errors.FileChanged):
        late.finish()
    new = files.begin_put(at(home / "g"), None, 0, Conditions(is_new=True))
    (home / "g").write_bytes(b"theirs")
    with pytest.raises(errors.FileChanged):
        new.finish()
    assert (get(home / "f"), get(home / "g"), tree(home)) == (b"meanwhile", b"theirs", ["f", "g"])


def test_a_file_from_before_1970_can_be_replaced_by_its_version(agent, home):
    put(home / "old", b"1")
    os.utime(home / "old", ns=(-5_000_000_001, -5_000_000_001))
    info = files.stat(at(home / "old"))
    assert info.mtime_ns == -5_000_000_001
    put(home / "old", b"2", etags=(info.etag,))
    assert get(home / "old") == b"2"


def test_of_many_writers_that_read_the_same_version_one_wins(agent, home):
    version, won, start = put(home / "n", b"0"), [], threading.Barrier(8)

    def write(number):
        upload = files.begin_put(at(home / "n"), None, 0, Conditions(etags=(version.etag,)))
        upload.write(b"%d" % number)
        start.wait()
        try:
            upload.finish()
            won.append(number)
        except errors.FileChanged:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    assert get(home / "n") == b"%d" % won[0]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: os.mkfifo(p), errors.FileDenied),
        (lambda p: os.mknod(p, 0o20666, os.makedev(1, 5)), errors.FileDenied),  # /dev/zero
        (lambda p: socket.socket(socket.AF_UNIX).bind(str(p)), errors.FileDenied),
        (lambda p: p.mkdir(), errors.IsDirectory),
        (lambda p: p.symlink_to("/proc/self/status"), errors.FileDenied),
        (lambda p: p.symlink_to("/proc/1/mem"), errors.FileDenied),
        (lambda p: p.symlink_to(p), errors.FileDenied),
        (lambda p: p.symlink_to("missing"), errors.FileMissing),
    ],
    ids=["fifo", "device", "socket", "directory", "proc", "memory", "loop", "dangling"],
)
def test_what_is_no_regular_file_is_refused_at_once(agent, home, make, error):
    make(home / "x")
    began = time.monotonic()
    with pytest.raises(error):
        get(home / "x")
    assert time.monotonic() - began < 5
    if error is not errors.FileDenied or not (home / "x").is_symlink():
        with pytest.raises(error):
            put(home / "x", b"data")


def test_a_file_that_becomes_shorter_is_no_whole_answer(agent, home):
    (home / "f").write_bytes(bytes(3_000_000))
    file = files.OpenFile(at(home / "f"))
    os.truncate(home / "f", 1000)
    with pytest.raises(errors.FilesLost):
        file.read(0, 3_000_000)


def test_what_has_the_path_later_is_not_read(agent, home):
    (home / "f").write_bytes(b"first")
    file = files.OpenFile(at(home / "f"))
    (home / "f").unlink()
    (home / "f").write_bytes(b"other")
    assert file.read(0, 5) == b"first"
    file.close()


def test_a_full_disk_leaves_the_old_content(agent, home):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", home], check=True)
    try:
        _check_full_disk(home)
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def _check_full_disk(home):
    # The agent has mounts of its own: its copy of this one is made by hand.
    sh(f"mount -t tmpfs -o size=1m none {home}; echo old > {home}/f")
    with pytest.raises(errors.NoSpace):
        put(home / "f", bytes(2_000_000))
    upload = files.begin_put(at(home / "f"), None, 0, Conditions())  # of a length that nobody knows
    with pytest.raises(errors.NoSpace):
        upload.write(bytes(2_000_000))
        upload.finish()
    assert get(home / "f") == b"old\n"
    assert sh(f"ls -A {home}").stdout == b"f\n"
    with pytest.raises(errors.NoSpace):
        unpack(home, tar(member("big", bytes(2_000_000))))
    assert sh(f"ls -A {home}").stdout == b"f\n"


def test_the_end_of_an_upload_waits_for_room(agent, home):
    """The socket kept the mode of the event loop that had sent the content: while the agent was busy, the last frame was
    dropped, and the upload hung."""
    upload = files.begin_put(at(home / "large"), None, 0, Conditions())
    sessions = pids.children(agent.process_1())

    def signal_all(number):
        for session in sessions:
            os.kill(session, number)

    signal_all(signal.SIGSTOP)
    asyncio.run(upload.awrite(b"x"))
    sent = 1
    with pytest.raises(BlockingIOError):
        while True:
            upload._session._socket.send(frames.frame(frames.INPUT, b"x"))
            sent += 1
    threading.Timer(0.5, signal_all, [signal.SIGCONT]).start()
    assert upload.finish().size == sent
    assert get(home / "large") == b"x" * sent


def test_a_host_that_hangs_up_leaves_the_old_content(agent, home):
    put(home / "f", b"old")
    upload = files.begin_put(at(home / "f"), None, 0, Conditions())
    upload.write(b"half of it")
    upload.close()
    agent.wait_until_gone("never")
    deadline = time.monotonic() + 5
    while len(pids.children(agent.process_1())) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (get(home / "f"), tree(home)) == (b"old", ["f"])


# Names ------------------------------------------------------------------------------------------------------


def test_lists_are_whole_whatever_the_page_and_depth(agent, home):
    expected = []
    for directory in ("a", "a.b", "a/b", "a/b/c", "z"):
        (home / directory).mkdir()
    for number in range(40):
        for directory in ("", "a/", "a/b/c/", "z/"):
            (home / f"{directory}f{number}").touch()
    for depth in (1, 2, 10):
        expected = files.list_directory(at(home), depth, 1000, b"")[0]
        assert len(expected) == {1: 43, 2: 124, 10: 165}[depth]
        for limit in (1, 3, 7, 50):
            got, cursor, has_more = [], b"", True
            while has_more:
                page, has_more = files.list_directory(at(home), depth, limit, cursor)
                assert len(page) <= limit
                got += page
                cursor = page[-1].path if page else b""
            assert [entry.path for entry in got] == [entry.path for entry in expected]
    everything = sorted(os.fsencode(name) for name in tree(home))
    assert sorted(entry.path for entry in expected) == everything


def test_a_list_says_what_each_name_is(agent, home):
    (home / "dir").mkdir()
    (home / "link").symlink_to(b"../out \xff")
    os.mkfifo(home / "fifo")
    found = {entry.path: entry.info for entry in files.list_directory(at(home), 5, 100, b"")[0]}
    assert {name: info.type for name, info in found.items()} == {
        b"dir": "directory", b"link": "symlink", b"fifo": "fifo"
    }  # fmt: skip
    assert found[b"link"].target == b"../out \xff"
    assert files.stat(at(home / "link")).target == b"../out \xff"
    assert files.stat(at("/")).type == "directory"
    with pytest.raises(errors.NotDirectory):
        files.list_directory(at(home / "fifo"), 1, 10, b"")


def test_a_directory_with_many_names_costs_a_page(agent, home):
    for number in range(20_000):
        os.mknod(home / f"{number:05}")
    page, has_more = files.list_directory(at(home), 1, 10, b"19000")
    assert (page[0].path, len(page), has_more) == (b"19001", 10, True)


def test_directories_and_moves(agent, home):
    info, is_new = files.make_directory(at(home / "a/b"), 0o750, parents=True)
    assert (info.mode, info.type, is_new) == (0o750, "directory", True)
    assert files.make_directory(at(home / "a/b"), 0o750, parents=True)[1] is False
    with pytest.raises(errors.FileExists):
        files.make_directory(at(home / "a/b"), 0o750, parents=False)
    put(home / "f", b"f")
    with pytest.raises(errors.FileExists):
        files.make_directory(at(home / "f"), 0o750, parents=True)
    put(home / "g", b"g")
    with pytest.raises(errors.FileExists):
        files.move(at(home / "f"), os.fsencode(home / "g"), overwrite=False)
    files.move(at(home / "f"), os.fsencode(home / "g"), overwrite=True)
    assert get(home / "g") == b"f"
    with pytest.raises(errors.IsDirectory):
        files.move(at(home / "g"), os.fsencode(home / "a"), overwrite=True)
    with pytest.raises(errors.OtherFileSystem):
        files.move(at(home / "g"), b"/dev/shm/boilerhouse-g", overwrite=False)
    with pytest.raises(errors.FileMissing):
        files.move(at(home / "h"), os.fsencode(home / "i"), overwrite=True)


def test_removal_follows_no_link_and_needs_few_descriptors(agent, home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (home / "tree").mkdir()
    (home / "tree" / "link").symlink_to(outside)
    deep = home / "tree"
    handle = os.open(deep, os.O_RDONLY)
    for _ in range(2000):  # deeper than any path may be long
        os.mkdir("d" * 20, dir_fd=handle)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    with pytest.raises(errors.IsDirectory):
        files.remove(at(home / "tree"), recursive=False)
    assert files.remove(at(home / "tree"), recursive=True) == 2002
    assert (tree(home), tree(outside)) == ([], ["kept"])
    for path in ("/", f"{home}/.", f"{home}/.."):
        with pytest.raises(errors.FileBusy):
            files.remove(at(path), recursive=True)


def test_a_removal_stops_when_the_host_hangs_up(agent, home):
    for number in range(20_000):
        (home / str(number)).touch()
    session = file_sessions.FileSession(None, file_frames.request(b"r", os.fsencode(home), flags=8))
    process = session._connection.session
    os.kill(process, signal.SIGSTOP)
    session.close()
    os.kill(process, signal.SIGCONT)
    wait_for_no_session(agent)
    assert tree(home)


def test_a_directory_that_was_removed_is_not_listed_as_empty(agent, home):
    (home / "d").mkdir()
    inside = kept.Wanted(("sh", "-c", f"cd {home}/d; rmdir {home}/d; echo in; exec sleep 20"))
    command = kept.start(None, uuid4().hex, inside, is_silent=False)
    next(command.read(time.monotonic() + 10))
    with pytest.raises(errors.FileMissing):
        files.list_directory(at(f"/proc/{command.status.pid}/cwd"), 1, 10, b"")
    command.ask(kept.kill_frame())
    command.close()


# Secrets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def secrets(agent, home):
    place = home / "secrets"
    place.mkdir()
    sh(f"mount -t tmpfs none {place}; echo s3cret > {place}/KEY; mkdir {place}/d; ln -s {place} {home}/link")
    sh(f"ln -s {place}/KEY {home}/file")
    return place


def test_secrets_are_refused_by_path_by_link_and_by_the_kernels_own_links(agent, home, secrets):
    paths = [
        secrets / "KEY", home / "link" / "KEY", home / "file", home / "secrets/../secrets/KEY",
        f"/proc/self/root{secrets}/KEY", f"/proc/1/root{secrets}/KEY",
    ]  # fmt: skip
    for path in paths:
        hidden = at(path, hidden=[secrets])
        for attempt in (
            lambda where: files.read(where, 100),
            lambda where: files.write(where, b"x", None, Conditions()),
            files.OpenArchive,
        ):
            with pytest.raises(errors.FileDenied, match="secrets of the claim"):
                attempt(hidden)
    for path in (secrets, home / "link", f"{secrets}/d"):
        hidden = at(path, hidden=[secrets])
        for attempt in (
            lambda where: files.list_directory(where, 1, 10, b""),
            files.OpenArchive,
            files.begin_unpack,
            lambda where: files.Watch(where, recursive=True),
        ):
            with pytest.raises(errors.FileDenied, match="secrets of the claim"):
                attempt(hidden)
    with pytest.raises(errors.FileDenied, match="secrets of the claim"):
        files.move(at(secrets / "KEY", hidden=[secrets]), os.fsencode(home / "out"), overwrite=True)
    assert b"s3cret" not in asyncio.run(archive(home, hidden=[secrets]))
    names = [entry.path for entry in files.list_directory(at(home, hidden=[secrets]), 9, 100, b"")[0]]
    assert b"secrets/KEY" not in names
    assert get(secrets / "KEY") == b"s3cret\n", "it is there, if nobody asked to hide it"


def test_secrets_that_were_moved_are_refused_with_all_else(agent, home):
    """A tenant may own the directory above them."""
    (home / "a" / "secrets").mkdir(parents=True)
    place = home / "a" / "secrets"
    sh(f"mount -t tmpfs none {place}; echo s3cret > {place}/KEY; mv {home}/a {home}/b")
    for planted in (False, True):
        if planted:
            place.mkdir(parents=True)
        for attempt in (lambda where: files.read(where, 100), files.OpenArchive, files.stat):
            with pytest.raises(errors.FileDenied, match="not where they were mounted"):
                attempt(at(home / "b" / "secrets" / "KEY", hidden=[place]))
    with pytest.raises(errors.FileDenied, match="not where they were mounted"):
        get(home / "b" / "secrets" / "KEY", hidden=["/proc"] * 8 + [home / "b" / "secrets"])
    assert get(home / "b" / "secrets" / "KEY", hidden=["/proc"]) == b"s3cret\n"


# Archives ---------------------------------------------------------------------------------------------------


async def archive(path, **more):
    opened = files.OpenArchive(at(path, **more))
    try:
        return b"".join([chunk async for chunk in opened.chunks()])
    finally:
        opened.close()


def member(name, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(*members, form=tarfile.GNU_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(path, data, piece=100_000):
    upload = files.begin_unpack(at(path))
    try:
        for start in range(0, len(data), piece):
            upload.write(data[start : start + piece])
        return upload.finish()
    finally:
        upload.close()


def test_an_archive_holds_all_that_is_a_file_and_unpacks_to_the_same(agent, home, tmp_path):
    long = "long" * 60
    (home / "dir" / long).mkdir(parents=True)
    (home / "dir" / "empty").mkdir()
    (home / "dir" / long / "file").write_bytes(os.urandom(700_000))
    (home / "dir" / "link").symlink_to("/nowhere/" + long)
    os.link(home / "dir" / long / "file", home / "hard")
    (home / "zero").touch(mode=0o600)
    os.utime(home / "zero", (1_000_000, 1_000_000))
    with open(os.fsencode(home) + b"/" + BROKEN, "wb") as file:
        file.write(b"x")
    os.mkfifo(home / "fifo")
    data = asyncio.run(archive(home))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert "fifo" not in opened.getnames()
    copy = tmp_path / "copy"
    copy.mkdir()
    os.remove(home / "fifo")
    assert unpack(copy, data) == len(tree(home))
    assert tree(copy) == tree(home)
    assert (copy / "hard").read_bytes() == (home / "hard").read_bytes()
    assert os.readlink(copy / "dir" / "link") == "/nowhere/" + long
    assert (copy / "zero").stat().st_mtime == 1_000_000
    assert (copy / "zero").stat().st_mode & 0o777 == 0o600


def test_one_file_is_an_archive_too(agent, home):
    (home / "one").write_bytes(b"1")
    with tarfile.open(fileobj=io.BytesIO(asyncio.run(archive(home / "one")))) as opened:
        assert opened.getnames() == ["one"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [1, 511, 512, 70_001])
def test_archives_of_each_format_come_whole_however_they_are_torn(agent, home, form, piece):
    name = "/".join(["part" * 15] * 3) if form != tarfile.USTAR_FORMAT else "d/" * 40 + "name" * 10
    content = os.urandom(1300)
    members = [
        member("./top", b"t", mode=0o4755),
        member(name, content, mtime=5),
        member("l", type=tarfile.SYMTYPE, linkname="top"),
    ]
    assert unpack(home, tar(*members, form=form), piece) == 3
    assert (home / name).read_bytes() == content
    assert (home / "top").stat().st_mode & 0o7777 == 0o755, "no set-id file appears"


BAD = {
    "absolute": (member("/etc/evil", b"x"), "leaves the directory"),
    "dots": (member("a/../../evil", b"x"), "leaves the directory"),
    "only dots": (member("..", b"x"), "leaves the directory"),
    "device": (member("null", type=tarfile.CHRTYPE), "neither a file"),
    "fifo": (member("fifo", type=tarfile.FIFOTYPE), "neither a file"),
    "hard link out": (member("h", type=tarfile.LNKTYPE, linkname="../outside/kept"), "leaves the directory"),
    "hard link absolute": (member("h", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "leaves the directory"),
    "hard link to nothing": (member("h", type=tarfile.LNKTYPE, linkname="nothing"), "names no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_leaves_the_directory_ends_the_archive(agent, home, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    bad, words = BAD[name]
    with pytest.raises(errors.BadArchive, match=words) as raised:
        unpack(home, tar(member("before", b"1"), bad, member("after", b"2")))
    assert "unpacked before: 1." in raised.value.detail
    assert (tree(home), tree(outside)) == (["before"], ["kept"])
    assert (outside / "kept").stat().st_nlink == 1


@pytest.mark.parametrize("planted", [True, False], ids=["by the tenant", "by the archive"])
def test_no_link_is_followed_while_unpacking(agent, home, tmp_path, planted):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    link = member("link", type=tarfile.SYMTYPE, linkname=str(outside))
    file = member("file", type=tarfile.SYMTYPE, linkname=str(outside / "file"))
    if planted:
        (home / "link").symlink_to(outside)
        (home / "file").symlink_to(outside / "file")
    before = [] if planted else [link, file]
    assert unpack(home, tar(*before, member("file", b"mine"))) == len(before) + 1
    assert ((home / "file").read_bytes(), (outside / "file").read_bytes()) == (b"mine", b"theirs")
    for inside in (
        member("link/evil", b"x"),
        member("link", type=tarfile.DIRTYPE),
        member("link/d/", type=tarfile.DIRTYPE),
    ):
        with pytest.raises(errors.FileDenied, match="link is in the way"):
            unpack(home, tar(*before, inside))
    assert tree(outside) == ["file"]


def _checked(header):
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


def test_damaged_and_lying_archives_end_with_an_error(agent, home):
    whole = tar(member("a", b"1" * 1000))
    size_lie = bytearray(whole[:512])
    size_lie[124:136] = b"\x80" + b"\xff" * 11
    long_name = bytearray(tar(member("x" * 200, b""))[:512])
    long_name[124:136] = b"77777777777\0"
    for data in (
        whole[:700],
        whole[:100],
        b"no archive" * 100,
        whole[:148] + b"0000000\0" + whole[156:],
        _checked(size_lie) + bytes(5000),
        _checked(long_name) + bytes(5000),
    ):
        with pytest.raises(errors.BadArchive):
            unpack(home, data)
    assert tree(home) == []
    assert unpack(home, b"") == 0
    assert unpack(home, whole + bytes(100_000)) == 1, "what fills up the last record is no entry"


def test_a_bomb_of_holes_is_held_back_by_the_disk_not_by_trust(agent, home):
    """A header that promises 8 GB has to send them."""
    info = tarfile.TarInfo("bomb")
    info.size = 8 << 30
    upload = files.begin_unpack(at(home))
    upload.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
    with pytest.raises(errors.BadArchive, match="ends in the middle"):
        upload.finish()
    assert tree(home) == []


def test_a_file_that_cannot_be_read_ends_the_archive(agent, home):
    (home / "f").write_bytes(bytes(60 << 20))
    opened = files.OpenArchive(at(home))

    async def read():
        async for _ in opened.chunks():
            if (home / "f").stat().st_size:
                os.truncate(home / "f", 0)

    with pytest.raises(errors.FileChanged, match="became shorter"):
        asyncio.run(read())


# Watching ---------------------------------------------------------------------------------------------------


def watched(path, act, until, **more):
    """The changes that were reported until one is ``until``."""
    watch = files.Watch(at(path, **more), recursive=True)

    async def follow():
        got = []
        async for change in watch.changes(10):
            assert change is not None, got
            got.append((change.kind, change.path))
            if got[-1] == until:
                return got
        return got

    try:
        act()
        return asyncio.run(follow())
    finally:
        watch.close()


def test_changes_are_reported_as_they_come(agent, home):
    (home / "old").mkdir()

    def act():
        (home / "new").mkdir()
        (home / "new" / "deep").mkdir()
        (home / "new" / "deep" / "file").write_bytes(b"1")
        (home / "old" / "x").write_bytes(b"1")
        (home / "old" / "x").chmod(0o600)
        (home / "old" / "x").rename(home / "new" / "y")
        (home / "new" / "y").unlink()
        (home / "last").touch()

    got = watched(home, act, ("created", b"last"))
    for expected in [
        ("created", b"new"), ("created", b"new/deep"), ("created", b"new/deep/file"), ("written", b"old/x"),
        ("changed", b"old/x"), ("renamed", b"old/x"),
    ]:  # fmt: skip
        assert expected in got, got


def test_a_watch_ends_with_its_directory(agent, home):
    (home / "d").mkdir()
    assert watched(home / "d", lambda: (home / "d").rmdir(), None) == [("removed", b"")]


def test_more_directories_than_a_watch_has_are_said(agent, home):
    for number in range(1100):
        (home / str(number)).mkdir()
    watch = files.Watch(at(home), recursive=True)
    assert [change.kind for change in watch._before] == ["overflow"]
    watch.close()


def test_a_watch_that_nobody_follows_ends_when_the_host_hangs_up(agent, home):
    for said in (b"", b"more than was asked"):
        watch = files.Watch(at(home), recursive=True)
        watch._session.send(said)
        watch.close()
        wait_for_no_session(agent)


def wait_for_no_session(agent):
    deadline = time.monotonic() + 5
    while len(pids.children(agent.process_1())) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# An agent that is killed, stopped, or lies --------------------------------------------------------------------


def test_a_session_that_is_killed_in_the_middle_is_lost_and_nothing_is_half(agent, home):
    put(home / "f", b"old")
    upload = files.begin_put(at(home / "f"), None, 0, Conditions())
    upload.write(b"half")
    os.kill(upload._session._connection.session, signal.SIGKILL)
    with pytest.raises(errors.FilesLost):
        upload.finish()
    assert (get(home / "f"), tree(home)) == (b"old", ["f"])


def test_a_session_that_is_stopped_has_a_deadline(agent, home, monkeypatch):
    monkeypatch.setattr(file_sessions, "STALL_S", 0.3)
    monkeypatch.setattr(file_sessions.host_processes, "kill_session", agent.kill_session)
    (home / "f").write_bytes(bytes(5_000_000))
    file = files.OpenFile(at(home / "f"))
    os.kill(file._session._connection.session, signal.SIGSTOP)
    with pytest.raises(errors.FilesStalled):
        file.read(0, 5_000_000)
    deadline = time.monotonic() + 5
    while len(pids.children(agent.process_1())) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


META = file_frames._META.pack(b"f", 0o644, 10, 0, 0, 1, 1)


@pytest.mark.parametrize(
    "words",
    [
        b"M\xff\xff\xff\xff",
        frames.frame(b"M", b"short"),
        frames.frame(b"M", META) + frames.frame(b"D", b"x" * 11),  # more than it has
        frames.frame(b"M", META) + frames.frame(b"D", b"x") + frames.frame(b"Z"),  # less
        frames.frame(b"M", META) + frames.frame(b"D", b""),
        frames.frame(b"M", META) + frames.frame(b"?", b""),
        frames.frame(b"Z", b""),
        frames.frame(b"Y", b"1"),
        frames.frame(b"Y", b"\xff\xff\xff\xff-" + bytes(8)),  # an error that no system has
        b"M\0\0\0\5abc",
        b"",
    ],
)
def test_nonsense_of_an_agent_is_an_error(tmp_path, monkeypatch, words):
    with lying(tmp_path, monkeypatch, words), pytest.raises(errors.FilesLost):
        files.read(at("/f"), 100)


@pytest.mark.parametrize("words", [b"\0\0\0\xff", b"\0\0\0\5abcde", bytes(4)])
def test_nonsense_in_a_list_is_an_error(tmp_path, monkeypatch, words):
    with lying(tmp_path, monkeypatch, frames.frame(b"N", words)), pytest.raises(errors.FilesLost):
        files.list_directory(at("/"), 1, 10, b"")


def test_a_list_without_end_is_an_error(tmp_path, monkeypatch):
    record = META + (1).to_bytes(4, "big") + b"x"
    page = frames.frame(b"N", (len(record).to_bytes(4, "big") + record) * 20)
    with lying(tmp_path, monkeypatch, page), pytest.raises(errors.FilesLost):
        files.list_directory(at("/"), 1, 10, b"")


def test_changes_without_end_before_a_watch_is_ready_are_an_error(tmp_path, monkeypatch):
    for_ever = frames.frame(b"V", b"c\0x") * 100
    with lying(tmp_path, monkeypatch, b"", for_ever=for_ever), pytest.raises(errors.FilesLost):
        files.Watch(at("/"), recursive=False)


def test_pages_without_entries_do_not_go_on_for_ever(tmp_path, monkeypatch):
    for_ever = frames.frame(b"N") * 100
    with lying(tmp_path, monkeypatch, b"", for_ever=for_ever), pytest.raises(errors.FilesLost):
        files.list_directory(at("/"), 1, 10, b"")


def test_an_agent_of_before_knows_no_files(tmp_path, monkeypatch):
    with lying(tmp_path, monkeypatch, b"", hello=b"\0\1"), pytest.raises(errors.NoGuestAgent):
        files.stat(at("/"))


def lying(tmp_path, monkeypatch, words, hello=b"\0\2", for_ever=b""):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
    return lying_agent(tmp_path / "lies", frames.frame(frames.HELLO, hello), words, for_ever, 0.0)


def test_it_reads_no_nonsense(agent, home):
    """A fault in parsing may cost that connection, never process 1, and never anything outside of the request."""
    import random

    chance = random.Random(2)
    for length in [*range(12), *(chance.randrange(600) for _ in range(200))]:
        raw = connections.open_socket(agent.directory, is_sealed=True)
        body = b"".join(
            frames.frame(
                chance.choice([b"v", b"p", b"q", b"x", b"t", b"m", b"f", b"z"]), chance.randbytes(chance.randrange(40))
            )
            for _ in range(length % 7)
        )
        raw.sendall(frames.frame(b"F", chance.choice([body, chance.randbytes(length), body + b"v\0\0\0\1l"])))
        raw.close()
    put(home / "f", b"alive")
    assert get(home / "f") == b"alive"


# Memory -----------------------------------------------------------------------------------------------------


def test_a_gigabyte_up_and_down_needs_no_memory(agent, home):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, piece = 1 << 30, bytes(1 << 20)
    sh(f"mount -t tmpfs -o size=1100m none {home}")

    async def both():
        upload = files.begin_put(at(home / "big"), None, 0, Conditions())
        for _ in range(total // len(piece)):
            await upload.awrite(piece)
        upload._session._socket.settimeout(60)
        assert upload.finish().size == total
        file, got = files.OpenFile(at(home / "big")), 0
        async for chunk in file.chunks(0, total):
            got += len(chunk)
        file.close()
        assert got == total

    asyncio.run(both())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024

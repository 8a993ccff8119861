"""Both Python clients: commands, terminals and files of a real guest agent, through a web process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import boilerhouse_client as bh
import httpx
import pytest
from boilerhouse_client import sockets

from tests.held_container import held_container
from tests.python_clients import KINDS, make_client
from tests.through import Through

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
MB = 1 << 20


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    directory, home = tmp_path_factory.mktemp("client"), tmp_path_factory.mktemp("home")
    with held_container(directory, home) as container:
        yield container


@pytest.fixture
def proxy(held):
    with Through(held.web.port) as made:
        yield made


@pytest.fixture(params=KINDS)
def alice(request, held, proxy):
    client = make_client(request.param, proxy.url, held.key, timeout_s=20, patience_s=20)
    yield client.tenant("alice")
    client.close()


# Commands -----------------------------------------------------------------------------------------------------


def test_a_command_is_run(alice, tmp_path):
    done = alice.commands.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"\xff\0")
    assert (done.exit_code, done.stdout_bytes, done.stderr, done.via) == (3, b"\xff\0", "err\n", "agent")
    with pytest.raises(bh.CommandFailed, match="exit code 3: err"):
        done.check()
    done = alice.commands.run("pwd; echo $ONE", cwd=str(tmp_path), env={"ONE": "1"}).check()
    assert done.stdout == f"{tmp_path}\n1\n"
    assert alice.commands.run("kill -9 $$").signal == "SIGKILL"
    assert alice.exec(["echo", "hello"]).stdout == "hello\n"


@pytest.mark.parametrize("follows", [False, True])
def test_a_command_that_is_too_slow_is_killed(alice, held, follows):
    seen: list[str] = []
    with pytest.raises(bh.TimedOut) as raised:
        alice.commands.run("echo so far; sleep 4321", timeout_s=0.5, on_stdout=seen.append if follows else None)
    assert (raised.value.code, raised.value.stdout_bytes) == ("exec_timed_out", b"so far\n")
    assert seen == (["so far\n"] if follows else [])
    held.agent.wait_until_gone("sleep 4321")


def test_output_comes_while_the_command_runs(alice, tmp_path):
    """The command waits for what the callback does."""
    go = tmp_path / "go"
    script = f"echo first; until [ -e {go} ]; do sleep 0.01; done; echo second >&2"
    errors: list[str] = []
    done = alice.commands.run(script, on_stdout=lambda _: go.touch(), on_stderr=errors.append, timeout_s=20)
    assert (done.stdout, done.stderr, errors) == ("first\n", "second\n", ["second\n"])


def test_long_input_arrives_whole(alice):
    data = os.urandom(3 * MB)
    done = alice.commands.run("sha256sum", stdin=data)
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert alice.commands.run("exit 0", stdin=data).exit_code == 0, "it reads nothing"


def test_output_survives_broken_connections(alice, proxy):
    """A reader misses nothing, and gets nothing twice, however often its connection breaks."""
    command = alice.commands.start("i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done")
    data, breaks = b"", 0
    for item in command.output():
        if isinstance(item, bh.Output):
            data += item.data
            assert item.offset == len(data)
            if breaks < 5 and len(data) > 80 * (breaks + 1):
                breaks += 1
                proxy.break_all()
    assert isinstance(item, bh.Exit)
    assert data.decode().splitlines() == [f"line {number}" for number in range(60)]
    assert breaks == 5


def test_a_command_goes_on_without_its_starter(alice):
    command = alice.commands.start("cat; exit 4", stdin="one ")
    same = alice.commands.get(command.id)
    same.write("two")
    assert same.status().state == "running"
    assert command.id in [one.command_id for one in alice.commands.list()]
    same.close_input()
    done = same.wait()
    assert (done.stdout, done.exit_code) == ("one two", 4)
    with pytest.raises(bh.Conflict) as raised:
        same.write("late")
    assert raised.value.code == "command_ended"
    other = alice.commands.start("sleep 4322")
    other.signal("SIGTERM")
    assert other.wait().signal == "SIGTERM"
    third = alice.commands.start("sleep 4323")
    third.kill()
    assert third.wait().signal == "SIGKILL"


def test_the_end_of_the_claim_ends_a_stream(alice, held):
    command = alice.commands.start("echo one; sleep 60")
    items = command.output()
    assert next(items) == bh.Output("stdout", b"one\n", 4)
    with held.releasing(), pytest.raises(bh.Conflict):
        next(items)
    command.kill()


# Terminals ----------------------------------------------------------------------------------------------------


def test_a_terminal_is_typed_into(alice, held):
    with alice.terminal(["sh"], cols=100, rows=30, env={"PS1": "$ "}) as terminal:
        terminal.write("stty size; echo do''ne\n")
        assert b"30 100" in terminal.read_until("done", 10)
        terminal.resize(120, 40)
        terminal.write("stty size; echo do''ne\n")
        assert b"40 120" in terminal.read_until("done", 10)
        with pytest.raises(TimeoutError):
            while terminal.read(0.5):
                pass
        terminal.write("exec sleep 4324\n")
        held.agent.wait_for("sleep 4324")
        terminal.signal("SIGINT")
        assert terminal.wait().signal == "SIGINT"
        assert terminal.read() == b""


def test_a_terminal_is_killed_at_the_end_of_its_block(alice, held):
    with pytest.raises(ZeroDivisionError), alice.terminal("sleep 4325"):
        held.agent.wait_for("sleep 4325")
        raise ZeroDivisionError
    held.agent.wait_until_gone("sleep 4325")


def test_a_terminal_goes_on_when_its_connection_breaks(alice, proxy):
    script = "stty -echo; echo ready; while read x; do echo got $x; done; exit 7"
    with alice.terminal(script) as terminal:
        terminal.read_until("ready", 10)
        for number in range(3):
            proxy.break_all()
            with contextlib.suppress(TimeoutError):
                terminal.read(0.3)  # what is typed before anybody has seen the break would be lost
            terminal.write(f"{number}\n")
            terminal.read_until(f"got {number}", 10)
        terminal.close_input()
        assert terminal.wait() == bh.Exit(7, None, False)


def test_a_terminal_may_be_quiet_for_longer_than_connecting_may_take(alice, proxy, monkeypatch):
    monkeypatch.setattr(sockets, "CONNECT_S", 1)
    with alice.terminal("echo early; sleep 2; echo late; read x") as terminal:
        terminal.read_until("early", 10)
        before = proxy.accepted
        terminal.read_until("late", 10)
        assert proxy.accepted == before, "it did not break"


def test_a_command_without_a_terminal_is_attached_to(alice):
    command = alice.commands.start("cat", stdin="before ")
    with command.attach() as attached:
        assert attached.read_until("before ", 10) == b"before "
        attached.write(b"\xff\0")
        attached.close_input()
        assert b"".join(attached) == b"\xff\0"
        assert attached.exit == bh.Exit(0, None, False)
    with command.attach(after=7) as again:
        assert b"".join(again) == b"\xff\0"


def test_much_is_typed_at_once(alice):
    data = os.urandom(2 * MB)
    with alice.commands.start("sha256sum", stdin="").attach() as attached:
        attached.write(data)
        attached.close_input()
        assert b"".join(attached).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_terminal_that_is_not_there_says_so(alice, held):
    with pytest.raises(bh.NotFound), alice.commands.get("0" * 32).attach() as terminal:
        terminal.read(10)
    for kind in KINDS:
        other = make_client(kind, held.web.base, held.other)
        with pytest.raises(bh.NotFound), other.tenant("alice").commands.get("0" * 32).attach() as terminal:
            terminal.read(10)
        other.close()


# Files --------------------------------------------------------------------------------------------------------


def test_files_are_written_and_read(alice, held):
    info = alice.files.write("dir/notes.txt", "tea é\n", parents=True, mode=0o640)
    assert (info.name, info.type, info.size, info.mode) == ("notes.txt", "file", 7, 0o640)
    assert alice.files.read_text("dir/notes.txt") == "tea é\n"
    assert alice.files.read("dir/notes.txt", offset=2, length=3) == b"a \xc3"
    assert alice.files.read("dir/notes.txt", length=0) == b""
    with pytest.raises(bh.PreconditionFailed):
        alice.files.write("dir/notes.txt", b"", only_new=True)
    with pytest.raises(bh.PreconditionFailed):
        alice.files.write("dir/notes.txt", b"", if_match='"another"')
    alice.files.write("dir/notes.txt", b"coffee", if_match=info.etag)
    assert (held.home / "dir" / "notes.txt").read_bytes() == b"coffee"
    assert alice.files.write("empty", b"").size == 0
    assert alice.files.read("empty") == b""
    assert [one.name for one in alice.files.list("dir")] == ["notes.txt"]
    assert alice.files.move("dir/notes.txt", "moved", overwrite=True).path == str(held.home / "moved")
    assert (alice.files.exists("moved"), alice.files.exists("dir/notes.txt")) == (True, False)
    assert alice.files.mkdir("a/b/c").type == "directory"
    assert alice.files.remove("a", recursive=True) == 3
    with pytest.raises(bh.NotFound):
        alice.files.read("missing")


def test_names_that_are_no_utf_8(alice, held):
    name = b"caf\xe9 %41\n".decode("utf-8", "surrogateescape")
    alice.files.mkdir("bytes")
    assert alice.files.write(f"bytes/{name}", b"x").name == name
    assert [one.name for one in alice.files.list("bytes")] == [name]
    assert alice.files.read(f"bytes/{name}") == b"x"
    assert os.listdir(os.fsencode(held.home / "bytes")) == [b"caf\xe9 %41\n"]
    alice.files.remove("bytes", recursive=True)


def test_long_lists_are_read_to_their_end(alice, held):
    (held.home / "many").mkdir(exist_ok=True)
    for number in range(450):
        (held.home / "many" / f"{number:03}").touch()
    assert [one.name for one in alice.files.list("many")] == [f"{number:03}" for number in range(450)]


def test_what_yields_bytes_is_uploaded(alice, held):
    pieces = [bytes([number]) * MB for number in range(5)]
    assert alice.files.write("pieces", iter(pieces)).size == 5 * MB
    assert (held.home / "pieces").read_bytes() == b"".join(pieces)
    assert b"".join(alice.files.stream("pieces")) == b"".join(pieces)


def test_a_download_survives_broken_connections(alice, held, proxy):
    data = os.urandom(8 * MB)
    (held.home / "large").write_bytes(data)
    found, breaks = b"", 0
    for piece in alice.files.stream("large"):
        found += piece
        if breaks < 3 and len(found) > 2 * MB * (breaks + 1):
            breaks += 1
            proxy.break_all()
    assert (found == data, breaks) == (True, 3)


def test_files_and_directories_are_copied_both_ways(alice, held, tmp_path):
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "run.sh").write_text("#!/bin/sh\n")
    (source / "dir" / "run.sh").chmod(0o755)
    (source / "link").symlink_to("dir/run.sh")
    alice.files.upload(source, "copied")
    assert alice.files.stat("copied/link").target == "dir/run.sh"
    assert alice.files.stat("copied/dir/run.sh").mode == 0o755
    alice.files.download("copied", tmp_path / "back")
    assert (tmp_path / "back" / "link").readlink() == Path("dir/run.sh")
    assert os.access(tmp_path / "back" / "dir" / "run.sh", os.X_OK)
    alice.files.upload(source / "dir" / "run.sh", "single/run.sh")
    assert alice.files.stat("single/run.sh").mode == 0o755
    (tmp_path / "one").write_text("old")
    alice.files.download("single/run.sh", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "#!/bin/sh\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "one", "source"]
    for name in ("copied", "single"):
        alice.files.remove(name, recursive=True)


def test_archives_pass_both_ways(alice):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        info = tarfile.TarInfo("f")
        info.size = 3
        made.addfile(info, io.BytesIO(b"abc"))
    content.seek(0)
    assert alice.files.write_archive("tree", content, parents=True) == 1
    with tarfile.open(fileobj=io.BytesIO(b"".join(alice.files.read_archive("tree")))) as opened:
        assert opened.extractfile("f").read() == b"abc"
    with pytest.raises(bh.Invalid) as raised:
        alice.files.write_archive("tree", b"no archive" * 1000)
    assert raised.value.code == "bad_archive"


def test_a_link_needs_no_key(alice):
    alice.files.write("linked", b"content")
    link = alice.files.link("linked", expires_in_s=60)
    assert httpx.get(link.url, timeout=20).content == b"content"
    upload = alice.files.link("linked", method="PUT")
    assert httpx.put(upload.url, content=b"new", timeout=20).status_code == 200
    assert alice.files.read("linked") == b"new"


def test_changes_are_followed(alice, held, proxy):
    (held.home / "seen").unlink(missing_ok=True)
    changes = alice.files.watch(recursive=True)
    assert next(changes).kind == "ready"
    (held.home / "seen").touch()
    assert next(one for one in changes if one.kind == "created") == bh.Change("created", "seen", False)
    proxy.break_all()
    assert next(one for one in changes if one.kind == "overflow").path == ""
    threading.Timer(0.2, (held.home / "seen").unlink).start()
    assert next(one for one in changes if one.kind == "removed").path == "seen"
    with held.releasing():
        assert [one.kind for one in changes if one.kind == "ready"] == [], "it ends with the claim"


def test_staff_names_the_container(held):
    for kind in KINDS:
        client = make_client(kind, held.web.base, held.web.key)
        (row,) = client.containers.list(tenantId="alice")
        container = client.container(row["id"])
        assert container.commands.run(["echo", "hello"]).stdout == "hello\n"
        container.files.write("by-staff", b"x")
        assert container.files.read("by-staff") == b"x"
        with container.terminal("echo typed") as terminal:
            assert b"typed" in terminal.read_until("typed", 10)
        client.close()

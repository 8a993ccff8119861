"""The guest agent itself, as process 1 of a namespace of processes, driven by this host's side of the protocol."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pools import errors, guest
from pools.guest import commands, connections, frames, paths, sealing
from tests.guest_agent import AGENT, Agent, lying_agent

HELLO = frames.frame(frames.HELLO, b"\0\1")


@pytest.fixture
def agent(tmp_path, monkeypatch):
    with Agent(tmp_path / "run") as running:
        monkeypatch.setattr(connections, "run_dir", lambda _: running.directory)
        monkeypatch.setattr(sealing, "run_dir", lambda _: running.directory)
        assert guest.seal(None, running.process_1())
        yield running


def run(*command, timeout_ms=20_000, stdin=None, limit_bytes=1 << 20):
    return guest.run(None, command, timeout_ms, stdin, limit_bytes)


def sh(script, **more):
    return run("sh", "-c", script, **more)


def test_outputs_input_and_exit_code_are_exact(agent):
    done = sh("cat; echo err >&2; exit 7", stdin=b"hello")
    assert (done.stdout, done.stderr, done.exit_code) == (b"hello", b"err\n", 7)
    every_byte = bytes(range(256)) * 10_000
    assert run("cat", stdin=every_byte, limit_bytes=1 << 22).stdout == every_byte
    assert run("cat", stdin=b"").stdout == b""
    assert sh("cat; echo end").stdout == b"end\n", "without stdin its input is empty"
    assert run("true", stdin=b"x" * 1_000_000).exit_code == 0, "it may leave its input unread"
    assert (sh("kill -9 $$").exit_code, sh("kill -TERM $$").exit_code) == (137, 143)


def test_output_beyond_the_limit_is_dropped_and_said(agent):
    done = sh("head -c 3000000 /dev/zero; echo done >&2")
    assert (len(done.stdout), done.stderr) == (1 << 20, b"done\n")
    assert (done.stdout_truncated, done.stderr_truncated, done.exit_code) == (True, False, 0)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("no-such-command", 127, "command not found"),
        ("/no/such/file", 127, "no such file, or its interpreter does not exist"),
        ("/etc", 126, "is a directory"),
        ("/etc/passwd", 126, "permission denied: the container's user may not execute it"),
    ],
)
def test_what_cannot_start_says_why(agent, command, code, words):
    done = run(command)
    assert (done.exit_code, done.refusal) == (code, f"{command}: {words}")
    assert done.stderr.decode() == f"{command}: {words}\n"


def test_a_file_that_is_no_program_says_so(agent, tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"\0\1\2")
    file.chmod(0o755)
    assert run(str(file)).refusal.endswith("is not a program that this machine can run")


def test_a_late_command_is_killed_with_its_descendants_and_its_output_is_kept(agent):
    script = "echo so far; (setsid sleep 4321 &) ; (sleep 4322 &) ; exec sleep 4323"
    with pytest.raises(errors.ExecTimedOut, match="did not end within 500 ms and was killed") as late:
        sh(script, timeout_ms=500)
    assert late.value.stdout == b"so far\n"
    assert agent.commands("432") == []


def test_background_children_outlive_their_command(agent):
    began = time.monotonic()
    assert sh("sleep 4331 & echo done").stdout == b"done\n"
    assert time.monotonic() - began < 10
    assert len(agent.commands("4331")) == 1
    endless = sh("yes & echo $! > /dev/null; exit 3", limit_bytes=10)
    assert endless.exit_code == 3, "children that write for ever do not hold up the end"


def test_a_host_that_hangs_up_ends_the_command(agent):
    connection = connections.connect(None)
    connection.socket.sendall(frames.request(("sh", "-c", "(setsid sleep 4341 &); sleep 4342")))
    agent.wait_for("4342")
    connection.socket.close()
    agent.wait_until_gone("434")


def test_hundreds_of_hang_ups_and_a_flood_nobody_reads_leave_process_1_alive(agent):
    for _ in range(200):
        connection = connections.connect(None)
        connection.socket.sendall(frames.request(("head", "-c", "1000000", "/dev/zero")))
        connection.socket.close()
    assert run("echo", "alive").stdout == b"alive\n"
    agent.wait_until_gone("1000000")


def test_it_reads_no_nonsense(agent):
    """A fault in parsing may cost that connection, never process 1."""
    chance = random.Random(1)
    for length in [*range(12), *(chance.randrange(3000) for _ in range(300))]:
        raw = connections.open_socket(agent.directory, is_sealed=True)
        kind = chance.choice([b"R", b"I", b"S", b"W", b"\xff"])
        body = chance.randbytes(length)
        raw.sendall(chance.choice([body, frames.frame(kind, body), kind + (len(body) * 7).to_bytes(4, "big") + body]))
        raw.close()
    raw = connections.open_socket(agent.directory, is_sealed=True)
    raw.sendall(b"R\xff\xff\xff\xff")
    while raw.recv(4096):
        pass
    assert run("echo", "alive").stdout == b"alive\n"


@pytest.mark.parametrize("payload", [b"", b"a\0\0\0\0", b"a\0\0\0\1", b"z\0\0\0\0", b"a\0\0\0\3a\0b", b"o\0\0\0\1x"])
def test_a_request_that_is_none_is_refused(agent, payload):
    connection = connections.connect(None)
    connection.socket.sendall(frames.frame(frames.RUN, payload))
    exchange = commands.Exchange(connection, b"", None, 100)
    with pytest.raises(connections.NoAgent):
        exchange.result(("x",), time.monotonic(), time.monotonic() + 10)


def test_more_sessions_than_it_has_room_for_go_by_the_engine(agent):
    held = [connections.connect(None) for _ in range(128)]
    with pytest.raises(connections.NoAgent):
        run("true")
    for connection in held:
        connection.socket.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert run("true").exit_code == 0
            break
        except connections.NoAgent:
            assert time.monotonic() < deadline


def test_a_tenant_that_kills_its_session_loses_the_command_only(agent):
    with pytest.raises(errors.CommandLost):
        sh("kill -9 $PPID; sleep 1")
    assert run("echo", "alive").stdout == b"alive\n"
    assert sh("kill -9 1; kill -STOP 1; echo still").stdout == b"still\n"


def test_a_tenant_that_stops_its_session_is_killed_after_the_deadline(agent, monkeypatch):
    monkeypatch.setattr(commands, "GRACE_S", 0.5)
    monkeypatch.setattr(commands.host_processes, "kill_session", agent.kill_session)
    with pytest.raises(errors.ExecTimedOut, match="was killed"):
        sh("kill -STOP $PPID; exec sleep 4351", timeout_ms=300)
    agent.wait_until_gone("4351")


def test_the_process_is_the_one_that_the_kernel_names(agent):
    connection = connections.connect(None)
    name = Path(f"/proc/{connection.session}/comm").read_text().strip()
    assert (name, connection.process_1) == ("agent", agent.process_1())
    connection.socket.close()


def test_nobody_inside_connects(agent):
    """Its own processes cannot reach the sealed directory; if they could, it would not serve them."""
    os.chmod(agent.directory, 0o777)
    inside = f"""
import socket, sys
one = socket.socket(socket.AF_UNIX); one.settimeout(5); one.connect({str(agent.directory / paths.SOCKET)!r})
print(one.recv(10))
"""
    assert run("python3", "-c", inside).stdout == b"b''\n"


def test_a_command_holds_no_descriptor_of_the_agent(agent):
    assert run("ls", "/proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]  # the last is ls's own


def test_a_command_begins_in_the_directory_that_has_the_path_now(tmp_path, monkeypatch):
    """A restore puts another directory in the place of the one in which process 1 began."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    with Agent(tmp_path / "run") as agent:
        monkeypatch.setattr(connections, "run_dir", lambda _: agent.directory)
        monkeypatch.setattr(sealing, "run_dir", lambda _: agent.directory)
        assert guest.seal(None, agent.process_1())
        place.rename(tmp_path / "before")
        place.mkdir()
        (place / "kept").touch()
        assert run("ls").stdout == b"kept\n"
        (place / "kept").unlink()
        place.rmdir()
        done = run("ls")
        assert (done.exit_code, done.refusal) == (126, "ls: the container's user cannot enter the working directory")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_signals_reach_the_main_process_and_its_code_is_the_end(tmp_path, number):
    name = signal.Signals(number).name.removeprefix("SIG")
    with Agent(tmp_path / "run", "sh", "-c", f"trap 'exit 5' {name}; echo up; while :; do sleep 0.05; done") as agent:
        agent.wait_for("while")
        time.sleep(0.2)
        os.kill(agent.process_1(), number)
        assert agent.ended() == 5


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137), ("exec /no/such", 127), ("(sleep 0.1 &) ; exit 0", 0)]
)
def test_it_ends_as_its_main_process_ends(tmp_path, script, code):
    with Agent(tmp_path / "run", "sh", "-c", script) as agent:
        assert agent.ended() == code


def test_a_main_command_that_does_not_exist_says_so(tmp_path):
    with Agent(tmp_path / "run", "/no/such/program") as agent:
        assert agent.ended() == 127
        assert agent.errors() == "boilerhouse: exec /no/such/program failed: No such file or directory\n"


def test_it_reaps_what_others_leave(agent):
    sh("for i in 1 2 3 4 5; do (setsid true &) ; done")
    deadline = time.monotonic() + 5
    while b" Z" in sh("cat /proc/[0-9]*/stat").stdout:
        assert time.monotonic() < deadline


# The seal -----------------------------------------------------------------------------------------------


def test_a_link_a_file_or_a_foreign_socket_in_its_place_is_not_followed(agent):
    """The deputy would be root: a link could lead to the engine's socket."""
    place, other = agent.directory / paths.SOCKET, agent.directory / "other"
    place.rename(other)
    for planted in (lambda: place.symlink_to(other), place.touch, lambda: os.mkfifo(place)):
        planted()
        with pytest.raises(connections.NoAgent):
            run("true")
        assert not guest.seal(None, agent.process_1())
        place.unlink()
    with pytest.raises(connections.NoAgent):
        run("true")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(place))
        own.listen()
        assert not guest.seal(None, agent.process_1()), "the process that listens there is another"
        assert not place.exists()
    other.rename(place)
    assert guest.seal(None, agent.process_1())
    assert run("true").exit_code == 0


def test_a_directory_that_is_not_sealed_is_not_used(agent):
    os.chown(agent.directory, 200_000, 200_000)
    with pytest.raises(connections.NoAgent, match="not sealed"):
        run("true")
    link = agent.directory.with_name("link")
    link.symlink_to(agent.directory)
    with pytest.raises(connections.NoAgent):
        connections.open_socket(link, is_sealed=False)


# What a lying agent says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        b"1\xff\xff\xff\xff",  # an endless frame
        frames.frame(b"1", b"some") + b"\xff",
        frames.frame(b"X", b"\0"),
        frames.frame(b"X", (256).to_bytes(4, "big") + bytes(6)),
        frames.frame(b"!", b""),
        frames.frame(b"?", b""),
        b"1\0\0\0\5abc",  # torn
    ],
)
def test_nonsense_of_an_agent_is_an_error_not_a_result(tmp_path, monkeypatch, words):
    with lying(tmp_path, monkeypatch, HELLO, words), pytest.raises(errors.CommandLost):
        run("true")


@pytest.mark.parametrize("words", [b"", b"1\0\0\0\0", b"H", b"\xff" * 20, frames.frame(b"!", b"l\0\0\0\x10")])
def test_without_a_hello_nothing_was_asked(tmp_path, monkeypatch, words):
    with lying(tmp_path, monkeypatch, words) as got, pytest.raises(connections.NoAgent):
        run("true")
    assert got == [b""]


def test_an_agent_of_an_older_protocol_is_asked_nothing_newer(tmp_path, monkeypatch, agent):
    assert connections.connect(None, version=3).version == 3
    with lying(tmp_path, monkeypatch, HELLO) as got, pytest.raises(connections.NoAgent, match="version 1"):
        connections.connect(None, version=2)
    assert got == [b""]


def test_a_request_of_an_unknown_type_is_refused(agent):
    connection = connections.connect(None)
    connection.socket.sendall(frames.frame(b"?"))
    exchange = commands.Exchange(connection, b"", None, 100)
    with pytest.raises(connections.NoAgent):
        exchange.result(("x",), time.monotonic(), time.monotonic() + 10)


def test_endless_tiny_frames_end_with_the_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "GRACE_S", 0.2)
    with lying(tmp_path, monkeypatch, HELLO, b"", b"1\0\0\0\0" * 1000), pytest.raises(errors.ExecTimedOut):
        run("true", timeout_ms=300)


def test_a_hello_that_drips_has_one_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "HELLO_S", 0.5)
    began = time.monotonic()
    with lying(tmp_path, monkeypatch, HELLO, drip_s=0.3), pytest.raises(connections.NoAgent):
        run("true")
    assert time.monotonic() - began < 2


def test_a_large_hello_is_none(tmp_path, monkeypatch):
    with lying(tmp_path, monkeypatch, frames.frame(frames.HELLO, bytes(100))), pytest.raises(connections.NoAgent):
        run("true")


def test_many_tiny_frames_are_read_slowly(monkeypatch):
    """An agent that lies could otherwise keep the interpreter of the web process busy."""
    rests = []
    monkeypatch.setattr(frames.time, "sleep", rests.append)
    reader = frames.Reader()
    assert len(list(reader.feed(frames.frame(b"1", b"x") * 400))) == 400
    assert rests == []
    assert len(list(reader.feed(frames.frame(b"1", b"x") * 4000))) == 4000
    assert len(rests) == 1


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_frames_come_whole_however_they_are_torn(size):
    sent = [(b"1", b""), (b"2", b"a" * 300), (b"X", bytes(10)), (b"1", bytes(range(256)))]
    wire, reader, got = b"".join(frames.frame(*one) for one in sent), frames.Reader(), []
    for start in range(0, len(wire), size):
        got += reader.feed(wire[start : start + size])
    assert got == sent


def lying(tmp_path, monkeypatch, hello, words=b"", for_ever=b"", drip_s=0.0):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
    return lying_agent(tmp_path / "lies", hello, words, for_ever, drip_s)


# The program ---------------------------------------------------------------------------------------------


def test_the_copy_is_checked_each_time(settings, tmp_path, data_dir):
    settings.BOILERHOUSE_GUEST_AGENT = str(AGENT)
    spec = SimpleNamespace(init=True)
    path = guest.agent_for(spec)
    assert path.read_bytes() == AGENT.read_bytes()
    path.unlink()
    path.write_bytes(b"another program")
    assert guest.agent_for(spec) == path
    assert path.read_bytes() == AGENT.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o555


def test_without_a_program_that_runs_the_engine_is_used(settings, tmp_path, data_dir):
    spec = SimpleNamespace(init=True)
    broken = tmp_path / "broken"
    broken.write_bytes(b"no program")
    for value in ("", str(tmp_path / "missing"), str(broken)):
        settings.BOILERHOUSE_GUEST_AGENT = value
        assert guest.agent_for(spec) is None
    settings.BOILERHOUSE_GUEST_AGENT = str(AGENT)
    assert guest.agent_for(SimpleNamespace(init=False)) is None


def test_the_program_is_static_small_and_built_from_its_sources():
    assert AGENT.stat().st_size < 128 * 1024
    kind = subprocess.run(["file", "-b", AGENT], capture_output=True, text=True, check=False).stdout
    assert "dynamically" not in kind
    newest = max(path.stat().st_mtime for path in AGENT.parents[1].glob("*.[ch]"))
    assert AGENT.stat().st_mtime >= newest, "make -C guest"

"""Commands that outlive their connection, by the real agent as process 1 of a namespace, and by one that lies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import struct
import time
from contextlib import suppress
from uuid import uuid4

import pytest

from boilerhouse.process import pids
from pools import errors, guest
from pools.guest import connections, frames, kept
from tests.guest_agent import lying_agent, sealed_agent

MIB = 1 << 20


@pytest.fixture
def agent(tmp_path, monkeypatch):
    with sealed_agent(tmp_path / "run", monkeypatch) as running:
        yield running


def sh(script, *, is_silent=False, stdin=None, name=None, **more):
    name = name or uuid4().hex
    wanted = kept.Wanted(("sh", "-c", script), **more)
    return name, kept.start(None, name, wanted, is_silent=is_silent, stdin=stdin)


def left(script, **more):
    """A command whose connection has ended."""
    name, command = sh(script, is_silent=True, **more)
    command.close()
    return name


def messages(command, within_s=20):
    found = list(command.read(time.monotonic() + within_s))
    command.close()
    return found


def output(found):
    """Standard output, standard error, and the end."""
    pieces = [message for message in found if isinstance(message, kept.Output)]
    streams = [b"".join(one.data for one in pieces if one.is_error is is_error) for is_error in (False, True)]
    return *streams, found[-1]


def again(name, after=0):
    return messages(kept.attach(None, name, after, is_silent=False))


def status(name):
    command = kept.attach(None, name, is_silent=True)
    command.close()
    return command.status


def wait_for(condition, within_s=10):
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def wait_for_end(name):
    return wait_for(lambda: (now := status(name)).state != kept.State.RUNNING and now)


def test_its_output_and_end_are_exact_now_and_later(agent):
    name, command = sh("echo out; echo err >&2; sleep 0.05; echo more; exit 3")
    first = messages(command)
    assert output(first) == (b"out\nmore\n", b"err\n", kept.End(3, None, timed_out=False))
    assert output(again(name)) == output(first)
    for after in range(14):
        out, err, _ = output(again(name, after))
        assert len(out) + len(err) == 13 - min(after, 13)
    assert output(again(name, 1 << 40)) == (b"", b"", first[-1])
    assert wait_for_end(name).exit_code == 3


def test_a_reader_that_comes_and_goes_loses_no_byte(agent):
    """At each of its offsets."""
    name = left("for i in $(seq 2000); do echo $i; echo $i >&2; done")
    position, parts, chance = 0, [], random.Random(3)
    while True:
        command = kept.attach(None, name, position, is_silent=False)
        for message in command.read(time.monotonic() + 10):
            if isinstance(message, kept.Output):
                parts.append((message.is_error, message.data))
                position = message.offset
            if isinstance(message, kept.End) or chance.random() < 0.1:
                break
        command.close()
        if isinstance(message, kept.End):
            break
    wanted = b"".join(b"%d\n" % number for number in range(1, 2001))
    assert b"".join(data for is_error, data in parts if not is_error) == wanted
    assert b"".join(data for is_error, data in parts if is_error) == wanted


def test_a_reader_that_keeps_up_gets_all_of_a_long_output(agent):
    _, command = sh("head -c 20000000 /dev/zero | tr '\\0' x; echo end >&2")
    out, err, _ = output(messages(command))
    assert (len(out), err) == (20_000_000, b"end\n")


def test_output_nobody_reads_does_not_stop_its_command_and_the_last_of_it_is_kept(agent):
    name = left("head -c 50000000 /dev/zero; echo last")
    wait_for_end(name)
    gap, *rest = again(name)
    out, _, _ = output(rest)
    assert gap.offset == 50_000_005 - MIB
    assert (len(out), out[-5:]) == (MIB, b"last\n")


def test_a_reader_that_stalls_holds_up_its_command_only_for_a_while(agent):
    name, stalled = sh("head -c 30000000 /dev/zero; echo last")
    wait_for(lambda: status(name).state == kept.State.EXITED, 30)
    found = messages(stalled)
    assert any(isinstance(message, kept.Gap) for message in found)
    assert output(found)[0].endswith(b"last\n")


def test_input_signals_and_size_come_by_later_connections(agent):
    name = left("cat; echo end", wants_input=True)
    for word in (b"one ", b"two "):
        command = kept.attach(None, name, is_silent=True)
        assert not command.ask(kept.input_frames(word, is_last=False)).input_was_dropped
        command.close()
    command = kept.attach(None, name, is_silent=True)
    command.ask(kept.input_frames(b"three", is_last=True))
    wait_for_end(name)
    assert output(again(name))[0] == b"one two threeend\n"
    trapped = left("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done")
    wait_for(lambda: status(trapped).end)
    kept.attach(None, trapped, is_silent=True).ask(kept.signal_frame(signal.SIGUSR1))
    assert wait_for_end(trapped).exit_code == 9


def test_a_terminal_is_resized_and_ends_by_a_key(agent):
    name = left("stty size; read x; stty size; cat", size=(80, 24))
    wait_for(lambda: status(name).end)
    command = kept.attach(None, name, is_silent=True)
    assert command.status.is_terminal
    command.ask(kept.window_frame(132, 50), kept.input_frames(b"x\n\x04", is_last=False))
    wait_for_end(name)
    assert [line for line in output(again(name))[0].split() if line.isdigit()] == [b"24", b"80", b"50", b"132"]


def test_input_of_one_that_has_closed_it_is_reported(agent):
    name = left("exec 0<&-; sleep 5", wants_input=True)
    command = kept.attach(None, name, is_silent=True)
    wait_for(lambda: command.ask(kept.input_frames(b"x" * 200_000, is_last=False)).input_was_dropped)
    assert not command.status.is_input_open
    command.ask(kept.kill_frame())


def test_input_that_waits_is_passed_on_after_its_connection(agent):
    name = left("sleep 0.3; wc -c", stdin=b"x" * 900_000)
    command = kept.attach(None, name, is_silent=True)
    command.send(kept.input_frames(b"y" * 50_000, is_last=True))
    command.close()
    wait_for_end(name)
    assert output(again(name))[0].strip() == b"950000"


def test_input_comes_in_the_order_of_its_connections(agent):
    """Whichever place each of them has in the keeper: the first one here is free again when the last one comes."""
    name = left("sleep 0.7; cat", wants_input=True)
    idle, first = (kept.attach(None, name, is_silent=True) for _ in range(2))
    first.send(b"".join(frames.inputs(b"a" * 300_000)))
    idle.close()
    time.sleep(0.1)
    last = kept.attach(None, name, is_silent=True)
    last.send(frames.frame(frames.INPUT_END))
    kept.attach(None, name, is_silent=True).close()
    first.send(kept.input_frames(b"b", is_last=False))
    first.close()
    wait_for_end(name)
    assert output(again(name))[0] == b"a" * 300_000 + b"b"
    last.close()


def test_the_longest_frame_is_taken_however_it_is_torn(agent):
    name = left("wc -c", wants_input=True)
    command = kept.attach(None, name, is_silent=True)
    frame = frames.frame(frames.INPUT, b"x" * frames.MAX_PAYLOAD)
    command.send(frame[:-5])
    time.sleep(0.3)
    command.send(frame[-5:])
    command.ask(frames.frame(frames.INPUT_END))
    wait_for_end(name)
    assert output(again(name))[0].strip() == b"1048576"


def test_a_hundred_thousand_frames_that_wait_come_whole(agent):
    name = left("sleep 0.5; md5sum", wants_input=True)
    data = random.Random(7).randbytes(100_000)
    command = kept.attach(None, name, is_silent=True)
    command.ask(*(frames.frame(frames.INPUT, data[at : at + 1]) for at in range(len(data))))
    command.ask(frames.frame(frames.INPUT_END))
    wait_for_end(name)
    assert output(again(name))[0].split()[0].decode() == hashlib.md5(data).hexdigest()


def test_its_first_input_is_there_if_it_runs_at_all(agent, tmp_path):
    name, command = sh("cat", stdin=b"whole" * 100_000)
    command.close()  # as a web process that is killed now
    wait_for_end(name)
    assert output(again(name))[0] == b"whole" * 100_000
    torn = frames.frame(b"k", bytes.fromhex(uuid4().hex) + b"\1") + frames.frame(b"u", struct.pack(">I", 1005))
    half = connections.connect(None, kept.PROTOCOL)
    half.socket.sendall(frames.request(("touch", str(tmp_path / "ran")), wants_input=True, more=torn))
    half.socket.sendall(frames.frame(frames.INPUT, bytes(1000))[:500])
    half.socket.close()
    wait_for(lambda: len(pids.children(agent.process_1())) == 1)
    assert not (tmp_path / "ran").exists()
    assert [entry.id for entry in kept.entries(None)] == [name]


def test_input_that_does_not_come_whole_does_not_come_at_all(agent, monkeypatch):
    """The request is answered with an error, so its client sends the input again."""
    name, command = sh("cat", is_silent=True, wants_input=True)
    keeper, _ = command.session
    os.kill(keeper, signal.SIGSTOP)
    with monkeypatch.context() as patched, pytest.raises(errors.CommandLost):
        patched.setattr(kept, "ANSWER_S", 0.5)
        command.ask(kept.input_frames(b"x" * 900_000, is_last=False))
    command.close()
    os.kill(keeper, signal.SIGCONT)
    later = kept.attach(None, name, is_silent=True)
    later.ask(kept.input_frames(b"again", is_last=True))
    wait_for_end(name)
    assert output(again(name))[0] == b"again"


def test_of_requests_with_one_id_at_the_same_time_one_runs(agent, tmp_path):
    for _ in range(100):
        name = uuid4().hex
        items = frames.frame(b"k", bytes.fromhex(name) + b"\1")
        request = frames.request(("sh", "-c", f"echo >> {tmp_path / name}"), more=items)
        asking = [kept.Kept(connections.connect(None, kept.PROTOCOL), 0, is_silent=True) for _ in range(4)]
        for one in asking:
            one.send(request)
        started = [one for one in asking if try_(one.greet, kept.AlreadyStarted) is None]
        wait_for_end(name)
        assert (len(started), (tmp_path / name).read_bytes()) == (1, b"\n")
        for one in asking:
            one.close()


def test_a_connection_older_than_the_command_does_not_call_it_lost(agent):
    early = kept.Kept(connections.connect(None, kept.PROTOCOL), 0, is_silent=True)
    name = left("sleep 5")
    early.send(frames.frame(kept.ATTACH, bytes.fromhex(name) + bytes(9)))
    with pytest.raises(errors.CommandLost):
        early.greet()  # the host asks again, by a new one
    early.close()
    assert status(name).state == kept.State.RUNNING


def test_starts_that_are_killed_at_any_moment_hold_up_no_other(agent):
    chance = random.Random(11)
    for _ in range(400):
        early = connections.connect(None, kept.PROTOCOL)
        items = frames.frame(b"k", chance.randbytes(16) + b"\1")
        early.socket.sendall(frames.request(("true",), more=items))
        time.sleep(chance.random() / 1000)
        with suppress(ProcessLookupError):
            os.kill(early.session, signal.SIGKILL)
        early.socket.close()
    assert wait_for_end(left("exit 4")).exit_code == 4


def test_all_that_it_started_is_killed(agent):
    name = left("(setsid sleep 5551 &) ; (sleep 5552 &) ; sleep 5553")
    wait_for(lambda: len(agent.commands("555")) >= 4)
    kept.attach(None, name, is_silent=True).ask(kept.kill_frame())
    ended = wait_for_end(name)
    assert (ended.exit_code, ended.signal, agent.commands("sleep 555")) == (137, 9, [])


def test_a_late_one_is_killed_and_reported_as_late(agent):
    name = left("(setsid sleep 5561 &) ; echo so far; sleep 5562", timeout_ms=300)
    ended = wait_for_end(name)
    assert (ended.exit_code, ended.timed_out, agent.commands("sleep 556")) == (137, True, [])
    assert output(again(name))[0] == b"so far\n"


def test_the_list_shows_what_was_noted_and_an_id_runs_once(agent):
    name = left("sleep 5", note=b'{"command": ["sleep"]}')
    with pytest.raises(kept.AlreadyStarted):
        left("touch /never", name=name)
    (entry,) = kept.entries(None)
    assert (entry.id, entry.note, entry.status.state) == (name, {"command": ["sleep"]}, kept.State.RUNNING)
    with pytest.raises(errors.CommandNotFound):
        status(uuid4().hex)


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/no/such", 127), ("/etc", 126), ("/etc/passwd", 126)]
)
def test_what_cannot_start_is_not_kept(agent, command, code):
    with pytest.raises(kept.CannotStart) as refusal:
        kept.start(None, uuid4().hex, kept.Wanted((command,)), is_silent=True)
    assert refusal.value.exit_code == code
    assert kept.entries(None) == []


def test_environment_and_directory(agent, tmp_path):
    _, command = sh("pwd; echo $ONE", environment={"ONE": "1"}, directory=str(tmp_path))
    assert output(messages(command))[0] == f"{tmp_path}\n1\n".encode()
    with pytest.raises(kept.CannotStart):
        sh("true", directory="/no/such")


def test_a_stream_of_an_event_loop_is_the_same(agent):
    name, command = sh("for i in 1 2 3; do echo $i; echo e$i >&2; done; sleep 0.2; exit 4")

    async def follow():
        return [message async for message in command.stream(0.05)]

    found = asyncio.run(follow())
    assert None in found, "it says that nothing has come"
    shown = [message for message in found if message is not None]
    assert output(shown) == output(again(name))
    command.close()


# Attacks ----------------------------------------------------------------------------------------------------


def test_a_tenant_that_kills_the_keeper_loses_that_command_only(agent):
    other = left("sleep 0.5; echo safe")
    name, command = sh("echo before; sleep 0.3; kill -9 $PPID; sleep 5")
    with pytest.raises(errors.CommandLost):
        messages(command)
    lost = wait_for_end(name)
    assert (lost.state, lost.exit_code) == (kept.State.LOST, None)
    with pytest.raises(errors.CommandLost):
        again(name)
    command = kept.attach(None, name, is_silent=False)
    assert next(command.read(time.monotonic() + 5)).data == b"before\n", "what it wrote before is kept"
    command.close()
    assert wait_for_end(other).exit_code == 0
    assert output(again(other))[0] == b"safe\n"


def test_one_that_has_ended_leaves_no_process(agent):
    """Its container may have few."""
    name = left("echo kept; exit 6")
    wait_for_end(name)
    wait_for(lambda: len(pids.children(agent.process_1())) == 1)
    assert output(again(name)) == (b"kept\n", b"", kept.End(6, None, timed_out=False))


def test_a_stopped_keeper_is_not_waited_for(agent, monkeypatch):
    monkeypatch.setattr(kept, "ANSWER_S", 0.3)
    name = left("sleep 0.3; kill -STOP $PPID; sleep 5571")
    wait_for(lambda: "sleep 5571 " in agent.commands("sleep 5571"))
    with pytest.raises(errors.CommandLost, match="does not answer"):
        status(name)
    assert guest.run(None, ("echo", "alive"), 5000).stdout == b"alive\n"
    assert [entry.id for entry in kept.entries(None)] == [name]


def test_more_commands_than_are_kept_leave_the_newest(agent):
    names = [left(f"exit {number % 7}") for number in range(200)]
    wait_for(lambda: all(entry.status.state == kept.State.EXITED for entry in kept.entries(None)))
    left("true")
    found = wait_for(lambda: (now := {entry.id for entry in kept.entries(None)}) and len(now) <= 34 and now)
    assert set(names[-20:]) <= found
    assert wait_for_end(names[-1]).exit_code == 199 % 7


def test_more_than_may_run_are_refused(agent):
    names = []
    with pytest.raises(errors.TooManyKept):
        for _ in range(200):
            names.append(left("sleep 60"))
    assert guest.run(None, ("echo", "alive"), 5000).stdout == b"alive\n", "there is room for others"
    for name in names:
        kept.attach(None, name, is_silent=True).ask(kept.kill_frame())
    wait_for_end(names[-1])
    assert output(again(left("echo more")))[0] == b"more\n"


def test_more_readers_than_it_has_room_for_are_refused(agent):
    name = left("sleep 20")
    readers = [kept.attach(None, name, is_silent=False) for _ in range(8)]
    with pytest.raises(errors.TooManyKept):
        kept.attach(None, name, is_silent=True)
    readers.pop().close()
    wait_for(lambda: not isinstance(try_(lambda: status(name), errors.TooManyKept), errors.TooManyKept))
    for reader in readers:
        reader.close()


def try_(act, refusal):
    try:
        return act()
    except refusal as error:
        return error


def test_hundreds_of_hang_ups_leave_all_alive(agent):
    name = left("yes | head -c 100000000 > /dev/null; yes", wants_input=True)
    chance = random.Random(5)
    for _ in range(300):
        command = kept.attach(None, name, chance.randrange(10_000), is_silent=chance.random() < 0.5)
        if command.is_silent:
            command.send(
                frames.frame(chance.choice([b"Q", b"I", b"W", b"?"]), chance.randbytes(chance.randrange(9)))[:9]
            )
        command.close()
    assert status(name).state == kept.State.RUNNING
    kept.attach(None, name, is_silent=True).ask(kept.kill_frame())


# What a lying agent says ------------------------------------------------------------------------------------


HELLO = frames.frame(frames.HELLO, b"\0\3")
STATE = struct.Struct(">cBBIIIQQQQ")


def state(letter=b"r", code=0, by=0, ended=0, first=0, end=0):
    return frames.frame(kept.STATUS, STATE.pack(letter, 0, by, code, 7, 0, 1000, ended, first, end))


@pytest.mark.parametrize(
    "words",
    [
        frames.frame(kept.STATUS, b""),
        state(b"z"),
        state(code=256),
        state(by=65),
        state(first=2, end=1),
        state(end=1 << 60),
        state(ended=1 << 60),
        frames.frame(b"?", b""),
        frames.frame(b"!", b"x\xff\xff\xff\xff"),  # an error that no system has
        b"K\xff\xff\xff\xff",
        b"K\0\0\0\5abc",
    ],
)
def test_nonsense_instead_of_a_state_is_an_error(tmp_path, monkeypatch, words):
    with lying(tmp_path, monkeypatch, words), pytest.raises(errors.CommandLost):
        kept.attach(None, uuid4().hex, is_silent=False)


@pytest.mark.parametrize("words", [b"?\0\0\0\0", b"X\0\0\0\1x", frames.frame(b"G", b"1"), b"1\xff\xff\xff\xff"])
def test_nonsense_after_it_ends_the_stream(tmp_path, monkeypatch, words):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
    with lying(tmp_path, monkeypatch, state() + words):
        try:
            command = kept.attach(None, uuid4().hex, is_silent=False)
        except errors.CommandLost:
            return  # it came with the state

        async def follow():
            return [message async for message in command.stream(0.05) if message is not None]

        assert asyncio.run(follow()) == []
        command.close()


def test_thousands_of_tiny_pieces_at_once_do_not_stop_the_stream(tmp_path, monkeypatch):
    """A program that writes to both streams in turn has pieces of a byte each."""
    pieces = b"".join(frames.frame(kind, b"x") for kind in (frames.STDOUT, frames.STDERR)) * 2500
    end = frames.frame(frames.EXIT, struct.pack(">IBBI", 3, 0, 0, 0))
    with lying(tmp_path, monkeypatch, state(end=5000) + pieces + end):
        command = kept.attach(None, uuid4().hex, is_silent=False)

        async def follow():
            async with asyncio.timeout(30):
                return [message async for message in command.stream(1.0) if message is not None]

        assert output(asyncio.run(follow())) == (b"x" * 2500, b"x" * 2500, kept.End(3, None, timed_out=False))
        command.close()


@pytest.mark.parametrize("note", [b"", b"[", b"[[[[" * 100, b"7", b'"x"', b"\xff\xfe"])
def test_a_note_that_is_none_shows_nothing(tmp_path, monkeypatch, note):
    entry = frames.frame(kept.ENTRY, state()[5:] + bytes(16) + note)
    with lying(tmp_path, monkeypatch, entry + frames.frame(kept.LIST_END)):
        assert [entry.note for entry in kept.entries(None)] == [{}]


def test_a_list_without_end_ends(tmp_path, monkeypatch):
    entry = frames.frame(kept.ENTRY, state()[5:] + bytes(16))
    with lying(tmp_path, monkeypatch, b"", for_ever=entry * 100), pytest.raises(errors.CommandLost):
        kept.entries(None)


def test_an_older_agent_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
    with (
        lying_agent(tmp_path / "lies", frames.frame(frames.HELLO, b"\0\2"), b"", b"", 0.0),
        pytest.raises(connections.NoAgent),
    ):
        kept.entries(None)


def lying(tmp_path, monkeypatch, words, for_ever=b""):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
    return lying_agent(tmp_path / "lies", HELLO, words, for_ever, 0.0)

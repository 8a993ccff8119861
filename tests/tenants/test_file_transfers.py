"""Files through a web process: bodies of any length pass through it and are not kept, and heads decide."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest
import requests

from boilerhouse.process import pids
from tests.held_container import STATE, held_container
from tests.webserver import rest

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
MB = 1 << 20
LIMITS = {
    "BOILERHOUSE_BODY_TIMEOUT_S": "3", "BOILERHOUSE_MAX_TRANSFERS_PER_TENANT": "3", "BOILERHOUSE_STREAM_STALL_S": "5",
    "BOILERHOUSE_TRUSTED_PROXIES": "192.0.2.0/24",
}  # fmt: skip


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    directory, home = tmp_path_factory.mktemp("transfers"), tmp_path_factory.mktemp("home")
    with held_container(directory, home, **LIMITS) as container:
        yield container


def pieces(count, size=MB):
    for number in range(count):
        yield bytes([number % 251]) * size


def test_a_gigabyte_passes_up_and_down_and_nothing_is_kept(held):
    before = held.web.memory_bytes()
    seen = []

    def watch():
        while not seen or seen[-1] >= 0:
            seen.append(held.web.memory_bytes())
            assert held.web.spooled_bytes() < MB
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    expected = hashlib.sha256()
    for piece in pieces(1024):
        expected.update(piece)
    assert held.ask("PUT", "files?path=big", data=pieces(1024)).status_code == 200
    found, count = hashlib.sha256(), 0
    with held.ask("GET", "files?path=big", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(1 << 30)
        for chunk in answer.iter_content(MB):
            found.update(chunk)
            count += len(chunk)
    peak = max(seen)
    seen.append(-1)
    assert (count, found.hexdigest()) == (1 << 30, expected.hexdigest())
    assert peak - before < 64 * MB
    os.remove(held.home / "big")


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 70_000, MB, 3 * MB + 7])
def test_bodies_of_each_length_arrive_whole(held, size, is_chunked):
    data = os.urandom(size)
    body = iter([data[at : at + 10_000] for at in range(0, size, 10_000)]) if is_chunked else data
    done = held.ask("PUT", "files?path=f", data=body)
    assert (done.status_code, done.json()["size"]) == (200, size)
    assert (held.home / "f").read_bytes() == data
    assert held.ask("GET", "files?path=f").content == data
    if size > 20:
        part = held.ask("GET", "files?path=f", headers={"Range": f"bytes=10-{size - 2}"})
        assert (part.status_code, part.content) == (206, data[10:-1])


def test_the_token_of_a_link_is_never_in_the_log(held):
    (held.home / "long").write_bytes(bytes(64 * MB))
    url = held.ask("POST", "files/links", json={"path": "long"}).json()["url"]
    token = url.rpartition("/")[2]
    with requests.get(url, stream=True, timeout=60) as answer:
        assert answer.raw.read(1000)
    refused = requests.put(url, data=pieces(2), timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (403, "link_invalid")
    held.wait_for_no_session()
    deadline = time.monotonic() + 15
    while "response broken off" not in held.web.log:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "file-links/<str:token>" in held.web.log
    assert token not in held.web.log


def test_a_connection_is_used_again_after_a_long_body(held):
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {held.key}"
        for number in range(3):
            url = f"{held.web.base}/api/v1/tenants/alice/files?path=again"
            assert session.put(url, data=bytes([number]) * MB, timeout=30).status_code == 200
            assert session.get(url, timeout=30).content == bytes([number]) * MB


def test_archives_pass_both_ways(held):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for number in range(50):
            info = tarfile.TarInfo(f"dir{number}/file")
            info.size = 100_000
            made.addfile(info, io.BytesIO(bytes([number]) * 100_000))
    done = held.ask("PUT", "files/archive?path=tree&parents=true", data=io.BytesIO(out.getvalue()))
    assert (done.status_code, done.json()) == (200, {"entries": 50})
    got = held.ask("GET", "files/archive?path=tree")
    assert got.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(got.content)) as opened:
        assert len([one for one in opened if one.isfile()]) == 50
        assert opened.extractfile("dir49/file").read() == bytes([49]) * 100_000
    bad = held.ask("PUT", "files/archive?path=tree", data=iter([b"no archive" * 100_000]))
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_archive")


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("", 401, b"not_authenticated"), ("other", 404, b"not_found"), ("bh_x", 401, b"authentication_failed")],
)
def test_who_may_not_is_refused_from_the_head(held, key, status, code):
    """Nothing of a body of a terabyte is wanted."""
    name = held.other if key == "other" else key
    sent = held.head("evil", key=name, Content_Length=str(1 << 40), Expect="100-continue")
    with held.web.connect(sent) as opened:
        answer = opened.recv(65536) + rest(opened)
    assert int(answer.split(b" ", 2)[1]) == status, answer
    assert code in answer
    assert not (held.home / "evil").exists()


def test_what_does_not_fit_is_refused_before_it_comes(held):
    sent = held.head("huge", Content_Length=str(1 << 60), Expect="100-continue")
    with held.web.connect(sent) as opened:
        answer = rest(opened)
    assert b" 507 " in answer, answer
    assert b"no_space" in answer
    assert b"Connection: close" in answer


def test_a_wrong_path_is_answered_while_the_body_is_still_on_its_way(held):
    done = held.ask("PUT", "files?path=missing/f", data=pieces(100))
    assert (done.status_code, done.json()["code"]) == (404, "file_not_found")
    assert held.ask("GET", "files/list").status_code == 200


def test_a_client_that_leaves_in_the_middle_leaves_the_old_content(held):
    held.ask("PUT", "files?path=kept", data=b"old")
    for end in (socket.socket.close, lambda one: one.shutdown(socket.SHUT_WR)):
        opened = held.web.connect(held.head("kept", Content_Length=str(100 * MB)) + bytes(5 * MB))
        end(opened)
        opened.close()
    held.wait_for_no_session()
    assert (held.home / "kept").read_bytes() == b"old"
    assert not [name for name in os.listdir(held.home) if name.startswith(".boilerhouse")]


def test_a_client_that_stops_sending_is_told_so(held):
    opened = held.web.connect(held.head("slow", Content_Length=str(100 * MB)) + bytes(MB))
    answer = rest(opened)
    assert b" 408 " in answer, answer
    held.wait_for_no_session()
    assert not (held.home / "slow").exists()


def test_a_client_is_not_blamed_while_the_container_does_not_answer(held):
    """Its time limit is 3 s, and the container does not answer for 4."""
    process_1 = held.agent.process_1()
    os.kill(process_1, signal.SIGSTOP)
    try:
        opened = held.web.connect(held.head("waited", Content_Length=str(MB), Connection="close") + bytes(100_000))
        time.sleep(4)
    finally:
        os.kill(process_1, signal.SIGCONT)
    opened.sendall(bytes(MB - 100_000))
    answer = rest(opened)
    assert b" 200 " in answer, answer
    assert (held.home / "waited").stat().st_size == MB


def test_a_key_that_is_revoked_ends_an_archive_that_is_on_its_way(held):
    """Its entries are there as they come, so it is not enough to look at the end."""
    made = "from boilerhouse.core.api_keys import create_key; print('@', create_key(name='gone', role='tenant',"
    said = held.web.manage("shell", "-c", f"{made} tenant_ids=['alice'])[1])")
    key = next(line for line in said.splitlines() if line.startswith("@")).split()[1]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("before", "after"):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            archive.addfile(info, io.BytesIO(bytes(100_000)))
    data, half = out.getvalue(), 102_400
    head = held.head("revoked&parents=true", key=key, Content_Length=str(len(data)), Connection="close")
    head = head.replace(b"/files?", b"/files/archive?")
    with held.web.connect(head + data[:half]) as opened:
        deadline = time.monotonic() + 20
        while not (held.home / "revoked" / "before").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        held.web.manage("shell", "-c", f"from boilerhouse.core.api_keys import *; revoke_key(find_key('{key}').pk)")
        time.sleep(1.1)
        opened.sendall(data[half:])
        answer = rest(opened)
    assert b" 401 " in answer, answer
    held.wait_for_no_session()
    assert os.listdir(held.home / "revoked") == ["before"]


def test_a_client_that_does_not_read_is_dropped(held):
    (held.home / "long").write_bytes(bytes(50 * MB))
    request = held.head("long").replace(b"PUT", b"GET")
    with held.web.connect(request) as opened:
        opened.recv(1000)
        deadline = time.monotonic() + 30
        while held.sessions():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_file_that_shrinks_on_the_way_ends_the_connection_early(held):
    (held.home / "shrinks").write_bytes(bytes(200 * MB))
    with held.ask("GET", "files?path=shrinks", stream=True) as answer:
        chunks = answer.iter_content(MB)
        next(chunks)
        os.truncate(held.home / "shrinks", 1000)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for _ in chunks:
                pass


def test_a_session_that_dies_in_the_middle_is_an_error_for_both_directions(held):
    (held.home / "long").write_bytes(bytes(200 * MB))
    with held.ask("GET", "files?path=long", stream=True) as answer:
        chunks = answer.iter_content(MB)
        next(chunks)
        held.agent.kill_session(_sessions(held)[0], held.agent.process_1())
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for _ in chunks:
                pass

    def killing():
        yield bytes(MB)
        deadline = time.monotonic() + 10
        while not _sessions(held):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        held.agent.kill_session(_sessions(held)[0], held.agent.process_1())
        yield from pieces(5)

    done = held.ask("PUT", "files?path=died", data=killing())
    assert (done.status_code, done.json()["code"]) == (502, "files_lost")
    assert not (held.home / "died").exists()


def _sessions(held):
    children = pids.children(held.agent.process_1())
    return [one for one in children if Path(f"/proc/{one}/comm").read_text().strip() == "agent"]


def test_one_tenant_has_its_share_of_transfers(held):
    (held.home / "long").write_bytes(bytes(50 * MB))
    open_ = [held.ask("GET", "files?path=long", stream=True) for _ in range(3)]
    refused = held.ask("GET", "files?path=long")
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exceeded")
    refused = held.ask("PUT", "files?path=new", data=bytes(MB))
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exceeded")
    assert held.ask("GET", "files/list").status_code == 200, "what is short goes on"
    for one in open_:
        one.close()
    deadline = time.monotonic() + 20
    while held.ask("GET", "files?path=long", stream=True, headers={"Range": "bytes=0-9"}).status_code != 206:
        assert time.monotonic() < deadline
    held.wait_for_no_session()


def test_a_release_ends_transfers_and_uploads_are_not_completed(held):
    def releasing():
        yield bytes(MB)
        held.web.manage("shell", "-c", STATE.format("releasing"))
        yield bytes(MB)

    try:
        done = held.ask("PUT", "files?path=late", data=releasing())
        assert (done.status_code, done.json()["code"]) == (409, "releasing")
        assert not (held.home / "late").exists()
        held.wait_for_no_session()
    finally:
        held.web.manage("shell", "-c", STATE.format("assigned"))


def test_changes_are_events_until_the_claim_ends(held):
    try:
        with held.ask("GET", "files/watch?recursive=true", stream=True) as answer:
            lines = answer.iter_lines()
            assert next(lines) == b"event: ready"
            (held.home / "seen").touch()
            got = []
            while b"event: created" not in got:
                got.append(next(lines))
            assert b'"path": "seen"' in next(lines)
            held.web.manage("shell", "-c", STATE.format("releasing"))
            while (line := next(lines)) != b"event: end":
                assert line is not None
        held.wait_for_no_session()
    finally:
        held.web.manage("shell", "-c", STATE.format("assigned"))

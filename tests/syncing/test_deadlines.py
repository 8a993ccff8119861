"""A query of a sink ends at its deadline, whatever the sink sends, and delays no query of another tenant
(hazards.md#d10)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from syncing import errors, places, sink_checks
from syncing.sinks import CLAIM_DEADLINE_S, AzureBlobSink, GcsSink, S3Sink, WebDavSink, deadlines, gcs_access
from tests import google
from tests.endless_server import EndlessServer
from tests.make import make_sync_spec
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nETag: "x"\r\nContent-Length: 100000\r\n\r\n'


@pytest.fixture(params=[b"", HEAD], ids=["its head", "its body"])
def endless_server(request):
    server = EndlessServer(request.param)
    yield server
    server.close()


def sinks_at(server: EndlessServer):
    address = f"http://127.0.0.1:{server.port}"
    yield S3Sink("b", "us-east-1", "", address, "", "key", "secret-secret")
    yield WebDavSink(f"{address}/dav")
    yield AzureBlobSink("tests", "states", "", f"{address}/tests", "a2V5IG9mIG5vIGFjY291bnQ=")
    for has_token in (False, True):  # the question for one, and questions with one
        sink = GcsSink("states", "", f"{address}", "a@b", f"key {has_token}", google.private_key())
        if has_token:
            gcs_access._tokens[sink._account] = ("token", float("inf"))
        yield sink


KINDS = ["s3", "webdav", "azureblob", "gcs-token", "gcs"]


@pytest.fixture
def soon(monkeypatch):
    """Shortens deadlines, so that the tests do not wait for them."""
    for module in ("s3", "webdav", "object_store"):
        monkeypatch.setattr(f"syncing.sinks.{module}.whole_s", lambda *_: 0.3)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_each_question_of_a_claim_ends_although_bytes_go_on_coming(endless_server, number, soon):
    """For each client, in the head and in the body; the connection is closed, so nothing continues in the
    background."""
    sink = list(sinks_at(endless_server))[number]
    for ask in (
        lambda: sink.get("k", CLAIM_DEADLINE_S),
        lambda: sink.read("k", CLAIM_DEADLINE_S),
        lambda: sink.has_objects("x", CLAIM_DEADLINE_S),
    ):
        began = time.monotonic()
        with pytest.raises(errors.SinkStumbled, match=r"has not answered within 0\.3 s"):
            ask()
        assert time.monotonic() - began < 5 * CLAIM_DEADLINE_S
    eventually(lambda: endless_server.open == 0)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_each_question_of_a_run_ends_too(number, soon):
    """Markers, listings, copies, deletes, probes."""
    endless_server = EndlessServer(HEAD)
    sink = list(sinks_at(endless_server))[number]
    for ask in (
        lambda: sink.get("k", 15),
        lambda: sink.put("k", b"x"),
        lambda: sink.delete("k"),
        lambda: sink.copy("k", "l"),
        lambda: list(sink.names("x")),
        lambda: list(sink.folders("x")),
        lambda: sink.delete_all("x"),
        lambda: sink.probe(),
    ):
        with pytest.raises(errors.SyncFailed, match="has not answered within"):
            ask()
    eventually(lambda: endless_server.open == 0)
    endless_server.close()


def test_a_handshake_that_drips_ends_too(soon):
    """No client gives the TLS handshake its own time limit."""
    server = EndlessServer(b"")
    try:
        sink = S3Sink("b", "us-east-1", "", f"https://localhost:{server.port}", "", "key", "secret-secret")
        with pytest.raises(errors.SyncFailed):
            sink.get("k", CLAIM_DEADLINE_S)
        eventually(lambda: server.open == 0)
    finally:
        server.close()


def test_an_answer_in_time_is_given_and_the_connection_kept(s3):
    """No answered query is interrupted."""
    sink = s3.sink()
    sink.put("x/one", b"1")
    before = threading.active_count()
    for _ in range(20):
        assert sink.get("x/one", CLAIM_DEADLINE_S) == b"1"
        assert sink.has_objects("x", CLAIM_DEADLINE_S)
    assert threading.active_count() <= before + 1
    with deadlines.within(0.2):
        time.sleep(0.4)
        with pytest.raises(errors.SinkStumbled):
            deadlines.check()


@pytest.fixture
def asked(data_dir, monkeypatch):
    """Sink checks of two pools: one with a sink that sends byte by byte, one with a directory."""
    monkeypatch.setattr(sink_checks, "_took_s", {})
    monkeypatch.setattr(sink_checks, "_silent_since", {})
    monkeypatch.setattr(places, "is_settled", lambda _spec, _sink: True)
    server = EndlessServer(b"")
    sink = S3Sink("b", "us-east-1", "", f"http://127.0.0.1:{server.port}", "", "key", "secret-secret")
    spec = make_sync_spec()
    monkeypatch.setattr(type(spec), "resolved_sink", lambda _self: sink)
    monkeypatch.setattr(places, "spelling", lambda _spec: sink.place_name)
    yield spec, sink
    server.close()


def test_a_sink_that_drips_gets_some_of_the_threads_and_then_one(asked, monkeypatch):
    """Claims at other sinks find a thread at once, from the first claim on; later ones do not wait either."""
    spec, _ = asked
    monkeypatch.setattr(sink_checks, "PATIENT_DEADLINE_S", sink_checks.SLOW_S + 0.1)
    first = [sink_checks.check_spec(spec, f"tenant-{number}") for number in range(8)]
    began = sum(one.begun is not None for sink_check in first for one in sink_check.queries)
    assert 0 < began <= sink_checks.ASKERS_PER_SINK // 2
    assert sink_checks._askers.submit(lambda: "free").result(sink_checks.NEAR_S * 50) == "free"
    with ThreadPoolExecutor(3) as threads:
        failed = [threads.submit(sink_check.answer) for sink_check in first[:3]]
        for one in failed:
            with pytest.raises(errors.SinkStumbled):
                one.result(60)
    again = sink_checks.check_spec(spec, "alice")
    assert again.is_slow
    assert all(one.begun is None for one in again.queries), "no thread of others waits for it"
    with again.entered(4) as may_wait, sink_checks.check_spec(spec, "bob").entered(4) as may_too:
        assert (may_wait, may_too) == (True, False)
    with sink_checks.check_spec(spec, "bob").entered(4) as may_wait:
        assert may_wait

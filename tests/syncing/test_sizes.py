"""How much of a sink's answer is read into memory, and where: its length is untrusted."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import threading
from dataclasses import replace

import pytest

from syncing import errors, listings
from syncing.markers import PLAIN_BYTES, Manifest, Marker
from syncing.sinks import CLAIM_DEADLINE_S, RUN_DEADLINE_S, AzureBlobSink, GcsSink, S3Sink, WebDavSink, sizes
from tests import google

MARKER = Marker("alice", "d", "t/alice", 1, "run", "closed", "2026-01-01T00:00:00Z", Manifest())


def test_what_is_longer_than_asked_for_is_not_read(empty_sink_server):
    """For each kind of sink; the next query is answered."""
    sink, content = empty_sink_server.sink(), os.urandom(300_000)
    sink.put("t/long", content)
    sink.put("t/short", b"short")
    with sizes.at_most(PLAIN_BYTES):
        for ask in (sink.get, sink.read):
            with pytest.raises(errors.Oversized, match=r"300000 bytes.*the limit is 65536"):
                ask("t/long", CLAIM_DEADLINE_S)
        assert sink.get("t/short", CLAIM_DEADLINE_S) == b"short"
    assert sink.get("t/long", RUN_DEADLINE_S) == content


@pytest.fixture
def endless():
    """A server whose answers have neither a length nor an end."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65_536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nTransfer-Encoding: chunked\r\n\r\n')
            while True:
                connection.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("kind", ["s3", "webdav", "azureblob", "gcs"])
def test_an_answer_without_an_end_is_cut(endless, kind):
    """An object, and the listing that shows whether it exists."""
    sink = {
        "s3": S3Sink("b", "us-east-1", "", endless, "", "key", "secret-secret"),
        "webdav": WebDavSink(f"{endless}/dav"),
        "azureblob": AzureBlobSink("tests", "states", "", f"{endless}/tests", "a2V5IG9mIG5vIGFjY291bnQ="),
        "gcs": GcsSink("states", "", endless, "a@b", "key", google.private_key()),
    }[kind]
    with sizes.at_most(1 << 20):
        with pytest.raises(errors.Oversized, match="is longer than the limit of 1048576 bytes"):
            sink.get("k", RUN_DEADLINE_S)
        with pytest.raises(errors.Oversized, match="is longer than the limit of 1048576 bytes"):
            sink.has_objects("x", CLAIM_DEADLINE_S)


def test_a_few_bytes_that_stand_for_many_are_not_unpacked():
    """A long marker is compressed; a truncated one is distinguished from one that is too large (hazards.md#d11)."""
    long = replace(MARKER, manifest=Manifest(empty_dirs=[f"d{number}" for number in range(20_000)])).dump()
    assert len(long) < PLAIN_BYTES
    assert len(Marker.load(long).manifest.empty_dirs) == 20_000
    with pytest.raises(errors.Oversized, match=f"longer than {PLAIN_BYTES} bytes when decompressed"):
        Marker.load(long, PLAIN_BYTES)
    with pytest.raises(ValueError, match="truncated object"):
        Marker.load(long[:-100])
    with pytest.raises(errors.Oversized):
        Marker.load(gzip.compress(bytes(50_000_000)), 1_000_000)


def test_a_listing_is_bounded_as_a_marker_is(empty_sink_server, monkeypatch):
    """An interrupted save is rolled back to it."""
    sink, names = empty_sink_server.sink(), {f"file {number}": number for number in range(5_000)}
    marker = listings.attach(sink, MARKER, "run", names)
    assert listings.read(sink, marker) == names
    content = sink.get(marker.listing, RUN_DEADLINE_S)
    sink.put(marker.listing, content[:-10])
    with pytest.raises(errors.Incomplete, match="truncated object"):
        listings.read(sink, marker)
    monkeypatch.setattr(sizes, "MOST_UNPACKED_BYTES", 50_000)
    sink.put(marker.listing, content)
    with pytest.raises(errors.Oversized, match="when decompressed"):
        listings.read(sink, marker)
    with pytest.raises(errors.Oversized, match="has so many names"):
        listings.attach(sink, MARKER, "run", names)
    sink.delete(marker.listing)


def test_what_could_not_be_read_again_is_not_written(monkeypatch):
    """A save with too many names fails with a reason, and the last save stays (hazards.md#d11)."""
    monkeypatch.setattr(sizes, "MOST_UNPACKED_BYTES", 100_000)
    with pytest.raises(errors.Oversized, match=r"t/alice has so many names"):
        replace(MARKER, manifest=Manifest(empty_dirs=[f"d{number}" for number in range(20_000)])).dump()

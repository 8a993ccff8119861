"""The two S3 queries of a claim, without botocore's client: a plain answer is used, any other is repeated with the
client.

The server is a real one that says what S3 servers and proxies say on bad days; S3 itself is asked in test_sinks.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from syncing import errors
from syncing.sinks import CLAIM_DEADLINE_S, S3Sink

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

LIST = b'<?xml version="1.0"?><ListBucketResult><Name>b</Name>%s<IsTruncated>false</IsTruncated></ListBucketResult>'
KEY = b"<Key>p/x</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag>"
FULL = LIST % (b"<Contents>" + KEY + b"</Contents>")
NO_KEY = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>"
TAG = {"ETag": '"tag"'}


class Answers:
    """A server with one answer for our own query and one for the client's; it records the callers in order."""

    def __init__(self, ours, clients=None):
        self.asked: list[str] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                is_client = not self.headers["User-Agent"].startswith("boilerhouse/")
                answers.asked.append("client" if is_client else "we")
                answer = clients if is_client else ours
                if callable(answer):
                    answer(self)
                    return
                status, body, headers = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def sink(self):
        endpoint = f"http://127.0.0.1:{self.server.server_port}"
        return S3Sink("b", "us-east-1", "", endpoint, access_key_id="AKIDTEST", secret_access_key="secret")


@pytest.fixture
def answers():
    made = []

    def make(*those):
        made.append(Answers(*those))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def cut_short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.send_header("ETag", '"tag"')
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


def hung_up(handler):
    handler.close_connection = True
    handler.connection.close()


def test_plain_answers_are_believed(answers):
    for answer, ask, expected in (
        ((200, FULL, {}), lambda sink: sink.has_objects("p", CLAIM_DEADLINE_S), True),
        ((200, LIST % b"", {}), lambda sink: sink.has_objects("p", CLAIM_DEADLINE_S), False),
        ((200, b"content", TAG), lambda sink: sink.read("k", CLAIM_DEADLINE_S), (b"content", '"tag"')),
        ((404, NO_KEY, {}), lambda sink: sink.read("k", CLAIM_DEADLINE_S), (None, "")),
    ):
        server = answers(answer)
        assert ask(server.sink) == expected
        assert server.asked == ["we"]


@pytest.mark.parametrize(
    "odd",
    [
        (200, LIST % b"<Prefix>Contents/</Prefix>", {}),
        (200, LIST % b'<Contents xmlns="urn:x"><Key>p/x</Key></Contents>', {}),
        (200, FULL[:-20], {}),
        (200, b"<html>a proxy's own page</html>", {}),
        (307, b"", {"Location": "/elsewhere"}),
        (503, b"<Error><Code>SlowDown</Code></Error>", {}),
        hung_up,
    ],
)
def test_a_listing_that_is_not_plain_is_left_to_the_client(answers, odd):
    """Only a complete and empty listing means a first claim (P5, hazards.md#c2)."""
    server = answers(odd, (200, FULL, {}))

    assert server.sink.has_objects("p", CLAIM_DEADLINE_S) is True
    assert server.asked == ["we", "client"]


@pytest.mark.parametrize(
    "odd",
    [cut_short, hung_up, (200, b"content", {}), (404, b"<html>not here</html>", {}), (301, b"", {}), (500, b"", {})],
)
def test_a_marker_that_is_not_plain_is_left_to_the_client(answers, odd):
    server = answers(odd, (200, b"content", TAG))

    assert server.sink.read("k", CLAIM_DEADLINE_S) == (b"content", '"tag"')
    assert server.asked == ["we", "client"]


def test_the_clients_words_are_the_sinks_errors(answers):
    missing, denied = (404, NO_BUCKET, {}), (403, b"<Error><Code>AccessDenied</Code></Error>", {})

    with pytest.raises(errors.SinkMissing):
        answers(missing, missing).sink.read("k", CLAIM_DEADLINE_S)
    with pytest.raises(errors.SinkDenied):
        answers(denied, denied).sink.has_objects("p", CLAIM_DEADLINE_S)


LONGER = LIST % b"<Contents><Key>k2</Key><Size>1</Size></Contents>"
THERE = LIST % b"<Contents><Key>k</Key><Size>1</Size></Contents>"
DENIED = (403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", {})


@pytest.mark.parametrize(
    ("refusal", "listing", "expected", "asked"),
    [
        (DENIED, (200, LIST % b"", {}), (None, ""), 3),
        (DENIED, (200, LONGER, {}), (None, ""), 3),
        (DENIED, (200, THERE, {}), errors.SinkDenied, 3),
        (DENIED, DENIED, errors.SinkDenied, 3),
        (DENIED, (503, b"<Error><Code>SlowDown</Code></Error>", {}), errors.SinkThrottled, 3),
        ((403, b"<Error><Code>InvalidAccessKeyId</Code></Error>", {}), (200, LIST % b"", {}), errors.SinkDenied, 2),
        ((403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", {}), (200, LIST % b"", {}), errors.SinkDenied, 2),
        ((403, b"<html>a firewall's page</html>", {}), (200, LIST % b"", {}), errors.SinkDenied, 2),
    ],
)
def test_a_refused_marker_is_missing_only_where_a_listing_says_so(answers, refusal, listing, expected, asked):
    """Any other refusal, and any other listing, is an error (P4)."""

    def clients(handler):
        status, body, _ = listing if "list-type" in handler.path else refusal
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server = answers(refusal, clients)
    if isinstance(expected, tuple):
        assert server.sink.read("k", CLAIM_DEADLINE_S) == expected
    else:
        with pytest.raises(expected):
            server.sink.read("k", CLAIM_DEADLINE_S)
    assert len(server.asked) == asked


def test_a_server_that_hangs_is_waited_for_once(answers):
    may_end = threading.Event()
    server = answers(lambda _handler: may_end.wait(60))
    began = time.monotonic()

    with pytest.raises(errors.SinkUnreachable):
        server.sink.read("k", CLAIM_DEADLINE_S)
    assert server.asked == ["we"]
    assert time.monotonic() - began < 5 * CLAIM_DEADLINE_S
    may_end.set()


def test_keys_are_asked_for_by_their_exact_names(s3):
    """The signature matches the request: spaces, percent signs, other scripts."""
    sink = s3.sink()
    for name in ("a b", "100%", "ä/ö", "x+y=z&q?", "~tilde'(1)!*"):
        sink.put(f"names/{name}", name.encode())
        assert sink.read(f"names/{name}", CLAIM_DEADLINE_S)[0] == name.encode()
        assert sink.has_objects("names", CLAIM_DEADLINE_S)

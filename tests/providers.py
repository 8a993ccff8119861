"""A proxy in front of a real sink server that behaves as other stores do: one ``Behaviour`` per peculiarity.

It is what is tried here in place of the stores themselves, which no test can reach. What each row answers is taken
from what the store documents, or from reports of users who met it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "testbucket"
KMS_KEY = "arn:aws:kms:us-east-1:111122223333:key/11112222-3333-4444-5555-666677778888"


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    target: str
    """Path and query, as they were sent."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        found = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    @property
    def key(self) -> str:
        """The object's key; empty for a request to the bucket."""
        return self.path.lstrip("/").partition("/")[2]

    @property
    def agent(self) -> str:
        return self.headers.get("user-agent", "")

    @property
    def is_listing(self) -> bool:
        return self.method == "GET" and not self.key

    @property
    def is_write(self) -> bool:
        """Whether it makes an object: by its content, as a copy, or in parts."""
        return (self.method == "PUT" and bool(self.key) and "partNumber" not in self.query) or "uploads" in self.query

    @property
    def carries_content(self) -> bool:
        return self.method == "PUT" and bool(self.key) and "x-amz-copy-source" not in self.headers

    @property
    def deletes_many(self) -> bool:
        return self.method == "POST" and "delete" in self.query


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    content: bytes

    def adding(self, **headers: str) -> Answer:
        return replace(self, headers=[*self.headers, *((n.replace("_", "-"), v) for n, v in headers.items())])


def refusal(status: int, code: str, message: str, more: str = "", **headers: str) -> Answer:
    """An error as S3 says it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()
    return Answer(status, [("Content-Type", "application/xml")], body).adding(**headers)


class Behaviour:
    """A store like any other: refuses nothing, changes nothing."""

    def received(self, asked: Asked) -> Asked:
        """The request as it is passed on."""
        return asked

    def refuse(self, asked: Asked) -> Answer | None:
        """The answer that replaces the server's."""
        return None

    def answered(self, asked: Asked, answer: Answer) -> Answer:
        """The server's answer as it is passed on."""
        return answer


class Together(Behaviour):
    """All that several stores demand."""

    def __init__(self, *parts: Behaviour) -> None:
        self.parts = parts

    def refuse(self, asked: Asked) -> Answer | None:
        return next((answer for part in self.parts if (answer := part.refuse(asked))), None)

    def answered(self, asked: Asked, answer: Answer) -> Answer:
        for part in self.parts:
            answer = part.answered(asked, answer)
        return answer


class PrefixPolicy(Behaviour):
    """Ceph RGW, and AWS without s3:ListBucket on a key: 403 in place of 404, and only some prefixes may be listed."""

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes or ("t/", ".boilerhouse/", ".boilerhouse-trash/")

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.is_listing and not asked.query.get("prefix", "").startswith(self.prefixes):
            return refusal(403, "AccessDenied", "Access Denied by the policy on s3:prefix")
        return None

    def answered(self, asked: Asked, answer: Answer) -> Answer:
        if answer.status == 404 and asked.method in ("GET", "HEAD") and b"NoSuchBucket" not in answer.content:
            return refusal(403, "AccessDenied", "Access Denied")
        return answer


class DeniesKeys(Behaviour):
    """A policy that hides one area: neither its objects nor its listing."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.key.startswith(self.prefix) or asked.query.get("prefix", "").startswith(self.prefix):
            return refusal(403, "AccessDenied", f"No access to {self.prefix}")
        return None


class DeniesReading(Behaviour):
    """A policy that lets list and write, but not read."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.key and asked.method in ("GET", "HEAD"):
            return refusal(403, "AccessDenied", "User is not authorized to perform: s3:GetObject")
        return None


class DeniesListing(Behaviour):
    """s3:GetObject without s3:ListBucket: a missing key is 403, and no listing says that it is missing."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.is_listing:
            return refusal(403, "AccessDenied", "User is not authorized to perform: s3:ListBucket")
        return None

    def answered(self, asked: Asked, answer: Answer) -> Answer:
        return PrefixPolicy().answered(asked, answer)


class DefaultKms(Behaviour):
    """A bucket whose default is SSE-KMS: ETags, also those of listings, are 32 hex digits that are no MD5."""

    says_so = True

    def __init__(self) -> None:
        self.real: dict[str, str] = {}
        self.encrypted_by: list[str] = []

    def received(self, asked: Asked) -> Asked:
        condition = asked.headers.get("if-match", "").strip('"')
        headers = (
            {**asked.headers, "if-match": f'"{self.real[condition]}"'} if condition in self.real else asked.headers
        )
        if asked.is_write:
            self.encrypted_by.append(asked.headers.get("x-amz-server-side-encryption-aws-kms-key-id", ""))
        return replace(asked, headers={n: v for n, v in headers.items() if "server-side-encryption" not in n})

    def answered(self, asked: Asked, answer: Answer) -> Answer:
        headers = [(n, self._other(v) if n.lower() == "etag" else v) for n, v in answer.headers]
        content = answer.content
        if b"<ETag>" in content:
            content = re.sub(rb"(?<=<ETag>)(.*?)(?=</ETag>)", lambda m: self._other(m[0].decode()).encode(), content)
        changed = Answer(answer.status, headers, content)
        if self.says_so and asked.key and answer.status == 200 and asked.method in ("GET", "HEAD", "PUT"):
            return changed.adding(x_amz_server_side_encryption="aws:kms").adding(
                x_amz_server_side_encryption_aws_kms_key_id=KMS_KEY
            )
        return changed

    def _other(self, tag: str) -> str:
        def other(found: re.Match[str]) -> str:
            fake = hashlib.sha256(found[0].encode()).hexdigest()[:32]
            self.real[fake] = found[0]
            return fake

        return re.sub(r"[0-9a-f]{32}", other, tag)


class OddTags(DefaultKms):
    """ETags that are no MD5, and nothing says why."""

    says_so = False


class DemandsEncryption(Behaviour):
    """A bucket policy that denies every write without the header."""

    def __init__(self, algorithm: str = "AES256") -> None:
        self.algorithm = algorithm

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.is_write and asked.headers.get("x-amz-server-side-encryption") != self.algorithm:
            words = "User is not authorized to perform: s3:PutObject with an explicit deny in a resource-based policy"
            return refusal(403, "AccessDenied", words)
        return None


class RequesterPays(Behaviour):
    """Each request says that it pays, or is refused."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.headers.get("x-amz-request-payer") != "requester":
            return refusal(403, "AccessDenied", "Access Denied")
        return None


def _has_right_md5(asked: Asked) -> bool:
    return asked.headers.get("content-md5") == base64.b64encode(hashlib.md5(asked.body).digest()).decode()


class DemandsMd5ToDelete(Behaviour):
    """GCS and older MinIO: many objects are deleted only with Content-MD5."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.deletes_many and not _has_right_md5(asked):
            return refusal(400, "MissingContentMD5", "Missing required header for this request: Content-Md5.")
        return None


class DeletesOneByOne(Behaviour):
    """A store that has no request to delete many."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.deletes_many:
            return refusal(501, "NotImplemented", "A request that is not implemented")
        return None


class ObjectLock(Behaviour):
    """A bucket with a default retention: content only with Content-MD5 or a checksum."""

    def refuse(self, asked: Asked) -> Answer | None:
        has_checksum = any(name.startswith("x-amz-checksum-") for name in asked.headers)
        if asked.carries_content and not (_has_right_md5(asked) or has_checksum):
            words = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
            return refusal(400, "InvalidRequest", words)
        return None


class Archived(Behaviour):
    """A lifecycle rule has moved tenants' files into an archive."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.method == "GET" and asked.key.startswith("t/"):
            words = "The operation is not valid for the object's storage class"
            return refusal(403, "InvalidObjectState", words, "<StorageClass>GLACIER</StorageClass>")
        return None


class RefusesEveryWrite(Behaviour):
    """Any other answer of a store."""

    def refuse(self, asked: Asked) -> Answer | None:
        return refusal(400, "InvalidRequest", "Writes\nneed a blue moon.") if asked.is_write else None


class NoTrailers(Behaviour):
    """R2, GCS and older MinIO: no checksums after the content."""

    def refuse(self, asked: Asked) -> Answer | None:
        streams = asked.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        if streams or "x-amz-trailer" in asked.headers or "aws-chunked" in asked.headers.get("content-encoding", ""):
            words = "A header you provided implies functionality that is not implemented"
            return refusal(501, "NotImplemented", words)
        return None


class SlowDown(Behaviour):
    """Throttling: of a share of all requests, or of those at some positions."""

    def __init__(self, share: float = 0.0, positions: range = range(0), answer: Answer | None = None) -> None:
        self.share, self.positions, self.count = share, positions, 0
        self.answer = answer or refusal(503, "SlowDown", "Please reduce your request rate.")
        self._random, self._lock = random.Random(7), threading.Lock()

    def refuse(self, asked: Asked) -> Answer | None:
        with self._lock:
            self.count += 1
            strikes = self.count - 1 in self.positions or self._random.random() < self.share
        return self.answer if strikes else None


class OtherClock(Behaviour):
    """The server's clock is ahead of ours, and it refuses signatures that old."""

    def __init__(self, ahead: timedelta = timedelta(minutes=20)) -> None:
        self.ahead = ahead

    def refuse(self, asked: Asked) -> Answer | None:
        now = datetime.now(UTC)
        more = f"<RequestTime>{now:%Y%m%dT%H%M%SZ}</RequestTime><ServerTime>{now + self.ahead:%Y-%m-%dT%H:%M:%SZ}</ServerTime>"
        more += "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>"
        words = "The difference between the request time and the current time is too large."
        return refusal(403, "RequestTimeTooSkewed", words, more)


class OtherRegion(Behaviour):
    """The bucket is elsewhere: a redirect, or a signature error, depending on the client."""

    def __init__(self, region: str = "eu-west-1", *, redirects: bool = True) -> None:
        self.region, self.redirects = region, redirects

    def refuse(self, asked: Asked) -> Answer | None:
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", asked.headers.get("authorization", ""))
        if scope and scope[1] == self.region:
            return None
        if self.redirects:
            words = "The bucket you are attempting to access must be addressed using the specified endpoint."
            return refusal(301, "PermanentRedirect", words, x_amz_bucket_region=self.region)
        words = f"The authorization header is malformed; the region is wrong; expecting '{self.region}'"
        return refusal(400, "AuthorizationHeaderMalformed", words, f"<Region>{self.region}</Region>")


class BucketInHost(Behaviour):
    """Alibaba OSS and Tencent COS: the bucket is part of the host's name, never of the path."""

    def received(self, asked: Asked) -> Asked:
        return replace(asked, target=f"/{BUCKET}{asked.target}")

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.headers.get("host", "").startswith(f"{BUCKET}."):
            return None
        words = "The bucket you are attempting to access must be addressed using OSS third level domain."
        return refusal(403, "SecondLevelDomainForbidden", words)


class BucketInPath(Behaviour):
    """A gateway that knows one host name alone."""

    def refuse(self, asked: Asked) -> Answer | None:
        if asked.headers.get("host", "").startswith(f"{BUCKET}."):
            return refusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        return None


CUT = Answer(0, [], b"")
"""The connection is closed in place of an answer."""


class Provider:
    """A server behind a ``Behaviour``; ``behaviour`` may be replaced at any time. ``log`` lists the requests."""

    def __init__(self, target: str, behaviour: Behaviour | None = None) -> None:
        self.behaviour, self.delay_s = behaviour or Behaviour(), 0.0
        self.log: list[Asked] = []
        self._gate, self._passing, self._is_open = threading.Condition(), 0, True
        parts = urlsplit(target)
        assert parts.hostname
        host, port = parts.hostname, parts.port
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def relay(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                if headers.pop("transfer-encoding", "") == "chunked":
                    body = b"".join(iter(self.chunk, b""))
                    headers["content-length"] = str(len(body))
                else:
                    body = self.rfile.read(int(headers.get("content-length") or 0))
                asked = Asked(self.command, self.path, headers, body)
                proxy.log.append(asked)
                time.sleep(proxy.delay_s)
                answer = proxy.refuse(asked)
                if answer is CUT:
                    self.close_connection = True
                    return
                if answer is None:
                    with proxy.passing_on() as is_open:
                        if not is_open:
                            self.close_connection = True
                            return
                        answer = _pass_on(host, port, proxy.behaviour.received(asked))
                    answer = proxy.behaviour.answered(asked, answer)
                self.reply(answer)

            def chunk(self) -> bytes:
                """The next part of a content whose length is not given before; empty at its end."""
                part = self.rfile.read(int(self.rfile.readline().partition(b";")[0], 16))
                self.rfile.readline()
                return part

            def reply(self, answer: Answer) -> None:
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                has_body = self.command != "HEAD" and answer.status not in (204, 304)
                if has_body:
                    self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                if has_body:
                    self.wfile.write(answer.content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay
            do_PROPFIND = do_MKCOL = do_COPY = do_MOVE = do_OPTIONS = relay

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # clients go away in the middle: that is what is tried

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refuse(self, asked: Asked) -> Answer | None:
        return self.behaviour.refuse(asked)

    @contextlib.contextmanager
    def passing_on(self) -> Iterator[bool]:
        """Within the block, a request may be on its way to the server; false once the proxy is stopped."""
        with self._gate:
            is_open = self._is_open
            self._passing += is_open
        try:
            yield is_open
        finally:
            with self._gate:
                self._passing -= is_open
                self._gate.notify_all()

    def stop(self) -> None:
        """Afterwards no request reaches the server: it may be shared, and the next test begins by emptying it."""
        self._server.shutdown()
        self._server.server_close()
        with self._gate:
            self._is_open = False
            assert self._gate.wait_for(lambda: not self._passing, 90), "a request is still on its way"


def _pass_on(host: str, port: int | None, asked: Asked) -> Answer:
    server = http.client.HTTPConnection(host, port, timeout=60)
    try:
        server.putrequest(asked.method, asked.target, skip_host=True, skip_accept_encoding=True)
        for name, value in asked.headers.items():
            server.putheader(name, value)
        server.endheaders(asked.body or None)
        got = server.getresponse()
        content = got.read()
    finally:
        server.close()
    dropped = {"transfer-encoding", "connection", *(() if asked.method == "HEAD" else ("content-length",))}
    return Answer(got.status, [(n, v) for n, v in got.getheaders() if n.lower() not in dropped], content)


REFUSALS = {
    "403": refusal(403, "AccessDenied", "Access Denied."),
    "500": refusal(500, "InternalError", "Try again."),
    "503": refusal(503, "SlowDown", "Reduce your request rate."),
    "full": refusal(507, "InsufficientStorage", "no space left on device"),
}


class FaultyProxy(Provider):
    """``fault`` befalls requests of ``methods`` whose path holds ``only``, after ``after`` of them went through."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.fault: str | None = None
        self.only, self.methods, self.after = "", ("GET", "PUT", "POST", "HEAD", "DELETE"), 0
        self._lock = threading.Lock()

    def refuse(self, asked: Asked) -> Answer | None:
        fault = self.strikes(asked.method, asked.target)
        if fault == "hang":
            time.sleep(60)
        return CUT if fault in ("hang", "cut") else REFUSALS.get(fault or "")

    def strikes(self, method: str, path: str) -> str | None:
        with self._lock:
            if not self.fault or method not in self.methods or self.only not in path:
                return None
            self.after -= 1
            return self.fault if self.after < 0 else None

    def heal(self) -> None:
        self.fault, self.after = None, 0

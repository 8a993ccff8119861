"""S3 sinks without their own keys: the process finds the node's keys, and rclone in its sandbox gets exactly those."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pools.spec import Owner
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.sinks import S3Sink, s3, s3_access
from tests.proxies import HIDDEN_NAME, Proxy
from tests.sink_servers import MotoS3

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

UID = 234_572


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    end = MotoS3(tmp_path_factory.mktemp("moto"))
    yield end
    end.stop()


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A node without credentials, until a test gives it some."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def found_anew():
        s3._accesses.clear()
        monkeypatch.setattr(s3_access, "_session", s3_access.new_session())

    monkeypatch.found_anew = found_anew
    found_anew()
    yield monkeypatch
    s3._accesses.clear()


class Watched:
    """A sink without keys, behind a proxy that records the credentials of each request."""

    def __init__(self, moto, proxy, volume, lock):
        endpoint = moto.definition["endpoint"].replace("127.0.0.1", HIDDEN_NAME)
        self.sink = S3Sink("testbucket", "us-east-1", "", endpoint)
        self.proxy, self.volume, self.lock = proxy, volume, lock

    def save(self):
        upload = rclone.upload(self.sink, "t/keys", [], deletes=True, inside="", backup=".boilerhouse-trash/x")
        rclone.run(upload, self.sink, Jail(self.volume, Owner(UID, UID), False), self.lock)

    def used(self):
        """(key id, whether with a token) of each request, by rclone and by the others."""
        by_rclone, by_others = set(), set()
        for one in self.proxy.asked:
            signed = one.headers["authorization"].partition("Credential=")[2].partition("/")[0]
            by = by_rclone if one.headers["user-agent"].startswith("rclone/") else by_others
            by.add((signed, one.headers.get("x-amz-security-token", "")))
        self.proxy.asked.clear()
        return by_rclone, by_others

    def check(self):
        """Query with each client; returns the one pair of key and token that all have used."""
        self.save()
        self.sink.probe()
        self.sink.has_objects("t/keys", 2)
        by_rclone, by_others = self.used()
        assert by_rclone == by_others
        (pair,) = by_rclone
        return pair


@pytest.fixture
def watched(moto, host, data_dir, tmp_path, settings):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "a").write_text("hello")
    for path in (volume, volume / "a"):
        os.chown(path, UID, UID)
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    proxy = Proxy()
    settings.HTTP_PROXY, settings.NO_PROXY = proxy.url, []
    yield Watched(moto, proxy, volume, lock)
    proxy.stop()
    os.close(lock)


def test_keys_of_the_environment(watched, host):
    host.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
    host.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-environment")
    assert watched.check() == ("AKIDENVIRONMENT", "")

    host.setenv("AWS_SESSION_TOKEN", "token-of-environment")
    host.found_anew()
    assert watched.check() == ("AKIDENVIRONMENT", "token-of-environment")


def test_keys_of_a_profile(watched, host, tmp_path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = one\n"
        "[sinks]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = two\n"
    )
    host.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert watched.check() == ("AKIDDEFAULT", "")

    host.setenv("AWS_PROFILE", "sinks")
    host.found_anew()
    assert watched.check() == ("AKIDPROFILE", "")


def test_keys_by_web_identity(watched, host, moto, tmp_path):
    """As Kubernetes assigns a role to service accounts."""
    (tmp_path / "token").write_text("a.web.token")
    host.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    host.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/boilerhouse")
    host.setenv("AWS_ENDPOINT_URL_STS", moto.definition["endpoint"])

    key, token = watched.check()

    assert key.startswith("ASIA")
    assert token


class Metadata:
    """A metadata service with the keys of a role; each answer has a new key, valid for ``minutes``."""

    def __init__(self, minutes):
        self.given, self.minutes = 0, minutes
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                self._say("metadata-token")

            def do_GET(self):
                if self.path.endswith("/security-credentials/"):
                    self._say("the-role")
                else:
                    self._say(json.dumps(metadata.keys()))

            def _say(self, text):
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def keys(self):
        self.given += 1
        until = datetime.now(UTC) + timedelta(minutes=self.minutes)
        return {
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": f"ASIAROLE{self.given}", "SecretAccessKey": "secret",
            "Token": f"token-{self.given}", "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }  # fmt: skip


INSTANCE, TASK = "instance", "task"


@pytest.fixture(params=[INSTANCE, TASK])
def metadata(request, host):
    made = Metadata(minutes=60)
    if request.param == INSTANCE:
        host.delenv("AWS_EC2_METADATA_DISABLED")
        host.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", made.url)
    else:
        host.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{made.url}/keys")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_keys_of_the_instances_role(watched, metadata):
    """The process requests them once; rclone never does."""
    assert watched.check() == ("ASIAROLE1", "token-1")
    assert metadata.given == 1


@pytest.mark.parametrize("metadata", [TASK], indirect=True)  # an instance's own are used past their time, by design
def test_a_roles_keys_are_renewed_before_a_transfer(watched, metadata):
    """Keys that expire soon are not passed to rclone."""
    metadata.minutes = 5
    watched.save()
    watched.save()
    by_rclone, _ = watched.used()

    assert len(by_rclone) == 2


def test_without_any_keys_both_say_so(watched):
    """Nothing queries the metadata address, and the error says where keys are looked for."""
    for ask in (watched.sink.probe, watched.save):
        with pytest.raises(errors.SinkDenied, match="instance's role"):
            ask()
    assert watched.proxy.asked == []


def test_a_role_that_is_refused_is_not_taken_for_the_bucket(watched, host, tmp_path):
    """The error contains the message of the service that refused."""
    refusal = (
        b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        b"<Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>"
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(400)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(refusal)))
            self.end_headers()
            self.wfile.write(refusal)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    (tmp_path / "token").write_text("a.web.token")
    host.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    host.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/boilerhouse")
    host.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
    try:
        for ask in (watched.sink.probe, watched.save):
            with pytest.raises(errors.SinkDenied, match="AssumeRoleWithWebIdentity answered 400 InvalidIdentityToken"):
                ask()
    finally:
        server.shutdown()
        server.server_close()

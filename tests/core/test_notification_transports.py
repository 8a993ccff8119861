"""Notifications on the wire: signed, bounded, to public addresses only, whatever the other side does."""

from __future__ import annotations

import smtplib
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.smtp import AuthResult
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from boilerhouse.notifications import addresses, messages, signing, targets, transports
from boilerhouse.notifications.errors import Undelivered
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.states import DEFAULT_RULES, Moment
from boilerhouse.notifications.targets import TargetSettings
from boilerhouse.notifications.transports import http, mail
from syncing.sinks import outbound
from tests.endless_server import EndlessServer
from tests.environment import AUTHORITY
from tests.listeners import stop_listener
from tests.receivers import Receiver, mail_server, receiving

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]
HOSTILE = (
    "evil <!channel> <https://evil.example|click> @channel ``` [x](https://evil.example) & \r\nBcc: all@example.com"
    " \x1b[2J \u202e"
)


@pytest.fixture(autouse=True)
def _deployment(data_dir) -> None:
    """A deployment with an id."""


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


def target_at(url: str, kind: str = "webhook", **more: Any) -> Target:
    settings = TargetSettings(name="T", kind=kind, url=url, kinds=DEFAULT_RULES, **more)
    return targets.create(id=None, settings=settings)[0]


def mail_to(*recipients: str) -> Target:
    settings = TargetSettings(name="M", kind="email", recipients=recipients, kinds=DEFAULT_RULES)
    return targets.create(id=None, settings=settings)[0]


def message(moment: Moment = Moment.OPENED, **over: Any) -> messages.Message:
    now = timezone.now()
    about: dict[str, Any] = {
        "incident_id": uuid4(), "key": "pool:p:start_failed", "kind": "pool_cannot_start", "severity": "error",
        "title": "p cannot start containers", "text": "The image does not exist.", "pool_ids": ["p"], "since": now,
    }  # fmt: skip
    return messages.Message(uuid4(), moment, now, messages.payload(**{**about, **over}))


# Webhooks ---------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_standard_webhooks_says(receiver):
    target = target_at(receiver.url)
    sent = message()
    assert transports.send(target, sent) == 204

    [got] = receiver.received
    secret = target.secret["signing"][0]["secret"]
    about = Webhook(secret).verify(got.body, got.headers)
    assert got.headers["webhook-id"] == f"msg_{sent.id.hex}"
    assert got.headers["content-type"] == "application/json"
    assert about["type"] == "boilerhouse.cause.opened"
    assert about["data"]["title"] == "p cannot start containers"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(got.body.replace(b"cannot", b"can"), got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(got.body, got.headers)


def test_a_replaced_secret_signs_for_a_day_beside_the_new_one(receiver):
    target = target_at(receiver.url)
    old = target.secret["signing"][0]["secret"]
    new = signing.new_secret()
    target = targets.replace(target, TargetSettings(name="T", kind="webhook", secret=new, kinds=DEFAULT_RULES))
    transports.send(target, message())

    [got] = receiver.received
    for secret in (old, new):
        Webhook(secret).verify(got.body, got.headers)
    assert signing.valid(target, datetime.now(UTC) + signing.OLD_FOR) == [new]


@pytest.mark.parametrize("status", [300, 400, 404, 429, 500, 503])
def test_what_is_no_success_is_a_failure_with_its_status_and_nothing_of_the_answer(receiver, status):
    receiver.status = status
    receiver.headers = {"Retry-After": "7"}
    with pytest.raises(Undelivered) as raised:
        transports.send(target_at(receiver.url), message())
    assert raised.value.status == status
    assert str(status) in raised.value.detail
    assert "SECRET" not in raised.value.detail
    assert raised.value.after_s == (7 if status >= 400 else 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver, status):
    with receiving(status=status, headers={"Location": receiver.url}) as first:
        with pytest.raises(Undelivered, match="Redirects are not followed") as raised:
            transports.send(target_at(first.url), message())
        assert raised.value.status == status
        assert len(first.received) == 1
    assert receiver.received == []


@pytest.mark.parametrize(
    "at_once", [b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50], ids=["never a status", "never the last status"]
)
def test_a_receiver_that_drips_ends_at_the_deadline(monkeypatch, at_once):
    monkeypatch.setattr(http, "SEND_S", 1.0)
    server = EndlessServer(at_once)
    try:
        began = time.monotonic()
        with pytest.raises(Undelivered, match=r"within 1 s") as raised:
            transports.send(target_at(f"http://127.0.0.1:{server.port}/"), message())
        assert raised.value.status is None
        assert time.monotonic() - began < 5
    finally:
        server.close()


def test_a_status_counts_although_its_headers_never_end(monkeypatch):
    monkeypatch.setattr(http, "SEND_S", 1.0)
    server = EndlessServer(b"HTTP/1.1 200 OK\r\nX: ")
    try:
        began = time.monotonic()
        assert transports.send(target_at(f"http://127.0.0.1:{server.port}/"), message()) == 200
        assert time.monotonic() - began < 5
    finally:
        server.close()


def test_an_endless_answer_is_not_read():
    """Its status is what counts."""
    listening = socket.create_server(("127.0.0.1", 0))
    written = [0]

    def serve() -> None:
        connection, _ = listening.accept()
        connection.recv(65536)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                written[0] += connection.send(b"x" * 65536)
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        assert transports.send(target_at(f"http://127.0.0.1:{listening.getsockname()[1]}/"), message()) == 200
        thread.join(5)
        assert not thread.is_alive(), "the connection is closed"
    finally:
        stop_listener(listening)


def test_a_receiver_that_hangs_up_or_is_not_there_is_a_failure_without_its_url():
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True).start()
    for end in (lambda: None, lambda: stop_listener(listening)):
        end()
        with pytest.raises(Undelivered) as raised:
            transports.send(target_at(f"http://user:pw@127.0.0.1:{port}/secret?token=T"), message())
        assert "127.0.0.1 cannot be reached" in raised.value.detail
        for secret in ("pw", "secret", "token"):
            assert secret not in raised.value.detail


def test_the_certificate_is_verified(receiver):
    """AUTHORITY is the deployment's; a certificate for another name is none."""
    import ssl

    for name, fits in (("127.0.0.1", True), ("elsewhere.example", False)):
        with receiving() as server:
            made = AUTHORITY.issue(name)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(made.certificate, made.key)
            relay = _TlsFront(context, server)
            target = target_at(f"https://127.0.0.1:{relay.port}/")
            try:
                if fits:
                    assert transports.send(target, message()) == 204
                else:
                    with pytest.raises(Undelivered, match=r"certificate of 127\.0\.0\.1 cannot be verified"):
                        transports.send(target, message())
                assert len(server.received) == int(fits)
            finally:
                relay.close()


class _TlsFront:
    """Takes one TLS connection and passes its request on."""

    def __init__(self, context: Any, behind: Receiver) -> None:
        self._listening, self._context, self._behind = socket.create_server(("127.0.0.1", 0)), context, behind
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            connection = self._context.wrap_socket(self._listening.accept()[0], server_side=True)
            with socket.create_connection(("127.0.0.1", self._behind.port)) as behind:
                data = connection.recv(65536)
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                    data += connection.recv(65536)
                behind.sendall(data)
                connection.sendall(behind.recv(65536))
            connection.close()
        except OSError:
            pass

    def close(self) -> None:
        stop_listener(self._listening)


def _length(head: bytes) -> int:
    line = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return int(line.partition(b":")[2])


# Addresses --------------------------------------------------------------------------------------------

INTERNAL = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "100.100.100.200", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fd12:3456::1", "fc00::1", "ff02::1", "fd00:ec2::254", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::",
    "2001:db8::1", "2001::1", "::127.0.0.1", "100::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


SPELLINGS = [
    "127.0.0.1", "localhost", "LOCALHOST.", "127.1", "2130706433", "0x7f000001", "0", "0177.0.0.1", "[::1]", "[::]",
    "[::ffff:127.0.0.1]",
]  # fmt: skip


def test_no_target_is_at_an_internal_address(settings):
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    assert [address for address in INTERNAL if not addresses.is_closed("hooks.example", 443, address)] == []
    assert [address for address in PUBLIC if addresses.is_closed("hooks.example", 443, address)] == []


@pytest.mark.parametrize("kind", ["webhook", "slack"])
def test_however_it_is_spelled_nothing_of_this_machine_is_asked(settings, receiver, kind):
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    for host in SPELLINGS:
        with pytest.raises(Undelivered):
            transports.send(target_at(f"http://{host}:{receiver.port}/", kind), message())
        assert receiver.received == [], host


class Resolver:
    """Answers each question with the next of its answers: a DNS server of an attacker."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host[0].isdigit() or ":" in host:
            found = [host]  # an address is itself
        else:
            found = self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 1
        family = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for kind, address in zip(family, found, strict=True)]


def test_a_name_that_means_something_else_the_second_time_is_resolved_once(settings, receiver, monkeypatch):
    """DNS rebinding: public when it is judged, internal when it is connected to."""
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    monkeypatch.setattr(http, "SEND_S", 1.0)
    resolver = Resolver(["192.88.99.77"], ["127.0.0.1"])  # a public address at which nobody answers
    connected: list[Any] = []
    original = socket.socket.connect
    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolver)
    monkeypatch.setattr(socket.socket, "connect", lambda own, to: (connected.append(to[0]), original(own, to))[1])
    with pytest.raises(Undelivered):
        transports.send(target_at(f"http://rebind.example:{receiver.port}/"), message())
    assert receiver.received == []
    assert connected
    assert "127.0.0.1" not in connected


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8", "::1"], ["10.0.0.1"]])
def test_each_answer_of_the_resolver_is_judged(settings, receiver, monkeypatch, answers):
    """One internal address closes the name, and the error does not tell it."""
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    monkeypatch.setattr(addresses.socket, "getaddrinfo", Resolver(answers))
    with pytest.raises(Undelivered, match=r"may not go to mixed\.example: it has an internal address") as raised:
        transports.send(target_at(f"http://mixed.example:{receiver.port}/"), message())
    assert not any(address in raised.value.detail for address in answers)
    assert receiver.received == []


def test_what_the_deployment_allows_is_one_host_and_port(settings, receiver, data_dir):
    """The embedded S3, which sinks may use, is not allowed to notifications."""
    target = target_at(receiver.url)
    (data_dir / outbound.EMBEDDED_PORT).write_text(str(receiver.port))
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = ["127.0.0.0/8"]
    for allowed in ([], [f"127.0.0.1:{receiver.port + 1}"], ["10.0.0.0/8"]):
        settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = allowed
        with pytest.raises(Undelivered, match=r"add 127\.0\.0\.1:"):
            transports.send(target, message())
    assert receiver.received == []
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = [f"127.0.0.1:{receiver.port}"]
    assert transports.send(target, message()) == 204


def test_a_proxy_is_used_and_internal_names_are_refused_before_it(settings, receiver):
    """The proxy itself is internal, and is the deployment's."""
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    settings.HTTP_PROXY = f"http://127.0.0.1:{receiver.port}"
    assert transports.send(target_at("http://8.8.8.8/hook"), message()) == 204
    assert receiver.received[0].path == "http://8.8.8.8/hook"
    for host in ("10.0.0.1", "192.168.0.9"):
        with pytest.raises(Undelivered, match="internal address"):
            transports.send(target_at(f"http://{host}/hook"), message())
    assert len(receiver.received) == 1


# Text of tenants --------------------------------------------------------------------------------------


def test_nothing_acts_in_a_chat(receiver):
    """Neither as a mention, nor as a link or an image, in Slack and in chats that read Markdown."""
    transports.send(target_at(receiver.url, "slack"), message(title=HOSTILE, text=HOSTILE))
    text = receiver.received[0].json["text"]
    head, fence, block = text.partition("```\n")
    assert fence
    assert block.count("```") == 1
    assert block.endswith("```"), "free text is in the block"
    assert "evil" not in head
    assert "<" not in text
    assert "@channel" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_nothing_acts_in_mail(settings):
    with mail_server() as box:
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", box.port, False
        settings.DEFAULT_FROM_EMAIL = "boilerhouse@example.com"
        transports.send(mail_to("ops@example.com", "oncall@example.com"), message(title=HOSTILE, text=HOSTILE))
    [got] = box.mails
    assert got["Bcc"] is None
    assert got["To"] == "ops@example.com, oncall@example.com"
    assert got["From"] == "boilerhouse@example.com"
    assert got["Auto-Submitted"] == "auto-generated"
    assert got.get_content_type() == "text/plain"
    body = got.get_payload(decode=True).decode()
    assert "\x1b" not in body
    assert "\\u202e" in body


def test_long_text_is_cut(receiver):
    transports.send(target_at(receiver.url), message(title="t" * 10_000, text="x" * 1_000_000, pool_ids=["p"] * 9999))
    assert len(receiver.received[0].body) < 10_000


# E-mail -----------------------------------------------------------------------------------------------


def use(settings: Any, port: int, **more: Any) -> None:
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
    for name, value in more.items():
        setattr(settings, name, value)


def test_mail_over_starttls_with_a_password(settings):
    import ssl

    made = AUTHORITY.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"olga", b"pa55"), handled=False)

    options = {"tls_context": context, "require_starttls": True, "auth_required": True}
    with mail_server(authenticator=authenticate, **options) as box:
        use(settings, box.port, EMAIL_USE_TLS=True, EMAIL_HOST_USER="olga", EMAIL_HOST_PASSWORD="pa55")
        transports.send(mail_to("ops@example.com"), message(Moment.RESOLVED))
        assert "Resolved: p cannot start containers" in box.mails[0]["Subject"]
        settings.EMAIL_HOST_PASSWORD = "wrong"
        with pytest.raises(Undelivered, match="answered 535") as raised:
            transports.send(mail_to("ops@example.com"), message())
        assert raised.value.status == 535


def test_a_mail_server_with_a_foreign_certificate_gets_no_password(settings, tmp_path):
    import ssl

    from tests.certificates import Authority

    made = Authority(tmp_path / "other").issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with mail_server(tls_context=context) as box:
        use(settings, box.port, EMAIL_USE_TLS=True, EMAIL_HOST_USER="olga", EMAIL_HOST_PASSWORD="pa55")
        with pytest.raises(Undelivered):
            transports.send(mail_to("ops@example.com"), message())
        assert box.mails == []


class Refusing:
    port = 0

    async def handle_RCPT(self, *_: Any) -> str:
        return "550 SECRET no such user"


def test_refused_recipients_are_a_failure_with_the_code(settings):
    with mail_server(Refusing()) as box:
        use(settings, box.port)
        with pytest.raises(Undelivered, match="refused all recipients") as raised:
            transports.send(mail_to("nobody@example.com"), message())
        assert raised.value.status == 550
        assert "SECRET" not in raised.value.detail


@pytest.mark.parametrize("at_once", [b"220-hello\r\n" * 9, b"220 hello\r\n"], ids=["an endless greeting", "no answer"])
def test_a_mail_server_that_drips_ends_at_the_deadline(settings, monkeypatch, at_once):
    monkeypatch.setattr(mail, "SEND_S", 1.0)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        try:
            connection.sendall(at_once)
            while True:
                connection.sendall(b"220-x\r\n" if b"-" in at_once else b"2")
                time.sleep(0.1)
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    use(settings, listening.getsockname()[1])
    began = time.monotonic()
    try:
        with pytest.raises(Undelivered, match="within 1 s"):
            transports.send(mail_to("ops@example.com"), message())
        assert time.monotonic() - began < 5
    finally:
        stop_listener(listening)


def test_mail_without_a_server_says_which_setting_is_missing(settings):
    settings.EMAIL_HOST = ""
    with pytest.raises(Undelivered, match="BOILERHOUSE_SMTP_HOST"):
        transports.send(mail_to("ops@example.com"), message())
    assert issubclass(smtplib.SMTPException, OSError), "what transports catch"

"""A further machine joins with a token: once, only the right machine, and with a certificate of the deployment's own.

Tokens exist on PostgreSQL only.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from boilerhouse.core import certificates, deployment, encryption, keys, node_identity, node_tokens
from boilerhouse.core.checks import environment
from boilerhouse.core.models import AuditEntry, CertificateAuthority, Event, Node, NodeToken
from boilerhouse.dashboard import change_words
from boilerhouse.dashboard.templatetags.ui import plain_sentence
from tests.api_calls import problem, refused_fields
from tests.make import make_container, make_node

NEW = "second-1a2b3c"
on_postgresql = [pytest.mark.postgresql, pytest.mark.skipif("connection.vendor != 'postgresql'")]
pytestmark = pytest.mark.django_db


def machine(key: str = "", **over: Any) -> dict[str, Any]:
    node = over.get("nodeId", NEW)
    return {
        "nodeId": node, "name": "second", "deploymentId": deployment.deployment_id(),
        "version": django_settings.VERSION, "time": datetime.now(UTC).isoformat(),
        "certificateRequest": certificates.request_for(node, key or certificates.new_key()), **over,
    }  # fmt: skip


@pytest.fixture
def token(data_dir) -> str:
    return node_tokens.create()[1]


class OnPostgreSQL:
    pytestmark = on_postgresql


class TestTokens(OnPostgreSQL):
    def test_a_token_is_shown_once_and_stored_as_a_hash(self, call):
        made = call("POST", "nodes/tokens", {"ttlMs": 60_000})
        assert made.status_code == 201
        token = made.json()["token"]
        [listed] = call("GET", "nodes/tokens").json()["items"]
        assert listed == {name: value for name, value in made.json().items() if name != "token"}
        [row] = NodeToken.objects.values()
        assert token.partition("_")[2] not in str(row)
        assert timedelta(seconds=59) < row["expires_at"] - row["created_at"] < timedelta(seconds=61)
        assert token not in str(list(AuditEntry.objects.values()))
        assert change_words.words(AuditEntry.objects.latest("at").action) == "Token for a node created"

    def test_the_command_prints_only_the_token(self, data_dir):
        printed = StringIO()
        call_command("nodes", "token", "--ttl-minutes", "5", stdout=printed, stderr=StringIO())
        assert printed.getvalue().startswith("bhn_")
        call_command("nodes", "revoke-token", NodeToken.objects.get().pk, stderr=StringIO())
        assert not NodeToken.objects.exists()

    def test_a_token_lives_a_minute_to_a_week(self, call):
        for ttl in (59_999, 7 * 86_400_000 + 1):
            fields, _ = refused_fields(call("POST", "nodes/tokens", {"ttlMs": ttl}))
            assert {pointer for pointer, _ in fields} == {"/ttlMs"}

    @pytest.mark.parametrize("token", ["", "x", "bhn_", "bhn_12345678_" + "x" * 43, "bh_aaaaaaaa", "bhn_é_x"])
    def test_a_wrong_token_is_refused(self, call, token):
        if token:
            problem(call("POST", "nodes/join", {"token": token, **machine()}, key=None), 403, "bad_node_token")
        else:
            problem(call("POST", "nodes/join", {"token": token, **machine()}, key=None), 422)
        assert not Node.objects.filter(pk=NEW).exists()

    def test_the_secret_of_one_token_does_not_fit_another(self, call, token):
        _, other = node_tokens.create()
        mixed = "_".join([*other.split("_", 2)[:2], token.split("_", 2)[2]])
        problem(call("POST", "nodes/join", {"token": mixed, **machine()}, key=None), 403, "bad_node_token")

    def test_an_expired_or_revoked_token_is_refused(self, call, token):
        NodeToken.objects.update(expires_at=F("created_at"))
        problem(call("POST", "nodes/join", {"token": token, **machine()}, key=None), 409, "node_token_ended")
        assert call("DELETE", f"nodes/tokens/{NodeToken.objects.get().pk}").status_code == 204
        problem(call("POST", "nodes/join", {"token": token, **machine()}, key=None), 403, "bad_node_token")
        problem(call("DELETE", "nodes/tokens/nowhere"), 404, "node_token_not_found")


class TestJoins(OnPostgreSQL):
    def test_a_machine_gets_the_keys_and_a_certificate_and_no_containers_yet(self, call, token):
        key = certificates.new_key()
        answer = call("POST", "nodes/join", {"token": token, **machine(key)}, key=None)
        assert answer.status_code == 200, answer.content
        assert answer["Cache-Control"] == "no-store"
        got = answer.json()
        assert got["deploymentId"] == deployment.deployment_id()
        assert (got["secretKey"], got["keyPepper"]) == (
            django_settings.SECRET_KEY, django_settings.BOILERHOUSE_KEY_PEPPER,
        )  # fmt: skip
        assert got["encryptionKeys"] == list(encryption.in_force())
        assert certificates.is_signed_by(got["certificate"], got["authority"])
        assert certificates.belong_together(got["certificate"], key)
        assert certificates.node_of(got["certificate"]) == NEW
        node = Node.objects.get(pk=NEW)
        assert node.certificate_sha256 == certificates.fingerprint(got["certificate"])
        assert node.joined_at
        shown = call("GET", f"nodes/{NEW}").json()
        assert (shown["state"], shown["name"]) == ("silent", "second"), "it gets containers once its worker runs"
        assert Event.objects.filter(type="node.joined", payload__node=NEW).exists()
        assert plain_sentence(Event.objects.get(type="node.joined"))
        entry = AuditEntry.objects.get(action="node.join")
        assert change_words.words(entry.action) == "Node joined"
        assert entry.actor == f"node {NEW}"
        assert not [row for row in AuditEntry.objects.values() if got["keyPepper"] in str(row)]

    def test_a_token_is_used_once(self, call, token):
        body = {"token": token, **machine()}
        assert call("POST", "nodes/join", body, key=None).status_code == 200
        problem(call("POST", "nodes/join", body, key=None), 409, "node_token_ended")
        other = {"token": token, **machine(nodeId="third-1a2b3c")}
        problem(call("POST", "nodes/join", other, key=None), 409, "node_token_ended")
        problem(call("DELETE", f"nodes/tokens/{NodeToken.objects.get().pk}"), 409, "node_token_ended")
        assert NodeToken.objects.get().used_by == NEW

    @pytest.mark.parametrize(
        ("over", "code"),
        [
            ({"deploymentId": "0123456789"}, "wrong_deployment"),
            ({"version": "99.0"}, "other_release"),
            ({"time": "2001-01-01T00:00:00Z"}, "clock_skew"),
        ],
    )
    def test_the_wrong_machine_is_refused_and_the_token_can_be_used(self, call, token, over, code):
        problem(call("POST", "nodes/join", {"token": token, **machine(**over)}, key=None), 409, code)
        assert not Node.objects.filter(pk=NEW).exists()
        assert call("POST", "nodes/join", {"token": token, **machine()}, key=None).status_code == 200

    def test_a_certificate_is_made_of_a_p256_key_that_the_machine_has(self, call, token):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NEW)])
        rsa_key = rsa.generate_private_key(65537, 2048)
        by_rsa = x509.CertificateSigningRequestBuilder().subject_name(name).sign(rsa_key, hashes.SHA256())
        asked = certificates.request_for(NEW, certificates.new_key())
        lines = asked.splitlines()
        lines[-2] = lines[-2][:4] + ("A" if lines[-2][4] != "A" else "B") + lines[-2][5:]  # its signature is wrong
        for wrong in (by_rsa.public_bytes(serialization.Encoding.PEM).decode(), "no request", "\n".join(lines)):
            body = {"token": token, **machine(certificateRequest=wrong)}
            fields, _ = refused_fields(call("POST", "nodes/join", body, key=None))
            assert fields == {("/certificateRequest", "invalid")}
        assert NodeToken.objects.get().used_at is None

    def test_a_name_in_the_request_is_not_taken(self, call, token):
        theirs = certificates.request_for("first-aaaaaa", certificates.new_key())
        body = {"token": token, **machine(certificateRequest=theirs)}
        got = call("POST", "nodes/join", body, key=None).json()
        assert certificates.node_of(got["certificate"]) == NEW

    def test_a_node_that_works_is_not_replaced(self, call, token):
        make_node(NEW)
        problem(call("POST", "nodes/join", {"token": token, **machine()}, key=None), 409, "node_is_at_work")
        Node.objects.filter(pk=NEW).update(
            heartbeat_at=F("heartbeat_at") - timedelta(minutes=1), labels={"zone": "cellar"}
        )
        assert call("POST", "nodes/join", {"token": token, **machine()}, key=None).status_code == 200
        assert Node.objects.get(pk=NEW).labels == {"zone": "cellar"}, "what operators said of it stays"

    @pytest.mark.django_db(transaction=True)
    def test_of_two_machines_with_one_token_one_joins(self, data_dir, client):
        from tests.api_calls import Call

        _, token = node_tokens.create()
        call, statuses = Call(client), []
        bodies = [{"token": token, **machine(nodeId=f"{name}-1a2b3c")} for name in ("second", "third")]
        start = threading.Barrier(2)

        def join(body: dict[str, Any]) -> None:
            start.wait()
            statuses.append(call("POST", "nodes/join", body, key=None).status_code)
            connection.close()

        threads = [threading.Thread(target=join, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 409]
        assert Node.objects.exclude(joined_at=None).count() == 1


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_sqlite_serves_one_machine(call, data_dir):
    answer = problem(call("POST", "nodes/tokens", {}), 409, "one_machine_only")
    assert "PostgreSQL" in answer["detail"]
    for command in (["nodes", "token"], ["run_node"], ["join", "https://example.com", "--token", "x"]):
        with pytest.raises(CommandError, match="SQLite"):
            call_command(*command)


def test_keys_in_files_of_other_machines_are_not_left_behind(data_dir, settings):
    make_node()
    make_node(NEW)
    keys_before = encryption.in_force()
    call_command("rotate_secrets")
    assert encryption.in_force() != keys_before, "nobody has joined: two data directories may have one key file"
    Node.objects.filter(pk=NEW).update(joined_at=F("created_at"))
    keys_before = encryption.in_force()
    with pytest.raises(CommandError, match=f"{NEW} have the encryption keys"):
        call_command("rotate_secrets")
    assert encryption.in_force() == keys_before
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [keys.new_fernet_key(), *keys_before]
    call_command("rotate_secrets")


@pytest.mark.parametrize(
    ("address", "is_right"),
    [
        ("", True), ("10.0.0.2:8443", True), ("[fd00::1]:8443", True), ("node-2.example:1", True), ("10.0.0.2", False),
        ("10.0.0.2:0", False), ("10.0.0.2:x", False), (":8443", False), ("*:1", False), ("https://node:1", False),
    ],
)  # fmt: skip
def test_where_a_node_listens_is_a_host_and_a_port(settings, address, is_right):
    settings.BOILERHOUSE_NODE_ADDRESS = address
    wrong = [problem for problem in environment() if problem.id == "boilerhouse.E050"]
    assert bool(wrong) != is_right


class TestIdentity:
    def test_a_further_machine_starts_only_if_it_has_joined(self, data_dir):
        make_container(node="first-aaaaaa")
        with pytest.raises(deployment.WrongNode):
            deployment.check_node()
        signer, key = node_identity.authority(), certificates.new_key()

        def have(node: str) -> None:
            made = certificates.sign(signer, certificates.request_for(node, key), node)
            node_identity.write(key=key, certificate=made, authority_certificate=signer.certificate)

        have("third-cccccc")
        with pytest.raises(deployment.WrongNode):
            deployment.check_node()
        have(deployment.node_id())
        deployment.check_node()
        keys.replace(deployment.certificate_file(), "no certificate")
        with pytest.raises(deployment.WrongNode):
            deployment.check_node()

    def test_a_certificate_is_renewed_in_time_and_stays_until_then(self, data_dir, monkeypatch):
        assert node_identity.renew()
        first, file = node_identity.certificate(), deployment.certificate_file()
        assert file.stat().st_mode & 0o077 == 0
        assert not node_identity.renew()
        assert node_identity.certificate() == first
        monkeypatch.setattr(certificates, "RENEW_BEFORE", certificates.NODE_LIFE + timedelta(hours=1))
        assert node_identity.renew()
        assert node_identity.certificate() != first
        node = Node.objects.get(pk=deployment.node_id())
        assert node.certificate_sha256 == certificates.fingerprint(node_identity.certificate())
        assert node.certificate_expires_at == certificates.expires_at(node_identity.certificate())

    def test_a_certificate_of_another_authority_or_key_or_node_is_replaced(self, data_dir):
        node_identity.renew()
        key, good = certificates.new_key(), node_identity.authority()
        bad = certificates.new_authority("other")
        me = deployment.node_id()
        for signer, owner, stored_key in (
            (bad, me, key),
            (good, "third-cccccc", key),
            (good, me, certificates.new_key()),
        ):
            made = certificates.sign(signer, certificates.request_for(owner, key), owner)
            node_identity.write(key=stored_key, certificate=made, authority_certificate=good.certificate)
            assert node_identity.renew()
            assert certificates.is_signed_by(node_identity.certificate(), good.certificate)
            assert certificates.node_of(node_identity.certificate()) == me
            assert not node_identity.renew()

    def test_the_authoritys_key_is_stored_encrypted(self, data_dir):
        node_identity.authority()
        with connection.cursor() as cursor:
            cursor.execute("SELECT key FROM core_certificateauthority")
            [(stored,)] = cursor.fetchall()
        assert b"PRIVATE" not in bytes(stored)
        assert "PRIVATE" in CertificateAuthority.objects.get().key

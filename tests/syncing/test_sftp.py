"""Specifics of SFTP: passwords, host keys, permissions, and the key field of the form."""

from __future__ import annotations

import os
import subprocess

import pytest

from boilerhouse.operations.supervisor import free_port
from syncing import endpoints, errors, probes, rclone, sinks
from syncing.jail import rclone_path
from syncing.models import SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, sftp_access
from tests import sink_servers
from tests.make import make_pool, make_sync_spec

pytestmark = pytest.mark.any_database
PASSWORD = "a password-öf sftp"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcCG1S0GxLmIlxpMBXhDhCsE7qrvs7T6yB7c3nGY0pH"


@pytest.fixture(scope="module")
def openssh(tmp_path_factory):
    end = sink_servers.Sftp(tmp_path_factory.mktemp("openssh"))
    yield end
    end.stop()


@pytest.fixture
def sftp(openssh):
    openssh.clear()
    return openssh


class Password(sink_servers.SinkServer):
    """``rclone serve sftp``, which requires a password."""

    kind = sinks.SftpSink

    def __init__(self, directory):
        self.root, port = directory / "root", free_port()
        self.root.mkdir()
        key = directory / "host"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)], check=True)
        environment = {**os.environ, "RCLONE_CONFIG": "/dev/null", "RCLONE_USER": "ann", "RCLONE_PASS": PASSWORD}
        command = [rclone_path(), "serve", "sftp", "--addr", f"127.0.0.1:{port}", "--key", str(key), str(self.root)]
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        sink_servers.wait_for(port, self.process)
        host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        self.definition = {
            "type": "sftp",
            "host": "localhost",
            "port": port,
            "user": "ann",
            "path": "/",
            "hostKeys": [host_key],
        }
        self.secrets = {"password": PASSWORD}

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture
def by_password(tmp_path):
    end = Password(tmp_path)
    yield end
    end.stop()


def probe(end, pool="p"):
    """A save and a restore by both clients."""
    spec = make_sync_spec(make_pool(pool), sink=end.definition, sink_secrets=end.secrets)
    SyncSpec.objects.filter(pk=spec.pk).update(sink=end.definition, sink_secrets=end.secrets)
    spec.refresh_from_db()
    one = probes.Probe(spec.resolved_sink(), list(spec.mappings.all()), spec.pk)
    probes.run(one, probes.IN_PROCESS, probes.ANSWER_DEADLINE_S)
    probes.run(one, probes.BY_RCLONE, probes.TRANSFER_DEADLINE_S)


def test_both_clients_give_the_password(by_password, data_dir, transactional_db):
    probe(by_password)


@pytest.mark.parametrize("secrets", [{"password": "another"}, {"privateKey": "its own"}])
def test_what_the_server_refuses_is_denied_at_both_clients(sftp, data_dir, transactional_db, secrets):
    if "privateKey" in secrets:
        sftp.make_key("other")
        secrets = {"privateKey": (sftp.directory / "other").read_text()}
    sink = sinks.resolve(sftp.definition, secrets)
    with pytest.raises(errors.SinkDenied):
        sink.get("x", CLAIM_DEADLINE_S)
    with pytest.raises(errors.SinkDenied) as raised:
        run(sink)
    for secret in secrets.values():
        assert secret not in str(raised.value.detail)


def run(sink):
    """rclone in its sandbox lists the first file."""
    probe = probes.Probe(sink, [])
    with probes._workplace(probe) as place:
        jail = probes.Jail(place.restored, place.owner, writable=True)
        rclone.run(rclone.download(sink, "t/x", []), sink, jail, place.lock, location="t/x")


def test_a_server_with_another_host_key_is_told_nothing(tmp_path, data_dir, transactional_db):
    end = sink_servers.Sftp(tmp_path)
    sink = end.sink()
    sink.put("t/x/a", b"1")
    run(sink)
    end.stop()
    end.make_key("host")
    end.run()
    sftp_access._forget()  # connections to the old one, which outlive it
    try:
        with pytest.raises(errors.HostKeyUnknown, match="hostKeys"):
            sink.get("t/x/a", CLAIM_DEADLINE_S)
        with pytest.raises(errors.HostKeyUnknown):
            run(sink)
        assert "Accepted" not in (tmp_path / "sshd.log").read_text().rpartition("Server listening")[2]
        both = sinks.resolve({**end.definition, "hostKeys": [*end.definition["hostKeys"], end.host_key]}, end.secrets)
        assert both.get("t/x/a", CLAIM_DEADLINE_S) == b"1", "a new key beside the old one is accepted"
        run(both)
    finally:
        end.stop()


def test_a_server_without_a_key_of_the_known_kind_is_told_nothing(sftp):
    other = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="
    with pytest.raises(errors.HostKeyUnknown):
        sinks.resolve({**sftp.definition, "hostKeys": [other]}, sftp.secrets).get("x", CLAIM_DEADLINE_S)


def test_a_directory_that_is_not_there_is_missing_and_not_made(sftp):
    sink = sinks.resolve({**sftp.definition, "path": f"{sftp.directory}/none"}, sftp.secrets)
    for ask in (lambda: sink.has_objects("t", CLAIM_DEADLINE_S), lambda: sink.put("t/a", b"1")):
        with pytest.raises(errors.SinkMissing):
            ask()
    assert not (sftp.directory / "none").exists()


def test_no_sink_is_at_the_nodes_own_address_unless_it_is_allowed(sftp, settings, data_dir, transactional_db):
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    sink = sftp.sink()
    sftp_access._forget()
    with pytest.raises(errors.SinkClosed):
        sink.get("x", CLAIM_DEADLINE_S)
    with pytest.raises(errors.SinkClosed):
        run(sink)


def test_names_that_are_no_utf_8_and_links(sftp):
    sink, odd = sftp.sink(), "t/odd \udcff\nname"
    sink.put(odd, b"1")
    os.symlink("/etc/passwd", f"{sftp.definition['path']}/t/link")
    assert dict(sink.names("t")) == {odd[2:]: 1}
    assert sink.get(odd, CLAIM_DEADLINE_S) == b"1"
    sink.delete_all("t")
    assert not sink.has_objects("t", CLAIM_DEADLINE_S)


def test_a_key_is_usable_however_a_form_has_folded_it(sftp):
    pem = (sftp.directory / "user").read_text()
    assert sftp_access.private_key(pem.replace("\n", " ")) == sftp_access.private_key(pem.replace("\n", "\r\n"))
    for wrong in ("", "secret", pem.replace("OPENSSH", "OTHER"), pem[:100]):
        with pytest.raises(ValueError, match="private key"):
            sftp_access.private_key(wrong)


def test_secrets_are_kept_for_the_same_server_only(call, sftp):
    make_pool("notes")
    mapping = {"containerPath": "/state", "sinkPath": "t/${tenantId}/", "direction": "bidirectional", "mode": "sync"}
    shown = {**sftp.definition, "path": f"{sftp.directory}/sftp"}
    body = {"id": "s", "poolId": "notes", "mappings": [mapping], "policy": {}, "sink": {**shown, **sftp.secrets}}
    made = call("POST", "sync-specs", body)
    assert made.status_code == 201, made.content
    assert made.json()["sink"] == shown
    assert made.json()["sinkHealth"]["state"] == "healthy", made.content
    assert "PRIVATE KEY" not in made.content.decode()
    assert call("PUT", "sync-specs/s", {**body, "sink": shown}).status_code == 200
    kept = {"privateKey": sftp_access.private_key(sftp.secrets["privateKey"])}
    assert SyncSpec.objects.get().sink_secrets == kept
    for change in ({"host": "localhost"}, {"port": 2}, {"user": "ann"}, {"hostKeys": [KEY]}):
        refused = call("PUT", "sync-specs/s", {**body, "sink": {**shown, **change}})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sink/password"), change


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"path": "relative"}, "path"), ({"path": "/a/../b"}, "path"), ({"path": "/t/${tenantId}"}, "path"),
        ({"host": "a b"}, "host"), ({"host": "user@host"}, "host"), ({"user": "-oProxyCommand"}, "user"),
        ({"hostKeys": []}, "hostKeys"), ({"hostKeys": ["ssh-rsa"]}, "hostKeys/0"),
        ({"hostKeys": ["ssh-ed25519 AAAAB3NzaC1yc2E="]}, "hostKeys/0"), ({"port": 0}, "port"),
        ({"privateKey": "none", "password": None}, "privateKey"),
    ],
)  # fmt: skip
def test_what_no_server_can_be_is_refused(call, data_dir, change, pointer):
    make_pool("notes")
    sink = {"type": "sftp", "host": "h", "user": "u", "path": "/p", "hostKeys": [KEY], "password": "secret"}
    mapping = {"containerPath": "/state", "sinkPath": "t/${tenantId}/", "direction": "bidirectional", "mode": "sync"}
    body = {"poolId": "notes", "mappings": [mapping], "policy": {}, "sink": {**sink, **change}}
    answer = call("POST", "sync-specs", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/sink/{pointer}")


def test_spellings_of_one_server_are_one_area(sftp):
    sink = sftp.sink()
    other = sinks.resolve({**sftp.definition, "host": "localhost"}, sftp.secrets)
    assert sink.area("t") == other.area("t")
    assert endpoints.LOOPBACK in sink.addresses()


def test_no_argument_of_rclone_holds_a_secret(sftp):
    sink = sftp.sink()
    arguments = [
        *rclone.upload(sink, "t/a", [], deletes=True, inside="", backup="b/a"), *rclone.download(sink, "t/a", [])
    ]  # fmt: skip
    assert not [secret for secret in sink.secrets() for word in arguments if secret in word]
    assert sink.scrub(f"the key is {sftp.secrets['privateKey'].splitlines()[1]}") == "the key is …"

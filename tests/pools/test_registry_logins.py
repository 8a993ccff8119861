"""Pulls from a real registry that requires a password, and from one that leaks it (P10)."""

from __future__ import annotations

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from boilerhouse.operations import doctor
from pools import dry_runs, registry_credentials
from pools.pull_errors import PullFailed, PullFault
from pools.runtime.base import RegistryLogin
from tests import registry as registries
from tests.make import make_spec
from tests.pulls import found_for, pulled_beside
from tests.registry import PASSWORD, USER, bcrypted

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    found = registries.Registry(tmp_path_factory.mktemp("registry"), f"{USER}:{bcrypted(PASSWORD)}\n")
    try:
        found.start()
        found.put("private", login={"username": USER, "password": PASSWORD})
        yield found
    finally:
        found.close()


@pytest.fixture
def image(registry):
    name = f"{registry.host}/private:1"
    yield name
    registries.forget(name)


def store(host: str, password: str = PASSWORD, **more):
    secret = {"username": USER, "password": password}
    return registry_credentials.create(**{"id": "reg", "name": "reg", "registry": host, "secret": secret, **more})


def refused(image: str) -> PullFailed:
    with pytest.raises(PullFailed) as caught:
        found_for(make_spec(image=image, pull_policy="missing"))
    assert caught.value.fault == PullFault.UNAUTHORIZED
    assert "CANARY" not in caught.value.detail
    return caught.value


def test_it_is_pulled_by_what_is_stored_and_by_what_replaced_it(data_dir, registry, image, capfd):
    """Without a credential, with a wrong one, with the right one: the engine's error, and which credential was used."""
    said = refused(image).detail
    assert "no basic auth credentials" in said
    assert f"No registry credential is stored for {registry.host}" in said
    found = store(registry.host, "CANARY of another")
    said = refused(image).detail
    assert "unauthorized" in said.lower()
    assert (
        "The registry refused the credential reg. Replace it, or give its account permission to pull private." in said
    )
    registry_credentials.replace(found, name="reg", secret={"username": USER, "password": PASSWORD})
    assert found_for(make_spec(image=image, pull_policy="missing")).image.id
    out, err = capfd.readouterr()
    assert "CANARY" not in out + err


def test_without_a_stored_one_roots_own_login_is_used_and_what_is_stored_is_written_nowhere(
    data_dir, registry, image, tmp_path, monkeypatch
):
    """Like ``docker pull`` by root; the stored credential has priority, and is not written to a client's
    configuration."""
    config = tmp_path / "config.json"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert "No registry credential is stored" in refused(image).detail
    assert not config.exists()
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    before = config.read_bytes()
    assert found_for(make_spec(image=image, pull_policy="missing")).image.id
    registries.forget(image)

    stored = store(registry.host, "CANARY of another")
    assert "The registry refused the credential reg" in refused(image).detail
    assert config.read_bytes() == before
    config.unlink()
    registry_credentials.replace(stored, name="reg", secret={"username": USER, "password": PASSWORD})
    assert found_for(make_spec(image=image, pull_policy="missing")).image.id
    assert not config.exists()


def test_doctor_says_which_credential_does_not_log_in(data_dir, registry, capsys):
    """Each is sent to its registry once; a refused one fails, a registry without an answer is reported, no secret
    is."""
    found = store(registry.host)
    near = store(f"{registry.host}/private", "CANARY, a wrong one", id="near")
    away = store("127.0.0.1:9", id="away")
    told = {detail.split()[0]: (state, detail, todo) for state, detail, *todo in doctor._registries()}
    assert told["reg"] == ("ok", f"reg logs in at {registry.host}", [])
    state, detail, todo = told["near"]
    assert (state, todo) == ("failure", ["Replace it (Settings, Registries)."])
    assert detail.startswith(f"near is refused by {registry.host}: ")
    assert "401 Unauthorized" in detail
    assert told["away"][0] == "warning"
    assert "connection refused" in told["away"][1]
    assert "CANARY" not in f"{told}{capsys.readouterr()}"
    for one in (found, near, away):
        one.delete()
    assert list(doctor._registries()) == [("ok", "no registry credential is stored")]


def test_an_image_that_is_here_starts_without_a_credential(data_dir, registry, image):
    """As documented, what the node has is the deployment's; always asks the registry, and is refused."""
    found = store(registry.host)
    here = found_for(make_spec(image=image, pull_policy="missing")).image
    registry_credentials.delete(found)
    assert found_for(make_spec(image=image, pull_policy="missing")).image == here
    failed = found_for(make_spec(image=image, pull_policy="always")).failed
    assert failed is not None
    assert failed.fault == PullFault.UNAUTHORIZED


def test_a_trial_by_always_says_that_it_tried_an_older_image(transactional_db, data_dir, registry, image):
    """As a pool does; the workload was reported healthy without a warning."""
    found = store(registry.host)
    with pulled_beside():
        spec = make_spec(image=image, pull_policy="always", ports=[])
        assert dry_runs.run(spec).warnings == ()
        registry_credentials.delete(found)
        tried = dry_runs.run(spec)
    assert tried.is_healthy, tried
    (warning,) = tried.warnings
    assert warning.startswith("The pool serves the image on the node, which may be outdated.")
    assert "no basic auth credentials" in warning


def test_a_trial_is_pulled_by_it_too(transactional_db, data_dir, registry, image):
    """The error is the same without a credential."""
    spec = make_spec(image=image, pull_policy="missing", ports=[])
    with pulled_beside():
        assert "No registry credential is stored" in dry_runs.run(spec).message
        store(registry.host)
        tried = dry_runs.run(spec)
    assert tried.is_healthy, tried


class Teller(BaseHTTPRequestHandler):
    """A registry that repeats the credential in its refusal, in every encoding, and far to the right."""

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization", "")
        pair = base64.b64decode(shown.partition(" ")[2]).decode()
        told = [shown, pair, pair.partition(":")[2], json.dumps(pair)]
        message = f"denied: {'. ' * self.server.padding}{' '.join(told)}"
        body = json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode()
        self.send_response(401 if not shown else 403)
        self.send_header("WWW-Authenticate", 'Basic realm="told"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET
    default_request_version = "HTTP/1.0"
    """What is no request (TLS, which containerd tries first) is answered as a registry without TLS does: by HTTP."""

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("padding", [0, 150, 225])
def test_a_registry_that_sends_the_secret_back_does_not_get_it_into_words(data_dir, padding):
    """Also where the message is truncated within the secret (P10)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teller)
    server.padding = padding
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        host = f"127.0.0.1:{server.server_address[1]}"
        store(host)
        with pytest.raises(PullFailed) as caught:
            found_for(make_spec(image=f"{host}/x:1", pull_policy="missing"))
        (tried,) = [detail for _, detail, *_ in doctor._registries()]
    finally:
        server.shutdown()
        server.server_close()
    assert re.search("denied|403 Forbidden", caught.value.detail), (
        "the registry's words, or what containerd makes of them"
    )
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for part in ("CANARY", "word+", pair[:12]):
        assert part not in caught.value.detail
        assert part not in tried


class Desk(BaseHTTPRequestHandler):
    """A registry with a token service that accepts an identity token; it has no image."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == "Bearer for-a-while":
            self._answer(404 if "manifests" in self.path else 200, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        else:
            here = self.headers["Host"]
            self._answer(401, {}, f'Bearer realm="http://{here}/token",service="{here}"')

    do_HEAD = do_GET
    default_request_version = Teller.default_request_version

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, parse_qs(body)))
        self._answer(200, {"access_token": "for-a-while", "expires_in": 300})

    def _answer(self, status: int, body: dict[str, object], challenge: str = "") -> None:
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        content = json.dumps(body).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def test_an_identity_token_is_shown_as_one(data_dir):
    """The engine exchanges it for a temporary token, and is accepted."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        host = f"127.0.0.1:{server.server_address[1]}"
        store(host, secret={"identityToken": "CANARY-TOKEN"})
        with pytest.raises(PullFailed, match=r"manifest unknown|: not found") as caught:
            found_for(make_spec(image=f"{host}/x:1", pull_policy="missing"))
    finally:
        server.shutdown()
        server.server_close()
    assert caught.value.fault == PullFault.NOT_FOUND
    path, body = server.asked[-1]
    assert (path, body["grant_type"], body["refresh_token"]) == ("/token", ["refresh_token"], ["CANARY-TOKEN"])


def test_no_login_shows_its_secret():
    """Neither its repr, nor that of the error that holds it (P10)."""
    shown = RegistryLogin(USER, PASSWORD, "CANARY-TOKEN", "reg")
    assert "CANARY" not in repr(shown)
    assert shown.scrub(f"{PASSWORD} and CANARY-TOKEN") == "… and …"
    assert RegistryLogin("u", "abc").scrub("abc dTphYmM=") == "abc …", "three letters are no needle"

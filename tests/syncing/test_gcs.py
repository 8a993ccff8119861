"""Google Cloud Storage besides what every sink does: accounts, tokens, and who is shown them."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest

from syncing import errors, probes, rclone, sinks
from syncing.models import SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, gcs, gcs_access, http_requests
from tests import google, providers, sink_servers
from tests.make import make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
MAPPING = {"containerPath": "/state", "sinkPath": "t/${tenantId}/", "direction": "bidirectional", "mode": "sync"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    end = sink_servers.Gcs(tmp_path_factory.mktemp("gcs"))
    yield end
    end.stop()


@pytest.fixture
def end(server):
    server.clear()
    yield server
    server.account.lifetime_s, server.account.ahead_s = 3600, 0.0


def transfer(sink):
    """rclone in its jail, which is asked for what lies at a location."""
    probe = probes.Probe(sink, [])
    with probes._workplace(probe) as place:
        jail = probes.Jail(place.restored, place.owner, writable=True)
        rclone.run(rclone.download(sink, "t/x", []), sink, jail, place.lock, location="t/x")


def sink_of(end, document, **over):
    return sinks.resolve({**end.definition, **over}, {"serviceAccountKey": document})


def test_a_key_that_is_not_the_accounts_is_denied_at_both_clients(end, data_dir, transactional_db):
    sink = sink_of(end, google.ServiceAccount().document())
    for ask in (lambda: sink.get("x", CLAIM_DEADLINE_S), lambda: transfer(sink)):
        with pytest.raises(errors.SinkDenied, match="Invalid JWT Signature") as raised:
            ask()
        assert "PRIVATE" not in str(raised.value.detail)


def test_a_token_serves_until_it_ends_or_is_refused(end):
    sink, before = end.sink(), end.account.asked
    gcs_access._tokens.clear()
    for _ in range(3):
        assert sink.get("t/x", CLAIM_DEADLINE_S) is None
    assert end.account.asked == before + 1, "one for all"
    end.account.revoke()
    assert sink.get("t/x", CLAIM_DEADLINE_S) is None
    assert end.account.asked == before + 2, "a refused one is replaced"
    gcs_access._tokens.clear()
    end.account.lifetime_s = 1
    assert sink.get("t/x", CLAIM_DEADLINE_S) is None
    time.sleep(0.6)  # half of it is kept back
    assert not gcs_access.known_token(sink._account), "and one that has ended is not used"


def test_the_keys_own_address_for_tokens_is_not_asked(end, data_dir, transactional_db):
    """Whoever writes a spec would name any server there; both clients ask the sink's."""
    sink = sink_of(end, end.account.document(token_uri="http://169.254.169.254/token"))
    sink.put("t/x/a", b"1")
    transfer(sink)
    assert json.loads(sink.environment()["RCLONE_CONFIG_BH_SERVICE_ACCOUNT_CREDENTIALS"])["token_uri"] == (
        f"{end.definition['endpoint']}/token"
    )


@pytest.mark.parametrize(
    ("endpoint", "tokens"),
    [
        (None, gcs.GOOGLES_TOKENS),
        ("https://storage-states.p.googleapis.com", gcs.GOOGLES_TOKENS),
        ("http://storage.googleapis.com", "http://storage.googleapis.com/token"),
        ("https://storage.googleapis.com:8443", "https://storage.googleapis.com:8443/token"),
        ("https://googleapis.com.example", "https://googleapis.com.example/token"),
        ("https://fakegoogleapis.com", "https://fakegoogleapis.com/token"),
    ],
)
def test_only_googles_own_names_get_googles_tokens(endpoint, tokens):
    sink = sinks.resolve({"type": "gcs", "bucket": "b", "prefix": "", "endpoint": endpoint}, {})
    assert sink.token_url == tokens
    assert sink.has_changing_addresses is (tokens == gcs.GOOGLES_TOKENS)


def test_no_sink_is_at_the_nodes_own_address_unless_it_is_allowed(end, settings, data_dir, transactional_db):
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    sink = end.sink()
    http_requests.forget()
    gcs_access._tokens.clear()
    for ask in (lambda: sink.get("x", CLAIM_DEADLINE_S), lambda: transfer(sink)):
        with pytest.raises(errors.SinkClosed):
            ask()


def test_a_bucket_that_is_not_there_is_missing(end):
    sink = sink_of(end, end.account.document(), bucket="none")
    for ask in (
        lambda: sink.put("t/a", b"1"),
        lambda: sink.has_objects("t", CLAIM_DEADLINE_S),
        lambda: list(sink.names("t")),
    ):
        with pytest.raises(errors.SinkMissing):
            ask()


def test_a_listing_of_several_pages_is_whole(end, monkeypatch):
    sink = end.sink()
    for number in range(7):
        sink.put(f"t/x/{number}", b"1")
    monkeypatch.setattr(gcs, "PAGE", 3)
    assert dict(sink.names("t/x")) == {str(number): 1 for number in range(7)}
    assert sink.has_objects("t/x", CLAIM_DEADLINE_S)
    assert list(sink.folders("t")) == ["t/x"]


class Says(providers.Behaviour):
    """Answers every request for an object with a refusal."""

    def __init__(self, account, answer):
        self.account, self.answer = account, answer

    def refuse(self, asked):
        return self.account.refuse(asked) or self.answer


def words(status, message):
    return google.refusal(status, message, "tests")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (words(403, "boilerhouse does not have storage.objects.list access"), errors.SinkDenied),
        (words(429, "The rate of change requests is too high"), errors.SinkThrottled),
        (words(503, "Backend error"), errors.SinkThrottled),
    ],
)
def test_both_clients_read_a_refusal_alike(end, data_dir, transactional_db, answer, kind):
    account = google.ServiceAccount()
    front = providers.Provider(end.definition["endpoint"], Says(account, answer))
    account.audience = f"{front.endpoint}/token"
    try:
        sink = sink_of(end, account.document(), endpoint=front.endpoint)
        with pytest.raises(kind):
            sink.has_objects("t/x", CLAIM_DEADLINE_S)
        with pytest.raises(kind):
            transfer(sink)
    finally:
        front.stop()


def test_a_wrong_clock_is_named(end, data_dir, transactional_db):
    sink = end.sink()
    gcs_access._tokens.clear()
    end.account.ahead_s = timedelta(hours=5).total_seconds()
    for ask in (lambda: sink.get("t/x", CLAIM_DEADLINE_S), lambda: transfer(sink)):
        with pytest.raises(errors.ClockSkewed):
            ask()


def test_what_is_no_answer_of_google_is_not_repeated(end):
    account = google.ServiceAccount()
    page = providers.Answer(404, [("Content-Type", "text/html")], b"<h1>internal secret</h1>")
    front = providers.Provider(end.definition["endpoint"], Says(account, page))
    account.audience = f"{front.endpoint}/token"
    try:
        with pytest.raises(errors.SyncFailed) as raised:
            sink_of(end, account.document(), endpoint=front.endpoint).put("t/x", b"1")
        assert "secret" not in raised.value.detail
    finally:
        front.stop()


def test_secrets_are_kept_for_the_same_bucket_only(call, end, data_dir):
    make_pool("notes")
    body = {
        "id": "s",
        "poolId": "notes",
        "mappings": [MAPPING],
        "policy": {},
        "sink": {**end.definition, **end.secrets},
    }
    made = call("POST", "sync-specs", body)
    assert made.status_code == 201, made.content
    assert made.json()["sink"] == end.definition
    assert made.json()["sinkHealth"]["state"] == "healthy", made.content
    assert made.json()["sinkHealth"]["conditionalWrites"] is True
    assert "PRIVATE KEY" not in made.content.decode()
    assert call("PUT", "sync-specs/s", {**body, "sink": end.definition}).status_code == 200
    folded = {"serviceAccountKey": end.secrets["serviceAccountKey"].replace("\n", " ")}  # by a form's single line
    assert call("PUT", "sync-specs/s", {**body, "sink": {**end.definition, **folded}}).status_code == 200
    stored = json.loads(SyncSpec.objects.get().sink_secrets["serviceAccountKey"])
    assert set(stored) == {"type", "client_email", "private_key_id", "private_key"}, "no address is kept"
    for change in ({"bucket": "another"}, {"endpoint": "http://127.0.0.1:1"}, {"endpoint": None}):
        refused = call("PUT", "sync-specs/s", {**body, "sink": {**end.definition, **change}})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sink/serviceAccountKey"), change


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"bucket": "UPPER"}, "bucket"), ({"bucket": "a..b"}, "bucket"), ({"bucket": "x/y"}, "bucket"),
        ({"prefix": "../x"}, "prefix"), ({"endpoint": "file:///etc"}, "endpoint"),
        ({"endpoint": "http://user@host"}, "endpoint"), ({"serviceAccountKey": None}, "serviceAccountKey"),
        ({"serviceAccountKey": "[]"}, "serviceAccountKey"), ({"serviceAccountKey": "none"}, "serviceAccountKey"),
        ({"serviceAccountKey": '{"type": "external_account"}'}, "serviceAccountKey"),
        ({"serviceAccountKey": '{"type": "service_account", "client_email": "a@b", "private_key": "x"}'}, "serviceAccountKey"),
    ],
)  # fmt: skip
def test_what_no_sink_can_be_is_refused(call, data_dir, change, pointer):
    make_pool("notes")
    key = google.ServiceAccount().document()
    sink = {"type": "gcs", "bucket": "states", "prefix": "", "serviceAccountKey": key, **change}
    answer = call("POST", "sync-specs", {"poolId": "notes", "mappings": [MAPPING], "policy": {}, "sink": sink})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/sink/{pointer}")


def test_an_account_of_another_universe_is_refused(call, data_dir):
    make_pool("notes")
    key = google.ServiceAccount().document(universe_domain="example.com")
    sink = {"type": "gcs", "bucket": "states", "prefix": "", "serviceAccountKey": key}
    answer = call("POST", "sync-specs", {"poolId": "notes", "mappings": [MAPPING], "policy": {}, "sink": sink})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/sink/serviceAccountKey")


def test_a_bucket_is_one_area_by_either_api():
    ours = sinks.resolve({"type": "gcs", "bucket": "states", "prefix": ""}, {})
    by_s3 = {"type": "s3", "bucket": "states", "region": "auto", "prefix": "", "provider": "GCS"}
    theirs = sinks.resolve({**by_s3, "endpoint": "https://storage.googleapis.com"}, {})
    assert ours.area("t") == theirs.area("t")


def test_no_argument_of_rclone_holds_a_secret(end):
    sink = end.sink()
    arguments = [
        *rclone.upload(sink, "t/a", [], deletes=True, inside="", backup="b/a"), *rclone.download(sink, "t/a", [])
    ]  # fmt: skip
    assert not [secret for secret in sink.secrets() for word in arguments if secret in word]
    assert sink.scrub(f"the key is {sink.private_key.splitlines()[1]}") == "the key is …"
    assert sink.private_key.splitlines()[1] not in repr(sink)
    for told in ("Bearer 1/abc-def is bad", "no ya29.a0Af_b-c here", "eyJhbGciOi.eyJpc3MiOi.c2ln-x was sent"):
        assert "…" in sink.scrub(told)
        assert not any(word in sink.scrub(told) for word in ("1/abc", "a0Af", "c2ln"))

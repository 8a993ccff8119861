"""Azure Blob Storage besides what every sink does: keys, odd names, copies, and accounts that cannot be used."""

from __future__ import annotations

import base64

import pytest

from pools.file_names import plain
from syncing import errors, probes, rclone, sinks
from syncing.models import SyncSpec
from syncing.sinks import CLAIM_DEADLINE_S, RUN_DEADLINE_S, azure, azure_names, http_requests
from tests import providers, sink_servers
from tests.make import make_pool
from tests.tenant_state import LOCATION, TenantState

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
MAPPING = {"containerPath": "/state", "sinkPath": "t/${tenantId}/", "direction": "bidirectional", "mode": "sync"}
OTHER_KEY = base64.b64encode(b"the key of another account").decode()


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    end = sink_servers.Azure(tmp_path_factory.mktemp("azurite"))
    yield end
    end.stop()


@pytest.fixture
def end(azurite):
    azurite.clear()
    return azurite


def transfer(sink):
    """rclone in its jail, which is asked for what lies at a location."""
    probe = probes.Probe(sink, [])
    with probes._workplace(probe) as place:
        jail = probes.Jail(place.restored, place.owner, writable=True)
        rclone.run(rclone.download(sink, "t/x", []), sink, jail, place.lock, location="t/x")


def test_another_key_is_denied_at_both_clients(end, data_dir, transactional_db):
    sink = sinks.resolve(end.definition, {"accountKey": OTHER_KEY})
    for ask in (lambda: sink.get("x", CLAIM_DEADLINE_S), lambda: transfer(sink)):
        with pytest.raises(errors.SinkDenied) as raised:
            ask()
        assert OTHER_KEY not in str(raised.value.detail)


@pytest.mark.parametrize("method", ["get", "put", "delete", "copy", "list"])
def test_a_container_that_is_not_there_is_missing(end, method):
    sink = sinks.resolve({**end.definition, "container": "none"}, end.secrets)
    ask = {
        "get": lambda: sink.get("t/a", CLAIM_DEADLINE_S),
        "put": lambda: sink.put("t/a", b"1"),
        "delete": lambda: sink.delete("t/a"),
        "copy": lambda: sink.copy("t/a", "t/b"),
        "list": lambda: sink.has_objects("t", CLAIM_DEADLINE_S),
    }
    with pytest.raises(errors.SinkMissing):
        ask[method]()


def test_no_sink_is_at_the_nodes_own_address_unless_it_is_allowed(end, settings, data_dir, transactional_db):
    settings.BOILERHOUSE_ALLOWED_SINK_HOSTS = []
    sink = end.sink()
    http_requests.forget()
    for ask in (lambda: sink.get("x", CLAIM_DEADLINE_S), lambda: transfer(sink)):
        with pytest.raises(errors.SinkClosed):
            ask()


@pytest.mark.parametrize(
    "name",
    ["dot.", "two..", "d./x", "back\\slash", "wide\uff3c", "\uff0e", "q\u201b\u201b\uff3c", "a.b", "c.\uff0e"],
)
def test_a_name_is_read_as_it_was_stored(end, name):
    """Azure takes a backslash for a slash, and drops a dot at the end."""
    sink = end.sink()
    sink.put(f"t/x/{name}", b"1")
    (found,) = (key for key, _ in sink.names("t/x"))
    assert plain(found) == plain(name)
    assert sink.get(f"t/x/{name}", CLAIM_DEADLINE_S) == b"1"
    sink.delete_all("t/x")
    assert not sink.has_objects("t/x", CLAIM_DEADLINE_S)


@pytest.mark.parametrize(
    "name", ["a", "dot.", "d./x.", "b\\c", "w\uff3c", "q\u201b\u201b\uff3c", "\u201b\u201bFF", "d\uff0e"]
)
def test_each_key_has_a_blob_of_its_own(name):
    stored = azure_names.stored(name)
    assert azure_names.read(stored) == name
    assert "\\" not in stored
    assert not any(part.endswith(".") for part in stored.split("/"))


def test_names_that_azure_changes_come_back_and_are_sent_once(end, data_dir, transactional_db):
    names = (
        "dot.",
        "two..",
        "back\\slash",
        "wide\uff3c",
        "\uff0e",
        "c.\uff0e",
        "q\u201b\uff3c",
        "\u201b",
        "\u201b..",
    )
    tenant = TenantState(end)
    tenant.write(**{name: f"content of {number}" for number, name in enumerate(names)})
    before = tenant.look()
    assert set(before) == set(names)
    tenant.save()
    keys = end.keys(LOCATION)
    for _ in range(2):
        tenant.lose_host()
        tenant.claim()
        assert tenant.look() == before
        tenant.save()
        assert end.keys(LOCATION) == keys, "nothing new, and nothing gone"
    tenant.remove("dot.")
    tenant.cut("save.uploaded")
    tenant.lose_host()
    tenant.claim()
    assert tenant.look() == before, "a save that was cut is undone"


@pytest.mark.parametrize("name", ["\u201b.", "x/a\u201b\u201b."])
def test_a_name_that_rclone_would_not_find_again_is_not_saved(end, data_dir, transactional_db, name):
    tenant = TenantState(end)
    (tenant.state / "x").mkdir()
    tenant.write(**{name: "content"})
    with pytest.raises(errors.Unsaveable, match="u201b"):
        tenant.save()
    assert not end.keys(LOCATION)


def test_a_listing_of_several_pages_is_whole(end, monkeypatch):
    sink = end.sink()
    for number in range(7):
        sink.put(f"t/x/{number}", b"1")
    monkeypatch.setattr(azure, "PAGE", 3)
    assert dict(sink.names("t/x")) == {str(number): 1 for number in range(7)}
    assert sink.has_objects("t/x", CLAIM_DEADLINE_S)
    assert list(sink.folders("t")) == ["t/x"]


def test_an_object_without_an_md5_is_named(end):
    sink = end.sink()
    sink.put("t/x/with", b"1")
    url = sink._blob("t/x/without")
    block = {"comp": "block", "blockid": base64.b64encode(b"1").decode()}
    sink._send("PUT", url, RUN_DEADLINE_S, params=block, data=b"1", good=(201,))
    blocks = f"<BlockList><Latest>{block['blockid']}</Latest></BlockList>".encode()
    sink._send("PUT", url, RUN_DEADLINE_S, params={"comp": "blocklist"}, data=blocks, good=(201,))
    assert sink.unhashed("t/x") == ["without"]


class Says(providers.Behaviour):
    """Answers every request for a blob, or the requests with this word, with one answer."""

    def __init__(self, answer, word=""):
        self.answer, self.word = answer, word

    def refuse(self, asked):
        return self.answer if self.word in asked.target else None


def front(end, behaviour):
    """The same account behind a proxy: signatures cover no host and no port."""
    target = end.definition["endpoint"].removesuffix("/tests")
    return providers.Provider(target, behaviour)


def refusal(status, code, message, more=""):
    return providers.refusal(status, code, message, more, x_ms_error_code=code)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(403, "AuthorizationPermissionMismatch", "This request is not authorized"), errors.SinkDenied),
        (refusal(503, "ServerBusy", "The server is busy."), errors.SinkThrottled),
        (refusal(409, "BlobArchived", "This operation is not permitted on an archived blob."), errors.SinkArchived),
    ],
)
def test_both_clients_read_a_refusal_alike(end, data_dir, transactional_db, monkeypatch, answer, kind):
    once = ["--low-level-retries=1" if one.startswith("--low-level-retries") else one for one in rclone.COMMON]
    monkeypatch.setattr(rclone, "COMMON", once)  # what throttles is asked again after ten seconds and more
    before = front(end, Says(answer))
    try:
        sink = sinks.resolve({**end.definition, "endpoint": f"{before.endpoint}/tests"}, end.secrets)
        with pytest.raises(kind):
            sink.has_objects("t/x", CLAIM_DEADLINE_S)
        with pytest.raises(kind):
            transfer(sink)
    finally:
        before.stop()


def test_a_wrong_clock_is_named(end):
    detail = "<AuthenticationErrorDetail>Request date header is too old: 'x'</AuthenticationErrorDetail>"
    before = front(
        end, Says(refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.", detail))
    )
    try:
        with pytest.raises(errors.ClockSkewed, match="clock"):
            sinks.resolve({**end.definition, "endpoint": f"{before.endpoint}/tests"}, end.secrets).get(
                "t/x", CLAIM_DEADLINE_S
            )
    finally:
        before.stop()


def test_what_is_no_answer_of_azure_is_not_repeated(end):
    before = front(end, Says(providers.Answer(400, [("Content-Type", "text/html")], b"<h1>internal secret</h1>")))
    try:
        with pytest.raises(errors.SyncFailed) as raised:
            sinks.resolve({**end.definition, "endpoint": f"{before.endpoint}/tests"}, end.secrets).put("t/x", b"1")
        assert "secret" not in raised.value.detail
    finally:
        before.stop()


class Hierarchical(providers.Behaviour):
    """An account whose folders exist by themselves."""

    def answered(self, asked, answer):
        return answer.adding(x_ms_is_hns_enabled="true") if "restype=account" in asked.target else answer


def test_an_account_with_folders_is_refused_by_the_probe(end):
    before = front(end, Hierarchical())
    try:
        sink = sinks.resolve({**end.definition, "endpoint": f"{before.endpoint}/tests"}, end.secrets)
        with pytest.raises(errors.SinkUnreliable, match="hierarchical namespace"):
            sink.probe()
    finally:
        before.stop()


class CopiesLater(providers.Behaviour):
    """A copy that is not done when its request is answered."""

    def __init__(self):
        self.pending = 2

    def answered(self, asked, answer):
        if "x-ms-copy-source" not in asked.headers and asked.method != "HEAD":
            return answer
        self.pending -= 1
        kept = [(name, value) for name, value in answer.headers if name.lower() != "x-ms-copy-status"]
        status = "pending" if self.pending >= 0 else "success"
        return providers.Answer(answer.status, [*kept, ("x-ms-copy-status", status)], answer.content)


def test_a_copy_is_waited_for(end, monkeypatch):
    monkeypatch.setattr(azure, "POLL_S", 0.01)
    later = CopiesLater()
    before = front(end, later)
    try:
        end.sink().put("t/x", b"1")
        sinks.resolve({**end.definition, "endpoint": f"{before.endpoint}/tests"}, end.secrets).copy("t/x", "t/y")
        assert later.pending < 0
        assert end.sink().get("t/y", CLAIM_DEADLINE_S) == b"1"
    finally:
        before.stop()


def test_secrets_are_kept_for_the_same_container_only(call, end, data_dir):
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
    assert end.secrets["accountKey"] not in made.content.decode()
    assert call("PUT", "sync-specs/s", {**body, "sink": end.definition}).status_code == 200
    assert SyncSpec.objects.get().sink_secrets == end.secrets
    for change in (
        {"account": "another"},
        {"container": "another"},
        {"endpoint": "http://127.0.0.1:1"},
        {"endpoint": None},
    ):
        refused = call("PUT", "sync-specs/s", {**body, "sink": {**end.definition, **change}})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sink/accountKey"), change


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"account": "Upper"}, "account"), ({"account": "a.example"}, "account"), ({"container": "a--b"}, "container"),
        ({"container": "x/y"}, "container"), ({"prefix": "/x"}, "prefix"), ({"endpoint": "file:///etc"}, "endpoint"),
        ({"endpoint": "http://user@host"}, "endpoint"), ({"accountKey": None}, "accountKey"),
        ({"accountKey": "no base64!"}, "accountKey"), ({"accountKey": "c2hvcnQ="}, "accountKey"),
    ],
)  # fmt: skip
def test_what_no_sink_can_be_is_refused(call, data_dir, change, pointer):
    make_pool("notes")
    sink = {"type": "azureblob", "account": "states", "container": "states", "accountKey": OTHER_KEY, **change}
    answer = call("POST", "sync-specs", {"poolId": "notes", "mappings": [MAPPING], "policy": {}, "sink": sink})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/sink/{pointer}")


def test_no_argument_of_rclone_holds_a_secret(end):
    sink = end.sink()
    arguments = [
        *rclone.upload(sink, "t/a", [], deletes=True, inside="", backup="b/a"), *rclone.download(sink, "t/a", [])
    ]  # fmt: skip
    assert not [word for word in arguments if sink.account_key in word]
    assert sink.scrub(f"the key is {sink.account_key}") == "the key is …"
    assert sink.account_key not in repr(sink)

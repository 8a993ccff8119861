"""A tenant's life cycle with stores that behave as various S3 providers do: it works, or the probe says what to
change.

``tests.providers`` stands between real rclone, the real client and a real S3; each row is one peculiarity.
"""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest
from django.conf import settings

from boilerhouse.core.models import Event
from syncing import backups, errors, runs, services
from syncing.locations import BACKUP_ROOT
from syncing.models import Backup, SavedState, SyncRun
from syncing.sinks import CLAIM_DEADLINE_S, RUN_DEADLINE_S
from tenants import backups as tenant_backups
from tenants import state_erasure
from tenants.models import Tenant
from tests import providers, sink_servers
from tests.providers import Provider
from tests.s3 import name_loopback
from tests.tenant_state import TENANT, TenantState

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

DATA = f"t/{TENANT}/"
WRITES = ("PUT", "POST", "DELETE")


class Behind(sink_servers.SinkServer):
    """A server seen through a provider's behaviour; tests read it directly."""

    def __init__(self, end: sink_servers.SinkServer, behaviour: providers.Behaviour, **shown: object) -> None:
        self.end, self.provider = end, Provider(end.definition["endpoint"], behaviour)
        self.definition = {**end.definition, "endpoint": self.provider.endpoint, **shown}
        self.secrets, self.has_conditional_writes = end.secrets, end.has_conditional_writes

    def keys(self, prefix: str = "") -> dict[str, int]:
        return self.end.keys(prefix)

    def clear(self) -> None:
        self.end.clear()

    def stop(self) -> None:
        self.provider.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    end = sink_servers.MotoS3(tmp_path_factory.mktemp("moto"))
    yield end
    end.stop()


@pytest.fixture
def behind(request, data_dir, transactional_db, monkeypatch):
    """Create a server behind a behaviour; moto, unless the test names another."""
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    made = []

    def make(behaviour, end=None, **shown):
        end = end or request.getfixturevalue("moto")
        end.clear()
        made.append(Behind(end, behaviour, **shown))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def data_written(end: Behind) -> list[providers.Asked]:
    return [one for one in end.provider.log if one.is_write and one.key.startswith(DATA) and "rclone" in one.agent]


def live(end: Behind, run_tasks) -> TenantState:
    """A first claim, saves, a lost host, an interrupted save, a restored backup, expiry, erasure: all of it works."""
    state = TenantState(end)
    health = services.probe(state.fresh())
    assert health["state"] == "healthy", health
    assert health["conditionalWrites"] is end.has_conditional_writes

    state.write(a="1", b="1", c="1")
    state.save()
    state.claim()
    assert state.look() == {"a": "1", "b": "1", "c": "1"}
    state.write(a="2", d="2")
    state.remove("b")
    state.save()
    before = len(end.provider.log)
    state.save()
    sent = [one.key for one in end.provider.log[before:] if one.method in WRITES and one.key.startswith(DATA)]
    assert not sent, "what did not change is not sent again"

    saved = {"a": "2", "c": "1", "d": "2"}
    state.lose_host()
    state.claim()
    assert state.look() == saved
    state.write(a="3", e="3")
    state.remove("c")
    state.cut("save.uploaded")
    state.lose_host()
    state.claim()
    assert state.look() == saved, "the save that was cut is taken back"

    run = tenant_backups.restore(TENANT, Backup.objects.order_by("created_at").first().pk)
    run_tasks()
    run.refresh_from_db()
    assert run.state == "succeeded", run.error_detail
    state.generation = Tenant.objects.get(pk=TENANT).generation
    state.claim()
    assert state.look() == {"a": "1", "b": "1", "c": "1", "d": "2"}
    assert end.keys(BACKUP_ROOT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.BOILERHOUSE_BACKUP_RETENTION_S", -60)
        assert backups.expire(state.spec) >= 1
    assert not end.keys(BACKUP_ROOT)
    erasure = state_erasure.begin(TENANT)
    run_tasks()
    assert state_erasure.settle(erasure)
    assert not end.keys()
    return state


SSE, PAYS = "--s3-server-side-encryption=AES256", "--s3-requester-pays=true"
AT_ONCE = {
    "all demands": (
        lambda: providers.Together(
            providers.PrefixPolicy(),
            providers.DemandsEncryption(),
            providers.RequesterPays(),
            providers.DemandsMd5ToDelete(),
            providers.ObjectLock(),
            providers.NoTrailers(),
        ),
        [SSE, PAYS],
    ),
    "SSE-KMS by default": (providers.DefaultKms, []),
}
"""Behaviour, and the flags that it takes."""
ONE_BY_ONE = {
    "like any other": (providers.Behaviour, []),
    "403 for a missing key": (providers.PrefixPolicy, []),
    "demands AES256": (providers.DemandsEncryption, [SSE]),
    "demands aws:kms": (
        lambda: providers.DemandsEncryption("aws:kms"),
        ["--s3-server-side-encryption=aws:kms", f"--s3-sse-kms-key-id={providers.KMS_KEY}"],
    ),
    "requester pays": (providers.RequesterPays, [PAYS]),
    "Content-MD5 to delete": (providers.DemandsMd5ToDelete, []),
    "deletes one by one": (providers.DeletesOneByOne, []),
    "Object Lock": (providers.ObjectLock, []),
    "no trailers": (providers.NoTrailers, []),
    "throttles a share": (lambda: providers.SlowDown(0.15), []),
}


@pytest.mark.parametrize(
    "row", [*AT_ONCE, *(pytest.param(row, marks=pytest.mark.long) for row in ONE_BY_ONE)]
)  # one by one they take as long as together, each
def test_a_whole_life(behind, run_tasks, row):
    """Each of these stores works with its flags."""
    make, flags = (AT_ONCE | ONE_BY_ONE)[row]
    end = behind(make(), rcloneFlags=flags)
    live(end, run_tasks)
    if row == "SSE-KMS by default":
        by = {one.headers.get("x-amz-server-side-encryption-aws-kms-key-id") for one in data_written(end)}
        assert by == {providers.KMS_KEY}, "rclone names the key that the bucket uses anyway"


@pytest.mark.long  # at the other S3, which verifies what is signed, and knows no KMS: two to three seconds each
@pytest.mark.parametrize("row", [row for row in AT_ONCE | ONE_BY_ONE if "kms" not in row.lower()])
def test_a_whole_life_without_conditional_writes(behind, s3, run_tasks, row):
    """The same with ``rclone serve s3``."""
    make, flags = (AT_ONCE | ONE_BY_ONE)[row]
    live(behind(make(), end=sink_servers.RcloneS3(s3), rcloneFlags=flags), run_tasks)


REFUSES = {
    "an unknown demand": (providers.RefusesEveryWrite, {}, errors.SinkRefused, ["Writes need a blue moon."]),
    "encryption is demanded": (
        providers.DemandsEncryption,
        {},
        errors.SinkDenied,
        ["explicit deny", 'add "--s3-server-side-encryption=AES256" to rcloneFlags'],
    ),
    "KMS is demanded": (
        lambda: providers.DemandsEncryption("aws:kms"),
        {},
        errors.SinkDenied,
        ['add "--s3-server-side-encryption=aws:kms" to rcloneFlags'],
    ),
    "requester pays": (
        providers.RequesterPays,
        {},
        errors.SinkDenied,
        ["Access Denied"],
    ),
    "listing is denied": (
        providers.DeniesListing,
        {},
        errors.SinkDenied,
        ["not authorized to perform: s3:ListBucket", "allow listing of .boilerhouse/"],
    ),
    "markers are hidden": (
        lambda: providers.DeniesKeys(".boilerhouse/"),
        {},
        errors.SinkDenied,
        ["No access to .boilerhouse/"],
    ),
    "backups are hidden": (
        lambda: providers.DeniesKeys(".boilerhouse-trash/"),
        {},
        errors.SinkDenied,
        ["No access to .boilerhouse-trash/", "needs copies within the bucket"],
    ),
    "another clock": (
        providers.OtherClock,
        {},
        errors.ClockSkewed,
        ["The difference between", "clock is 20 minutes behind the sink's"],
    ),
    "another region, redirected": (
        providers.OtherRegion,
        {},
        errors.SinkElsewhere,
        ["must be addressed using the specified endpoint", "The bucket is in eu-west-1; set region."],
    ),
    "another region, said": (
        lambda: providers.OtherRegion(redirects=False),
        {},
        errors.SinkElsewhere,
        ["expecting 'eu-west-1'", "The bucket is in eu-west-1; set region."],
    ),
    "tags that are no MD5": (providers.OddTags, {}, errors.SinkUnreliable, ["is not the MD5"]),
}
"""Behaviour, what the spec says, the error, and what it must hold."""


@pytest.mark.parametrize("row", REFUSES)
def test_what_cannot_be_used_is_found_by_the_probe_and_nothing_is_half_done(behind, row):
    """The error has the provider's message and ours; a claim or a save there leaves nothing behind."""
    make, shown, error, words = REFUSES[row]
    end = behind(providers.Behaviour(), **shown)
    state = TenantState(end)
    state.write(a="1")
    end.provider.behaviour = make()

    health = services.probe(state.fresh())
    assert (health["state"], health["code"]) == ("unhealthy", error.code), health
    assert [word for word in words if word not in health["detail"]] == [], health["detail"]
    assert Event.objects.filter(type="pool.warning", payload__detail=health["detail"]).exists()

    with pytest.raises(errors.SyncFailed):
        state.save()
    run = SyncRun.objects.latest("created_at")
    assert run.state == "failed"
    assert not SavedState.objects.exists()

    end.provider.behaviour = providers.Behaviour()
    state.claim()
    assert state.look() == {}
    assert not end.keys(DATA)
    state.write(a="2")
    state.save()
    state.claim()
    assert state.look() == {"a": "2"}


def test_the_probe_guesses_what_it_does_not_try(behind):
    """A requester-pays request costs money."""
    end = behind(providers.RequesterPays())
    with pytest.raises(errors.SinkDenied, match=r"Access Denied.*If the requester pays, add"):
        end.sink().probe()
    assert not [one for one in end.provider.log if "x-amz-request-payer" in one.headers]


@pytest.mark.parametrize(
    "behaviour",
    [providers.DeniesKeys(".boilerhouse/"), providers.DeniesKeys(""), providers.DeniesReading()],
    ids=["markers are hidden", "everything is hidden", "nothing can be read"],
)
def test_a_refusal_is_never_taken_for_a_first_time(behind, behaviour):
    """The saved state exists, and no 403 makes a claim start empty (P4, P5)."""
    end = behind(providers.PrefixPolicy())
    state = TenantState(end)
    state.write(a="1")
    state.save()
    end.provider.behaviour = behaviour
    SavedState.objects.all().delete()  # as in another deployment, which knows of no save

    with pytest.raises(errors.SinkDenied) as raised:
        state.claim()
    assert "403 AccessDenied" in raised.value.detail
    end.provider.behaviour = providers.PrefixPolicy()
    state.claim()
    assert state.look() == {"a": "1"}


def test_a_denied_listing_is_never_taken_for_a_first_time(behind):
    """The marker is missing, but other objects may exist (P4)."""
    end = behind(providers.Behaviour())
    state = TenantState(end)
    state.sink.put(f"{DATA}state/by-hand", b"precious")
    end.provider.behaviour = providers.DeniesListing()

    with pytest.raises(errors.SinkDenied) as raised:
        state.claim()
    assert "s3:ListBucket" in raised.value.detail


@pytest.mark.parametrize("wrong", [{"accessKeyId": "WRONG"}, {"secretAccessKey": "wrong"}])
def test_wrong_keys_are_denied_also_where_a_missing_key_is(behind, s3, wrong):
    """A store that answers 403 to a missing key and to wrong keys alike (P4)."""
    end = behind(providers.PrefixPolicy(), end=sink_servers.RcloneS3(s3))
    state = TenantState(end)
    state.write(a="1")
    state.save()
    SavedState.objects.all().delete()
    state.spec.sink_secrets = {**end.secrets, **wrong}
    state.spec.save()

    with pytest.raises(errors.SinkDenied):
        state.claim()


def test_what_lies_there_without_a_marker_is_restored_from_a_bucket_that_encrypts(behind, monkeypatch):
    """No write or read has shown it yet."""
    end = behind(providers.DefaultKms())
    state = TenantState(end)
    state.sink.put(f"{DATA}state/by-hand", b"precious")
    monkeypatch.setattr("syncing.sinks.s3._last_objects", {})
    state.claim()

    assert state.look() == {"by-hand": "precious"}


@pytest.mark.parametrize(
    ("ahead", "words"), [(20, "20 minutes behind"), (-180, "180 minutes ahead of"), (0, "Set this")]
)
def test_a_clock_that_is_off_is_named_with_how_far(behind, ahead, words):
    """Both ways; the error names no time if the store's refusal does not."""
    end = behind(providers.OtherClock(timedelta(minutes=ahead)))
    with pytest.raises(errors.ClockSkewed, match=words):
        end.sink().probe()


def test_rclones_own_refusals_have_the_same_names(behind):
    """A save whose transfer is the first to get these answers."""
    end = behind(providers.Behaviour())
    state = TenantState(end)
    for number, (behaviour, error, words) in enumerate(
        [
            (providers.OtherClock(), errors.ClockSkewed, "clock"),
            (providers.OtherRegion(redirects=False), errors.SinkElsewhere, "The bucket is in eu-west-1; set region."),
            (providers.OtherRegion(), errors.SinkElsewhere, "region"),
            (providers.DemandsEncryption(), errors.SinkDenied, "explicit deny in a resource-based policy"),
        ]
    ):
        end.provider.behaviour = ForRclone(behaviour)
        state.write(a=str(number))
        with pytest.raises(error, match=words):
            state.save()


def test_what_was_moved_into_an_archive_is_named_so(behind):
    """rclone's 403 there is not about permissions."""
    end = behind(providers.Behaviour())
    state = TenantState(end)
    state.write(a="1")
    state.save()
    end.provider.behaviour = providers.Archived()

    with pytest.raises(errors.SinkArchived, match="bring it back there first"):
        state.claim()
    with pytest.raises(errors.SinkArchived):
        state.sink.get(f"{DATA}state/a", RUN_DEADLINE_S)


class ForRclone(providers.Behaviour):
    """Affects rclone alone: the client's queries succeed."""

    def __init__(self, behaviour: providers.Behaviour) -> None:
        self.behaviour = behaviour

    def refuse(self, asked):
        return None if "Botocore" in asked.agent or "boilerhouse" in asked.agent else self.behaviour.refuse(asked)


# Throttling


def test_small_requests_of_a_run_ride_over_throttling(behind):
    """Each kind of request is refused three times, then answered."""
    end = behind(providers.Behaviour())
    sink = end.sink()
    sink.put("t/x/one", b"1")
    asks = [
        lambda: sink.put("t/x/two", b"2"),
        lambda: sink.put_if("t/x/three", b"3", ""),
        lambda: sink.read("t/x/one", RUN_DEADLINE_S),
        lambda: sink.has_objects("t/x", RUN_DEADLINE_S),
        lambda: list(sink.names("t/x")),
        lambda: list(sink.folders("t")),
        lambda: sink.copy("t/x/one", "t/y/one"),
        lambda: sink.delete("t/x/two"),
        lambda: sink.delete_all("t/y"),
    ]
    for ask in asks:
        end.provider.behaviour = providers.SlowDown(positions=range(3))
        ask()
        assert end.provider.behaviour.count > 3
    assert end.keys() == {"t/x/one": 1, "t/x/three": 1}


def test_what_a_batch_leaves_is_deleted_one_by_one(behind):
    """A store that answers the batch with 200 and errors in the body."""

    class Leaves(providers.Behaviour):
        def refuse(self, asked):
            if asked.deletes_many:
                error = b"<Error><Key>t/x/1</Key><Code>InternalError</Code><Message>busy</Message></Error>"
                body = b"<DeleteResult>" + error + b"</DeleteResult>"
                return providers.Answer(200, [("Content-Type", "application/xml")], body)
            return None

    end = behind(Leaves())
    sink = end.sink()
    sink.put("t/x/1", b"1")
    sink.delete_all("t/x")

    assert not end.keys()


def test_a_listing_without_an_end_is_an_error(behind):
    """A partial listing is never taken for a complete one (P5)."""

    class Endless(providers.Behaviour):
        def answered(self, asked, answer):
            content = answer.content.replace(b"<IsTruncated>false", b"<IsTruncated>true")
            return providers.Answer(answer.status, answer.headers, content)

    end = behind(Endless())
    with pytest.raises(errors.SinkUnreliable):
        list(end.sink().names("t"))


# The bucket's place


@pytest.fixture
def named(behind):
    """A server by host name; the bucket is a name below it, too."""
    name_loopback("testbucket.sink.test")
    name_loopback("sink.test")

    def make(behaviour, **shown):
        end = behind(behaviour, **shown)
        end.definition["endpoint"] = f"http://sink.test:{end.provider.port}"
        return end

    return make


IN_THE_NAME = "--s3-force-path-style=false"


@pytest.mark.parametrize(
    ("behaviour", "shown"),
    [
        (providers.BucketInHost, {"rcloneFlags": [IN_THE_NAME]}),
        pytest.param(providers.BucketInHost, {"provider": "Alibaba"}, marks=pytest.mark.long),
        pytest.param(providers.BucketInPath, {}, marks=pytest.mark.long),
    ],
)  # one is enough for make test: each takes three seconds
def test_a_whole_life_where_the_bucket_has_one_place(named, run_tasks, behaviour, shown):
    """B: virtual-host and path style: rclone and the client agree on it."""
    live(named(behaviour(), **shown), run_tasks)


@pytest.mark.parametrize(
    ("behaviour", "shown", "words"),
    [
        (providers.BucketInHost, {}, 'add "--s3-force-path-style=false" to rcloneFlags'),
        (
            providers.BucketInPath,
            {"rcloneFlags": [IN_THE_NAME]},
            'leave "--s3-force-path-style=false"',
        ),
        (providers.BucketInPath, {"provider": "Wasabi"}, 'set provider to "Other"'),
    ],
)
def test_the_probe_finds_out_where_the_bucket_goes(named, behaviour, shown, words):
    """B: virtual-host and path style: the other way was tried, and is named."""
    with pytest.raises(errors.SyncFailed) as raised:
        named(behaviour(), **shown).sink().probe()
    assert words in raised.value.detail


# What the documentation says

ROWS = {
    "answers 403 for an object that does not exist": {providers.PrefixPolicy, providers.DeniesListing},
    "demands `x-amz-server-side-encryption`": {providers.DemandsEncryption},
    "encrypts with KMS by default": {providers.DefaultKms},
    "gives ETags that look like an MD5 and are none": {providers.OddTags},
    "wants the requester to pay": {providers.RequesterPays},
    "demands `Content-MD5` to delete many objects": {providers.DemandsMd5ToDelete},
    "cannot delete many objects by one request": {providers.DeletesOneByOne},
    "demands `Content-MD5` or a checksum on each write": {providers.ObjectLock},
    "refuses checksums after the content": {providers.NoTrailers},
    "throttles": {providers.SlowDown},
    "refuses what was signed by a wrong clock": {providers.OtherClock},
    "redirects to another region": {providers.OtherRegion},
    "takes the bucket only as a part of the host's name": {providers.BucketInHost, providers.BucketInPath},
}
"""How each row of the table in docs/sync.md begins, and what stands in for such a store."""


def tried() -> set[type]:
    """The behaviours that the tables of this module try."""
    made = [make() for make, *_ in (AT_ONCE | ONE_BY_ONE | REFUSES).values()]
    return {type(part) for one in made for part in getattr(one, "parts", [one])} | {
        providers.BucketInHost,
        providers.BucketInPath,
    }


def test_the_documentation_says_of_no_store_what_is_not_tried():
    """B: each row of its table has its behaviour here and the other way round, and each flag that it advises is given."""
    text = (settings.BASE_DIR / "docs" / "sync.md").read_text()
    section = text.partition("## What stores do differently")[2].partition("\n## ")[0]
    told = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| ")][1:]
    rows = [row for row in told if set(row[0]) != {"-"}]
    assert [[one for one in ROWS if store.startswith(one)] for store, _ in rows] == [[one] for one in ROWS]
    assert set().union(*ROWS.values()) <= tried()

    given = {flag for _, flags in (AT_ONCE | ONE_BY_ONE).values() for flag in flags} | {IN_THE_NAME}
    advised = {flag for _, advice in rows for flag in re.findall(r"`(--[^`]+)`", advice)}
    assert len(advised) > 3
    for flag in advised:
        assert [one for one in given if one.startswith(flag.removesuffix("…"))], flag


# WebDAV


@pytest.fixture
def dav(tmp_path):
    end = sink_servers.WebDav(tmp_path)
    made = Behind(end, providers.Behaviour())
    yield made
    made.stop()
    end.stop()


def test_webdav_waits_as_long_as_it_is_asked_to(dav):
    """429 with Retry-After; a claim does not wait that long."""
    sink = dav.sink()
    busy = providers.Answer(429, [("Retry-After", "1")], b"Too many requests from you")
    dav.provider.behaviour = providers.SlowDown(positions=range(2), answer=busy)
    began = time.monotonic()
    sink.put("t/one", b"1")
    assert time.monotonic() - began > 1.5

    dav.provider.behaviour = providers.SlowDown(share=1.0, answer=busy)
    with pytest.raises(errors.SinkThrottled, match="answered 429 to GET") as raised:
        sink.get("t/one", CLAIM_DEADLINE_S)
    assert raised.value.after_s == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b"<d:error xmlns:d='DAV:' xmlns:s='x'><s:message>No  quota &amp; no luck</s:message></d:error>",
            "No quota & no luck",
        ),
        (
            b"<d:error xmlns:d='DAV:'><d:message>You sent Basic ZGF2OmRhdi1zZWNyZXQ=\x00\x1b[31m</d:message></d:error>",
            "You sent …",
        ),
        (b"<html><head><title>INTERNAL</title></head><message>INTERNAL</message></html>", ""),
        (b"INTERNAL", ""),
        (b"\xff\xfe\x00" * 1000, ""),
    ],
)
def test_webdavs_own_words_are_kept_without_our_secrets(dav, body, words):
    """One printable line; an answer that is not WebDAV is not repeated (P10)."""
    dav.provider.behaviour = providers.SlowDown(share=1.0, answer=providers.Answer(403, [], body))
    with pytest.raises(errors.SinkDenied) as raised:
        dav.sink().get("t/one", RUN_DEADLINE_S)
    assert words in raised.value.detail
    assert raised.value.detail.isprintable()
    assert "ZGF2OmRhdi1zZWNyZXQ" not in raised.value.detail
    assert "INTERNAL" not in raised.value.detail


def test_a_webdav_endpoint_that_is_not_there_is_missing_and_not_empty(dav):
    """404 for everything is an error; only a missing location counts as empty (P4)."""
    assert dav.sink().has_objects("t/none", CLAIM_DEADLINE_S) is False
    dav.definition["endpoint"] += "/no/such/place"
    with pytest.raises(errors.SinkMissing):
        dav.sink().has_objects("t/none", CLAIM_DEADLINE_S)

"""A tenant's whole life at stores that behave as S3's many makers do: it works, or the probe says what to do.

``tests.providers`` stands between real rclone, the real client and a real S3; each row is one peculiarity.
"""

from __future__ import annotations

import pytest

from boilerhouse.core.models import Event
from syncing import backups, errors, runs, services
from syncing.locations import BACKUP_ROOT
from syncing.models import Backup, SavedState, SyncRun
from tenants import backups as tenant_backups
from tenants import erasing
from tenants.models import Tenant
from tests import far_ends, providers
from tests.providers import Provider
from tests.syncing.test_exactly_the_last_save import TENANT
from tests.syncing.test_exactly_the_last_save import Tenant as State

pytestmark = pytest.mark.any_database

DATA = f"t/{TENANT}/"
WRITES = ("PUT", "POST", "DELETE")


class Behind(far_ends.FarEnd):
    """A far end as it is seen through a provider; tests look at it directly."""

    def __init__(self, end: far_ends.FarEnd, behaviour: providers.Behaviour, **shown: object) -> None:
        self.end, self.provider = end, Provider(end.shown["endpoint"], behaviour)
        self.shown = {**end.shown, "endpoint": self.provider.endpoint, **shown}
        self.secrets, self.has_conditional_writes = end.secrets, end.has_conditional_writes

    def keys(self, prefix: str = "") -> dict[str, int]:
        return self.end.keys(prefix)

    def clear(self) -> None:
        self.end.clear()

    def stop(self) -> None:
        self.provider.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    end = far_ends.MotoS3(tmp_path_factory.mktemp("moto"))
    yield end
    end.stop()


@pytest.fixture
def behind(request, data_dir, transactional_db, monkeypatch):
    """Make a far end behind a behaviour; moto, where the test does not say another."""
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


def live(end: Behind, run_tasks) -> State:
    """A first claim, saves, a lost host, a save cut short, a backup put back, expiry, erasure: all of it works."""
    state = State(end)
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
        assert backups.expire(state.sink) >= 1
    assert not end.keys(BACKUP_ROOT)
    erasure = erasing.begin(TENANT)
    run_tasks()
    assert erasing.settle(erasure)
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
    """B20b, B21, B22, B23, B24, B25, B43: each of these stores is used, with the flags that it takes."""
    make, flags = (AT_ONCE | ONE_BY_ONE)[row]
    end = behind(make(), rcloneFlags=flags)
    live(end, run_tasks)
    if row == "SSE-KMS by default":
        by = {one.headers.get("x-amz-server-side-encryption-aws-kms-key-id") for one in data_written(end)}
        assert by == {providers.KMS_KEY}, "rclone names the key that the bucket uses anyway"


@pytest.mark.long  # at the other S3, which verifies what is signed: two to three seconds each
@pytest.mark.parametrize("row", [row for row in AT_ONCE | ONE_BY_ONE if row != "SSE-KMS by default"])
def test_a_whole_life_without_conditional_writes(behind, s3, run_tasks, row):
    """B20b, B21, B22, B24, B25, B43: as above, at ``rclone serve s3``."""
    make, flags = (AT_ONCE | ONE_BY_ONE)[row]
    live(behind(make(), end=far_ends.RcloneS3(s3), rcloneFlags=flags), run_tasks)


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
        ["Access Denied", 'add "--s3-requester-pays=true" to rcloneFlags'],
    ),
    "listing is denied": (
        providers.DeniesListing,
        {},
        errors.SinkDenied,
        ["not authorized to perform: s3:ListBucket", "allow to list .boilerhouse/"],
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
        ["No access to .boilerhouse-trash/", "by copies within the bucket"],
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
    """B22, B23, B24, B25, B41: the provider's words and ours; a claim or a save there leaves nothing behind."""
    make, shown, error, words = REFUSES[row]
    end = behind(providers.Behaviour(), **shown)
    state = State(end)
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

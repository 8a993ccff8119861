"""Whatever is killed, a tenant gets exactly its last complete save (P5, hazards.md#c1). Real rclone, real S3."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncing import backups, errors, listings, rclone, runs
from syncing.locations import BACKUP_ROOT, MARKER_ROOT, marker_key
from syncing.markers import Manifest, Marker
from syncing.models import SavedState, SyncRun, SyncSpec
from syncing.states import SyncRunState
from tests.tenant_state import LOCATION, TenantState

pytestmark = pytest.mark.any_database


@pytest.mark.parametrize("place", ["save.marker-open", "save.uploaded"])
def test_a_save_that_was_cut_is_taken_back_when_the_host_is_lost(tenant, place):
    tenant.write(kept="1", changed="old", deleted="here")
    tenant.save()
    saved = tenant.look()
    tenant.write(changed="new", added="x")
    tenant.remove("deleted")
    tenant.cut(place)
    tenant.lose_host()
    tenant.claim()

    assert tenant.look() == saved
    assert Marker.load(tenant.sink.get(marker_key(LOCATION), 15)).state == "closed"


def test_two_cut_attempts_are_taken_back_newest_first(tenant):
    tenant.write(a="1", b="1")
    tenant.save()
    tenant.write(a="2", c="2")
    tenant.cut("save.uploaded")
    tenant.write(a="3", b="3")
    tenant.remove("c")
    tenant.cut("save.uploaded")
    tenant.lose_host()
    tenant.claim()

    assert tenant.look() == {"a": "1", "b": "1"}


def test_a_first_save_that_was_cut_leaves_an_empty_start(tenant):
    tenant.write(a="1")
    tenant.cut("save.uploaded")
    tenant.lose_host()
    tenant.claim()

    assert tenant.look() == {}
    assert not tenant.sink_server.keys("t/alice")
    assert any(key.endswith("/a") for key in tenant.sink_server.keys(BACKUP_ROOT)), "put aside, not thrown away"


def test_what_was_there_before_the_first_save_is_what_it_is_taken_back_to(tenant):
    """A location that was filled by hand is adopted."""
    tenant.sink.put(f"{LOCATION}/by-hand", b"precious")
    tenant.claim()
    assert tenant.look() == {"by-hand": "precious"}
    tenant.write(**{"by-hand": "overwritten", "new": "x"})
    tenant.cut("save.uploaded")
    tenant.lose_host()
    tenant.claim()

    assert tenant.look() == {"by-hand": "precious"}


def test_the_same_save_tried_again_completes_and_nothing_is_taken_back(tenant):
    tenant.write(a="1", b="1")
    tenant.save()
    tenant.write(a="2")
    tenant.remove("b")
    tenant.cut("save.uploaded")
    tenant.save()
    tenant.claim()

    assert tenant.look() == {"a": "2"}
    assert SyncRun.objects.filter(state=SyncRunState.SUCCEEDED, direction="upload").count() == 2


def test_taking_back_may_itself_be_cut_anywhere(tenant, monkeypatch):
    tenant.write(**{f"f{n}": "old" for n in range(12)})
    tenant.save()
    tenant.write(**{f"f{n}": "new" for n in range(12)}, **{f"g{n}": "new" for n in range(12)})
    tenant.cut("save.uploaded")
    tenant.lose_host()
    kind = type(tenant.sink)
    copy, left = kind.copy, [0]

    def failing(self, source, target):
        left[0] -= 1
        if left[0] < 0:
            raise errors.SinkUnreachable("gone")
        copy(self, source, target)

    monkeypatch.setattr(kind, "copy", failing)
    for allowed in (0, 3, 8, 9):
        left[0] = allowed
        with pytest.raises(errors.SyncFailed):
            tenant.claim()
    left[0] = 10**6
    tenant.claim()

    assert tenant.look() == {f"f{n}": "old" for n in range(12)}


def test_what_a_save_overwrites_or_deletes_is_kept_outside_all_locations(tenant):
    tenant.write(a="1", b="1")
    tenant.save()
    tenant.write(a="2")
    tenant.remove("b")
    tenant.save()
    (folder,) = {key.split("/")[2] for key in tenant.sink_server.keys() if key.startswith(BACKUP_ROOT)}
    kept = tenant.sink_server.keys(BACKUP_ROOT)

    assert {key.partition(f"{folder}/")[2] for key in kept} == {f"{LOCATION}/a", f"{LOCATION}/b"}
    assert set(tenant.sink_server.keys(LOCATION)) == {"a"}


def test_backups_expire_by_their_name_and_never_while_an_open_save_needs_them(tenant, settings):
    tenant.write(a="1")
    tenant.save()
    os.utime(tenant.state / "a", (0, 0))
    tenant.write(a="2")
    tenant.save()
    tenant.write(a="3")
    tenant.cut("save.uploaded")
    assert backups.expire(tenant.spec) == 0, "young, whatever the files' own times say"

    settings.BOILERHOUSE_BACKUP_RETENTION_S = -60
    assert backups.expire(tenant.spec) == 1, "the closed save's, not the open one's"
    tenant.lose_host()
    tenant.claim()
    assert tenant.look() == {"a": "2"}
    backups.expire(tenant.spec)
    assert not tenant.sink_server.keys(BACKUP_ROOT)


def test_a_save_is_refused_when_somebody_else_has_saved_there_since_the_claim(tenant):
    """Another deployment, or an older database: objects of another owner are never replaced."""
    tenant.write(a="1")
    tenant.save()
    tenant.claim()
    key = marker_key(LOCATION)
    marker = Marker.load(tenant.sink.get(key, 15))
    tenant.sink.put(key, replace(marker, run_id="another").dump())
    tenant.write(a="2")
    with pytest.raises(errors.RemoteChanged):
        tenant.save()
    assert tenant.sink.get(f"{LOCATION}/a", 15) == b"1"

    tenant.sink.delete(key)
    with pytest.raises(errors.RemoteChanged):
        tenant.save()
    tenant.sink.put(key, marker.dump())
    tenant.save()
    tenant.write(a="3")
    tenant.save()  # what this claim saved itself is its own
    assert tenant.sink.get(f"{LOCATION}/a", 15) == b"3"


@pytest.mark.parametrize("inline", [10_000, 2])
def test_one_listing_per_location_is_kept(tenant, monkeypatch, inline):
    monkeypatch.setattr(listings, "INLINE_BYTES", inline)
    for number in range(3):
        tenant.write(a=str(number))
        tenant.save()
    keys = [key for key in tenant.sink_server.keys() if key.startswith(f"{MARKER_ROOT}/")]
    marker = Marker.load(tenant.sink.get(marker_key(LOCATION), 15))

    assert set(keys) == {marker_key(LOCATION), marker.listing or marker_key(LOCATION)}
    assert bool(marker.listing) is (inline == 2)
    assert listings.read(tenant.sink, marker) == {"a": 1}
    if marker.listing:
        tenant.write(a="9", b="9")
        tenant.cut("save.uploaded")
        tenant.claim()
        assert tenant.look() == {"a": "2"}
        tenant.sink.delete(marker.listing)
        tenant.cut("save.uploaded")
        with pytest.raises(errors.Incomplete):
            tenant.claim()


NAMES = ["a", "b c", "ü", "d.txt", "e"]
ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.integers(0, 9)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("save"), st.just(""), st.just(0)),
    st.tuples(st.just("cut"), st.sampled_from(["save.marker-open", "save.uploaded"]), st.just(0)),
    st.tuples(st.just("kill"), st.just(""), st.integers(0, 120)),
    st.tuples(st.just("host lost"), st.just(""), st.just(0)),
)


@settings(
    max_examples=60 if os.environ.get("BOILERHOUSE_LONG") else 6, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(actions=st.lists(ACTIONS, min_size=4, max_size=14))
def test_random_edits_saves_kills_and_losses(empty_sink_server, data_dir, transactional_db, monkeypatch, actions):
    monkeypatch.setattr(runs, "RETRY_AFTER_S", (0.01, 0.01))
    empty_sink_server.clear()
    SavedState.objects.all().delete()
    SyncSpec.objects.all().delete()
    tenant, saved = TenantState(empty_sink_server), {}
    for what, name, number in actions:
        if what == "write":
            tenant.write(**{name: str(number) * (number * 1000)})
        elif what == "remove" and (tenant.state / name).exists():
            tenant.remove(name)
        elif what == "save":
            tenant.save()
            saved = tenant.look()
        elif what == "cut":
            tenant.cut(name)
        elif what == "kill" and killed(tenant, number / 1000):
            saved = tenant.look()
        elif what == "host lost":
            tenant.lose_host()
            tenant.claim()
            assert tenant.look() == saved
    tenant.lose_host()
    tenant.claim()
    assert tenant.look() == saved


def killed(tenant: TenantState, after_s: float) -> bool:
    """A save whose rclone is killed after that time; True if it completed before."""
    real, timers = subprocess.Popen, []

    def kill(process) -> None:
        with suppress(ProcessLookupError):  # it may end on its own between the question and the signal
            if process.poll() is None:
                os.killpg(process.pid, 9)

    def popen(*arguments, **options):
        process = real(*arguments, **options)
        timer = threading.Timer(after_s, kill, [process])
        timer.start()
        timers.append(timer)
        return process

    rclone.subprocess.Popen = popen  # type: ignore[misc]
    try:
        tenant.save()
    except errors.SyncFailed:
        return False
    finally:
        rclone.subprocess.Popen = real  # type: ignore[misc]
        for timer in timers:
            timer.join(30)
    return True


@pytest.mark.parametrize("inline", [10_000, 2])
def test_the_kept_names_are_read_back_exactly(s3, monkeypatch, inline):
    monkeypatch.setattr(listings, "INLINE_BYTES", inline)
    names = {"a": 1, "ü\udc80": 2, "x/y z": 3}
    empty = Marker("alice", "d", "loc", 1, "run", "closed", "", Manifest())
    marker = Marker.load(listings.attach(s3.sink(), empty, "run", names).dump())

    assert listings.read(s3.sink(), marker) == names
    assert listings.read(s3.sink(), listings.attach(s3.sink(), marker, "run", {})) == {}

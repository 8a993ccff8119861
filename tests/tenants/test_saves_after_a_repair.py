"""Failed saves are retried as soon as a probe finds their sink working (hazards.md#a4)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from boilerhouse.controller import controller
from syncing import credentials, services
from syncing.models import Credential, SinkProbe, SyncSpec
from tenants import upkeep
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests.make import make_pool, make_sync_spec

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]
WRONG, UNHEALTHY = "wrong-secret", {"state": "unhealthy", "code": "denied", "detail": "403"}


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


@pytest.fixture
def good(s3):
    return {"accessKeyId": s3.access_key, "secretAccessKey": s3.secret_key}


@pytest.fixture
def spec_at(s3):
    def make(**over):
        body = s3.json("t/${tenantId}/")
        body.pop("secretAccessKey")
        return make_sync_spec(sink=body, **{"sink_secrets": None, **over})

    return make


def failed(pool, tenant="alice"):
    """A save that failed and is not due for an hour."""
    Tenant.objects.get_or_create(pk=tenant)
    return Assignment.objects.create(
        tenant_id=tenant, pool=pool, generation=1, deadline=timezone.now(), state=AssignmentState.RELEASE_FAILED,
        was_assigned=True, outcome="denied", next_attempt_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip


def is_retried(row, run_tasks):
    while run_tasks():
        pass
    row.refresh_from_db()
    return row.attempt == 1


@pytest.fixture
def run_tasks(run_tasks, monkeypatch):
    """Runs the queue without the save itself: the tests count the retry."""
    monkeypatch.setattr("tenants.releases.finish", lambda _assignment: None)
    return run_tasks


@pytest.mark.parametrize("was", [UNHEALTHY, {}, {"state": "healthy"}], ids=["unhealthy", "unknown", "healthy"])
def test_the_right_secret_in_the_specs_own_form(call, spec_at, s3, run_tasks, was):
    """The editor's and the API's own probe notice it first; the earlier health does not matter."""
    spec = spec_at(sink_secrets={"accessKeyId": s3.access_key, "secretAccessKey": WRONG}, sink_health=was)
    row = failed(spec.pool)
    body = call("GET", f"sync-specs/{spec.pk}").json()
    body["sink"]["secretAccessKey"] = s3.secret_key

    assert call("PUT", f"sync-specs/{spec.pk}", body).json()["sinkHealth"]["state"] == "healthy"
    assert is_retried(row, run_tasks)


def test_a_wrong_secret_retries_nothing(call, spec_at, s3, good, run_tasks):
    """A change that leaves the sink unhealthy is no repair."""
    spec = spec_at(sink_secrets=good, sink_health={"state": "healthy"})
    row = failed(spec.pool)
    body = call("GET", f"sync-specs/{spec.pk}").json()
    body["sink"]["secretAccessKey"] = WRONG

    assert call("PUT", f"sync-specs/{spec.pk}", body).json()["sinkHealth"]["state"] == "unhealthy"
    assert not is_retried(row, run_tasks)


@pytest.mark.parametrize("was", [UNHEALTHY, {"state": "healthy"}], ids=["unhealthy", "healthy"])
def test_a_credential_that_is_replaced(spec_at, good, s3, run_tasks, was):
    """For every spec that uses it, at once, whatever their last probe reported (hazards.md#a4)."""
    wrong = {"accessKeyId": s3.access_key, "secretAccessKey": WRONG}
    credential = Credential.objects.create(pk="shared", name="shared", secret=wrong)
    specs = [spec_at(credential=credential, sink_health=was) for _ in range(2)]
    rows = [failed(spec.pool, f"tenant-{spec.pk}") for spec in specs]
    credentials.replace(credential, name="shared", access_key_id=s3.access_key, secret_access_key=s3.secret_key)

    assert all(is_retried(row, run_tasks) for row in rows)


def test_a_probe_by_the_api(call, spec_at, good, run_tasks):
    spec = spec_at(sink_secrets=good, sink_health=UNHEALTHY)
    row = failed(spec.pool)

    assert call("POST", f"sync-specs/{spec.pk}/probe").json()["state"] == "healthy"
    assert is_retried(row, run_tasks)


def test_a_probe_on_the_page(client, admin_user, call, spec_at, good, run_tasks):
    spec = spec_at(sink_secrets=good, sink_health=UNHEALTHY)
    row = failed(spec.pool)
    client.force_login(admin_user)

    assert client.post(f"/sync/specs/{spec.pk}/probe").status_code in (200, 302, 303)
    assert is_retried(row, run_tasks)


def test_the_periodic_probe(spec_at, good, run_tasks):
    spec = spec_at(sink_secrets=good, sink_health=UNHEALTHY)
    row = failed(spec.pool)
    assert controller.probe_sinks() == 1

    assert is_retried(row, run_tasks)


def test_a_healthy_sink_that_is_still_healthy_retries_nothing(spec_at, good, run_tasks):
    """Saves that fail for another reason keep their retry pauses."""
    spec = spec_at(sink_secrets=good, sink_health={"state": "healthy"})
    row = failed(spec.pool)
    controller.probe_all_sinks()

    assert not is_retried(row, run_tasks)
    assert SyncSpec.objects.get(pk=spec.pk).sink_health["state"] == "healthy"


def test_pools_that_save_to_the_same_place_need_no_probe_of_their_own(spec_at, good, run_tasks):
    """One spec's probe counts for the place."""
    seen, other = (spec_at(sink_secrets=good, sink_health=UNHEALTHY) for _ in range(2))
    elsewhere = make_sync_spec(pool=make_pool(), sink_health=UNHEALTHY)
    rows = [failed(one.pool, f"tenant-{one.pk}") for one in (other, elsewhere)]
    services.probe(seen)

    assert [is_retried(row, run_tasks) for row in rows] == [True, False]


def test_a_new_spec_for_a_pool_whose_saves_fail(call, spec_at, good, s3, run_tasks):
    """Replaced by deleting the broken spec and creating another."""
    pool = make_pool()
    row = failed(pool)
    body = {
        "poolId": pool.pk, "sink": s3.json("t/${tenantId}/"), "policy": {"onClaim": True, "onRelease": True},
        "mappings": [{"containerPath": "/state", "sinkPath": "s/", "direction": "bidirectional", "mode": "sync"}],
    }  # fmt: skip

    assert call("POST", "sync-specs", body).status_code == 201
    assert is_retried(row, run_tasks)


def test_a_save_that_works_where_the_probe_failed(spec_at, good, run_tasks):
    """The retry does not wait for the next periodic probe (hazards.md#a4)."""
    spec = spec_at(sink_secrets=good, sink_health=UNHEALTHY)
    row = failed(spec.pool)
    services.seen_to_work(spec)

    assert is_retried(row, run_tasks)


def test_one_save_that_cannot_be_asked_for_keeps_no_other_from_its_turn(spec_at, good, monkeypatch):
    """All failed saves of the place are retried, whatever one of them raises."""
    spec = spec_at(sink_secrets=good)
    rows = [failed(spec.pool, f"tenant-{number}") for number in range(3)]
    asked = []

    def retry(row: Assignment) -> bool:
        asked.append(row.pk)
        if len(asked) == 1:
            raise ZeroDivisionError
        return True

    monkeypatch.setattr("tenants.releases.retry", retry)
    with pytest.raises(ZeroDivisionError):
        upkeep.retry_saves(spec.pk)
    assert sorted(asked) == sorted(row.pk for row in rows)


def test_a_sink_that_hangs_rests_between_its_probes(spec_at):
    """Its probes share a queue with other pools' periodic saves (P14)."""
    spec = spec_at(sink_health=UNHEALTHY)
    SinkProbe.objects.create(spec=spec, at=timezone.now() - timedelta(seconds=20), is_healthy=False, duration_ms=8000)
    assert controller.probe_sinks() == 0

    SinkProbe.objects.update(at=timezone.now() - timedelta(seconds=33))
    assert controller.probe_sinks() == 1
    assert controller.probe_sinks() == 0, "its message is on the way"

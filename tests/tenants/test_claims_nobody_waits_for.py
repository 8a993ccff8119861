"""A claim with `wait: false` gets 202 and continues while it makes progress; status and events report the result."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import Event, Role
from boilerhouse.process import stalls
from pools.runtime.base import Executed
from pools.states import ContainerState
from syncing.models import SyncRun
from tenants import aborts, claims, deadlines, deaths, errors, preparation, upkeep, validation, wait_queue
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests.make import make_container, make_pool, make_sync_spec

pytestmark = pytest.mark.any_database


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def pending(**over) -> Assignment:
    """A claim whose restore is running in a container."""
    Tenant.objects.get_or_create(pk="alice")
    container = make_container(state=ContainerState.CLAIMED)
    values = {
        "tenant_id": "alice", "pool": container.pool, "generation": 1, "container": container,
        "container_ref": container.pk, "deadline": timezone.now() + timedelta(seconds=30), "waits": False,
    }  # fmt: skip
    return Assignment.objects.create(**{**values, **over})


def test_it_answers_202_and_the_same_key_gets_the_same_answer_while_it_is_pending(call):
    """No container is ready, so the claim waits for one, and its caller does not."""
    pool = make_pool()
    body, key = {"poolId": pool.pk, "wait": False}, {"Idempotency_Key": "one"}
    first = call("POST", "tenants/alice/claim?timeoutMs=5000", body, **key)
    assert first.status_code == 202
    told = first.json()
    assert {name: told[name] for name in ("tenantId", "poolId", "containerId", "state")} == {
        "tenantId": "alice", "poolId": pool.pk, "containerId": None, "state": "pending",
    }  # fmt: skip
    again = call("POST", "tenants/alice/claim?timeoutMs=5000", body, **key)
    assert (again.status_code, again.json()) == (202, told)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert Assignment.objects.count() == 1

    status = call("GET", "tenants/alice/status").json()
    assert (status["state"], status["restore"], status["claimError"]) == ("pending", None, None)
    assert status["deadline"] == told["deadline"]
    assert call("POST", "tenants/alice/claim", {"poolId": pool.pk, "wait": "soon"}).status_code == 422


def test_one_that_fails_says_so_in_status_and_events_until_the_next_claim(call):
    """Its caller does not wait, so the result is stored where it can read it."""
    pool = make_pool()
    call("POST", "tenants/alice/claim", {"poolId": pool.pk, "wait": False})
    assert call("POST", "tenants/alice/release", {}).status_code == 200
    told = call("GET", "tenants/alice/status").json()
    assert (told["state"], told["claimError"]["code"]) == (None, "claim_aborted")
    event = Event.objects.get(type="container.claim_failed")
    assert (event.tenant_id, event.pool_id, event.payload["code"]) == ("alice", pool.pk, "claim_aborted")
    call("POST", "tenants/alice/claim", {"poolId": pool.pk, "wait": False})
    assert call("GET", "tenants/alice/status").json()["claimError"] is None


def test_what_a_failing_hook_printed_is_for_who_may_read_logs(call, client, caplog):
    """The hook can read the claim's secrets (P10). A NUL in its output left the claim pending on PostgreSQL (P7)."""
    done = Executed(3, b"", b"token HOOK-\0CANARY\n\x1b[31mno", 5)
    aborts.fail(pending(), preparation._hook_failed(done))

    def told(path: str, role: Role) -> str:
        key = api_keys.create_key(name=role, role=role, tenant_ids=["alice"] if role == Role.TENANT else None)[1]
        return client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"}).content.decode()

    assert "exit code 3" in told("tenants/alice/status", Role.VIEWER)
    for role in (Role.VIEWER, Role.OPERATOR, Role.TENANT):
        assert "CANARY" not in told("tenants/alice/status", role)
        assert ("token HOOK-CANARY\\nno" in told("events", role)) is (role != Role.VIEWER)
    assert "CANARY" not in caplog.text
    mine = Assignment.objects.get()
    assert (mine.state, mine.outcome) == (AssignmentState.RELEASING, "hook_failed")
    assert "CANARY" not in mine.outcome_detail
    deaths.forget("alice")
    assert Event.objects.get(type="container.claim_failed").private is None


def test_a_hook_that_could_not_run_is_said_so_in_the_answer():
    """The error has the engine's message and the command's name."""
    done = Executed(127, b"", b"nope: command not found\n", 5, refusal="nope: command not found")
    failed = preparation._hook_failed(done)
    assert (failed.detail, failed.output) == ("postClaim ended with exit code 127: nope: command not found", "")


def test_the_wait_for_a_container_has_an_end(call):
    """timeoutMs bounds it, whether a client waits or not."""
    pool = make_pool()
    call("POST", "tenants/alice/claim?timeoutMs=1", {"poolId": pool.pk, "wait": False})
    Assignment.objects.update(deadline=timezone.now() - timedelta(seconds=10))
    assert upkeep.abort_overdue_claims() == 1
    assert call("GET", "tenants/alice/status").json()["claimError"]["code"] == "pool_exhausted"


def test_its_deadline_moves_with_its_restore_and_with_nothing_else(settings):
    """Any progress extends its deadline; a claim with a waiting client keeps its own (P7)."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = 100
    mine = pending()
    with deadlines.moving(mine):
        stalls.moved()
    mine.refresh_from_db()
    assert 90 < (mine.deadline - timezone.now()).total_seconds() < 101

    Assignment.objects.update(waits=True, deadline=timezone.now() + timedelta(seconds=30))
    mine.refresh_from_db()
    with deadlines.moving(mine):
        stalls.moved()
    deadlines.take_up(mine)
    deadlines.stand_in_line(Assignment.objects.all())
    mine.refresh_from_db()
    assert (mine.deadline - timezone.now()).total_seconds() < 31


def test_one_that_stands_still_is_given_up(settings):
    """Also when its worker hangs where nothing else ends it; an ended claim is not extended."""
    mine = pending(deadline=timezone.now() - timedelta(seconds=5))
    with deadlines.moving(mine):
        stalls.moved()
    assert upkeep.abort_overdue_claims() == 1
    mine.refresh_from_db()
    assert (mine.state, mine.outcome) == (AssignmentState.RELEASING, "claim_timeout")
    assert "The claim has made no progress" in mine.outcome_detail


def test_one_whose_worker_died_has_time_until_the_next_one_is_free():
    """Workers may be busy for hours with other restores."""
    mine = pending(state_changed_at=timezone.now() - timedelta(seconds=60))
    assert upkeep.resume_claims() == 1
    mine.refresh_from_db()
    assert mine.deadline > timezone.now() + timedelta(hours=1)
    deadlines.take_up(mine)
    mine.refresh_from_db()
    assert mine.deadline < timezone.now() + timedelta(hours=1)


def test_a_container_that_comes_free_gives_it_time():
    """timeoutMs bounds the wait for a container, not the restore in it."""
    pool = make_pool()
    claims.begin(validation.Claim("alice", pool.pk, wait=False, timeout_ms=5000))
    make_container(pool, state=ContainerState.IDLE)
    assert wait_queue.match_waiters(pool.pk) == 1
    assert Assignment.objects.get().deadline > timezone.now() + timedelta(hours=1)


def test_who_waits_for_a_claim_that_another_does_not_wait_for_ends_nothing():
    """The answer says that the claim may still succeed (P7)."""
    pool = make_pool()
    first = claims.begin(validation.Claim("alice", pool.pk, timeout_ms=60_000))
    claims.begin(validation.Claim("alice", pool.pk, wait=False, timeout_ms=60_000))
    with pytest.raises(errors.OutcomeUnknown):
        claims.settle(first, 0)
    assert Assignment.objects.get().state == AssignmentState.PENDING
    assert aborts.give_up(first.assignment_id, "claim_aborted")


def test_the_status_shows_how_far_the_restore_is(call):
    """The run's progress has percent and remaining time; without any, they are null."""
    mine = pending()
    spec = make_sync_spec(mine.pool)
    run = SyncRun.objects.create(
        spec=spec, tenant_id="alice", container_id=mine.container_ref, generation=1, direction="download",
        trigger="claim", state="running",
    )  # fmt: skip
    assert call("GET", "tenants/alice/status").json()["restore"]["bytes"] == 0
    run.progress = {"bytes": 5, "totalBytes": 10, "files": 1, "totalFiles": 2, "percent": 50.0, "bytesPerSecond": 1,
                    "etaMs": 5000}  # fmt: skip
    run.save()
    told = call("GET", "tenants/alice/status").json()["restore"]
    assert told == {"runId": str(run.pk), **run.progress}


def test_the_command_does_not_wait_either_and_says_how_to_follow_it():
    """`claim --no-wait` prints the pending claim as the API does; another one joins it."""
    pool = make_pool()
    begin = ["claim", "alice", "--pool", pool.pk, "--no-wait", "--timeout-ms", "60000"]
    out, err = io.StringIO(), io.StringIO()
    call_command(*begin, "--output", "json", stdout=out, stderr=err, skip_checks=True)
    told = json.loads(out.getvalue())
    claim = Assignment.objects.get()
    assert (told["state"], told["containerId"], told["generation"]) == ("pending", None, claim.generation)
    assert claim.waits is False
    for words in ("events --follow --tenant alice", f"claim alice --pool {pool.pk}", "tenants/alice/status"):
        assert words in err.getvalue()

    Assignment.objects.update(waits=True)
    out = io.StringIO()
    call_command(*begin, stdout=out, stderr=io.StringIO(), skip_checks=True)
    assert f"alice is claiming a container of {pool.pk}; the claim is given up at " in out.getvalue()
    claim.refresh_from_db()
    assert claim.waits is False

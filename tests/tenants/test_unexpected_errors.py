"""An unexpected error is reported by an id that is in the log; only the log has the exception's text."""

from __future__ import annotations

import errno

import pytest

from boilerhouse.core import context
from boilerhouse.core.models import Event
from pools import firewall, lifecycle, nodes, sizing, volumes
from pools.models import Container, Pool
from pools.states import ContainerState
from syncing import runs
from syncing.errors import SyncFailed
from syncing.models import SyncRun
from syncing.states import Direction, Trigger
from tenants import aborts, claims, errors, previews, sink_runs
from tenants.models import Assignment, Tenant
from tenants.transfer_target import target_of
from tests.make import make_assignment, make_container, make_held, make_pool, make_sync_spec

pytestmark = pytest.mark.any_database
CANARY = "/var/lib/boilerhouse/CANARY"


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def break_down(*_arguments: object, **_named: object) -> None:
    raise RuntimeError(CANARY)


def logged(caplog, request_id: str) -> bool:
    """Whether the log has the traceback under this id."""
    lines = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    return any(CANARY in one.get("exception", "") and one["request_id"] == request_id for one in lines)


def test_a_claim_says_internal_and_where_the_log_has_it(call, caplog, fake_engine, monkeypatch):
    """It was ``restore_failed``, and the answer contained the exception's text."""
    monkeypatch.setattr(nodes.Volumes, "locked", break_down)
    pool = make_pool()
    make_container(pool)
    answer = call("POST", "tenants/alice/claim", {"poolId": pool.pk})
    told = answer.json()
    assert (answer.status_code, told["code"]) == (500, "internal")
    assert told["requestId"] in told["detail"]
    assert logged(caplog, told["requestId"])
    status = call("GET", "tenants/alice/status").json()["claimError"]
    assert (status["code"], status["detail"]) == ("internal", told["detail"])
    event = Event.objects.get(type="container.claim_failed")
    for text in (answer.content.decode(), str(status), str(event.payload), Assignment.objects.get().outcome_detail):
        assert "CANARY" not in text


def test_on_a_worker_it_names_the_request_that_asked(caplog):
    """Also if the controller queued the work again, without a request."""
    for request_id in ("asked-by-this", ""):
        mine = make_assignment()
        with context.acting("system", request_id):
            aborts.fail(mine, RuntimeError(CANARY))
        with pytest.raises(errors.Internal) as raised:
            claims.settle(claims.Begun(mine.pk, 1, is_new=True), 0)
        named = raised.value.detail.split()[-1].rstrip(".")
        assert named == request_id or not request_id
        assert logged(caplog, named)


def test_a_refusal_of_the_system_keeps_its_phrase_and_not_its_path(caplog):
    """A full disk is reported as such."""
    mine = make_assignment()
    aborts.fail(mine, OSError(errno.ENOSPC, "No space left on device", CANARY))
    mine.refresh_from_db()
    assert mine.outcome == "internal"
    assert "No space left on device" in mine.outcome_detail
    assert "CANARY" not in mine.outcome_detail


def test_errors_of_ours_keep_their_code_and_words():
    """Expected errors are reported as before."""
    mine = make_assignment()
    aborts.fail(mine, SyncFailed("The bucket is gone."))
    mine.refresh_from_db()
    assert (mine.outcome, mine.outcome_detail) == ("restore_failed", "The bucket is gone.")


def test_a_sync_run_of_any_kind_says_so_too(caplog):
    """Tenants' keys can read runs."""
    pool = make_pool()
    spec, mine = make_sync_spec(pool), make_held(pool)
    target = target_of(mine, -1, is_stopped=False)
    with pytest.raises(SyncFailed) as raised, runs.running(spec, target, Direction.UPLOAD, Trigger.INTERVAL, None):
        break_down()
    assert "CANARY" not in raised.value.detail
    Assignment.objects.all().delete()
    Tenant.objects.get_or_create(pk="bob")
    queued = sink_runs.begin("bob", Trigger.ERASE, [(spec, {})])[0]
    sink_runs.work(queued.pk, break_down)
    told = list(SyncRun.objects.values_list("state", "error_code", "error_detail"))
    assert [one[:2] for one in told] == [("failed", "internal")] * 2
    assert "CANARY" not in str(told) + str(list(Event.objects.values_list("payload", flat=True)))
    assert all(logged(caplog, detail.split()[-1].rstrip(".")) for _, _, detail in told)


def test_a_preview_names_no_path_of_the_node(monkeypatch):
    """Its problem contained the text of the system error."""
    pool = make_pool()
    make_sync_spec(pool)
    make_held(pool)

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error", CANARY)

    monkeypatch.setattr(volumes, "descend", refuse)
    problem = previews.of_sync("alice", Direction.UPLOAD)[0].problem
    assert problem == "The system reports: Input/output error."


def test_a_pool_says_it_of_a_start(data_dir, fake_engine, monkeypatch, caplog):
    """A claim that finds the pool in error repeats the pool's message."""
    monkeypatch.setattr(firewall, "apply", lambda network: None)
    monkeypatch.setattr(nodes.Host, "ensure_ram_dir", lambda: None)
    monkeypatch.setattr(fake_engine, "create", break_down)
    pool = make_pool(min_size=1)
    sizing.refill(pool.pk)
    row = Container.objects.get(state=ContainerState.STARTING)
    assert not lifecycle.start_container(row.pk)
    words = Pool.objects.get().last_error
    assert words
    assert "CANARY" not in words
    assert logged(caplog, words.split()[-1].rstrip("."))

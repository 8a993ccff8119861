"""A claim whose sink fails briefly queries it again in time; if the sink still throttles it, the error says so."""

from __future__ import annotations

import time

import pytest
from django_q.models import OrmQ

from boilerhouse.queues import slow_work
from pools.runtime import get_runtime
from syncing import sink_checks
from tenants import claims, errors, preparation, upkeep
from tenants.models import Assignment
from tests import providers, sink_servers
from tests.endless_server import EndlessServer
from tests.fake_engine_rows import outcome, warm, work

pytestmark = pytest.mark.any_database


@pytest.fixture
def provider(s3, monkeypatch):
    monkeypatch.setattr(sink_checks, "_took_s", {})
    monkeypatch.setattr(sink_checks, "_silent_since", {})
    made = providers.Provider(s3.endpoint)
    yield made
    made.stop()


@pytest.fixture
def pool(provider, s3, transactional_db, data_dir, fake_engine):
    """A pool with three warm containers and a sink behind the provider."""
    end = sink_servers.RcloneS3(s3)
    end.clear()
    return warm(fake_engine, {**end.definition, "endpoint": provider.endpoint}, end.secrets)


def refused(kind, times):
    return providers.SlowDown(positions=range(times), answer=providers.REFUSALS[kind])


# Each of a claim's two questions is asked by the lean reader first, then by the client: four requests.


@pytest.mark.parametrize(("kind", "times"), [("503", 4), ("503", 16), ("500", 4)])
def test_a_claim_rides_over_a_moment_of_a_sink(pool, provider, kind, times):
    """A single 503 failed a claim with a timeout of thirty seconds."""
    provider.behaviour = refused(kind, times)
    claimed = outcome(pool)

    assert claimed.state == "assigned"
    assert provider.behaviour.count > times


def test_what_is_still_throttled_is_answered_503_and_holds_nothing(pool, provider, monkeypatch):
    """With Retry-After and the store's message, when the claim's time is over."""
    provider.behaviour = providers.SlowDown(share=1.0)
    with pytest.raises(errors.SinkThrottled, match="Please reduce your request rate") as raised:
        outcome(pool, timeout_ms=2_500)

    assert raised.value.retry_after
    row = Assignment.objects.get(tenant_id="ann")
    assert (row.outcome, row.state) == ("sink_throttled", "releasing")
    assert provider.behaviour.count > 4, "it was asked again while there was time"


def test_an_error_that_stays_is_a_failed_restore(pool, provider):
    """After an error other than throttling the query is repeated once, and not at all if the sink is known to be
    down."""
    provider.behaviour = providers.SlowDown(share=1.0, answer=providers.REFUSALS["500"])
    with pytest.raises(errors.RestoreFailed, match="500 InternalError: Try again"):
        outcome(pool)
    asked = provider.behaviour.count

    is_silent_for_long()
    with pytest.raises(errors.RestoreFailed):
        outcome(pool, "bob")
    assert provider.behaviour.count - asked < asked, "a sink that is down is asked once per claim"


def is_silent_for_long() -> None:
    """The sink has failed for a while."""
    for place in sink_checks._silent_since:
        sink_checks._silent_since[place] -= sink_checks.BRIEF_S


def test_a_message_that_was_lost_is_found(pool, provider, monkeypatch):
    """The process that was to retry died in between (P8)."""
    monkeypatch.setattr(preparation, "_send", lambda *_: None)
    monkeypatch.setattr(upkeep.orphans, "ORPHANED_AFTER", upkeep.orphans.ORPHANED_AFTER * 0)
    provider.behaviour = providers.SlowDown(positions=range(4))
    begun = claims.begin(claims.Claim(tenant_id="ann", pool_id=pool.pk))
    assert begun.assigned is None
    assert upkeep.resume_claims() == 1
    assert work() == 1

    assert claims.settle(begun, time.time() + 5).state == "assigned"


def test_claims_at_a_sink_that_drips_fail_in_time_and_those_at_another_go_on(pool, s3, monkeypatch, serve):
    """The first one occupies its thread until the deadline; then the sink gets one thread and one worker at a time."""
    monkeypatch.setattr(sink_checks, "PATIENT_DEADLINE_S", 1.5)
    end, endless_server = sink_servers.RcloneS3(s3), EndlessServer(b"")
    slow = warm(get_runtime(), {**end.definition, "endpoint": f"http://127.0.0.1:{endless_server.port}"}, end.secrets)
    began = time.monotonic()
    with pytest.raises(errors.RestoreFailed, match="has not answered within"):
        outcome(slow, "mallory")
    assert time.monotonic() - began < 5 * 4
    with sink_checks.begin_check(slow.pk, "mallory").entered(4) as waits_in_another_thread:
        assert waits_in_another_thread
        handed_on = claims.begin(claims.Claim(tenant_id="mia", pool_id=slow.pk))
        assert handed_on.assigned is None
    serve("claim")
    asked = endless_server.requests
    with slow_work.entered_slow(is_slow=True):
        assert work() >= 1
        mia = Assignment.objects.get(tenant_id="mia")
        assert (mia.state, mia.owner, endless_server.requests) == ("pending", None, asked)
        assert "tenants.tasks.prepare" in [one.task["func"] for one in OrmQ.objects.all()], "back in the queue"
        assert outcome(pool, "bob").state == "assigned"
    serve("")
    with pytest.raises(errors.RestoreFailed):
        while claims.settle(handed_on, time.time() + 20) is None:
            work()
    endless_server.close()

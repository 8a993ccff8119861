"""The output of a dead container is kept for its tenant, and only for readers of logs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import Event, Role
from boilerhouse.web.event_stream import EventFilter, _load
from pools import health_reports
from pools.states import ContainerState, Fault
from tenants import deaths, state_erasure
from tenants.models import Assignment, Death, Tenant
from tests.make import make_container

WORDS = "Error: invalid permissions on /data WORDS-CANARY"
LOG = "2026-01-31T12:00:00.123456789Z one\n2026-01-31T12:00:05.5Z two WORDS-CANARY\n"
pytestmark = pytest.mark.any_database


@pytest.fixture
def dead(db, data_dir) -> Death:
    """Alice's container has died and was removed."""
    container = make_container(state=ContainerState.CLAIMED)
    assert health_reports.report_fault(container.pk, Fault.EXIT, "It ended.", exit_code=139, words=WORDS)
    Event.objects.update(tenant_id="alice")  # as its latch would say
    row = Assignment.objects.create(
        tenant=Tenant.objects.create(id="alice"), pool=container.pool, generation=1, container_ref=container.pk,
        state="ended", was_assigned=True, outcome="released", reason="container_died", deadline=timezone.now(),
    )  # fmt: skip
    container.delete()
    about = {"exit_code": 139, "detail": "It ended.", "words": WORDS, "log": LOG}
    return Death.objects.create(assignment=row, tenant_id="alice", container_ref=row.container_ref, **about)


def key(role: Role, *tenants: str) -> str:
    return api_keys.create_key(name=role, role=role, tenant_ids=list(tenants) or None)[1]


def test_who_may_read_logs_reads_last_words_and_nobody_else(dead, call, client):
    """In status, events, stream, logs and pages; stored encrypted."""
    Tenant.objects.create(id="bob")
    own, others = key(Role.TENANT, "alice"), key(Role.TENANT, "bob")
    paths = ("tenants/alice/status", "events", "tenants/alice/logs", f"containers/{dead.container_ref}/logs")

    def told(path: str, by: str) -> tuple[int, bool]:
        answer = client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {by}"})
        return answer.status_code, "WORDS-CANARY" in answer.content.decode()

    assert [told(path, key(Role.OPERATOR)) for path in paths] == [(200, True)] * 4
    assert [told(path, own) for path in paths] == [(200, True)] * 3 + [(403, False)]
    assert [told(path, key(Role.VIEWER)) for path in paths] == [(200, False)] * 2 + [(403, False)] * 2
    assert [told(path, others) for path in paths] == [(404, False), (200, False), (404, False), (403, False)]
    (known,) = _load(Event.objects.filter(type="container.unhealthy"))
    assert "WORDS-CANARY" in known.sent_to(EventFilter(reads_logs=True)).text
    assert "WORDS-CANARY" not in known.sent_to(EventFilter()).text

    status = call("GET", "tenants/alice/status").json()["lastDeath"]
    assert (status["exitCode"], status["signal"], status["lastWords"]) == (139, "SIGSEGV", WORDS)
    for group, is_shown in (("operator", True), ("viewer", False)):
        user = User.objects.create_user(group, is_staff=True)
        user.groups.add(Group.objects.get_or_create(name=group)[0])
        client.force_login(user)
        assert ("WORDS-CANARY" in client.get("/tenants/alice/").content.decode()) is is_shown
        rows = (f"/admin/core/event/{known.event.pk}/change/", f"/admin/tenants/death/{dead.pk}/change/")
        for page in (*rows, "/", "/activity/", f"/pools/{dead.assignment.pool_id}/?tab=timeline"):
            assert "WORDS-CANARY" not in client.get(page).content.decode(), page
    with connection.cursor() as cursor:
        for table in ("core_event", "tenants_death"):
            cursor.execute(f"SELECT * FROM {table}")
            assert "WORDS-CANARY" not in str(cursor.fetchall())


def test_its_log_is_answered_by_tail_and_since_until_the_next_claim(dead, call):
    """The answers were 409 and 502."""
    logs = "tenants/alice/logs"
    assert call("GET", logs).content.decode() == "one\ntwo WORDS-CANARY\n"
    assert call("GET", f"{logs}?tail=1&follow=true").content.decode() == "two WORDS-CANARY\n"
    assert call("GET", f"{logs}?since=2026-01-31T12:00:03Z").content.decode() == "two WORDS-CANARY\n"
    assert call("GET", f"{logs}?tail=0").content == b""
    assert call("GET", f"{logs}?tail=x").status_code == 422
    about = {"generation": 2, "state": "ended", "deadline": timezone.now(), "was_assigned": True}
    Assignment.objects.create(tenant_id="alice", pool=dead.assignment.pool, **about)
    assert call("GET", logs).status_code == 409
    assert call("GET", "tenants/alice/status").json()["lastDeath"] is None


def test_lines_that_hold_a_carriage_return_or_have_no_moment_stay_whole(dead, call):
    """A progress bar lost its first word, and so did the rest of a truncated line."""
    Death.objects.update(log="t of it\n2026-01-31T12:00:00.5Z 10%\r20% done\x0bnow\n2026-01-31T12:00:01Z end")
    assert call("GET", "tenants/alice/logs").content.decode() == "t of it\n10%\r20% done\x0bnow\nend\n"
    assert (
        call("GET", "tenants/alice/logs?since=2026-01-31T12:00:00Z").content.decode() == "10%\r20% done\x0bnow\nend\n"
    )
    Death.objects.update(log="")
    assert call("GET", "tenants/alice/logs").content == b""


def test_it_goes_with_the_tenants_state_and_with_time(dead, settings):
    """A tenant's output is private."""
    state_erasure.begin("alice")
    assert not Death.objects.exists()
    assert Event.objects.get(type="container.unhealthy").private is None
    about = {"exit_code": 1, "detail": "It ended.", "words": "", "log": "", "at": timezone.now() - timedelta(days=400)}
    Death.objects.create(assignment=dead.assignment, tenant_id="alice", container_ref=dead.container_ref, **about)
    assert deaths.forget_old() == 1

"""Waiting requests: each kind is bounded, and one class implements all of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from django.test import RequestFactory

from boilerhouse.core.models import AuditEntry
from boilerhouse.process import budgets
from boilerhouse.web.waiting import Waiting
from pools.states import ContainerState
from syncing.models import SyncRun
from syncing.states import Direction, Trigger
from tenants.api.views import ReleaseView
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState, ReleaseStep
from tests.make import make_assignment, make_container, make_pool, make_sync_spec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]
LONG_MS = 600_000


@pytest.fixture
def full(settings, data_dir):
    """The maximum number of requests waits."""
    settings.BOILERHOUSE_MAX_WAITERS = 3
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(budgets.waiters.add(budgets.tenant("others")))
        yield


def _releasing() -> Assignment:
    pool = make_pool()
    container = make_container(pool, state=ContainerState.REMOVING)
    return make_assignment(
        "alice", pool=pool, state=AssignmentState.RELEASING, step=ReleaseStep.STOPPING, container=container,
        container_ref=container.pk, version=container.version, was_assigned=True,
    )  # fmt: skip


def test_a_claim_that_would_wait_is_refused_before_it_begins(full, call):
    """Nothing is left of it."""
    make_pool("p")
    answer = call("POST", f"tenants/alice/claim?timeoutMs={LONG_MS}", {"poolId": "p"})
    assert answer.status_code in (429, 503), answer.content
    assert answer.json()["code"] in ("too_many_waiting", "budget_exceeded")
    assert not Tenant.objects.exists()


def test_a_release_a_removal_and_an_erasure_go_on_and_are_answered_at_once(full, call):
    """Only two of four views checked the limit; each of these would otherwise wait for ten minutes."""
    held = _releasing()
    assert call("POST", f"tenants/alice/release?timeoutMs={LONG_MS}", {}).status_code == 202
    assert call("DELETE", f"containers/{held.container_ref}?timeoutMs={LONG_MS}").status_code == 202
    held.state = AssignmentState.ENDED
    held.save()
    run = SyncRun.objects.create(
        spec=make_sync_spec(held.pool, is_settled=True), tenant_id="alice", generation=1, state="queued",
        direction=Direction.UPLOAD, trigger=Trigger.ERASE,
    )  # fmt: skip
    Tenant.objects.update(busy_run=run.pk)
    assert call("DELETE", f"tenants/alice/state?timeoutMs={LONG_MS}").status_code == 202


def test_a_change_of_network_that_would_wait_is_refused_before_it_begins(full, call):
    """By the same class."""
    pool = make_pool()
    container = make_container(pool, state=ContainerState.CLAIMED)
    make_assignment(
        "bob", pool=pool, state=AssignmentState.ASSIGNED, container=container, container_ref=container.pk,
        version=container.version, was_assigned=True,
    )  # fmt: skip
    answer = call("PUT", "tenants/bob/network", {"mode": "none", "allow": []})
    assert answer.json()["code"] in ("too_many_waiting", "budget_exceeded")
    assert Assignment.objects.get().egress is None


def test_a_request_that_waits_begins_its_work_once(call, data_dir):
    """It resumes with the operation that it began, and answers when that ends."""
    held = _releasing()
    bearer = f"Bearer {call.admin}"
    request = RequestFactory().post("/", "{}", content_type="application/json", HTTP_AUTHORIZATION=bearer)
    request.resumed, view = None, ReleaseView.as_view()
    waiting = view(request, tenant_id="alice")
    assert isinstance(waiting, Waiting)
    assert budgets.waiters.used(budgets.tenant("alice")) == 1
    held.state = AssignmentState.ENDED
    held.save()
    waiting.leave()
    request.resumed = waiting
    answer = view(request, tenant_id="alice")
    assert (answer.status_code, answer.data) == (200, {"tenantId": "alice", "state": None})
    assert AuditEntry.objects.filter(action="tenant.release").count() == 1


def test_only_one_class_knows_how_requests_wait():
    """Four views implemented waiting separately."""
    root = Path(__file__).parents[2]
    views = sorted(path for app in ("pools", "syncing", "tenants") for path in (root / app / "api").glob("*.py"))
    knowing = [path.name for path in views if '"resumed"' in path.read_text() or "Waiting(" in path.read_text()]
    assert knowing == ["waiting.py"]

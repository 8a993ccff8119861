"""P12, ADR 67: a request that answers an error has changed nothing, whatever fails and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django_q.models import OrmQ
from rest_framework.renderers import JSONRenderer

from boilerhouse.api.base import ApiView
from boilerhouse.core import clock, events
from boilerhouse.core.all_or_nothing import WriteOutside, all_or_nothing
from boilerhouse.core.events import afterwards, emit, recording
from boilerhouse.core.models import ApiKey, Event, FailingStep, IdempotencyRecord
from boilerhouse.core.sqlite_gate.base import DatabaseBusy
from boilerhouse.notifications import mutes
from boilerhouse.urls import api
from boilerhouse.web import throttling
from pools.models import Pool, Workload
from syncing.models import Backup, SyncRun, SyncSpec
from syncing.states import Direction, Trigger
from tenants.models import Assignment
from tests.api_calls import problem
from tests.make import API_MAPPING, API_SINK, make_assignment, make_delivery, make_held, make_pool, make_workload
from tests.routes import ROUTES, views
from tests.snapshot import every_row

pytestmark = pytest.mark.postgresql

OUTSIDE = {
    ("tenants/*/claim", "POST"), ("tenants/*/release", "POST"), ("tenants/*/exec", "POST"),
    ("tenants/*/network", "PUT"), ("tenants/*/state", "DELETE"), ("containers/*", "DELETE"),
    ("containers/*/exec", "POST"), *((f"{of}/*/commands{what}", method) for of in ("tenants", "containers")
    for what, method in (("", "POST"), ("/*", "DELETE"), ("/*/stdin", "POST"), ("/*/signal", "POST"), ("/*/resize", "POST"))),
    ("sync-specs/*/probe", "POST"), ("notifications/*/test", "POST"),
    *(
        (f"{whose}/*/{what}", method)
        for whose in ("tenants", "containers")
        for what, method in (
            ("files", "PUT"), ("files", "DELETE"), ("files/mkdir", "POST"), ("files/move", "POST"),
            ("files/archive", "PUT"), ("files/links", "POST"),
        )
    ),
}  # fmt: skip
"""What waits, or touches an engine or a sink. ADR 67 says of each what it has done before it answers."""
SPEC = {"poolId": "notes", "mappings": [API_MAPPING], "sink": API_SINK, "policy": {"onClaim": True, "onRelease": True}}
CASES: dict[tuple[str, str], tuple[str, Any]] = {
    ("workloads", "POST"): ("workloads", {"name": "n", "image": "i"}),
    ("workloads/*", "PUT"): ("workloads/spare", {"name": "spare", "image": "other"}),
    ("workloads/*", "DELETE"): ("workloads/spare", None),
    ("workloads/*/refresh", "POST"): ("workloads/spare/refresh", None),
    ("pools", "POST"): ("pools", {"workloadId": "spare", "minSize": 1, "maxSize": 2}),
    ("pools/*", "PUT"): ("pools/notes", {"workloadId": "notes", "maxSize": 30}),
    ("pools/*", "DELETE"): ("pools/notes?force=true", None),
    ("pools/*/scale", "POST"): ("pools/notes/scale", {"targetSize": 7}),
    ("pools/*/pause", "POST"): ("pools/notes/pause", None),
    ("pools/*/resume", "POST"): ("pools/notes/resume", None),
    ("pools/*/drain", "POST"): ("pools/notes/drain", None),
    ("sync-specs", "POST"): ("sync-specs", {**SPEC, "sink": {**API_SINK, "prefix": "another/${tenantId}"}}),
    ("sync-specs/*", "PUT"): ("sync-specs/notes?force=true", {**SPEC, "name": "other"}),
    ("sync-specs/*", "DELETE"): ("sync-specs/notes?force=true", None),
    ("sync-specs/*/trigger", "POST"): ("sync-specs/notes/trigger", {"tenantId": "carol"}),
    ("sync-runs/*/cancel", "POST"): ("sync-runs/{run}/cancel", None),
    ("tenants/*/sync", "POST"): ("tenants/carol/sync", {"direction": "outward"}),
    ("tenants/*/ports/*/links", "POST"): ("tenants/carol/ports/8080/links", {"expiresInS": 60}),
    ("tenants/*/heartbeat", "POST"): ("tenants/carol/heartbeat", None),
    ("tenants/*/backups/*/restore", "POST"): ("tenants/dave/backups/{backup}/restore", None),
    ("tenants/*/forget-state", "POST"): ("tenants/erin/forget-state", None),
    ("credentials", "POST"): ("credentials", {"name": "N", "accessKeyId": "A", "secretAccessKey": "S"}),
    ("credentials/*", "PUT"): ("credentials/storage", {"name": "N", "accessKeyId": "B", "secretAccessKey": "T"}),
    ("credentials/*", "DELETE"): ("credentials/storage", None),
    ("registry-credentials", "POST"): (
        "registry-credentials", {"registry": "other.example.net", "username": "u", "password": "p"},
    ),
    ("registry-credentials/*", "PUT"): (
        "registry-credentials/registry", {"registry": "registry.example.net", "username": "v", "password": "p"},
    ),
    ("registry-credentials/*", "DELETE"): ("registry-credentials/registry?force=true", None),
    ("api-keys", "POST"): ("api-keys", {"name": "k", "role": "viewer"}),
    ("api-keys/*", "DELETE"): ("api-keys/{key}", None),
    ("api-keys/*/rotate", "POST"): ("api-keys/{key}/rotate", {"overlapMs": 60_000}),
    ("causes/*/mute", "PUT"): ("causes/{cause}/mute", {"forMs": 60_000}),
    ("causes/*/mute", "DELETE"): ("causes/{muted}/mute", None),
    ("notifications", "POST"): ("notifications", {"name": "N", "type": "email", "recipients": ["ops@example.com"]}),
    ("notifications/*", "PUT"): ("notifications/ops", {"name": "N", "type": "webhook", "enabled": False}),
    ("notifications/*", "DELETE"): ("notifications/ops", None),
    ("notifications/*/deliveries/*/resend", "POST"): ("notifications/ops/deliveries/{delivery}/resend", None),
    ("settings", "PUT"): ("settings", {"variables": {"HUB": "hub.example.com"}}),
}  # fmt: skip


class Broken(Exception):
    """Something that nobody foresaw."""


@pytest.fixture
def place(world, call):
    """What the cases change; returns the path of a case."""
    make_workload("spare", image="boilerhouse/example-workload:1")
    pool, spec = Pool.objects.get(pk="notes"), SyncSpec.objects.get(pk="notes")
    held = make_held(pool, "carol")
    run = SyncRun.objects.create(
        spec=spec, tenant_id="carol", generation=held.generation, direction=Direction.DOWNLOAD, trigger=Trigger.MANUAL
    )
    for tenant in ("dave", "erin"):
        make_assignment(tenant, pool=pool, state="ended", outcome="state_missing" if tenant == "erin" else "")
    backup = Backup.objects.create(
        spec=spec, tenant_id="dave", container_path="/state", place="p", location="l", backup="b", files=1, bytes=1,
    )  # fmt: skip
    other = ApiKey.objects.get(pk=call.key_of("viewer")[3:11])
    delivery = make_delivery()
    FailingStep.objects.create(name="tidy", error="OSError")
    mutes.mute("step:other", clock.now() + timedelta(hours=1))
    ids = {
        "run": run.pk, "backup": backup.pk, "key": other.pk, "delivery": delivery.pk,
        "cause": mutes.id_of("step:tidy"), "muted": mutes.id_of("step:other"),
    }  # fmt: skip
    return lambda path: path.format(**ids)


def render_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    original, broken = JSONRenderer.render, iter([True])

    def render(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(broken, False):
            raise Broken
        return original(self, *args, **kwargs)  # the problem document

    monkeypatch.setattr(JSONRenderer, "render", render)


def handler_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ApiView.answer_change

    def answer_change(self: Any, handler: Callable[[], Any]) -> Any:
        def breaks() -> Any:
            handler()
            raise Broken

        return original(self, breaks)

    monkeypatch.setattr(ApiView, "answer_change", answer_change)


def commit_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    original = events._flush

    def flush(given: Any) -> None:
        original(given)
        raise OperationalError("the database went away")

    monkeypatch.setattr(events, "_flush", flush)


def answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ApiView.finalize_response

    def finalize(self: Any, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        if response.status_code < 400:
            response.status_code = 409
        return original(self, request, response, *args, **kwargs)

    monkeypatch.setattr(ApiView, "finalize_response", finalize)


SLOW = [pytest.param(breaks, marks=pytest.mark.slow) for breaks in (handler_breaks, commit_breaks, answer_is_an_error)]


@pytest.mark.parametrize("breaks", [render_breaks, *SLOW])
@pytest.mark.parametrize("case", sorted(CASES), ids=lambda case: f"{case[1]} {case[0]}")
def test_an_error_has_changed_nothing(call, place, case, breaks):
    """O4: sync specs stood although the answer was 500."""
    path, body = CASES[case]
    path, method = place(path), case[1]
    call.client.raise_request_exception = False
    headers = {"Idempotency_Key": "k"} if method == "POST" else {}
    before = every_row()
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttling, "charge", lambda *_: done.append("throttled"))
        breaks(patch)
        answer = call(method, path, body, **headers)
    assert answer.status_code >= 400
    assert every_row() == before
    assert not done, "what cannot be rolled back is not done"
    answer = call(method, path, body, **headers)
    assert answer.status_code < 400, answer.content
    assert "Idempotency-Replayed" not in answer, "the request that failed is not kept"
    assert every_row() != before, "the case changes something, or the test would show nothing"
    if headers:
        again = call(method, path, body, **headers)
        assert (again.status_code, again.content) == (answer.status_code, answer.content)
        assert again["Idempotency-Replayed"] == "true"


def test_every_operation_is_inside_or_has_its_reason():
    unsafe = {one for one in ROUTES if one[1] != "GET"}
    reasons = {(route, method): getattr(view, method.lower()).acts for route, method, view in views(api)}
    assert {one for one in unsafe if reasons[one]} == OUTSIDE
    assert unsafe - OUTSIDE == set(CASES), "each is attacked"


@pytest.mark.django_db(transaction=True)
def test_the_answer_is_kept_in_the_transaction_of_the_change(client, data_dir, monkeypatch):
    """A process that died between the two did the request again, with the same key."""
    from tests.api_calls import Call

    call = Call(client)
    call.client.raise_request_exception = False
    committed: list[tuple[int, bool]] = []

    def look(*_: Any) -> None:
        record = IdempotencyRecord.objects.get()
        committed.append((Workload.objects.count(), record.answer is not None))

    monkeypatch.setattr("boilerhouse.web.idempotency.ledger.add", look)  # it is called when the answer is committed
    assert call("POST", "workloads", {"name": "n", "image": "i"}, Idempotency_Key="k").status_code == 201
    assert committed[-1] == (1, True)
    assert (0, True) not in committed
    assert (1, False) not in committed


@pytest.mark.django_db(transaction=True)
def test_a_commit_whose_outcome_is_unknown_is_replayed(client, data_dir, monkeypatch):
    from tests.api_calls import Call

    call, original = Call(client), transaction.Atomic.__exit__
    call.client.raise_request_exception = False

    def commits_and_loses(self: Any, *error: Any) -> Any:
        was_outermost = connection.in_atomic_block and not connection.savepoint_ids
        result = original(self, *error)
        if was_outermost and Workload.objects.exists():
            raise OperationalError("the connection was lost")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(transaction.Atomic, "__exit__", commits_and_loses)
        problem(call("POST", "workloads", {"name": "n", "image": "i"}, Idempotency_Key="k"), 503)
    again = call("POST", "workloads", {"name": "n", "image": "i"}, Idempotency_Key="k")
    assert (again.status_code, again["Idempotency-Replayed"]) == (201, "true")
    assert Workload.objects.count() == 1


def test_a_busy_database_is_waited_for_once(call, monkeypatch):
    """The key's record was deleted at the same database: another wait, and then a 500."""
    asked: list[str] = []

    def busy(*_: Any, **__: Any) -> None:
        asked.append("write")
        raise DatabaseBusy("The database is locked.")

    monkeypatch.setattr("pools.services.create_workload", busy)
    monkeypatch.setattr("boilerhouse.web.idempotency.abandon", busy)
    monkeypatch.setattr("boilerhouse.process.ownership.connection.close", lambda: None)  # it is the test's own
    answer = call("POST", "workloads", {"name": "n", "image": "i"}, Idempotency_Key="k")
    problem(answer, 503, "database_busy")
    assert answer["Retry-After"]
    assert asked == ["write"]


def test_a_probe_that_breaks_does_not_unmake_its_spec(call, world, monkeypatch):
    """The sink is asked after the commit: whatever comes of it, the answer is what was stored."""

    def broken(*_: Any, **__: Any) -> None:
        raise OperationalError("the database went away")

    monkeypatch.setattr("syncing.services.probe", broken)
    answer = call(
        "POST", "sync-specs", {**SPEC, "sink": {**API_SINK, "prefix": "other/${tenantId}"}}, Idempotency_Key="k"
    )
    assert answer.status_code == 201, answer.content
    assert SyncSpec.objects.filter(pk=answer.json()["id"]).exists()
    again = call(
        "POST", "sync-specs", {**SPEC, "sink": {**API_SINK, "prefix": "other/${tenantId}"}}, Idempotency_Key="k"
    )
    assert again["Idempotency-Replayed"] == "true"


def test_the_answer_to_a_new_spec_has_the_result_of_its_probe(call, world, monkeypatch):
    def probe(spec: SyncSpec, **_: Any) -> None:
        SyncSpec.objects.filter(pk=spec.pk).update(sink_health={"state": "unhealthy", "code": "c", "detail": "d"})

    monkeypatch.setattr("syncing.services.probe", probe)
    body = {**SPEC, "sink": {**API_SINK, "prefix": "other/${tenantId}"}}
    answer = call("POST", "sync-specs", body, Idempotency_Key="k")
    assert answer.json()["sinkHealth"]["state"] == "unhealthy"
    assert call("POST", "sync-specs", body, Idempotency_Key="k").content == answer.content


@pytest.mark.parametrize("tenant", ["carol"])
def test_what_cannot_be_rolled_back_says_that_it_may_be_done(call, place, tenant, monkeypatch):
    call.client.raise_request_exception = False
    body = {"poolId": "notes"}
    with monkeypatch.context() as patch:
        patch.setattr("tenants.api.views.render_claim", lambda *_, **__: 1 / 0)
        found = problem(call("POST", f"tenants/{tenant}/claim", body, Idempotency_Key="k"), 500, "outcome_unknown")
    assert "repeat" in found["detail"]
    again = call("POST", f"tenants/{tenant}/claim", body, Idempotency_Key="k")
    assert (again.status_code, again.json()["source"]) == (200, "existing")


def test_an_answer_of_an_act_that_is_not_rendered_says_so_too(call, place):
    call.client.raise_request_exception = False
    with pytest.MonkeyPatch.context() as patch:
        render_breaks(patch)
        problem(call("POST", "tenants/carol/release", {}), 500, "outcome_unknown")
    assert Assignment.objects.get(tenant_id="carol").state == "releasing"


def test_an_erasure_that_is_refused_has_erased_nothing(call, place, monkeypatch):
    """While a backup was restored, the answer was 409, and what the node had kept was gone."""
    erased: list[str] = []
    monkeypatch.setattr("tenants.state_erasure.erase_here", lambda *args: erased.append(args[0]))
    assert call("POST", place("tenants/dave/backups/{backup}/restore")).status_code == 202
    before = every_row()
    problem(call("DELETE", "tenants/dave/state"), 409, "restoring_backup")
    assert not erased
    assert every_row() == before


class TestTheTransaction:
    """``all_or_nothing`` itself."""

    def test_reading_takes_no_lock(self, data_dir, django_assert_num_queries):
        with django_assert_num_queries(1), all_or_nothing():
            list(Workload.objects.all())

    @pytest.mark.django_db(transaction=True)
    def test_it_begins_with_the_first_write_and_not_before(self, data_dir):
        with all_or_nothing():
            assert not connection.in_atomic_block
            assert not Workload.objects.exists()
            assert not connection.in_atomic_block
            Workload.objects.create(id="w", name="w")
            assert connection.in_atomic_block
            assert not _count_elsewhere()
        assert _count_elsewhere() == 1

    @pytest.mark.django_db(transaction=True)
    def test_several_services_are_one(self, data_dir):
        with pytest.raises(Broken), all_or_nothing():
            for name in ("a", "b"):
                with recording():
                    Workload.objects.create(id=name, name=name)
                    emit("workload.updated", workloadId=name)
            raise Broken
        assert not Workload.objects.exists()
        assert not Event.objects.exists()

    def test_a_service_that_failed_leaves_neither_rows_nor_events_nor_effects(self, data_dir):
        done: list[str] = []

        def service(name: str, *, fails: bool) -> None:
            with recording():
                Workload.objects.create(id=name, name=name)
                emit("workload.updated", workloadId=name)
                afterwards(lambda: done.append(name))
                if fails:
                    raise Broken

        with all_or_nothing():
            service("a", fails=False)
            with pytest.raises(Broken):
                service("b", fails=True)
            assert not done
        assert list(Workload.objects.values_list("pk", flat=True)) == ["a"]
        assert [event.payload["workloadId"] for event in Event.objects.all()] == ["a"]
        assert done == ["a"]

    def test_a_write_that_would_remain_is_refused(self, data_dir):
        with pytest.raises(WriteOutside), all_or_nothing(), transaction.atomic():
            Workload.objects.create(id="w", name="w")
        assert not Workload.objects.exists()

    def test_an_effect_records_in_a_transaction_of_its_own(self, data_dir):
        with recording():
            afterwards(lambda: emit("workload.updated", workloadId="later"))
            Workload.objects.create(id="w", name="w")
        assert Event.objects.get().payload == {"workloadId": "later"}

    def test_an_effect_without_a_transaction_is_done_now(self, db):
        done: list[int] = []
        afterwards(lambda: done.append(1))
        afterwards(lambda: 1 / 0)
        assert done == [1]

    @pytest.mark.django_db(transaction=True)
    def test_a_foreign_key_fails_in_the_service(self, data_dir):
        """A deferred one would fail when the request commits, as a 500."""
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has one writer")
        from django.db import IntegrityError

        with pytest.raises(IntegrityError), all_or_nothing():
            with recording():
                Pool.objects.create(id="p", name="p", workload_id="nobody", max_size=1)
            pytest.fail("the service has not failed")


def _count_elsewhere() -> int:
    found: list[int] = []

    def count() -> None:
        found.append(Workload.objects.count())
        connection.close()

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    return found[0]


def test_a_message_of_a_request_that_failed_is_not_sent(call, place):
    call.client.raise_request_exception = False
    make_pool("other")
    with pytest.MonkeyPatch.context() as patch:
        render_breaks(patch)
        problem(call("POST", "pools/other/scale", {"targetSize": 3}), 500)
    assert not OrmQ.objects.exists()

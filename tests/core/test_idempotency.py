"""Idempotency-Key: a request runs once even if a process dies, and nothing of it is stored in plain text."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from boilerhouse.core.models import ApiKey, IdempotencyRecord
from boilerhouse.process import processes
from boilerhouse.web import idempotency, response_bytes
from pools.models import Pool, Workload
from tenants.models import Assignment, Tenant
from tests.api_calls import problem
from tests.make import make_container, make_pool, make_workload

KEY = "Idempotency_Key"
WORKLOAD = {"name": "n", "image": "i"}


def make(call, key="k1", body=WORKLOAD, path="workloads", **more):
    return call("POST", path, body, **{KEY: key}, **more)


def test_the_second_gets_the_answer_of_the_first_and_nothing_is_done_again(call):
    first, second = make(call), make(call)

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second["ETag"] == first["ETag"]
    assert (first.get("Idempotency-Replayed"), second["Idempotency-Replayed"]) == (None, "true")
    assert Workload.objects.count() == 1
    assert make(call, key="k2").json()["id"] == "n-2"


def test_another_body_query_route_or_api_key_is_another_request(call):
    make(call)
    found = problem(make(call, body={**WORKLOAD, "name": "other"}), 422, "invalid")
    assert found["errors"][0]["code"] == "idempotency_key_reused"
    problem(make(call, path="workloads?x=1"), 422)
    make_workload("w")
    assert make(call, path="pools", body={"workloadId": "w"}).status_code == 201
    other = call.key_of("admin")
    assert call("POST", "workloads", WORKLOAD, key=other, **{KEY: "k1"}).json()["id"] == "n-2"


def test_what_could_pass_on_another_try_is_tried_again_and_what_cannot_is_kept(call):
    pool = make_pool(min_size=0, max_size=4)
    container = make_container(pool, state="claimed")
    path, body = f"pools/{pool.pk}/scale", {"targetSize": 0}
    problem(make(call, path=path, body=body), 409, "below_claimed")
    container.delete()
    assert make(call, path=path, body=body).status_code == 202

    bad = {"name": "n"}
    assert make(call, key="bad", body=bad).content != b""
    assert make(call, key="bad", body=bad)["Idempotency-Replayed"] == "true"


def test_a_key_in_flight_is_a_conflict_until_its_process_is_dead(call):
    make(call)
    from boilerhouse.process import processes

    IdempotencyRecord.objects.update(answer=None, owner=processes.current())
    found = make(call)
    problem(found, 409, "idempotency_key_in_flight")
    assert found["Retry-After"]
    IdempotencyRecord.objects.update(owner=uuid4())
    assert make(call).json()["id"] == "n-2", "the dead one's answer is lost: the request is worked on"
    assert make(call)["Idempotency-Replayed"] == "true"


def test_a_request_that_broke_leaves_nothing_in_flight(call, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("pools.services.create_workload", broken)
    call.client.raise_request_exception = False
    problem(make(call), 500)
    monkeypatch.undo()
    assert make(call).status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 256, "a\tb"])
def test_bad_keys_are_refused(call, key):
    problem(make(call, key=key), 422, "invalid")
    assert not Workload.objects.exists()


def test_neither_bodies_nor_answers_nor_keys_stand_in_the_database(call):
    secret = {"name": "s3", "accessKeyId": "AKID", "secretAccessKey": "IDEM-CANARY-BODY"}
    assert make(call, key="IDEM-CANARY-KEY", path="credentials", body=secret).status_code == 201
    shown = make(call, path="api-keys", body={"name": "k", "role": "viewer"}).json()["key"]
    assert make(call, path="api-keys", body={"name": "k", "role": "viewer"}).json()["key"] == shown
    assert ApiKey.objects.filter(role="viewer").count() == 1

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM core_idempotencyrecord")
        dump = str(cursor.fetchall())
    for canary in ("IDEM-CANARY", shown, "secretAccessKey"):
        assert canary not in dump


def test_records_end_after_a_day(call):
    make(call)
    IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert make(call).json()["id"] == "n-2"
    IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert idempotency.forget_old() == 1


def test_a_claim_is_told_again_only_while_it_lives(call):
    """After a release, the address in a stored response may belong to another tenant."""
    pool = make_pool()
    record = uuid4()
    Tenant.objects.create(id="alice")
    row = Assignment.objects.create(
        tenant_id="alice", pool=pool, generation=7, state="assigned", container_ref=record, was_assigned=True,
        deadline=timezone.now(), assigned_at=timezone.now(), latency_ms=3,
    )  # fmt: skip
    body = {"poolId": pool.pk}
    first = make(call, path="tenants/alice/claim", body=body)
    assert (first.status_code, first.json()["source"]) == (200, "existing")
    assert make(call, path="tenants/alice/claim", body=body)["Idempotency-Replayed"] == "true"
    Assignment.objects.filter(pk=row.pk).update(state="release_failed")
    problem(make(call, path="tenants/alice/claim", body=body), 409, "release_failed")


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_is_done(client, data_dir, transactional_db):
    from tests.api_calls import Call

    call, answers = Call(client), []
    make_workload("w")

    def ask():
        from django.test import Client

        other = Call.__new__(Call)
        other.client, other.admin = Client(), call.admin
        answers.append(make(other, path="pools", body={"workloadId": "w"}))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["id"] for answer in answers if answer.status_code == 201} == {Pool.objects.get().pk}


def stored_bytes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT SUM(LENGTH(answer)) FROM core_idempotencyrecord")
        return int(cursor.fetchone()[0] or 0)


def test_a_long_answer_is_not_kept_and_its_request_is_not_done_twice(call, settings):
    """A command's output of a megabyte is not stored, only the fact that it was returned."""
    settings.BOILERHOUSE_KEPT_ANSWER_MAX_BYTES = 10
    assert make(call).status_code == 201
    assert stored_bytes() < 500
    problem(make(call), 409, "answer_not_kept")
    assert Workload.objects.count() == 1
    problem(make(call, body={**WORKLOAD, "name": "other"}), 422, "invalid")


@pytest.mark.parametrize("text", ["plain", '"\\' * 2000, "\x01\x7f" * 2000, "\u00e9\U0001f600" * 2000])
def test_an_answer_counts_as_it_lies_in_the_database(call, text):
    """Whatever the size of its characters when escaped and encrypted."""
    assert make(call, body={**WORKLOAD, "command": [text]}).status_code == 201
    record = IdempotencyRecord.objects.get()
    assert record.size == stored_bytes() + response_bytes.RECORD_BYTES


def ask_badly(call, tenant: str, number: int, key: str | None):
    """An impossible claim, whose response is stored."""
    return call("POST", f"tenants/{tenant}/claim", {"pool": "p"}, key=key, **{KEY: f"n{number}"})


def is_replayed(answer) -> bool:
    assert answer.status_code == 422, answer.content
    return answer.get("Idempotency-Replayed") == "true"


def test_a_tenants_answers_take_so_much_and_its_oldest_make_room(call, settings):
    """For all keys and processes; no request is refused, and other tenants' responses stay."""
    settings.BOILERHOUSE_KEPT_BYTES_PER_TENANT = 12_000
    key, second = call.key_of("tenant", tenant_ids=["mallory"]), call.key_of("tenant", tenant_ids=["mallory"])
    bobs, operators = call.key_of("tenant", tenant_ids=["bob"]), call.key_of("operator")
    assert not is_replayed(ask_badly(call, "bob", 0, bobs))
    assert not is_replayed(ask_badly(call, "mallory", 0, operators))
    for number in range(60):
        assert not is_replayed(ask_badly(call, "mallory", number, (key, second)[number % 2]))
        if number % 20 == 10:
            response_bytes.ledger.clear()  # another process, or a minute later
        assert response_bytes.use_of("mallory").used <= 12_000 + 1500
    assert is_replayed(ask_badly(call, "mallory", 59, second)), "the newest are there"
    assert is_replayed(ask_badly(call, "mallory", 55, second))
    assert not is_replayed(ask_badly(call, "mallory", 0, key)), "the oldest made room"
    assert is_replayed(ask_badly(call, "bob", 0, bobs))
    assert is_replayed(ask_badly(call, "mallory", 0, operators)), "what others do for a tenant is kept apart"


def test_a_request_that_is_worked_on_does_not_make_room(call, settings):
    """If it were deleted, its retry would run next to it."""
    settings.BOILERHOUSE_KEPT_BYTES_PER_TENANT = 6000
    key = call.key_of("tenant", tenant_ids=["mallory"])
    ask_badly(call, "mallory", 0, key)
    IdempotencyRecord.objects.update(owner=processes.current(), answer=None)
    for number in range(1, 20):
        ask_badly(call, "mallory", number, key)
    problem(ask_badly(call, "mallory", 0, key), 409, "idempotency_key_in_flight")


def test_a_key_of_many_tenants_has_a_budget_of_its_own(call, settings):
    """Responses that are not stored use none of it."""
    settings.BOILERHOUSE_KEPT_BYTES_PER_KEY = 6000
    names = [f"t{number}" for number in range(20)]
    key = call.key_of("tenant", tenant_ids=names)
    for number in range(20):
        answer = call("POST", f"tenants/{names[number]}/release", key=key, **{KEY: f"r{number}"})
        problem(answer, 404, "nothing_held")
    assert not IdempotencyRecord.objects.exists()
    for name in names:
        assert not is_replayed(ask_badly(call, name, 1, key))
    assert stored_bytes() < 6000
    assert is_replayed(ask_badly(call, names[-1], 1, key))
    assert not is_replayed(ask_badly(call, names[0], 1, key))


def test_all_kept_answers_together_have_a_bound(call, settings):
    """Many tenants and keys, each within its quota, filled the database; now the oldest responses are deleted."""
    settings.BOILERHOUSE_KEPT_BYTES = 12_000
    keys = [call.key_of("tenant", tenant_ids=[f"t{number}"]) for number in range(10)]
    for number in range(60):
        assert not is_replayed(ask_badly(call, f"t{number % 10}", number, keys[number % 10]))
        if number % 20 == 10:
            response_bytes.ledger.clear()  # another process, or a minute later
        assert response_bytes.total() <= 12_000 + 1500
    assert response_bytes.total() > 8_000, "no more goes than has to"
    assert is_replayed(ask_badly(call, "t9", 59, keys[9])), "the newest are there"
    assert not is_replayed(ask_badly(call, "t0", 0, keys[0])), "the oldest of all made room"


def test_a_path_that_names_no_tenant_is_refused_as_without_a_key_of_idempotency(call):
    """A name that no column can store."""
    for name in ("x" * 300, "a%00b"):
        plain = call("POST", f"tenants/{name}/claim", {"poolId": "p"})
        kept = call("POST", f"tenants/{name}/claim", {"poolId": "p"}, **{KEY: f"k{len(name)}"})
        assert plain.status_code == kept.status_code < 500

"""Notifications by the API and by files: what is refused, what is kept, and what is shown nowhere."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from boilerhouse.core.models import AuditEntry, Event, FailingStep, IdempotencyRecord
from boilerhouse.notifications import incidents, mutes, signing, transports
from boilerhouse.notifications.errors import Undelivered
from boilerhouse.notifications.messages import Message
from boilerhouse.notifications.models import Delivery, Mute, Target
from boilerhouse.notifications.states import DEFAULT_RULES, Moment
from boilerhouse.operations import doctor, metrics, resources
from boilerhouse.operations.resources import Resource
from tests.api_calls import problem, refused_fields
from tests.listeners import stop_listener
from tests.make import make_delivery, make_pool
from tests.receivers import receiving

ROOT = Path(__file__).parents[2]
URL = "https://hooks.example.com/T000/very-secret-path?token=very-secret-token"
HOOK = {"id": "ops", "name": "Ops", "type": "webhook", "url": URL}


def test_what_get_answered_can_be_sent_back(call, data_dir):
    make_pool("notes")
    made = call("POST", "notifications", {**HOOK, "poolIds": ["notes"], "kinds": ["sink_down"]})
    assert made.status_code == 201, made.content
    shown = call("GET", "notifications/ops")
    assert shown["ETag"] == made["ETag"]
    assert {**shown.json(), "secret": made.json()["secret"]} == made.json()
    stored = Target.objects.get().secret
    answer = call("PUT", "notifications/ops", shown.json(), If_Match=shown["ETag"])
    assert answer.status_code == 200, answer.content
    assert Target.objects.get().secret == stored, "url and secret stay"
    assert {**answer.json(), "updatedAt": ""} == {**shown.json(), "updatedAt": ""}
    problem(call("PUT", "notifications/ops", shown.json(), If_Match='"other"'), 412, "precondition_failed")
    problem(call("PUT", "notifications/ops", {**shown.json(), "id": "other"}), 422)


def test_defaults_are_those_that_the_docs_name(call, data_dir):
    found = call("POST", "notifications", HOOK).json()
    assert set(found["kinds"]) == set(DEFAULT_RULES)
    assert (found["enabled"], found["poolIds"], found["mutedUntil"], found["state"]) == (True, [], None, "active")
    text = (ROOT / "docs" / "notifications.md").read_text()
    told = {
        kind for line in re.findall(r"^\|(.*)\| yes \|$", text, flags=re.M) for kind in re.findall(r"`(\w+)`", line)
    }
    assert told == set(DEFAULT_RULES)


@pytest.mark.parametrize(("body", "pointer"), [
    ({"url": "ftp://hooks.example.com"}, "/url"), ({"url": "https://"}, "/url"), ({"url": "hooks.example.com"}, "/url"),
    ({"url": "https://h.example/a b"}, "/url"), ({"url": "https://h\u00e9.example"}, "/url"), ({"url": None}, "/url"),
    ({"url": "https://h.example:99999"}, "/url"), ({"url": "https://[::1"}, "/url"), ({"url": "https://h\n.example"}, "/url"),
    ({"url": "http://10.0.0.1/"}, "/url"), ({"url": "http://169.254.169.254/latest"}, "/url"), ({"url": "http://[::1]/"}, "/url"),
    ({"url": "http://[::ffff:10.0.0.1]/"}, "/url"), ({"url": "https://h.example/" + "a" * 3000}, "/url"),
    ({"secret": "whsec_short"}, "/secret"), ({"secret": "x" * 40}, "/secret"), ({"secret": "whsec_" + "?" * 40}, "/secret"),
    ({"type": "pager"}, "/type"), ({"kinds": []}, "/kinds"), ({"kinds": ["controller_lost"]}, "/kinds/0"),
    ({"poolIds": ["nowhere"]}, "/poolIds"), ({"recipients": ["a@example.com"]}, "/recipients"),
    ({"type": "email"}, "/recipients"), ({"type": "email", "recipients": ["not an address"]}, "/recipients/0"),
    ({"type": "email", "recipients": ["a@example.com\nBcc: b@example.com"]}, "/recipients/0"),
    ({"name": "a\nb"}, "/name"), ({"mutedUntil": "9999-01-01T00:00:00Z"}, "/mutedUntil"), ({"mutedUntil": "soon"}, "/mutedUntil"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_where_it_is(call, data_dir, settings, body, pointer):
    settings.BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS = []
    found, _ = refused_fields(call("POST", "notifications", {**HOOK, **body}))
    assert pointer in {at for at, _ in found}
    assert not Target.objects.exists()


def test_the_type_is_fixed_and_a_taken_id_is_refused(call, data_dir):
    call("POST", "notifications", HOOK)
    problem(call("POST", "notifications", HOOK), 409, "id_taken")
    found, _ = refused_fields(call("PUT", "notifications/ops", {"name": "N", "type": "slack"}))
    assert found == {("/type", "fixed")}


def test_a_test_and_the_log_and_a_resend(call, data_dir):
    with receiving(status=503) as receiver:
        call("POST", "notifications", {**HOOK, "url": receiver.url})
        sent = call("POST", "notifications/ops/test")
        assert sent.status_code == 200, sent.content
        assert (sent.json()["state"], sent.json()["statusCode"], sent.json()["attempts"]) == ("failed", 503, 1)
        assert sent.json()["durationMs"] is not None
    [shown] = call("GET", "notifications/ops/deliveries?state=failed").json()["items"]
    assert shown == sent.json()
    assert call("GET", "notifications/ops/deliveries?state=delivered").json()["items"] == []
    again = call("POST", f"notifications/ops/deliveries/{shown['id']}/resend")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    problem(call("POST", f"notifications/ops/deliveries/{shown['id']}/resend"), 409, "delivery_pending")
    for path in ("notifications/none", "notifications/none/deliveries"):
        problem(call("GET", path), 404, "notification_not_found")
    for missing in ("x", "01a222ce-1686-7a85-9872-423d8211bcc0"):
        problem(call("POST", f"notifications/ops/deliveries/{missing}/resend"), 404, "delivery_not_found")


def test_no_secret_of_a_notification_is_shown_anywhere(call, admin_client, data_dir, caplog, capsys):
    """Neither the URL's path, nor its query, nor the signing secret, after their creation."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    stop_listener(listening)
    url = f"http://user:very-secret-password@127.0.0.1:{port}/very-secret-path?token=very-secret-token"
    secret = "whsec_" + "dmVyeS1zZWNyZXQtc2lnbmluZy1rZXktMDEyMw=="
    made = call("POST", "notifications", {**HOOK, "url": url, "secret": secret}, Idempotency_Key="k1")
    assert made.json()["secret"] == secret
    call("POST", "notifications/ops/test")
    call("PUT", "notifications/ops", {"name": "Other", "type": "webhook", "secret": signing.new_secret()})
    delivery = Delivery.objects.get()
    shown = [
        call("GET", path).content.decode()
        for path in ("notifications", "notifications/ops", "notifications/ops/deliveries", "audit", "events")
    ]
    shown += [
        admin_client.get(path).content.decode()
        for path in (
            "/settings/notifications/", "/settings/notifications/ops/", "/settings/changes/",
            "/admin/notifications/target/ops/change/", f"/admin/notifications/delivery/{delivery.pk}/change/",
        )
    ]  # fmt: skip
    shown += [
        caplog.text,
        *capsys.readouterr(),
        str(list(AuditEntry.objects.values())),
        str(list(Event.objects.values())),
    ]
    with connection.cursor() as cursor:
        for table in ("notifications_target", "notifications_delivery", IdempotencyRecord._meta.db_table):
            cursor.execute(f"SELECT * FROM {table}")
            shown.append(
                str([[bytes(v) if isinstance(v, memoryview) else v for v in row] for row in cursor.fetchall()])
            )
    for text in shown:
        for canary in ("very-secret", "dmVyeS1zZWNyZXQ"):
            assert canary not in text, text[:2000]
    assert "127.0.0.1 cannot be reached" in shown[2]


def test_files_say_the_same(call, data_dir):
    """A webhook's secret is in the file; the same file again changes nothing."""
    make_pool("notes")
    body = {**HOOK, "poolIds": ["notes"], "mutedUntil": "2027-01-31T12:00:00Z"}
    [refused] = resources.apply([Resource("here", "Notification", {**body})], dry_run=False)
    assert [error.pointer for error in refused.errors] == ["/secret"]
    body["secret"] = signing.new_secret()
    for outcome in ("created", "unchanged"):
        [done] = resources.apply([Resource("here", "Notification", {**body})], dry_run=False)
        assert (done.outcome, done.errors) == (outcome, [])
    [done] = resources.apply(
        [Resource("here", "Notification", {**body, "secret": signing.new_secret()})], dry_run=False
    )
    assert (done.outcome, done.difference) == ("changed", ["+ a different secret"])
    [done] = resources.apply([Resource("here", "Notification", {**body, "kinds": ["disk_low"]})], dry_run=True)
    assert done.outcome == "changed"
    assert not any("secret" in line for line in done.difference)


def test_a_file_may_name_a_pool_that_it_makes(data_dir, db):
    documents = [
        Resource("here", "Notification", {**HOOK, "secret": signing.new_secret(), "poolIds": ["later"]}),
        Resource("here", "Workload", {"id": "later", "name": "later", "image": "i:1"}),
        Resource("here", "Pool", {"id": "later", "workloadId": "later"}),
    ]
    done = resources.apply(documents, dry_run=False)
    assert {one.outcome for one in done} == {"created"}, [one.errors for one in done]


def test_doctor_and_metrics_name_what_does_not_arrive(call, data_dir, settings):
    settings.EMAIL_HOST = ""
    assert [state for state, *_ in doctor._notifications()] == [doctor.OK]
    make_delivery(state="pending")
    call("POST", "notifications", {"id": "mail", "name": "M", "type": "email", "recipients": ["a@example.com"]})
    Target.objects.filter(pk="ops").update(failing_since=Target.objects.get(pk="ops").created_at)
    found = [(state, detail) for state, detail, *_ in doctor._notifications()]
    assert [state for state, _ in found] == [doctor.FAILURE, doctor.WARN]
    assert "no mail server" in found[0][1]
    from boilerhouse.notifications import targets

    targets.disable("ops", "Nothing was delivered for 5 days.")
    assert any("ops is disabled" in detail for _, detail, *_ in doctor._notifications())
    values = {family.name: family for family in metrics._notifications()}
    states = {sample.labels["state"]: sample.value for sample in values["boilerhouse_notification_targets"].samples}
    assert (states["disabled"], states["active"]) == (1, 1)
    assert values["boilerhouse_notifications_waiting"].samples[0].value == 0, "cancelled"


def test_secrets_are_encrypted_again_with_a_new_key(data_dir, db):
    make_delivery()
    before = Target.objects.get().secret
    out = io.StringIO()
    call_command("rotate_secrets", "--output", "json", stdout=out)
    assert json.loads(out.getvalue())["reencrypted"]["notifications.Target"] == 1
    assert Target.objects.get().secret == before


def test_the_example_of_the_docs_verifies_what_is_sent(data_dir, db, tmp_path):
    """The program in docs/notifications.md, as it stands there."""
    text = (ROOT / "docs" / "notifications.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    (tmp_path / "receiver.py").write_text(program)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    stop_listener(listening)
    delivery = make_delivery()
    target = delivery.target
    target.secret["url"] = f"http://127.0.0.1:{port}/"
    environment = {**os.environ, "WEBHOOK_SECRET": target.secret["signing"][0]["secret"], "PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "receiver.py")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        sent = Message(delivery.pk, Moment.OPENED, delivery.created_at, delivery.payload)
        assert _within(10, lambda: transports.send(target, sent)) == 204
        assert transports.send(target, sent) == 204, "the same again, which it ignores"
        target.secret["signing"][0]["secret"] = signing.new_secret()
        with pytest.raises(Undelivered, match="401"):
            transports.send(target, sent)
    finally:
        process.terminate()
        printed = process.communicate(timeout=10)[0]
    assert printed.splitlines() == ["boilerhouse.cause.opened Node n has no worker"]


def _within(seconds: float, ask: Any) -> Any:
    """The answer of a program that is starting."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except Undelivered:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


# Mutes of causes --------------------------------------------------------------------------------------


HOUR_MS = 3_600_000


@pytest.fixture
def failing_step(data_dir) -> str:
    FailingStep.objects.create(name="tidy", error="OSError", detail="no space", since=timezone.now())
    return "step:tidy"


def test_a_cause_is_listed_muted_and_unmuted(call, failing_step):
    (found,) = call("GET", "causes").json()["items"]
    assert (found["key"], found["kind"], found["title"]) == (failing_step, "step_failing", "Step tidy is failing")
    assert found["mute"] is None
    path, asked = f"causes/{found['id']}/mute", {"forMs": 8 * HOUR_MS}
    mute = call("PUT", path, asked)
    assert mute.status_code == 200, mute.content
    assert mute.json()["by"] == "key admin"
    assert timedelta(hours=7.9) < datetime.fromisoformat(mute.json()["until"]) - timezone.now() < timedelta(hours=8.1)
    assert call("GET", "causes").json()["items"][0]["mute"] == mute.json()
    assert set(mutes.muted()) == {failing_step}
    assert AuditEntry.objects.filter(action="cause.mute", object_id=failing_step).exists()

    FailingStep.objects.all().delete()
    assert call("GET", "causes").json()["items"] == []
    assert call("DELETE", path).status_code == 204, "the mute of a cause that comes and goes can be ended too"
    assert not Mute.objects.exists()
    problem(call("DELETE", path), 404, "cause_not_found")
    problem(call("PUT", path, asked), 404, "cause_not_found")


@pytest.mark.parametrize("wrong", [-1, 0, 31 * 24 * HOUR_MS, None, "tomorrow", True])
def test_a_mute_without_an_end_in_sight_is_refused(call, failing_step, wrong):
    path = f"causes/{mutes.id_of(failing_step)}/mute"
    assert {pointer for pointer, _ in refused_fields(call("PUT", path, {"forMs": wrong}))[0]} == {"/forMs"}
    assert not Mute.objects.exists()


def test_a_mute_is_replaced_by_the_next_one(call, failing_step):
    path = f"causes/{mutes.id_of(failing_step)}/mute"
    call("PUT", path, {"forMs": HOUR_MS})
    later = call("PUT", path, {"forMs": 20 * HOUR_MS}).json()
    assert [row.until for row in mutes.muted().values()] == [datetime.fromisoformat(later["until"])]


def test_a_long_key_is_muted_as_it_is_told(call, data_dir):
    """Keys of sinks contain places, which may be long; they are stored hashed."""
    long = "step:" + "x" * 300
    assert mutes.id_of(long) == mutes.id_of(incidents.key_of(long))

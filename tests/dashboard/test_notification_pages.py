"""Settings > Notifications: the forms, the log, and what the pages say of each state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.core.models import AuditEntry
from boilerhouse.dashboard.pages.notifications import RULE_WORDS
from boilerhouse.notifications import targets
from boilerhouse.notifications.models import Delivery, Mute, Target
from boilerhouse.notifications.states import DEFAULT_RULES, RULES
from tests.make import make_delivery, make_pool
from tests.pages import text_of
from tests.receivers import receiving

LIST = "/settings/notifications/"


@pytest.fixture
def admin(client, db, data_dir) -> Any:
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def create(admin: Any, **over: Any) -> Any:
    typed = {
        "name": "Ops",
        "type": "webhook",
        "url": "https://hooks.example.com/secret-path",
        "kinds": list(DEFAULT_RULES),
    }
    return admin.post(LIST, {**typed, **over})


def test_a_webhook_is_made_and_its_secret_is_shown_once(admin):
    make_pool("notes")
    answer = create(admin, kinds=["sink_down", "node_lost"], poolIds="notes", form_id="f1")
    target = Target.objects.get()
    secret = target.secret["signing"][0]["secret"]
    assert secret in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    assert (target.pk, target.kinds, target.pool_ids) == ("ops", ["sink_down", "node_lost"], ["notes"])
    assert AuditEntry.objects.get(action="notification.create").actor == "user ada"
    for path in (LIST, f"{LIST}ops/"):
        shown = admin.get(path).content.decode()
        assert "https://hooks.example.com" in shown
        assert secret not in shown
        assert "secret-path" not in shown
    assert create(admin, form_id="f1").status_code == 303
    assert Target.objects.count() == 1, "a reload sends the form again"


def test_what_is_wrong_is_said_at_its_field_and_the_input_stays(admin):
    answer = create(admin, name="My name", url="ftp://x", kinds=["sink_down"])
    assert answer.status_code == 422
    page = answer.content.decode()
    assert 'value="My name"' in page
    assert "Give an http:// or https:// URL" in page
    assert 'value="sink_down" checked' in " ".join(page.split())
    answer = create(admin, kinds=[])
    assert "Choose at least one kind of cause." in text_of(answer)
    assert not Target.objects.exists()


def test_an_empty_url_keeps_the_stored_one(admin):
    create(admin)
    stored = Target.objects.get().secret
    form = {"name": "Renamed", "url": "", "kinds": ["disk_low"], "enabled": "on"}
    assert admin.post(f"{LIST}ops/", form).status_code == 303
    target = Target.objects.get()
    assert (target.name, target.kinds, target.secret) == ("Renamed", ["disk_low"], stored)
    admin.post(f"{LIST}ops/", {"name": "Renamed", "url": "", "kinds": ["disk_low"]})
    assert not Target.objects.get().is_on


def test_the_result_of_a_test_is_said(admin):
    with receiving() as receiver:
        create(admin, url=receiver.url)
        page = text_of(admin.post(f"{LIST}ops/test", follow=True))
        assert "Test delivered in" in page
        assert "status 204" in page
        receiver.status = 404
        page = text_of(admin.post(f"{LIST}ops/test", follow=True))
    assert "Test not delivered" in page
    assert "The target answered 404." in page
    assert Delivery.objects.count() == 2


def test_the_page_says_what_became_of_a_target(admin, settings):
    delivery = make_delivery()
    assert "Active" in text_of(admin.get(LIST))
    Target.objects.update(failing_since=timezone.now())
    assert "After 5 days of failures, it is disabled." in text_of(admin.get(f"{LIST}ops/"))
    Target.objects.update(failing_since=None)
    admin.post(f"{LIST}ops/mute", {"for": "3600"})
    assert "<b>Muted.</b> This ends" in text_of(admin.get(f"{LIST}ops/"))
    admin.post(f"{LIST}ops/mute", {"for": "0"})
    assert Target.objects.get().muted_until is None
    assert "Resend" in text_of(admin.get(f"{LIST}ops/"))
    targets.disable("ops", "Nothing was delivered for 5 days.")
    page = text_of(admin.get(f"{LIST}ops/"))
    assert "Disabled" in page
    assert "Nothing was delivered for 5 days." in page
    assert "Save and enable" in page
    assert "Resend" not in page
    admin.post(f"{LIST}ops/", {"name": "ops", "kinds": ["disk_low"], "enabled": "on"})
    assert Target.objects.get().disabled_at is None
    admin.post(f"{LIST}ops/deliveries/{delivery.pk}/resend")
    assert Delivery.objects.get().state == "pending"


def test_deleting_asks_for_the_name(admin):
    make_delivery()
    admin.post(f"{LIST}ops/delete", {"typed": "other"})
    assert Target.objects.exists()
    admin.post(f"{LIST}ops/delete", {"typed": "ops"})
    assert not Target.objects.exists()


def test_operators_mute_causes_and_see_no_targets(client, db, data_dir):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    assert client.get(LIST).status_code == 403
    assert client.post("/causes/mute", {"key": "node:n", "for": "3600"}).status_code == 303
    mute = Mute.objects.get()
    assert timedelta(minutes=59) < mute.until - timezone.now() < timedelta(minutes=61)
    for wrong in ({"key": "node:n", "for": "x"}, {"key": "", "for": "60"}, {"key": "node:n", "for": "99999999"}):
        client.post("/causes/mute", wrong)
    assert Mute.objects.count() == 1
    client.post("/causes/mute", {"key": "node:n", "for": "0"})
    assert not Mute.objects.exists()
    assert [row.actor for row in AuditEntry.objects.filter(kind="cause")] == ["user olga"] * 2


def test_muted_causes_are_listed_with_a_way_back(admin):
    admin.post("/causes/mute", {"key": "node:host-1", "for": "3600"})
    assert "node:host-1" in text_of(admin.get(LIST))


def test_the_list_costs_no_query_for_each_row(admin, django_assert_max_num_queries):
    for number in range(12):
        make_delivery(f"t{number}")
    with django_assert_max_num_queries(25):
        assert admin.get(LIST).status_code == 200
    for _ in range(30):
        make_delivery("t0")
    with django_assert_max_num_queries(25):
        assert admin.get(f"{LIST}t0/").status_code == 200


def test_the_overview_says_that_a_target_is_disabled(admin, client):
    make_delivery()
    targets.disable("ops", "Nothing was delivered for 5 days.")
    page = text_of(admin.get("/"))
    assert "Notifications to ops are disabled" in page
    assert f"{LIST}ops/" in admin.get("/").content.decode()


def test_a_need_is_muted_where_it_is_shown(admin):
    make_delivery()
    targets.disable("ops", "Nothing was delivered for 5 days.")
    page = admin.get("/").content.decode()
    assert 'value="notification:ops"' in page
    assert "Mute for 8 hours" in page
    admin.post("/causes/mute", {"key": "notification:ops", "for": "28800"})
    page = text_of(admin.get("/"))
    assert "notifications muted by user ada, ends <time" in page
    assert "Mute for 8 hours" not in page
    assert "Unmute" in page


def test_every_rule_has_words():
    assert set(RULE_WORDS) == set(RULES)

"""A6: a shorter retention asks first, with what it would delete now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.controller import retention
from boilerhouse.core import deployment_settings
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Event
from syncing.models import Backup
from tests.forms import form_of
from tests.make import make_pool, make_sync_spec
from tests.pages import text_of

PATH = "/settings/deployment/"


@pytest.fixture
def admin(client, db, data_dir, fake_engine):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def event_of(days: float) -> None:
    with recording():
        emit("pool.warning", pool_id="p", detail="x")
    Event.objects.filter(pk=Event.objects.latest("pk").pk).update(created_at=timezone.now() - timedelta(days=days))


def posted(client: Any, **days: int) -> dict[str, str]:
    """The form of the page with other retentions."""
    data = form_of(client.get(PATH).content.decode()).dict()
    for kind, number in days.items():
        name = next(key for key in data if key.endswith(f"/{kind}Ms"))
        data[name] = str(number)
        data[f"{name}:unit"] = "d"
    return {**data, "do": "save"}


def kept_s(kind: str) -> int:
    return int(deployment_settings.current().retention_s[kind])


def test_a_shorter_retention_says_what_it_deletes_and_waits_for_the_answer(admin):
    event_of(3)
    event_of(3)
    event_of(1)
    before = kept_s("events")
    answer = admin.post(PATH, posted(admin, events=2))
    text = text_of(answer)
    assert "Up to 2 events are older and would be deleted within minutes." in text
    assert kept_s("events") == before
    confirmation = form_of(answer.content.decode(), "question-form").dict()
    assert confirmation["next"] == PATH
    assert admin.post(PATH, confirmation).status_code == 303
    assert kept_s("events") == 2 * 86400
    assert Event.objects.count() == 3
    retention.forget_old()
    assert Event.objects.count() == 1


def test_backups_of_state_want_a_word_typed(admin):
    spec = make_sync_spec(make_pool("p"), id="s")
    Backup.objects.create(
        spec=spec, tenant_id="t", container_path="/state", place="p", location="l", backup="b", files=1, bytes=1,
        created_at=timezone.now() - timedelta(days=9),
    )  # fmt: skip
    answer = admin.post(PATH, posted(admin, backups=8))
    assert "Up to 1 backup of tenants' state is older" in text_of(answer).replace("&#x27;", "'")
    confirmation = form_of(answer.content.decode(), "question-form").dict()
    before = kept_s("backups")
    admin.post(PATH, confirmation)
    assert kept_s("backups") == before
    admin.post(PATH, {**confirmation, "typed": "delete"})
    assert kept_s("backups") == 8 * 86400


def test_an_answer_about_less_is_no_answer_about_more(admin):
    event_of(3)
    confirmation = form_of(admin.post(PATH, posted(admin, events=2)).content.decode(), "question-form").dict()
    more = {**posted(admin, events=2, backups=8), "asked": confirmation["asked"]}
    spec = make_sync_spec(make_pool("p"), id="s")
    Backup.objects.create(
        spec=spec, tenant_id="t", container_path="/state", place="p", location="l", backup="b", files=1, bytes=1,
        created_at=timezone.now() - timedelta(days=9),
    )  # fmt: skip
    before = kept_s("backups")
    assert "1 event and 1 backup" in text_of(admin.post(PATH, more))
    assert kept_s("backups") == before


@pytest.mark.parametrize("days", [2, 7])
def test_what_deletes_nothing_is_saved_at_once(admin, days):
    event_of(1)
    assert admin.post(PATH, posted(admin, events=days)).status_code == 303
    assert kept_s("events") == days * 86400

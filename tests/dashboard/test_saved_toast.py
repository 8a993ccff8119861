"""C6: a spec whose sink refuses was saved with a green toast, though the page had said that the sink is tried first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from boilerhouse.core import clock
from syncing.models import SyncSpec
from tests.forms import form_of
from tests.make import API_MAPPING, API_SINK, make_pool, make_sync_spec
from tests.pages import text_of

REFUSAL = {
    "state": "unhealthy", "code": "denied",
    "detail": "The bucket b at http://127.0.0.1:1 answered 403 SignatureDoesNotMatch: No.",
}  # fmt: skip


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def probed_as(monkeypatch, health: dict[str, Any]) -> None:
    def probe(spec: SyncSpec, **_: Any) -> dict[str, Any]:
        SyncSpec.objects.filter(pk=spec.pk).update(sink_health={**health, "checkedAt": clock.now().isoformat()})
        return health

    monkeypatch.setattr("syncing.services.probe", probe)


def create(client) -> str:
    make_pool("notes")
    body = {"id": "s", "poolId": "notes", "sink": API_SINK, "mappings": [API_MAPPING], "policy": {"onRelease": True}}
    page = client.post("/sync/specs/new", {"do": "save", "tab": "json", "json": json.dumps(body)}, follow=True)
    assert SyncSpec.objects.filter(pk="s").exists(), text_of(page)[-3000:]
    return text_of(page)


def test_a_spec_that_the_sink_refuses_is_saved_with_a_warning(staff, monkeypatch):
    probed_as(monkeypatch, REFUSAL)
    page = create(staff)
    toast = page.split('class="toast t-warn"')[1]
    assert "but the sink refuses: The secret key is wrong (403 SignatureDoesNotMatch)." in toast
    assert "toast t-ok" not in page


def test_a_spec_whose_sink_works_is_saved_with_a_green_toast(staff, monkeypatch):
    probed_as(monkeypatch, {"state": "healthy"})
    page = create(staff)
    assert "Sync spec s created." in page.split('class="toast t-ok"')[1]
    assert "toast t-warn" not in page


def test_a_change_says_what_the_sink_said_to_the_change_and_not_to_what_was_before(staff, monkeypatch):
    make_sync_spec(make_pool("notes"), id="s", sink_health=REFUSAL)
    probed_as(monkeypatch, {"state": "healthy"})
    form = form_of(staff.get("/sync/specs/s/edit").content.decode()).dict()
    page = text_of(staff.post("/sync/specs/s/edit", {**form, "do": "save", "/name": "other"}, follow=True))
    assert "s saved." in page
    assert "toast t-ok" in page
    assert "refuses" not in page.split('id="toasts"')[1]

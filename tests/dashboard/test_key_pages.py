"""API keys: expiry, rotation and the form that creates them."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core import api_keys
from boilerhouse.core.models import ApiKey, AuditEntry, Role
from tests.make import make_pool
from tests.pages import text_of

PATH = "/settings/keys/"


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def key_of(answer) -> str:
    found = re.search(r'id="new-key">(bh_\w+)<', answer.content.decode())
    assert found, answer.content.decode()
    return found[1]


def in_days(days: float):
    return timezone.now() + timedelta(days=days)


@pytest.mark.parametrize(("life", "days"), [("30", 30), ("90", 90), ("365", 365)])
def test_a_key_expires_as_chosen(admin, life, days):
    row = api_keys.find_key(key_of(admin.post(PATH, {"name": "k", "role": "viewer", "life": life})))
    assert abs(row.expires_at - in_days(days)) < timedelta(minutes=1)


def test_a_key_expires_in_90_days_unless_another_choice_is_made(admin):
    page = text_of(admin.get(PATH))
    assert re.search(r'<option value="90" selected', page)
    assert (
        api_keys.find_key(key_of(admin.post(PATH, {"name": "k", "role": "viewer", "life": "never"}))).expires_at is None
    )


def test_a_key_works_through_the_day_on_which_it_expires(admin):
    day = (timezone.now() + timedelta(days=10)).date()
    answer = admin.post(PATH, {"name": "k", "role": "viewer", "life": "on", "day": day.isoformat()})
    assert api_keys.find_key(key_of(answer)).expires_at.isoformat() == f"{day}T23:59:59+00:00"


@pytest.mark.parametrize(
    ("day", "words"), [("", "Enter a date"), ("tomorrow", "Enter a date"), ("2020-01-01", "future"), ("9999-01-01", "ten years")]
)  # fmt: skip
def test_a_day_that_cannot_be_is_refused_beside_its_field(admin, day, words):
    answer = admin.post(PATH, {"name": "kept", "role": "viewer", "life": "on", "day": day})
    assert answer.status_code == 422
    page = text_of(answer)
    assert words in page
    assert 'id="e-expiresAt"' in page
    assert "Datetime has wrong format" not in page
    assert 'value="kept"' in page
    assert re.search(r'<option value="on" selected', page)
    assert not ApiKey.objects.exists()


def test_tenants_count_only_for_their_role(admin):
    form = {"name": "k", "tenantIds": "t1 t2", "life": "never"}
    assert api_keys.find_key(key_of(admin.post(PATH, {**form, "role": "viewer"}))).tenant_ids == []
    assert api_keys.find_key(key_of(admin.post(PATH, {**form, "role": "tenant"}))).tenant_ids == ["t1", "t2"]
    assert admin.post(PATH, {**form, "role": "tenant", "tenantIds": ""}).status_code == 422


def test_the_list_marks_what_expires_soon_and_what_has_ended(admin):
    for name, at in (("lasting", None), ("later", in_days(60)), ("soon", in_days(3))):
        api_keys.create_key(name=name, role=Role.VIEWER, expires_at=at)
    ended = api_keys.create_key(name="ended", role=Role.VIEWER)[0]
    ApiKey.objects.filter(pk=ended.pk).update(expires_at=in_days(-1))
    rows = {
        name: row for row in text_of(admin.get(PATH)).split("<tr")[1:] for name in ("lasting", "later", "soon", "ended")
        if f">{name}<" in row
    }  # fmt: skip
    assert "Active" in rows["lasting"]
    assert "Active" in rows["later"]
    assert "Expires <time" in rows["soon"]
    assert "t-warn" in rows["soon"]
    assert "Expired" in rows["ended"]
    assert "Rotate" not in rows["ended"]


def test_a_rotated_key_and_its_successor_work_until_the_overlap_ends(admin, call):
    old, old_key = api_keys.create_key(name="gateway", role=Role.TENANT, tenant_ids=["t1"], expires_at=in_days(90))
    page = admin.get(f"{PATH}{old.pk}/rotate")
    assert "Rotate gateway" in text_of(page)
    answer = admin.post(f"{PATH}{old.pk}/rotate", {"overlap": "3600", "form_id": "once"})
    assert answer["Cache-Control"] == "no-store"
    new = api_keys.find_key(key_of(answer))
    assert (new.name, new.role, new.tenant_ids) == ("gateway", "tenant", ["t1"])
    assert abs(new.expires_at - in_days(90)) < timedelta(minutes=1)
    old.refresh_from_db()
    assert abs(old.expires_at - in_days(1 / 24)) < timedelta(minutes=1)
    assert api_keys.find_key(old_key)
    entry = AuditEntry.objects.get(action="api_key.rotate")
    assert (entry.actor, entry.object_id, entry.after["replacedBy"]) == ("user ada", old.pk, new.pk)

    again = admin.post(f"{PATH}{old.pk}/rotate", {"overlap": "3600", "form_id": "once"}, follow=True)
    assert "No other key was created." in text_of(again)
    assert ApiKey.objects.filter(name="gateway").count() == 2


def test_a_key_rotated_without_an_overlap_ends_now(admin):
    old, old_key = api_keys.create_key(name="leaked", role=Role.ADMIN)
    answer = admin.post(f"{PATH}{old.pk}/rotate", {"overlap": "0"})
    assert "no longer works" in text_of(answer)
    assert api_keys.find_key(old_key) is None
    assert api_keys.find_key(key_of(answer)).expires_at is None


@pytest.mark.parametrize("overlap", ["", "-1", "999999999", "x"])
def test_another_overlap_changes_nothing(admin, overlap):
    old = api_keys.create_key(name="k", role=Role.VIEWER)[0]
    admin.post(f"{PATH}{old.pk}/rotate", {"overlap": overlap})
    assert ApiKey.objects.filter(name="k").count() == 1
    old.refresh_from_db()
    assert old.expires_at is None


def test_a_rotation_never_lengthens_a_life(db):
    old = api_keys.create_key(name="k", role=Role.VIEWER, expires_at=in_days(0.5))[0]
    api_keys.rotate_key(old.pk, overlap=timedelta(days=30))
    before = old.expires_at
    old.refresh_from_db()
    assert old.expires_at == before


@pytest.mark.parametrize("ended", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now() - timedelta(days=1)}])
def test_a_key_that_has_ended_is_not_rotated(call, ended):
    old = api_keys.create_key(name="k", role=Role.VIEWER)[0]
    ApiKey.objects.filter(pk=old.pk).update(**ended)
    answer = call("POST", f"api-keys/{old.pk}/rotate", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "key_has_ended")
    assert ApiKey.objects.filter(name="k").count() == 1


def test_a_key_in_its_overlap_is_not_rotated_again(admin, call):
    """The third key would have had the life of the overlap: it ended with the key that it replaced."""
    old = api_keys.create_key(name="gateway", role=Role.OPERATOR, expires_at=in_days(90))[0]
    new = call("POST", f"api-keys/{old.pk}/rotate", {"overlapMs": 3_600_000}).json()
    answer = call("POST", f"api-keys/{old.pk}/rotate", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "key_is_replaced")
    assert new["id"] in answer.json()["detail"]
    assert ApiKey.objects.filter(name="gateway").count() == 2
    listed = {one["id"]: one for one in call("GET", "api-keys").json()["items"]}
    assert (listed[old.pk]["replacedBy"], listed[new["id"]]["replacedBy"]) == (new["id"], "")
    row = text_of(admin.get(PATH)).split(f"bh_{old.pk}…")[1].split("<tr")[0]
    assert "Replaced, ends" in row
    assert "Rotate" not in row
    assert "Revoke" in row
    assert new["id"] in text_of(admin.get(f"{PATH}{old.pk}/rotate"))

    next_one = call("POST", f"api-keys/{new['id']}/rotate", {"overlapMs": 0}).json()
    ends = api_keys.find_key(next_one["key"]).expires_at
    assert abs(ends - in_days(90)) < timedelta(minutes=1), "a successor lives as long as its predecessor did"


def test_a_key_whose_successor_was_revoked_is_rotated_again(call):
    """A successor that leaked, or was lost before anybody copied it."""
    old = api_keys.create_key(name="gateway", role=Role.OPERATOR, expires_at=in_days(90))[0]
    lost = api_keys.rotate_key(old.pk)[0]
    api_keys.revoke_key(lost.pk)
    again = api_keys.rotate_key(old.pk)[0]
    assert abs(again.expires_at - in_days(90)) < timedelta(minutes=1), "and not of the life that the overlap left"


def test_a_program_rotates_its_own_key(call):
    old, old_key = api_keys.create_key(name="robot", role=Role.ADMIN)
    body = {"overlapMs": 60_000, "expiresAt": in_days(7).isoformat()}
    made = call("POST", f"api-keys/{old.pk}/rotate", body, key=old_key)
    assert made.status_code == 201
    assert api_keys.find_key(made.json()["key"]).pk == made.json()["id"] != old.pk
    assert call("POST", f"api-keys/{old.pk}/rotate", {"overlapMs": -1}).status_code == 422
    assert call("POST", "api-keys/none/rotate", {}).status_code == 404


def test_a_new_key_is_shown_with_a_claim_that_it_may_make(admin):
    """The example asked for statistics, which no program needs first."""
    pool = make_pool("notes")
    form = {"name": "gateway", "role": "tenant", "tenantIds": "acme-042", "life": "never"}
    page = html.unescape(text_of(admin.post(PATH, form)))
    assert "/api/v1/tenants/acme-042/claim" in page
    assert f'{{"poolId": "{pool.pk}"}}' in page
    page = text_of(admin.post(PATH, {"name": "watcher", "role": "viewer", "life": "never"}))
    assert "/claim" not in page, "viewers may not"
    assert "/api/v1/stats" in page

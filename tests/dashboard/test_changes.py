"""Settings, Changes: what was done, in words, with the values that differ, found by words and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core import api_keys, audit
from boilerhouse.core.context import acting
from boilerhouse.core.models import AuditEntry, Role
from boilerhouse.dashboard import change_words, journals
from boilerhouse.dashboard.change_words import Difference, differences
from syncing import credentials
from tests.make import make_container, make_pool
from tests.pages import text_of

REFRESH = {"HX-Request": "true", "HX-Target": "main"}


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def changed(action: str, object_id: object = "notes", actor: str = "user ada", **values: Any) -> UUID:
    with acting(actor, "01a222b78fad724fb9b58be331ddf2c8"):
        audit.record(action, object_id, **values)
    return AuditEntry.objects.latest("at").pk


def rows_of(answer: Any) -> list[UUID]:
    return [UUID(pk) for pk in re.findall(r'id="a-([0-9a-f-]{36})"', answer.content.decode())]


def test_actions_are_words_and_objects_links_while_they_exist(admin):
    container = make_container(make_pool("notes"))
    changed("pool.scale", before={"targetSize": 4}, after={"targetSize": 6})
    changed("pool.delete", "gone")
    changed("container.terminal", container.pk, after={"tenantId": "acme", "generation": 17, "reason": "disk is full"})
    page = text_of(admin.get("/settings/changes/"))

    for words in (
        "Pool scaled",
        "Pool deleted",
        "Shell opened in container",
        "target size 4 → 6",
        "reason disk is full",
    ):
        assert words in page
    assert '<a class="mono" href="/pools/notes/"' in page
    assert 'href="/pools/gone/"' not in page
    assert f'href="/containers/{container.pk}/"' in page
    assert '<a class="mono" href="/tenants/acme/">acme</a>' in page
    assert "<del>4</del>" in page
    assert "<ins>6</ins>" in page
    assert "<dt>Request</dt>" in page
    assert 'data-copy="01a222b78fad724fb9b58be331ddf2c8"' in page
    assert "→ {" not in page
    assert "tenant id acme" not in page.lower()


def test_a_replaced_secret_is_said_and_not_shown(admin):
    credentials.create(id="c", name="c", access_key_id="A", secret_access_key="OLD-CANARY")
    credentials.replace(credentials.find("c"), name="c", access_key_id="A", secret_access_key="NEW-CANARY")
    page = text_of(admin.get("/settings/changes/?part=access"))
    assert "Credential changed" in page
    assert "secret replaced" in page
    assert "CANARY" not in page


@pytest.mark.any_database
@pytest.mark.parametrize(("before", "after", "expected"), [
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}, [Difference("B", "2", "3")]),
    ({"spec": {"image": "a:1", "stop_timeout_ms": 1500}}, {"spec": {"image": "a:2", "stop_timeout_ms": 90_000}},
     [Difference("Spec, image", "a:1", "a:2"), Difference("Spec, stop timeout", "1.5 s", "1 min")]),
    ({"retention_s": {"audit": 86400}}, {"retention_s": {"audit": 172800}},
     [Difference("Retention, audit", "1 d", "2 d")]),
    ({"mappings": [{"mode": "sync"}]}, {"mappings": [{"mode": "copy"}, {"mode": "sync"}]},
     [Difference("Mappings, 1, mode", "sync", "copy"), Difference("Mappings, 2, mode", None, "sync")]),
    (None, {"name": "n", "tenantIds": [], "expiresAt": None, "force": False},
     [Difference("Name", None, "n"), Difference("Tenant ids", None, "empty"), Difference("Force", None, "no")]),
    ({"name": "n"}, None, [Difference("Name", "n", None)]),
    (None, None, []), (5, 6, [Difference("Value", "5", "6")]), ({"generation": 1}, {"generation": 2}, []),
    ({"x": {}}, {"x": {"a": "1"}}, [Difference("X, a", None, "1")]), ({"x": [1, 2]}, {"x": [1]}, [Difference("X", "1, 2", "1")]),
])  # fmt: skip
def test_only_values_that_differ_are_shown_by_their_path(before, after, expected):
    assert list(differences(before, after)) == expected


@pytest.mark.any_database
def test_each_action_of_the_product_has_words():
    """None is shown as its raw name."""
    import pathlib

    sources = "".join(path.read_text() for folder in ("boilerhouse", "pools", "syncing", "tenants")
                      for path in pathlib.Path(folder).rglob("*.py"))  # fmt: skip
    actions = set(re.findall(r'audit\.record\(\s*"([a-z_.-]+)"', sources))
    assert len(actions) > 20
    for action in actions:
        kind, _, verb = action.partition(".")
        assert kind in change_words.NOUNS, action
        assert action in change_words.ACTIONS or verb in change_words.VERBS, action
        assert any(action.startswith(beginnings) for _, beginnings in change_words.PARTS.values()), action


def test_parts_actors_text_and_objects_are_filters(admin):
    pool = changed("pool.update", after={"maxSize": 5})
    key = changed("api_key.create", "abc", actor="key gateway", after={"name": "Grüße", "role": "operator"})
    claim = changed("tenant.claim", "acme", actor="key gateway", after={"poolId": "notes"})

    def listed(query: str, **values: str) -> set[UUID]:
        return set(rows_of(admin.get(f"/settings/changes/{query}", values or None)))

    assert listed("") == {claim, key, pool}
    assert listed("?part=access") == {key}
    assert listed("?part=tenants") == {claim}
    assert listed("?who=keys") == {claim, key}
    assert listed("?who=people") == {pool}
    assert listed("?kind=pool&objectId=notes") == {pool}
    assert listed("", q="container claimed") == {claim}
    assert listed("", q="Grüße operator") == {key}
    assert listed("", q="maxsize") == {pool}
    assert listed("?part=x&who=x") == {claim, key, pool}
    assert "No matches" in text_of(admin.get("/settings/changes/?q=zzz"))
    page = text_of(admin.get("/settings/changes/?who=keys"))
    assert "by: API keys" in page


def test_ranges_days_and_files(admin, monkeypatch):
    now = timezone.now()
    old = changed("pool.pause")
    stamp = int((now - timedelta(days=3)).timestamp() * 1000)
    moved = UUID(int=(stamp << 80) | (old.int & ((1 << 80) - 1)))
    AuditEntry.objects.filter(pk=old).update(id=moved, at=now - timedelta(days=3))
    new = changed("pool.resume")

    assert rows_of(admin.get("/settings/changes/?range=hour")) == [new]
    assert rows_of(admin.get("/settings/changes/?range=week")) == [new, moved]
    day = f"{now - timedelta(days=3):%Y-%m-%d}"
    following = f"{now - timedelta(days=2):%Y-%m-%d}"
    assert rows_of(admin.get(f"/settings/changes/?from={day}&to={following}")) == [moved]
    page = text_of(admin.get("/settings/changes/"))
    assert "<h3>Today, " in page
    assert len(re.findall("<h3>", page)) == 2
    lines = admin.get("/settings/changes/?range=hour&format=csv").content.decode().splitlines()
    assert len(lines) == 2
    assert "Pool resumed" in lines[1]
    for junk in ("?from=1971-01-01&to=9998-12-31", "?before=x", "?after=%00", "?seen=1", "?before=1"):
        assert admin.get(f"/settings/changes/{junk}").status_code == 200
        assert admin.get(f"/settings/changes/{junk}", headers=REFRESH).status_code == 200


def test_an_open_page_counts_new_changes_and_older_pages_stay(admin, monkeypatch):
    made = [changed("pool.pause", f"p{number}") for number in range(60)]
    whole = sorted(made, reverse=True)
    first = admin.get("/settings/changes/")
    assert rows_of(first) == whole[:50]
    refresh = re.search(r'hx-get="([^"]+)"', first.content.decode())
    assert refresh
    older = f"/settings/changes/?before={whole[49]}"
    assert rows_of(admin.get(older)) == whole[50:]
    changed("pool.resume")
    assert rows_of(admin.get(older)) == whole[50:]
    answer = admin.get(refresh[1].replace("&amp;", "&"), headers=REFRESH)
    assert "1 update, show" in text_of(answer)
    assert rows_of(answer) == []


def test_a_page_costs_few_statements(admin, django_assert_max_num_queries):
    for number in range(50):
        changed("pool.pause", f"p{number}")
        changed("tenant.claim", f"t{number}")
        changed("workload.update", f"w{number}", after={"name": "x"})
    with django_assert_max_num_queries(20):
        admin.get("/settings/changes/")


def test_a_search_through_many_changes_is_limited(admin, monkeypatch):
    monkeypatch.setattr(journals, "FIRST_WINDOW", 2)
    monkeypatch.setattr(journals, "BUDGET_S", -1)
    for number in range(5):
        changed("pool.pause", f"p{number}")
    page = text_of(admin.get("/settings/changes/?q=zzz"))
    assert "Searched back to" in page
    assert "Search older changes" in page


def test_only_admins_see_changes(client, db, data_dir):
    from django.contrib.auth.models import Group

    user = User.objects.create_user("olga", is_staff=True)
    user.groups.add(Group.objects.get(name="operator"))
    client.force_login(user)
    assert client.get("/settings/changes/").status_code == 403


def test_a_key_is_made_in_words(admin):
    api_keys.create_key(name="gateway", role=Role.OPERATOR, expires_at=datetime(2027, 1, 1, tzinfo=UTC))
    page = text_of(admin.get("/settings/changes/"))
    assert "API key created" in page
    assert "name gateway, role operator" in page

"""From nothing to the first claim: steps that tick, an example that can be loaded twice, and a claim from a page."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core import api_keys, keys
from boilerhouse.core.models import AuditEntry, Role
from boilerhouse.dashboard import config_fields
from boilerhouse.operations import embedded_s3, example
from boilerhouse.operations.resources import ApplyResult
from pools.models import Pool, Workload
from syncing import places
from syncing.models import SyncSpec
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_sync_spec, make_workload
from tests.pages import text_of

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
SCHEMA = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "greeting": {"type": "string", "maxLength": 20, "description": "Shown first."},
        "model": {"type": "string", "enum": ["small", "large"]},
        "steps": {"type": "integer", "minimum": 1},
        "fast": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": False,
}


def member(client: Any, role: str) -> Any:
    user = User.objects.create_user(f"{role}-1", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client.force_login(user)
    return client


@pytest.fixture
def admin(client, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def built_in_s3(data_dir, monkeypatch):
    """Something listens where the embedded S3 of this data directory would; its place is as it should be."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (data_dir / "s3-port").write_text(str(listening.getsockname()[1]))
        for kind in ("access", "secret"):
            keys.stored(data_dir, f"s3-{kind}-key")
        monkeypatch.setattr("syncing.services.probe", lambda *_, **__: {})
        monkeypatch.setattr(places, "check_to_save", lambda spec, rows: places.PlaceCheck(spec))
        monkeypatch.setattr(places, "settle", lambda check: None)
        monkeypatch.setattr(places, "place", lambda spec, check: None)
        yield


def steps_of(answer: Any) -> dict[str, bool]:
    return {step.title: step.is_done for step in answer.context["first"].steps}


# The steps --------------------------------------------------------------------------------------------------


def test_an_empty_overview_shows_the_steps_and_each_ticks_itself(admin):
    answer = admin.get("/")
    assert steps_of(answer) == dict.fromkeys(["Workload", "Pool", "Where state goes", "API key", "First claim"], False)
    assert "Load the example" in text_of(answer)
    make_workload("w")
    assert steps_of(admin.get("/"))["Workload"]
    pool = make_pool("p", workload=Workload.objects.get())
    assert steps_of(admin.get("/"))["Pool"]
    make_sync_spec(pool)
    api_keys.create_key(name="k", role=Role.OPERATOR)
    answer = admin.get("/")
    assert [name for name, is_done in steps_of(answer).items() if not is_done] == ["First claim"]
    assert "Load the example" not in text_of(answer)
    Tenant.objects.create(id="alice")
    answer = admin.get("/")
    assert answer.context["first"] is None
    assert "First steps" not in text_of(answer)


def test_the_call_of_the_first_claim_names_this_pool_and_what_its_schema_wants(admin):
    """The overview named a workload `example` that did not exist."""
    make_pool("ours", workload=make_workload("w", config_schema=SCHEMA))
    [step] = [step for step in admin.get("/").context["first"].steps if step.title == "First claim"]
    assert step.same_by
    assert """-d '{"poolId": "ours", "config": {"model": "small"}}'""" in step.same_by.curl
    assert "http://testserver/api/v1/tenants/alice/claim" in step.same_by.curl
    assert "client.claim('alice', 'ours', config={'model': 'small'})" in step.same_by.python


def test_what_a_role_may_not_do_has_no_button(client, data_dir):
    make_pool("p")
    shown = text_of(member(client, "viewer").get("/"))
    assert "First steps" in shown
    assert "Load the example" not in shown
    assert "Claim for a tenant" not in shown
    assert "Ask an admin" in shown
    shown = text_of(member(client, "operator").get("/"))
    assert "Claim for a tenant" in shown
    assert "Create API key" not in shown


def test_only_where_the_built_in_s3_listens_it_is_offered(admin, built_in_s3):
    make_pool("p")
    assert "Use the built-in S3" in text_of(admin.get("/"))


def test_an_s3_that_has_ended_is_not_offered(admin, data_dir):
    (data_dir / "s3-port").write_text("1")
    for kind in ("access", "secret"):
        keys.stored(data_dir, f"s3-{kind}-key")
    make_pool("p")
    assert embedded_s3.running() is None
    assert "Use the built-in S3" not in text_of(admin.get("/"))


# The example ------------------------------------------------------------------------------------------------


def test_the_example_is_loaded_whole_and_can_be_loaded_again(admin, built_in_s3, fake_engine):
    first = admin.post("/example", follow=True)
    assert "Created: Workload notes, Pool notes, SyncSpec notes-state." in text_of(first)
    [spec] = SyncSpec.objects.all()
    assert (spec.pool_id, spec.sink["type"], spec.sink["provider"]) == ("notes", "s3", "Rclone")
    assert AuditEntry.objects.filter(action="pool.create", actor="user ada").exists()
    again = admin.post("/example", follow=True)
    assert "The example is already loaded." in text_of(again)
    assert Workload.objects.get().versions.count() == 1


def test_without_the_built_in_s3_the_example_has_no_sync_spec(admin, fake_engine):
    admin.post("/example")
    assert Pool.objects.get().pk == "notes"
    assert not SyncSpec.objects.exists()


def test_an_example_that_fails_leaves_nothing(admin, fake_engine, monkeypatch):
    def fail(*_: object, **__: object) -> ApplyResult:
        raise ValueError("the sink said no")

    monkeypatch.setitem(example.resources._KINDS, "Pool", fail)
    shown = text_of(admin.post("/example", follow=True))
    assert "the sink said no" in shown
    assert not Workload.objects.exists()


def test_the_built_in_s3_saves_the_state_of_a_pool(admin, built_in_s3):
    pool = make_pool("p")
    admin.post("/pools/p/built-in-s3")
    [spec] = SyncSpec.objects.all()
    assert (spec.pk, spec.pool_id, spec.on_claim, spec.on_release) == ("p-state", pool.pk, True, True)
    assert [mapping.container_path for mapping in spec.mappings.all()] == ["/state"]
    assert "${tenantId}" in spec.sink["prefix"]


def test_without_the_built_in_s3_that_is_said(admin):
    make_pool("p")
    assert "manage.py up --s3" in text_of(admin.post("/pools/p/built-in-s3", follow=True))


# A claim ----------------------------------------------------------------------------------------------------


def test_a_claim_by_a_form_that_the_schema_makes(client, data_dir, fake_engine):
    operator = member(client, "operator")
    pool = make_pool("p", workload=make_workload("w", config_schema=SCHEMA))
    page = text_of(operator.get("/pools/p/claim"))
    assert 'model<span class="faint">, required</span>' in page
    assert '<option value="&quot;large&quot;" >large</option>' in page
    answer = operator.post("/pools/p/claim", {
        "tenant": "acme-042", "config.model": '"large"', "config.steps": "3", "config.fast": "true",
        "config.greeting": "hi", "config.tags": '["a"]',
    })  # fmt: skip
    assert (answer.status_code, answer["Location"]) == (303, "/tenants/acme-042/")
    row = Assignment.objects.get()
    assert row.config == {"model": "large", "steps": 3, "fast": True, "greeting": "hi", "tags": ["a"]}
    assert (row.pool, row.claimed_by, row.waits) == (pool, "user operator-1", False)
    assert AuditEntry.objects.filter(action="tenant.claim", actor="user operator-1", object_id="acme-042").exists()


@pytest.mark.parametrize(
    ("posted", "words"),
    [
        ({"tenant": "", "config.model": '"small"'}, "Enter the tenant&#x27;s id."),
        ({"tenant": "../x", "config.model": '"small"'}, "starting with a letter or digit"),
        ({"tenant": "a", "config.steps": "three", "config.model": '"small"'}, "Enter a whole number."),
        ({"tenant": "a", "config.model": '"huge"'}, "huge"),
        ({"tenant": "a", "config.tags": "[", "config.model": '"small"'}, "Enter JSON."),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_is_kept(client, data_dir, posted, words):
    operator = member(client, "operator")
    make_pool("p", workload=make_workload("w", config_schema=SCHEMA))
    answer = operator.post("/pools/p/claim", {**posted, "config.greeting": "typed before"})
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert 'value="typed before"' in text_of(answer)
    assert not Assignment.objects.exists()


def test_without_a_schema_the_config_is_json(client, data_dir, fake_engine):
    operator = member(client, "operator")
    make_pool("p")
    answer = operator.post("/pools/p/claim", {"tenant": "a", "config": "[1]"})
    assert (answer.status_code, "must be a JSON object" in text_of(answer)) == (422, True)
    assert operator.post("/pools/p/claim", {"tenant": "a", "config": '{"x": 1}'}).status_code == 303
    assert Assignment.objects.get().config == {"x": 1}


def test_who_holds_one_gets_no_second_and_is_told(client, data_dir, fake_engine):
    operator = member(client, "operator")
    pool = make_pool("p")
    Tenant.objects.create(id="a")
    container = make_container(pool, state="claimed")
    Assignment.objects.create(
        tenant_id="a", pool=pool, generation=1, state="assigned", was_assigned=True, container=container,
        container_ref=container.pk, version=container.version, deadline=container.created_at,
    )  # fmt: skip
    answer = operator.post("/pools/p/claim", {"tenant": "a", "config": "{}"}, follow=True)
    assert "already has a container of p" in text_of(answer)
    assert Assignment.objects.count() == 1


def test_the_pages_of_a_pool_and_of_a_released_tenant_lead_to_a_claim(client, data_dir):
    operator = member(client, "operator")
    pool = make_pool("p")
    assert 'href="/pools/p/claim"' in text_of(operator.get("/pools/p/"))
    Tenant.objects.create(id="org:41")
    now = pool.created_at
    Assignment.objects.create(
        tenant_id="org:41", pool=pool, generation=1, state="ended", deadline=now, was_assigned=True, ended_at=now
    )
    assert 'href="/pools/p/claim?tenant=org%3A41"' in text_of(operator.get("/tenants/org:41/"))
    assert 'value="org:41"' in text_of(operator.get("/pools/p/claim?tenant=org%3A41"))
    Pool.objects.update(is_draining=True)
    assert "/pools/p/claim" not in text_of(operator.get("/pools/p/"))


def test_a_viewer_may_not_claim(client, data_dir):
    make_pool("p")
    assert member(client, "viewer").get("/pools/p/claim").status_code == 403
    assert client.post("/pools/p/claim", {"tenant": "a"}).status_code == 403


@pytest.mark.parametrize(
    "schema",
    [None, True, {}, {"type": "object"}, {"$ref": "#/x", "properties": {"a": {}}}, {"properties": {"a": []}, "oneOf": []},
     {"properties": {str(n): {} for n in range(41)}}],
)  # fmt: skip
def test_a_schema_that_no_form_can_show_has_no_fields(schema):
    assert config_fields.of_schema(schema) == []


@pytest.mark.parametrize(
    ("path", "button"),
    [("/pools/", "New pool"), ("/workloads/", "New workload"), ("/sync/specs/", "New sync spec"),
     ("/sync/specs/new", "New pool"), ("/pools/new", "New workload")],
)  # fmt: skip
def test_what_is_empty_has_the_button_that_fills_it(admin, path, button):
    """An empty list had no button, and a new sync spec without a pool showed an empty select."""
    empty = text_of(admin.get(path)).partition('class="empty"')[2].partition("</section>")[0]
    assert f"{button}</a>" in empty


def test_a_filter_without_matches_offers_no_new_one(admin):
    make_workload("w")
    empty = text_of(admin.get("/workloads/?q=nothing")).partition('class="empty"')[2].partition("</section>")[0]
    assert "Clear filters" in empty
    assert "New workload" not in empty

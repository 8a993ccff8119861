"""One document as form and as JSON: nothing is lost between them, and the API's validator has the last word on both."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from hypothesis import given, settings
from hypothesis import strategies as st

from boilerhouse.core.errors import FieldError
from boilerhouse.dashboard.documents import Document, Part, Section
from pools.models import Workload
from syncing.models import SyncSpec
from tests.make import make_container, make_pool, make_sync_spec, make_workload

SECTIONS = [
    Section("Top", (Part("name", "Name"), Part("count", "Count", kind="number"), Part("on", "On", kind="flag"))),
    Section(
        "Check", (Part("command", "Command", kind="words"),), path="deep/check", blank={"command": ["true"]}
    ),
    Section("Items", (Part("id", "Id"),), path="items", blank={"id": ""}, is_list=True, one="Item"),
    Section("Free", (Part("map", "Map", kind="map"), Part("json", "JSON", kind="json"))),
]  # fmt: skip


def sections(_value: dict[str, Any]) -> list[Section]:
    return SECTIONS


def posted(document: Document, do: str = "save", **typed: str) -> Document:
    """The form as a browser sends it, with some fields typed over."""
    data = QueryDict(mutable=True)
    data["do"], data["document"] = do, document.text
    for section in document.shown():
        for group in section.groups:
            for part in group.parts:
                if part.part.kind != "flag" or part.is_on:
                    data[part.pointer] = part.text if part.part.kind != "flag" else "on"
    for pointer, text in typed.items():
        data[pointer] = text
    return Document.posted(data, sections)


def test_what_is_typed_lands_where_it_belongs_and_the_rest_stays():
    start = Document({"name": "a", "other": {"kept": [1, {"x": None}]}, "items": [{"id": "1", "more": True}]}, sections)
    made = posted(
        start, **{"/name": "b", "/count": "7", "/items/0/id": "2", "/map": "A=1\nB=x=y", "/json": '{"k": [1]}'}
    )
    assert made.do == "save"
    assert made.value == {
        "name": "b", "count": 7, "on": False, "other": {"kept": [1, {"x": None}]}, "items": [{"id": "2", "more": True}],
        "map": {"A": "1", "B": "x=y"}, "json": {"k": [1]},
    }  # fmt: skip


def test_parts_are_added_and_removed_by_buttons_and_only_where_there_are_some():
    made = posted(Document({"name": "a"}, sections), "add:/items")
    assert made.value["items"] == [{"id": ""}]
    assert made.do == ""
    made = posted(posted(made, "add:/items"), "add:/deep/check")
    assert made.value["deep"] == {"check": {"command": ["true"]}}
    made = posted(made, "remove:/items/0")
    assert len(made.value["items"]) == 1
    made = posted(made, "remove:/deep/check")
    assert made.value["deep"] == {}
    for evil in ("add:/name", "add:/evil", "remove:/name", "remove:/items/99", "remove:", "add:", "tab:evil"):
        assert posted(made, evil).value == posted(made).value, evil


def test_what_cannot_be_read_stays_as_it_was_typed_and_is_said_at_its_field():
    made = posted(Document({"name": "a"}, sections), **{"/map": "no equals sign", "/json": "{"})
    assert made.do == "refused"
    assert {error.pointer for error in made.errors} == {"/map", "/json"}
    fields = {part.pointer: part for one in made.shown() for group in one.groups for part in group.parts}
    assert fields["/map"].text == "no equals sign"
    assert "has no =" in fields["/map"].error
    assert posted(Document({"name": "a"}, sections), **{"/count": "many"}).value["count"] == "many"


def test_an_error_is_shown_at_what_of_the_form_is_nearest_and_its_link_leads_there():
    """B13: at its field, else at its part; what the form does not show has no link."""
    document = Document({"name": "a", "items": [{"id": "1"}]}, sections)
    document.errors = [
        FieldError(pointer, f"at {pointer}", "invalid")
        for pointer in ("/items/0/id", "/items/0/more", "/items", "/deep/check/command", "/map/a b", "/elsewhere", "")
    ]
    shown = document.shown()
    parts = {part.pointer: part.error for one in shown for group in one.groups for part in group.parts if part.error}
    assert parts == {"/items/0/id": "at /items/0/id", "/map": "at /map/a b"}
    assert {one.pointer: one.error for one in shown if one.error} == {
        "/items": "at /items/0/more", "/deep/check": "at /deep/check/command",
    }  # fmt: skip
    links = [place for _, place in document.noted]
    assert links == ["items0id", "items", "items", "deepcheck", "map", "", ""]
    document.tab = "json"
    assert {place for _, place in document.noted} == {""}


@pytest.mark.parametrize("value", [[], "x", {"items": {}}, {"items": [1]}, {"deep": {"check": 5}}, {"items": "x"}])
def test_what_no_form_can_show_is_shown_as_json(value: Any) -> None:
    assert Document(value, sections).tab == "json"
    data = QueryDict(mutable=True)
    data["json"], data["do"] = json.dumps(value), "tab:form"
    assert Document.posted(data, sections).tab == "json"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc~/ é", max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {"kept": VALUES},
        optional={
            "name": st.from_regex(r"[^\s\0](?:.*[^\s\0])?", fullmatch=True).filter(str.isprintable), "on": st.booleans(),
            "items": st.lists(st.fixed_dictionaries({"rest": VALUES}), max_size=3), "count": st.integers(),
            "map": st.dictionaries(st.from_regex(r"[A-Z]{1,5}", fullmatch=True), st.text("ab =\n", max_size=6), max_size=3),
            "json": VALUES.filter(lambda one: one is not None),
            "deep": st.fixed_dictionaries({"check": st.fixed_dictionaries({"command": st.lists(st.text("a '\"\\$", min_size=1), min_size=1, max_size=4)})}),
        },
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_form_that_nobody_touched_changes_nothing(value: dict[str, Any]) -> None:
    """But an absent flag becomes false, and nothing typed into nothing stays nothing."""
    made = posted(Document(json.loads(json.dumps(value)), sections))
    assert made.errors == []
    expected = {name: one for name, one in value.items() if one != {} or name not in ("map", "json")}
    empty = {name for name in ("map", "json") if value.get(name) == {}}
    assert {k: v for k, v in made.value.items() if k not in empty} == {**expected, "on": value.get("on", False)} | {
        k: v for k, v in made.value.items() if k in empty and k in expected
    }


# The editors ------------------------------------------------------------------------------------------


@pytest.fixture
def admins(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def form_of(page: str) -> QueryDict:
    """What a browser would send of the editor's form."""
    data = QueryDict(mutable=True)
    text = page.split('id="editor">', 1)[1].split("</form>", 1)[0]
    for tag in re.findall(r"<input[^>]*>", text):
        name = re.search(r'name="([^"]*)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        if name and ('type="checkbox"' not in tag or " checked" in tag):
            data[html.unescape(name[1])] = html.unescape(value[1]) if value else ""
    for name_, body in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', text, re.S):
        data[html.unescape(name_)] = html.unescape(body)
    for name_, body in re.findall(r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', text, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', body) or re.search(r'<option value="([^"]*)"', body)
        data[html.unescape(name_)] = html.unescape(chosen[1]) if chosen else ""
    return data


def test_a_workload_is_made_and_changed_by_form(admins):
    data = form_of(admins.get("/workloads/new").content.decode())
    data["/id"], data["/name"], data["/image"] = "made", "Made", "i:1"
    data["/environment"] = "LEVEL=debug\nURL=http://x/?a=b"
    answer = admins.post("/workloads/new", data)
    assert answer.status_code == 303, answer.content.decode()
    made = Workload.objects.get(pk="made").latest.spec
    assert made.environment == {"LEVEL": "debug", "URL": "http://x/?a=b"}
    assert made.health_check.command == ("true",)
    data = form_of(admins.get("/workloads/made/edit").content.decode())
    data["/healthCheck/command"] = "sh -c 'test -e \"/state/a b\"'"
    data["/security/readOnlyRootFilesystem"] = "on"
    assert admins.post("/workloads/made/edit", data).status_code == 303
    assert Workload.objects.get(pk="made").latest.spec.health_check.command == ("sh", "-c", 'test -e "/state/a b"')
    data["/name"] = ""
    answer = admins.post("/workloads/made/edit", data)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in page
    assert "/name" in page


def test_switching_the_tab_saves_nothing_and_loses_nothing(admins):
    make_workload("w", hooks={"post_claim": {"command": ["true"], "timeout_ms": 500}})
    data = form_of(admins.get("/workloads/w/edit").content.decode())
    data["/name"], data["do"] = "typed", "tab:json"
    page = admins.post("/workloads/w/edit", data).content.decode()
    text = html.unescape(re.search(r'name="json"[^>]*>(.*?)</textarea>', page, re.S)[1])
    assert json.loads(text)["name"] == "typed"
    back = admins.post("/workloads/w/edit", {"json": text, "do": "tab:form", "seen": data["seen"]}).content.decode()
    assert form_of(back)["/name"] == "typed"
    assert Workload.objects.get(pk="w").name == "w"
    page = admins.post("/workloads/w/edit", {"json": "{", "do": "tab:form"})
    assert page.status_code == 422
    assert "not JSON" in page.content.decode()


def test_a_config_is_tried_against_the_schema_and_who_would_be_refused_is_named(admins):
    from django.utils import timezone

    from tenants.models import Assignment, Tenant

    pool = make_pool("p", workload=make_workload("w"))
    one = make_container(pool, state="claimed")
    Assignment.objects.create(
        tenant=Tenant.objects.create(id="old-style"), pool=pool, generation=1, state="assigned", deadline=timezone.now(),
        container=one, container_ref=one.pk, version=one.version, uid=one.uid, config={"rate": 5},
    )  # fmt: skip
    data = form_of(admins.get("/workloads/w/edit").content.decode())
    data["/configSchema"] = '{"type": "object", "properties": {"rate": {"maximum": 1}}}'
    data["sample"], data["do"] = '{"rate": 0.5}', "try"
    page = admins.post("/workloads/w/edit", data).content.decode()
    assert "It fits the schema" in page
    assert "1 of 1 tenants would be refused" in page
    assert "old-style" in page
    data["sample"] = '{"rate": 3}'
    page = admins.post("/workloads/w/edit", data).content.decode()
    assert "It does not fit" in page
    assert "/rate" in page
    data["sample"] = "[1]"
    assert "A config is an object" in admins.post("/workloads/w/edit", data).content.decode()
    data["/configSchema"] = '{"type": "nonsense"}'
    answer = admins.post("/workloads/w/edit", data)
    assert answer.status_code == 422
    assert Workload.objects.get(pk="w").versions.count() == 1


def test_a_sync_spec_is_changed_by_form_and_its_patterns_are_shown_on_paths(admins):
    make_sync_spec(make_pool("p"), id="s", sink={"endpoint": "http://127.0.0.1:1", "accessKeyId": "A"})
    page = admins.get("/sync/specs/s/edit").content.decode()
    assert "test-secret" not in page
    data = form_of(page)
    data["do"] = "add:/mappings"
    data = form_of(admins.post("/sync/specs/s/edit", data).content.decode())
    data["/mappings/0/pattern"], data["/mappings/1/pattern"] = "*.pt", "**/*.log"
    data["paths"], data["do"] = "/state/a.pt\n/state/x/b.log\n/state/deep/c.pt\n/elsewhere/d.pt", "preview"
    page = admins.post("/sync/specs/s/edit", data).content.decode()
    first, second = page.split('aria-label="Files of mapping')[1:3]
    assert "<b>1</b> file match" in first
    assert "a.pt</li>" in first
    assert "x/b.log</li>" in second
    data["/mappings/0/pattern"] = "["
    assert "has no ]" in admins.post("/sync/specs/s/edit", data).content.decode()
    data["tenant"] = "nobody"
    assert "holds no container" in admins.post("/sync/specs/s/edit", data).content.decode()
    assert SyncSpec.objects.get(pk="s").mappings.count() == 1


def test_another_kind_of_sink_shows_other_fields(admins):
    make_sync_spec(make_pool("p"), id="s")
    data = form_of(admins.get("/sync/specs/s/edit").content.decode())
    assert "/sink/bucket" in data
    data["/sink/type"], data["do"] = "local", "tab:form"
    data = form_of(admins.post("/sync/specs/s/edit", data).content.decode())
    assert "/sink/bucket" not in data
    assert "/sink/path" in data


def test_what_admins_set_is_set_by_form(admins, settings):
    settings.BOILERHOUSE_ALLOWED_NETWORKS = ["lab"]
    data = form_of(admins.get("/settings/deployment/").content.decode())
    data["/variables"], data["/retention/runsMs"] = "REGION=eu-1", "86400000"
    data["/allowedNetworks"] = "lab"
    assert admins.post("/settings/deployment/", data).status_code == 303
    page = admins.get("/settings/deployment/").content.decode()
    assert "REGION=eu-1" in page
    assert "= 1 d" in page
    data = form_of(page)
    data["/allowRoot"] = "on"
    answer = admins.post("/settings/deployment/", data)
    assert answer.status_code == 422
    assert "BOILERHOUSE_ALLOW_ROOT" in answer.content.decode()


def test_a_credential_is_replaced_and_its_secret_never_comes_back(admins):
    from syncing import credentials

    credentials.create(id="c", name="c", access_key_id="OLD", secret_access_key="OLD-CANARY")
    page = admins.get("/settings/credentials/c/").content.decode()
    assert "OLD-CANARY" not in page
    answer = admins.post("/settings/credentials/c/", {"name": "c", "accessKeyId": "NEW"})
    assert answer.status_code == 422
    given = {"name": "c", "accessKeyId": "NEW", "secretAccessKey": "NEW-CANARY"}
    assert admins.post("/settings/credentials/c/", given).status_code == 303
    assert credentials.find("c").secret == {"accessKeyId": "NEW", "secretAccessKey": "NEW-CANARY"}
    assert admins.get("/settings/credentials/none/").status_code == 404


def test_lists_come_as_csv_with_their_filters_and_no_formula(admins):
    from boilerhouse.core.context import acting
    from boilerhouse.core.events import emit, recording

    with acting("=cmd()"), recording():
        emit("pool.warning", pool_id="p1", detail="x")
        emit("pool.recovered", pool_id="p2")
    answer = admins.get("/activity/?poolId=p1&format=csv")
    assert answer["Content-Type"].startswith("text/csv")
    lines = answer.content.decode().splitlines()
    assert len(lines) == 2
    assert "'=cmd()" in lines[1]
    assert "p2" not in answer.content.decode()
    for path in ("/sync/?format=csv", "/settings/changes/?format=csv"):
        assert "attachment" in admins.get(path)["Content-Disposition"]

"""A document as form and as JSON: converting loses nothing, and the API's validator checks both."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils.html import strip_tags
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework import serializers

from boilerhouse.core.errors import FieldError
from boilerhouse.dashboard.documents import Document, Part, Section
from boilerhouse.dashboard.sections.workloads import LIMITS
from pools import limits
from pools.models import Workload
from pools.spec import Device, Gpus, MemoryMount, Ulimit
from syncing.models import SyncSpec
from tests.forms import form_of
from tests.make import make_container, make_pool, make_sync_spec, make_workload
from tests.pages import text_of

SECTIONS = [
    Section("Top", (Part("name", "Name"), Part("count", "Count", kind="number"), Part("on", "On", kind="flag"))),
    Section(
        "Check", (Part("command", "Command", kind="words"),), path="deep/check", blank={"command": ["true"]}
    ),
    Section("Items", (Part("id", "Id"),), path="items", blank={"id": ""}, is_list=True, noun="Item"),
    Section("Free", (Part("map", "Map", kind="map"), Part("json", "JSON", kind="json"))),
]  # fmt: skip


def sections(_value: dict[str, Any]) -> list[Section]:
    return SECTIONS


def posted(document: Document, do: str = "save", **typed: str) -> Document:
    """The form as a browser sends it, with some fields changed."""
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


class Anything(serializers.Serializer[Any]):
    """Accepts every document."""


def test_what_cannot_be_read_stays_as_it_was_typed_and_is_said_at_its_field():
    made = posted(Document({"name": "a"}, sections), **{"/map": "no equals sign", "/json": "{"})
    assert made.read(Anything) is None
    assert {error.pointer for error in made.errors} == {"/map", "/json"}
    fields = {part.pointer: part for one in made.shown() for group in one.groups for part in group.parts}
    assert fields["/map"].text == "no equals sign"
    assert "has no =" in fields["/map"].error
    assert posted(Document({"name": "a"}, sections), **{"/count": "many"}).value["count"] == "many"


def test_an_error_is_shown_at_what_of_the_form_is_nearest_and_its_link_leads_there():
    """At its field, else at its section; an error without a visible field has no link."""
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
    links = [place for _, place, _ in document.noted]
    assert links == ["items0id", "items", "items", "deepcheck", "map", "", ""]
    document.tab = "json"
    assert document.noted == []


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
    """An absent flag becomes false, and an empty field of an absent value stays absent."""
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


def shown_at(page: str, name: str) -> str:
    """The field of that name with its hint and its error."""
    return page.split(f'name="{name}"', 1)[1].split('<div class="field', 1)[0]


def test_each_field_of_process_user_and_engine_is_given_and_changed_by_form(admins, settings):
    """The entered values are stored; sending the form again unchanged creates no new version."""
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["/dev/kvm", "gpus"]
    make_workload("w", image="nothing:1", pull_policy="never")
    data = form_of(admins.get("/workloads/w/edit").content.decode())
    for add in ("/user", "/tmpfs", "/ulimits", "/devices", "/resources/gpus"):
        data["do"] = f"add:{add}"
        data = form_of(admins.post("/workloads/w/edit", data).content.decode())
    typed = {
        "/entrypoint": "sh -c 'exec \"$@\"' sh", "/workingDir": "/state", "/init": "image", "/stopSignal": "SIGQUIT",
        "/user/gid": "0", "/user/groups": "44, 45", "/user/name": "app", "/user/home": "/state",
        "/resources/shmMb": "128", "/resources/gpus/count": "", "/resources/gpus/ids": "0\n1",
        "/tmpfs/0/path": "/var/cache/nginx", "/tmpfs/0/sizeMb": "8", "/tmpfs/0/exec": "on",
        "/ulimits/0/name": "nofile", "/ulimits/0/hard": "2000", "/devices/0/permissions": "r",
        "/extraHosts": "db.internal=192.0.2.7\nnowhere.example=127.0.0.1", "/dns": "192.0.2.53 2001:db8::53",
        "/labels": "org.example.team=blue", "do": "save",
    }  # fmt: skip
    for name, text in typed.items():
        data[name] = text
    answer = admins.post("/workloads/w/edit", data)
    assert answer.status_code == 303, answer.content.decode()
    spec = Workload.objects.get(pk="w").latest.spec
    assert spec.entrypoint == ("sh", "-c", 'exec "$@"', "sh")
    assert (spec.working_dir, spec.init, spec.stop_signal) == ("/state", False, "SIGQUIT")
    user = spec.user
    assert (user.uid, user.gid, user.groups, user.name, user.home) == (None, 0, (44, 45), "app", "/state")
    assert (spec.resources.shm_mb, spec.resources.gpus) == (128, Gpus(0, ("0", "1")))
    assert spec.tmpfs == (MemoryMount("/var/cache/nginx", 8, exec=True),)
    assert spec.ulimits == (Ulimit("nofile", 2000, 2000),)
    assert spec.devices == (Device("/dev/kvm", "r"),)
    assert spec.extra_hosts == {"db.internal": "192.0.2.7", "nowhere.example": "127.0.0.1"}
    assert (spec.dns, spec.labels) == (("192.0.2.53", "2001:db8::53"), {"org.example.team": "blue"})
    page = admins.get("/workloads/w/edit").content.decode()
    assert admins.post("/workloads/w/edit", form_of(page)).status_code == 303
    assert Workload.objects.get(pk="w").versions.count() == 2
    shown = html.unescape(strip_tags(admins.get("/workloads/w/?tab=json").content.decode()))
    for text in ('"SIGQUIT"', '"shmMb": 128', '"/dev/kvm"', '"db.internal": "192.0.2.7"', '"org.example.team": "blue"'):
        assert text in shown, text


def test_no_entrypoint_at_all_is_typed_as_a_pair_of_brackets(admins):
    """It differs from the image's own check, and needs no JSON."""
    make_workload("w", image="nothing:1", pull_policy="never")
    for text, stored in (("[]", ()), (" [] ", ()), ("sh -c x", ("sh", "-c", "x")), ("[]", ()), ("", None)):
        data = form_of(admins.get("/workloads/w/edit").content.decode())
        data["/entrypoint"] = text
        assert admins.post("/workloads/w/edit", data).status_code == 303
        assert Workload.objects.get(pk="w").latest.spec.entrypoint == stored, text
        shown = form_of(admins.get("/workloads/w/edit").content.decode())["/entrypoint"]
        assert shown == text.strip()


def test_who_says_whether_a_container_is_healthy_is_chosen_in_one_place(admins):
    """The workload's own health check, the image's, or none."""
    make_workload("w", image="nothing:1", pull_policy="never", health_check={"command": ["true"]})

    def spec():
        return Workload.objects.get(pk="w").latest.spec

    def click(do, **typed):
        data = form_of(admins.get("/workloads/w/edit").content.decode())
        data["do"] = do
        data = form_of(admins.post("/workloads/w/edit", data).content.decode())
        for name, text in typed.items():
            data[name] = text
        answer = admins.post("/workloads/w/edit", data)
        assert answer.status_code == 303, answer.content.decode()
        return form_of(admins.get("/workloads/w/edit").content.decode())

    assert "/healthCheck" not in form_of(admins.get("/workloads/w/edit").content.decode())
    assert click("remove:/healthCheck")["/healthCheck"] == "image"
    card = text_of(admins.get("/workloads/w/edit")).split("> Health check <", 1)[1].split("</section>", 1)[0]
    assert 'name="/healthCheck"' in card
    assert 'value="add:/healthCheck"' in card
    assert (spec().health_check, spec().is_health_check_off) == (None, False)
    assert click("tab:form", **{"/healthCheck": "off"})["/healthCheck"] == "off"
    assert (spec().health_check, spec().is_health_check_off) == (None, True)
    data = click("add:/healthCheck", **{"/healthCheck/command": "test -e /x"})
    assert data["/healthCheck/command"] == "test -e /x"
    assert spec().health_check.command == ("test", "-e", "/x")
    assert "/healthCheck" not in data


def test_each_error_stands_where_the_form_shows_what_is_meant(admins, settings):
    """At its field, else at its section; entered values are kept; each link resolves."""
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["gpus"]
    make_workload("w", image="nothing:1", pull_policy="never", resources={"gpus": {"count": 1, "ids": []}})
    settings.BOILERHOUSE_ALLOWED_DEVICES = []
    data = form_of(admins.get("/workloads/w/edit").content.decode())
    for add in ("/tmpfs", "/tmpfs", "/ulimits"):
        data["do"] = f"add:{add}"
        data = form_of(admins.post("/workloads/w/edit", data).content.decode())
    data["do"], data["/ulimits/0/hard"], data["/tmpfs/1/path"] = "save", "900000", "/etc/hosts"
    answer = admins.post("/workloads/w/edit", data)
    page = html.unescape(answer.content.decode())
    assert answer.status_code == 422
    assert "BOILERHOUSE_MAX_ULIMITS" in shown_at(page, "/ulimits/0/hard")
    assert "covered" not in shown_at(page, "/tmpfs/0/path")
    assert "used by" in shown_at(page, "/tmpfs/1/path")
    gpus = " ".join(page.split()).split("> GPUs <", 1)[1].split("</section>", 1)[0]
    assert "This deployment does not allow GPUs" in gpus
    kept = form_of(answer.content.decode())
    assert (kept["/ulimits/0/hard"], kept["/tmpfs/1/path"]) == ("900000", "/etc/hosts")
    links = re.findall(r'href="#(f[^"]+)"', page)
    assert len(links) == 3
    assert all(f'id="{one}"' in page for one in links)
    data = form_of(answer.content.decode())
    data["/tmpfs/1/path"], data["/ulimits/0/hard"] = "/var/cache/nginx", "2000"
    data["/extraHosts"], data["/labels"] = "meta=169.254.169.254", "com.docker.x=1"
    page = html.unescape(admins.post("/workloads/w/edit", data).content.decode())
    assert "metadata service" in shown_at(page, "/extraHosts")
    assert "com.docker." in shown_at(page, "/labels")
    links = re.findall(r'href="#(f[^"]+)"', page)
    assert links == ["fextrahosts", "flabels", "fresourcesgpus"], "errors of fields and of the whole, together"
    assert all(f'id="{one}"' in page for one in links)


def test_devices_that_the_deployment_does_not_allow_are_shown_and_not_offered(admins, settings):
    """The form explains their absence; options of a stored workload can be removed."""
    make_workload("w", image="nothing:1", devices=[{"path": "/dev/kvm", "permissions": "rw"}], pull_policy="never")
    page = admins.get("/workloads/w/edit").content.decode()
    assert page.count("BOILERHOUSE_ALLOWED_DEVICES does not name") == 2
    for pointer in ("/devices", "/resources/gpus"):
        assert f'value="add:{pointer}"' not in page
    assert page.count('value="remove:/devices/0"') == 1
    data = form_of(page)
    assert data["/devices/0/path"] == "/dev/kvm"
    data["do"] = "add:/devices"
    assert "/devices/1/path" not in form_of(admins.post("/workloads/w/edit", data).content.decode())
    assert admins.post("/workloads/w/edit", {**form_of(page).dict(), "do": "save"}).status_code == 422
    data["do"] = "remove:/devices/0"
    data = form_of(admins.post("/workloads/w/edit", data).content.decode())
    assert admins.post("/workloads/w/edit", data).status_code == 303
    assert Workload.objects.get(pk="w").latest.spec.devices == ()
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["/dev/kvm", "gpus"]
    page = admins.get("/workloads/w/edit").content.decode()
    for pointer in ("/devices", "/resources/gpus"):
        assert f'value="add:{pointer}"' in page


def test_limits_that_may_not_be_set_here_are_not_offered(admins, settings):
    """By their names, with their purpose and their maximum."""
    settings.BOILERHOUSE_MAX_ULIMITS = {"nofile": 5000, "cpu": 0, "core": -1}
    assert set(LIMITS) == set(limits.CEILINGS)
    make_workload("w", ulimits=[{"name": "cpu", "soft": 1, "hard": 1}])
    page = admins.get("/workloads/w/edit").content.decode()
    options = re.search(r'<select[^>]*name="/ulimits/0/name".*?</select>', page, re.S)[0]
    assert "nofile: open files, up to 5,000</option>" in options
    assert "core: size of core files, bytes</option>" in options
    assert "rtprio" not in options
    assert '<option value="cpu" selected>cpu</option>' in options, "what is stored stays as it is"


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
    assert "Invalid JSON" in page.content.decode()


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
    assert "The config matches the schema" in page
    assert "1 of 1 tenants would be refused" in page
    assert "old-style" in page
    data["sample"] = '{"rate": 3}'
    page = admins.post("/workloads/w/edit", data).content.decode()
    assert "The config does not match" in page
    assert "/rate" in page
    data["sample"] = "[1]"
    assert "A config must be a JSON object" in admins.post("/workloads/w/edit", data).content.decode()
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
    assert "is not closed by ]" in admins.post("/sync/specs/s/edit", data).content.decode()
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
    data["/variables"], data["/retention/runsMs"], data["/retention/runsMs:unit"] = "REGION=eu-1", "36", "h"
    data["/allowedNetworks"] = "lab"
    assert admins.post("/settings/deployment/", data).status_code == 303
    page = admins.get("/settings/deployment/").content.decode()
    assert "REGION=eu-1" in page
    data = form_of(page)
    assert (data["/retention/runsMs"], data["/retention/runsMs:unit"]) == ("36", "h")
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

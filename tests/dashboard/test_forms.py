"""What forms say of wrong input and of two editors at a time: labels and cures, nothing lost."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core import deployment_settings
from boilerhouse.core.errors import FieldError
from boilerhouse.dashboard import conflicts, cures, label_words
from pools.api.serializers import WorkloadInput, render_pool
from pools.models import Workload
from pools.services import find_pool
from syncing.models import SyncSpec
from tests.forms import form_of
from tests.make import make_pool, make_sync_spec, make_workload
from tests.pages import plain

DRF = ("Ensure this", "A valid integer", "This field", "Must not exceed", "valid choice")
"""The beginnings of texts that are for programs."""


def member(client, name: str) -> Any:
    user, is_new = User.objects.get_or_create(username=name, is_staff=True)
    if is_new:
        user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


@pytest.fixture
def olga(client, db, data_dir):
    return member(client, "olga")


def pool_form_of(page: str) -> dict[str, str]:
    text = page.split('id="configure"', 1)[1].split("</form>", 1)[0]
    return form_of(f'id="editor">{text}</form>').dict()  # type: ignore[return-value]


def test_all_errors_of_a_form_are_said_at_once_with_labels_and_cures(olga):
    """C16: a wrong type hid a wrong range, and both were pointers with the words of the API."""
    make_workload("w")
    answer = olga.post(
        "/pools/new", {"workloadId": "w", "minSize": "12", "maxSize": "6", "minIdle": "many", "idleTimeoutMs": "3",
                       "idleTimeoutMs:unit": "s"},
    )  # fmt: skip
    assert answer.status_code == 422
    page = plain(answer)
    for words in ("Keep idle: Enter a whole number, 0 to 6.", "Min size: Enter 0 to 6.", "Enter at least 10 s, or 0."):
        assert words in page, words
    assert "/minIdle" not in page
    shown = answer.content.decode()
    assert shown.count("autofocus") == 1
    for link in re.findall(r'href="#(f[^"]+)"', shown):
        assert f'id="{link}"' in shown
    assert 'value="many"' in shown
    assert not [words for words in DRF if words in page]


def test_errors_of_a_document_are_said_in_the_units_of_its_fields(olga):
    make_workload("w", pull_policy="never")
    data = form_of(olga.get("/workloads/w/edit").content.decode())
    data["do"] = "add:/healthCheck"
    data = form_of(olga.post("/workloads/w/edit", data).content.decode())
    data["do"] = "save"
    data["/healthCheck/intervalMs"], data["/healthCheck/intervalMs:unit"] = "0.1", "s"
    data["/healthCheck/timeoutMs"], data["/resources/memoryMb"] = "soon", "1"
    data["/resources/pidsLimit"] = "x"
    answer = olga.post("/workloads/w/edit", data)
    page = plain(answer)
    assert "Health check: Every: Enter 0.5 s to 1 h." in page
    assert "Health check: Timeout: Enter a number, such as 90 s" in page
    assert "Resources: Memory: Enter 6 MB to 4096 GB." in page
    assert "Resources: Processes: Enter a whole number, 1 to 4,194,304." in page
    kept = form_of(answer.content.decode())
    assert (kept["/healthCheck/timeoutMs"], kept["/healthCheck/intervalMs"]) == ("soon", "0.1")


def test_what_is_folded_says_what_is_in_it_and_opens_for_errors_and_when_it_was_open(olga):
    make_workload("w", environment={"A": "1"}, pull_policy="never")
    page = olga.get("/workloads/w/edit").content.decode()
    assert "<details" in page
    section = page.split('id="s-environment"', 1)[1].split("</details>", 1)[0]
    assert "Variables: A=1" in section
    assert "open" not in section.split(">", 1)[0]
    assert 'href="#s-environment"' in page
    data = form_of(page)
    data["do"], data["open"] = "tab:form", "environment"
    again = olga.post("/workloads/w/edit", data).content.decode()
    assert "open" in again.split('id="s-environment"', 1)[1].split(">", 1)[0]
    data["do"], data["open"], data["/environment"] = "save", "", "no equals sign"
    wrong = olga.post("/workloads/w/edit", data).content.decode()
    assert "open" in wrong.split('id="s-environment"', 1)[1].split(">", 1)[0]


def test_a_new_workload_shows_examples_and_saves_none(olga):
    """C17: "registry.example/image:tag" was a value, and was saved."""
    page = olga.get("/workloads/new").content.decode()
    assert 'placeholder="registry.example/image:tag"' in page
    data = form_of(page)
    assert (data["/name"], data["/image"]) == ("", "")
    data["do"] = "save"
    answer = olga.post("/workloads/new", data)
    assert answer.status_code == 422
    assert "Image: Enter a value." in plain(answer)


def edit(client, path: str, data: Any, **typed: str) -> Any:
    for pointer, text in typed.items():
        data[pointer] = text
    data["do"] = data.get("do") or "save"
    return client.post(path, data)


@pytest.mark.parametrize("keeps", ["mine", "theirs"])
def test_two_editors_of_a_workload_lose_nothing(client, olga, keeps):
    """C18: the second was refused, without a name, a difference, or a way to go on."""
    make_workload("w", pull_policy="never")
    path = "/workloads/w/edit"
    mine = form_of(olga.get(path).content.decode())
    theirs = form_of(member(client, "otto").get(path).content.decode())
    assert edit(client, path, theirs, **{"/resources/memoryMb": "2", "/resources/memoryMb:unit": "GB",
                                         "/resources/cpus": "2"}).status_code == 303  # fmt: skip
    member(client, "olga")
    answer = edit(client, path, mine, **{"/resources/memoryMb": "768", "/stopTimeoutMs": "9"})
    assert answer.status_code == 409
    page = plain(answer)
    assert "otto saved a change" in page
    assert "Resources: Memory changed by both 512 MB 2 GB 768 MB" in page
    assert "Process: Stop timeout 1 s 1 s 9 s" in page
    data = form_of(answer.content.decode())
    data["do"] = f"keep:{keeps}"
    answer = client.post(path, data)
    assert answer.status_code == 200
    data = form_of(answer.content.decode())
    data["do"] = "save"
    assert client.post(path, data).status_code == 303
    latest = Workload.objects.get(pk="w").latest.spec
    assert latest.resources.memory_mb == (768 if keeps == "mine" else 2048)
    assert (latest.resources.cpus, latest.stop_timeout_ms) == (2, 9000)


def test_a_checked_tag_is_no_change_of_the_workload(olga):
    """The mark of the form was made of the image's status too, so that every check of a tag refused the form."""
    from django.utils import timezone

    workload = make_workload("w", pull_policy="never")
    data = form_of(olga.get("/workloads/w/edit").content.decode())
    workload.versions.update(tag_asked_at=timezone.now(), tag_digest="sha256:1", image_digest="sha256:2")
    assert edit(olga, "/workloads/w/edit", data, **{"/stopTimeoutMs": "9"}).status_code == 303


def test_two_editors_of_a_sync_spec_see_each_other(client, olga):
    make_sync_spec(make_pool("p"), id="s", interval_ms=60_000)
    path = "/sync/specs/s/edit"
    mine = form_of(olga.get(path).content.decode())
    SyncSpec.objects.filter(pk="s").update(interval_ms=120_000)
    answer = edit(client, path, mine, **{"/policy/intervalMs": "5"})
    assert answer.status_code == 409
    assert "When: Save while in use, every changed by both 1 min 2 min 5 min" in plain(answer)
    assert form_of(answer.content.decode())["/policy/intervalMs"] == "5"


@pytest.mark.parametrize("keeps", ["mine", "theirs"])
def test_two_editors_of_a_pool_lose_nothing(client, olga, keeps):
    """The last one silently undid what the first had changed."""
    make_pool("p", max_size=10)
    mine = pool_form_of(olga.get("/pools/p/?tab=configuration").content.decode())
    theirs = {**mine, "maxSize": "20", "minIdle": "3"}
    assert member(client, "otto").post("/pools/p/configure", theirs).status_code == 303
    member(client, "olga")
    answer = client.post(
        "/pools/p/configure", {**mine, "maxSize": "30", "idleTimeoutMs": "8", "idleTimeoutMs:unit": "h"}
    )
    assert answer.status_code == 409
    page = plain(answer)
    assert "otto saved a change" in page
    assert "Max size changed by both 10 20 30" in page
    data = pool_form_of(answer.content.decode())
    answer = client.post("/pools/p/configure", {**data, "do": f"keep:{keeps}"})
    data = pool_form_of(answer.content.decode())
    assert client.post("/pools/p/configure", data).status_code == 303
    pool = render_pool(find_pool("p"))
    assert pool["maxSize"] == (30 if keeps == "mine" else 20)
    assert (pool["minIdle"], pool["idleTimeoutMs"]) == (3, 28_800_000)


def test_the_placement_of_a_pool_is_changed_in_its_form(olga):
    make_pool("p")

    def save(**changes: str) -> Any:
        data = pool_form_of(olga.get("/pools/p/?tab=configuration").content.decode())
        assert olga.post("/pools/p/configure", {**data, **changes}).status_code == 303
        return find_pool("p").placement

    assert save(name="other") is None, "an unchanged form asks for no placement"
    wish = {"placement.strategy": "binpack", "placement.maxPerNode": "3"}
    stored = {"strategy": "binpack", "selector": {"gpu": "yes", "zone": "cellar two"}, "max_per_node": 3}
    assert save(**wish, **{"placement.nodeSelector": "gpu=yes zone='cellar two'"}) == stored
    assert save(maxSize="11") == stored
    none = {"placement.strategy": "spread", "placement.nodeSelector": "", "placement.maxPerNode": ""}
    assert save(**none) is None, "an emptied field takes its rule away"


@pytest.mark.parametrize(
    ("typed", "words"), [("gpu", "words of the form NAME=VALUE"), ("zone='x", "Close the quotation mark.")]
)
def test_labels_that_are_none_say_what_to_enter(olga, typed, words):
    make_pool("p")
    data = pool_form_of(olga.get("/pools/p/?tab=configuration").content.decode())
    answer = olga.post("/pools/p/configure", {**data, "placement.nodeSelector": typed})
    assert answer.status_code == 422
    assert words in plain(answer)
    assert pool_form_of(answer.content.decode())["placement.nodeSelector"] in (typed, typed.replace("'", "&#x27;"))


@pytest.mark.any_database
@pytest.mark.parametrize(
    "labels", [{}, {"gpu": "yes", "zone": ""}, {"a/b": "x, y", "c": "it's", "d": 'say "no" \\ or = so'}]
)
def test_labels_are_the_same_after_they_are_shown_and_read(labels):
    assert label_words.parse(label_words.spell(labels)) == labels


@pytest.mark.any_database
def test_combining_keeps_what_only_one_has_changed():
    base = {"a": 1, "b": {"x": 1, "y": 1, "gone": 1}, "list": [1]}
    mine = {"a": 2, "b": {"x": 1, "y": 5}, "list": [1, 2]}
    theirs = {"a": 3, "b": {"x": 7, "y": 1, "gone": 1, "new": 1}, "list": [0]}
    assert conflicts.combined(base, mine, theirs, keeps_mine=True) == {
        "a": 2, "b": {"x": 7, "y": 5, "new": 1}, "list": [1, 2],
    }  # fmt: skip
    assert conflicts.combined(base, mine, theirs, keeps_mine=False) == {
        "a": 3, "b": {"x": 7, "y": 5, "new": 1}, "list": [0],
    }  # fmt: skip
    shown = conflicts.compare(base, mine, theirs, "otto", None)
    assert {change.pointer for change in shown.both} == {"/a", "/list"}
    json.dumps(conflicts.combined(base, mine, theirs, keeps_mine=True))


@pytest.mark.any_database
def test_cures_take_their_limits_from_the_validator():
    field = cures.field_at(WorkloadInput(), "/healthCheck/retries")
    assert cures.cure(FieldError("/healthCheck/retries", "…", "invalid"), field) == "Enter a whole number, 1 to 100."
    assert cures.field_at(WorkloadInput(), "/ports/0/containerPort") is not None
    assert cures.field_at(WorkloadInput(), "/nowhere/else") is None
    assert cures.without({"a": [{"b": 1, "c": 2}]}, ["/a/0/b"]) == {"a": [{"c": 2}]}


@pytest.mark.parametrize("keeps", ["mine", "theirs"])
def test_two_editors_of_the_settings_lose_nothing(client, data_dir, db, keeps):
    """The second was told to reload the page, and lost what was typed."""
    ada = User.objects.create_superuser("ada")
    client.force_login(ada)
    path = "/settings/deployment/"
    mine = form_of(client.get(path).content.decode())
    client.force_login(User.objects.create_superuser("otto"))
    theirs = form_of(client.get(path).content.decode())
    assert edit(client, path, theirs, **{"/variables": "HUB=theirs\nOWN=otto"}).status_code == 303
    client.force_login(ada)
    answer = edit(client, path, mine, **{"/variables": "HUB=mine"})
    assert answer.status_code == 409
    page = plain(answer)
    assert "otto saved a change" in page
    assert "HUB=mine" in page
    data = form_of(answer.content.decode())
    data["do"] = f"keep:{keeps}"
    answer = client.post(path, data)
    assert answer.status_code == 200
    data = form_of(answer.content.decode())
    data["do"] = "save"
    assert client.post(path, data).status_code == 303
    assert deployment_settings.current().variables == {"HUB": keeps, "OWN": "otto"}

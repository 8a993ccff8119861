"""The page of a workload: facts in words, versions with their authors, differences, and the way back."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core.context import acting
from boilerhouse.core.models import AuditEntry
from boilerhouse.dashboard.json_colours import coloured
from pools import services
from pools.errors import SameVersion, VersionNotFound
from pools.models import Workload
from pools.services import find_workload
from tests.make import make_container, make_pool, make_spec, make_workload
from tests.pages import text_of

DIALOG = {"HX-Request": "true", "HX-Target": "question"}


@pytest.fixture
def operator(client, db, data_dir, fake_engine):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


def plain(answer: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(text_of(answer))).split())


def changed(workload: Workload, actor: str = "user otto", **over: Any) -> None:
    """The next version of the workload."""
    with acting(actor):
        services.update_workload(find_workload(workload.pk), name=workload.name, spec=make_spec(**over))


def test_a_workload_is_described_in_words_without_what_is_not_set(operator):
    """C11: 70 lines of JSON, with its nulls."""
    make_workload(
        "w", environment={"MODE": "fast"}, stop_timeout_ms=90_000,
        resources={"cpus": 2, "memory_mb": 2048}, health_check={"command": ["pg_isready", "-q"], "interval_ms": 30_000},
        config_schema={"type": "object", "required": ["model"], "additionalProperties": False, "properties": {
            "model": {"type": "string", "enum": ["small", "large"]}, "epochs": {"type": "integer", "minimum": 1}}},
    )  # fmt: skip
    page = plain(operator.get("/workloads/w/"))
    for words in (
        "Memory 2 GB", "CPUs 2", "Command pg_isready -q", "Every 30 s", "Stop timeout 90 s", "Variables MODE=fast",
        "State volume /state, read and write", "Secrets volume /run/secrets", "Port http 8080, tcp",
        "Read-only root file system yes", "model string, one of small, large, required", "epochs integer, at least 1",
        "Other fields refused",
    ):  # fmt: skip
        assert words in page, words
    for words in ("null", "None", "{}", "[]", "GPUs", "runAsUser", "STOPSIGNAL", "the engine's own"):
        assert words not in page, words
    raw = operator.get("/workloads/w/?tab=json").content.decode()
    assert '<span class="k">&quot;memoryMb&quot;</span>: <span class="n">2048</span>' in raw


def test_versions_say_who_made_them_and_what_they_changed(operator):
    workload = make_workload("w")
    changed(workload, resources={"memory_mb": 1024}, stop_timeout_ms=1000)
    changed(workload, "key deploy", resources={"memory_mb": 1024}, stop_timeout_ms=5000, labels={"team": "a"})
    page = plain(operator.get("/workloads/w/"))
    assert re.search(r"3 Process: Stop timeout, Labels: Labels of the container key deploy", page)
    assert re.search(r"2 Resources: Memory otto", page)
    assert re.search(r"1 First version not recorded", page)


def test_any_two_versions_are_compared(operator):
    workload = make_workload("w")
    changed(workload, resources={"memory_mb": 1024}, stop_timeout_ms=1000)
    changed(workload, resources={"memory_mb": 2048}, stop_timeout_ms=1000)
    page = plain(operator.get("/workloads/w/?compare=1&to=2"))
    assert "Changes from version 1 to 2" in page
    assert "Resources: Memory 512 MB 1 GB" in page
    assert "Resources: Memory 2 GB 1 GB" in plain(operator.get("/workloads/w/?compare=3&to=2"))
    assert "Nothing differs." in plain(operator.get("/workloads/w/?compare=2&to=2"))
    assert "-  &quot;" not in operator.get("/workloads/w/?compare=99&to=evil").content.decode()


def test_rolling_back_makes_a_version_equal_to_the_old_one_and_asks_with_what_it_does(operator):
    workload = make_workload("w")
    workload.versions.update(image_digest="sha256:one", manifest_digest="sha256:man")
    pool = make_pool("p", workload=workload)
    changed(workload, image="other:2", resources={"memory_mb": 1024}, stop_timeout_ms=1000)
    make_container(pool, state="claimed")
    path = "/workloads/w/versions/1/roll-back"
    question = plain(operator.get(path, headers=DIALOG))
    assert "Roll w back to version 1?" in question
    assert "Creates version 3 with the content of version 1." in question
    assert "It changes Image, Resources: Memory." in question
    assert "p rolls to it: one container is tested first, then idle containers are replaced." in question
    assert "1 claimed container keeps its version until release." in question
    answer = operator.post(path, {"asked": "roll-back-2"})
    assert answer.status_code == 303
    made = Workload.objects.get(pk="w").latest
    assert (made.number, made.spec) == (3, workload.versions.get(number=1).spec)
    assert (made.image_digest, made.manifest_digest, made.created_by) == ("sha256:one", "sha256:man", "user olga")
    audited = AuditEntry.objects.get(action="workload.update", actor="user olga")
    assert audited.after["rolledBackTo"] == 1
    assert "w was rolled back to version 1, as version 3" in plain(operator.get("/activity/"))
    page = plain(operator.get("/workloads/w/"))
    assert re.search(r"3 man Image, Resources: Memory.* olga", page)
    changed(workload, stop_timeout_ms=7000)
    assert operator.post(path, {"asked": "roll-back-3"}).status_code == 409, "somebody saved a version meanwhile"
    assert Workload.objects.get(pk="w").latest.number == 4


def test_only_an_older_version_that_exists_can_be_rolled_back_to(operator):
    make_workload("w")
    with pytest.raises(SameVersion):
        services.roll_back("w", 1)
    with pytest.raises(VersionNotFound):
        services.roll_back("w", 2)
    assert operator.get("/workloads/w/versions/2/roll-back", headers=DIALOG).status_code == 404
    assert "Roll back" not in plain(operator.get("/workloads/w/"))


def test_viewers_see_versions_and_cannot_roll_back(client, db, data_dir, fake_engine):
    workload = make_workload("w")
    changed(workload, stop_timeout_ms=7000)
    user = User.objects.create_user("vera", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="viewer")[0])
    client.force_login(user)
    assert "Roll back" not in plain(client.get("/workloads/w/"))
    assert client.post("/workloads/w/versions/1/roll-back", {"asked": "roll-back-2"}).status_code == 403


@pytest.mark.any_database
def test_coloured_json_is_escaped_and_otherwise_the_same():
    text = '{"a<b>": "x\\"<script>", "n": -1.5e3, "t": true, "z": null, "k": {"s": "true"}}'
    shown = str(coloured(text))
    assert "<script>" not in shown
    assert html.unescape(re.sub(r"</?span[^>]*>", "", shown)) == text
    assert '<span class="n">-1.5e3</span>' in shown
    assert '<span class="v">&quot;true&quot;</span>' in shown

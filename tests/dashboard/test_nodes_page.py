"""The page of all nodes: each state in words, and the cordon."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from tests.make import make_container, make_node, make_pool
from tests.pages import text_of

PATH = "/nodes/"


def sign_in(client, role: str):
    user = User.objects.create_user(role, password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client.force_login(user)
    return client


@pytest.fixture
def operator(client, db, data_dir):
    return sign_in(client, "operator")


def reported(name: str | None = None, **over: object) -> Node:
    node = make_node(name)
    values = {
        "cpus": 4, "memory_mb": 8000, "disk_mb": 100_000, "disk_free_mb": 60_000, "engine_version": "27.5.1",
        "reported_at": timezone.now(), **over,
    }  # fmt: skip
    Node.objects.filter(pk=node.pk).update(**values)
    return node


def test_each_node_says_what_it_has_and_whether_it_gets_containers(operator):
    make_container(make_pool(), node=reported().pk)
    reported("labelled", labels={"zone": "cellar", "spare": ""})
    reported("gone", state=NodeState.SILENT, heartbeat_at=timezone.now() - timedelta(hours=2))
    reported("ill", engine_error="Docker does not answer.")
    reported("fixed", cordoned_at=timezone.now(), cordoned_by="user ada", cordon_reason="new memory")
    make_node("new")
    text = text_of(operator.get(PATH))
    for words in (
        "this node", "spare zone=cellar", "Silent", "its work waits", "No engine", "Docker does not answer.", "Cordoned",
        "by user ada: new memory", "not reported", "27.5.1", "62.9 GB", "of 104.9 GB",
    ):  # fmt: skip
        assert words in text, words


def test_the_list_costs_no_query_for_a_node(operator):
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            operator.get(PATH)
        return len(asked)

    make_container(make_pool(), node=reported("n0").pk)
    queries()
    before = queries()
    pool = make_pool()
    for number in range(1, 6):
        make_container(pool, node=reported(f"n{number}").pk)
    assert queries() <= before


def test_operators_cordon_and_uncordon_and_viewers_do_not(operator, client):
    node = reported("one")
    assert f'action="{reverse("node-cordon", args=["one"])}"' in operator.get(PATH).content.decode()
    answer = operator.post(reverse("node-cordon", args=[node.pk]), headers={"Referer": f"http://testserver{PATH}"})
    assert answer["Location"] == PATH
    node.refresh_from_db()
    assert (node.is_cordoned, node.cordoned_by) == (True, "user operator")
    assert "gets no new containers" in text_of(operator.get(PATH))
    operator.post(reverse("node-uncordon", args=[node.pk]))
    node.refresh_from_db()
    assert not node.is_cordoned

    viewer = sign_in(client, "viewer")
    page = viewer.get(PATH)
    assert page.status_code == 200
    assert "node-cordon" not in page.content.decode()
    assert reverse("node-cordon", args=[node.pk]) not in page.content.decode()
    assert viewer.post(reverse("node-cordon", args=[node.pk])).status_code == 403
    node.refresh_from_db()
    assert not node.is_cordoned


def test_a_cordon_of_a_node_that_is_gone_is_said(operator):
    answer = operator.post(reverse("node-cordon", args=["gone"]), headers={"Referer": f"http://testserver{PATH}"})
    assert answer.status_code == 303
    assert "No node gone." in text_of(operator.get(PATH))
    assert operator.get(f"{PATH}?q=zzz").status_code == 200

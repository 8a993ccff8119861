"""Pages about a container of another node: the web server passes their requests on, as it does with the API."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from boilerhouse.web import node_calls
from tests.make import make_assignment, make_container, make_node

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]


@pytest.fixture
def held(client, data_dir, fake_engine, settings):
    settings.BOILERHOUSE_FILE_BROWSER = True
    client.force_login(get_user_model().objects.create_superuser("op"), "django.contrib.auth.backends.ModelBackend")
    make_node("there")
    return make_assignment("ann", container=make_container(node="there", state="claimed"), state="assigned")


PATHS = ["/tenants/ann/files/", "/tenants/ann/files/view?path=/state/x", "/containers/{container}/logs"]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_names_the_node_that_can_show_it(client, held, monkeypatch, path):
    monkeypatch.setattr(node_calls, "peer_of", lambda node: node_calls.Peer(node, "127.0.0.1", 1))
    answer = client.get(path.replace("{container}", str(held.held_container)))
    assert getattr(answer, "other_node", "") == "there", answer.content[:500]


def test_a_form_is_not_answered_by_the_node_that_cannot_do_it(client, held, monkeypatch):
    monkeypatch.setattr(node_calls, "peer_of", lambda node: node_calls.Peer(node, "127.0.0.1", 1))
    answer = client.post("/tenants/ann/files/move", {"path": "/state/x", "to": "/state/y"})
    assert getattr(answer, "other_node", "") == "there", answer.content[:500]
    assert not client.session.get("_messages")


@pytest.mark.parametrize("path", PATHS)
def test_without_a_way_to_that_node_the_page_says_where_the_container_is(client, held, path):
    answer = client.get(path.replace("{container}", str(held.held_container)))
    assert b"there" in answer.content

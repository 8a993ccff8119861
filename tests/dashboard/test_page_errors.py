"""P12 for pages: whatever the URL names, and whatever the engine says, the answer is a page that says what is wrong."""

from __future__ import annotations

import re

import pytest

from boilerhouse.dashboard.urls import urlpatterns
from pools.errors import EngineUnavailable
from tests.dictionary import IDS
from tests.make import make_container

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db]

PAGES = [one for one in urlpatterns if hasattr(one.callback, "is_page") and "<str:" in str(one.pattern)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_of_an_id_that_nothing_can_have_is_not_found(admin_client, data_dir, page):
    """The page of a tenant whose id is invalid answered 500."""
    admin_client.raise_request_exception = False
    for value in IDS:
        answer = admin_client.get("/" + re.sub(r"<str:\w+>", value, str(page.pattern)))
        assert answer.status_code == 404, (value, answer.status_code)


def test_a_page_says_that_the_engine_does_not_answer(admin_client, data_dir, monkeypatch):
    """The download of a log answered 500."""

    def silent(*_: object, **__: object) -> None:
        raise EngineUnavailable

    monkeypatch.setattr("tenants.activity.logs", silent)
    admin_client.raise_request_exception = False
    answer = admin_client.get(f"/containers/{make_container().pk}/logs")
    assert answer.status_code == 503
    assert answer["Retry-After"]
    assert EngineUnavailable().detail in answer.content.decode()

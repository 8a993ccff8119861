"""Every page in every state: what it names is there, what it leads to answers, and its buttons are for its reader.

Buttons are also pressed after the state has changed, as on a page that stands open: the answer says what happened.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client
from django.urls import Resolver404, resolve

from tenants.previews import Planned
from tests import page_table, page_world
from tests.page_markup import Markup, Submission
from tests.page_table import PageState
from tests.page_world import GONE

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
ASK = {"HX-Request": "true", "HX-Target": "question"}
ELSEWHERE = ("mailto:", "http://", "https://")
HOSTS_BUTTONS = re.compile(r"^(probe|check|preview)$")
"""What these buttons of editors do happens at a sink or the engine: ``tests/stack/test_page_tools.py``."""
ROWS = 2
"""How many rows of a list are followed."""
TOASTS = "data-toast"
SHOWN_ONCE = ('id="new-key"', 'id="new-link"')
OF_EVERYBODY = {"logout", "password_change", "set-theme", "set-times", "account-end-session", "account-end-others"}


def _planned(target: Any, mapping: Any, direction: Any) -> Planned:
    return Planned(mapping.spec_id, mapping.container_path, mapping.location(target.tenant_id))


@pytest.fixture
def away(monkeypatch, fake_engine, data_dir) -> None:
    """What pages ask of an engine or a sink is answered; ``tests/stack`` has real ones."""
    monkeypatch.setattr("tenants.activity.logs", lambda *_, **__: page_world.LINES)
    monkeypatch.setattr("tenants.previews._plan", _planned)


@pytest.fixture
def world(db, away) -> None:
    page_world.build()


def sign_in(client: Client, role: str) -> None:
    user = User.objects.create_user(f"reader-{role}", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client.force_login(user)


def pages() -> Iterator[PageState]:
    yield from page_table.lists()
    yield from page_table.objects()


def of_ours(link: str, page: str) -> str:
    """The link's address at this deployment; empty if it leads elsewhere or to a place in the page."""
    address = link.partition("#")[0]
    if not address or address.startswith(ELSEWHERE):
        return ""
    return page.partition("?")[0] + address if address.startswith("?") else address


def leads(markup: Markup, path: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each link, filter and question of a page: what it says, its address, and the headers of the request."""
    for link in markup.links:
        if address := of_ours(link, path):
            yield link, address, {}
    for one in markup.submissions:
        if one.method == "get":
            action = of_ours(one.action, path) or path.partition("?")[0]
            yield one.button, f"{action}?{one.query}", ASK if one.asks else {}


def shape(address: str) -> str:
    """The same for the rows of a list, so that a long one is tried by some of its rows."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|-\d{3}\b|after=[^&]*", "*", address)


def test_what_pages_name_is_there_and_what_they_lead_to_answers(client, world):
    """For those who may do everything: no dead reference, no dead link, no question that is not asked."""
    sign_in(client, "admin")
    problems: list[str] = []
    asked: dict[tuple[str, bool], str] = {}
    for page in pages():
        answer = client.get(page.path, follow=True)
        name = f"{page.route} ({page.state})"
        if answer.status_code != (404 if page.is_gone else 200):
            problems.append(f"{name} answers {answer.status_code}")
            continue
        markup = Markup(answer.content.decode())
        problems += [f"{name}: {one}" for one in markup.problems()]
        of_shape: Counter[str] = Counter()
        for words, address, headers in leads(markup, page.path):
            of_shape[shape(address)] += 1
            if of_shape[shape(address)] <= ROWS:
                asked.setdefault((address, bool(headers)), f"{name}, {words}")
    for (address, is_question), where in asked.items():
        answer = client.get(address, headers=ASK if is_question else {})
        is_asked = b'id="question-form"' in answer.content
        if is_question and is_asked and answer.status_code == 409:
            continue  # the dialog says why not, such as that nothing is selected
        if answer.status_code >= 400 or (is_question and not is_asked):
            problems.append(f"{where}: {address} answers {answer.status_code}")
    print(len(asked), "addresses")
    assert not problems, "\n".join(problems)


def route_of(address: str) -> str:
    """The name of the address's route; empty if it has none, such as a file."""
    try:
        return resolve(address.partition("?")[0]).url_name or ""
    except Resolver404:
        return ""


def test_questions_of_every_state_are_asked_or_say_why_not(client, world):
    """As pages, for readers without scripts."""
    sign_in(client, "admin")
    problems = []
    for page in page_table.questions():
        answer = client.get(page.path, follow=True)
        markup = Markup(answer.content.decode())
        is_said = markup.alerts or b'id="question-form"' in answer.content
        if answer.status_code not in (200, 404) or (not is_said and answer.status_code == 200):
            problems.append(f"{page.route} ({page.state}) answers {answer.status_code}")
        problems += [f"{page.route} ({page.state}): {one}" for one in markup.problems()]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_readers_are_shown_nothing_that_is_refused_to_them(client, world, role):
    sign_in(client, role)
    problems = []
    seen: set[tuple[str, str]] = set()
    for page in pages():
        answer = client.get(page.path)
        if answer.status_code == 403:
            continue
        markup = Markup(answer.content.decode())
        name = f"{page.route} ({page.state})"
        for words, address, headers in leads(markup, page.path):
            if _is_new(seen, "get", address) and client.get(address, headers=headers).status_code == 403:
                problems.append(f"{name}, {words}: {address}")
        for one in markup.submissions:
            if one.method != "post" or not _is_new(seen, "post", one.action or page.path):
                continue
            if role == "viewer" and route_of(one.action or page.path) not in OF_EVERYBODY:
                problems.append(f"{name}: viewers are shown {one.button}")
            elif _is_refused(client, one, page):
                problems.append(f"{name}: {one.button}")
    assert not problems, "\n".join(problems)


def _is_new(seen: set[tuple[str, str]], method: str, address: str) -> bool:
    """Whether this is the first of its route; all of a route are for the same role."""
    one = (method, route_of(address))
    is_new = one not in seen
    seen.add(one)
    return is_new


def _is_refused(client: Client, one: Submission, page: PageState) -> bool:
    with transaction.atomic():
        refused = client.post(one.action or page.path, {}).status_code == 403
        transaction.set_rollback(True)
    return refused


# After a change ----------------------------------------------------------------------------------------------


def _submissions(client: Client, kind: str, id: str) -> dict[Submission, str]:
    """What the buttons of the object's pages send, in all of its states; each with the page that has it."""
    found: dict[tuple[str, str, str], tuple[Submission, str]] = {}
    for state in states_of(kind):
        with transaction.atomic():
            page_world.move(kind, state, id)
            for route, (of, queries) in page_table.OBJECTS.items():
                for query in queries if of == kind else ():
                    path = page_table.path_of(route, page_world.address(kind, id)) + query
                    for one in Markup(client.get(path).content.decode()).submissions:
                        if _may_be_pressed(one, path):
                            found.setdefault((one.method, shape(one.action or path), one.button), (one, path))
            transaction.set_rollback(True)
    return dict(found.values())


def states_of(kind: str) -> list[str]:
    """Without that of a long list, whose buttons are those of a short one."""
    return [state for state in page_world.KINDS[kind] if state != "200 rows"]


def _may_be_pressed(one: Submission, path: str) -> bool:
    """What acts on the engine, a sink or files is pressed in ``tests/stack``; its question is asked here."""
    if any(name == "do" and HOSTS_BUTTONS.match(value) for name, value in one.fields):
        return False
    route = route_of(one.action or path)
    view = page_table.routes()[route].callback if route in page_table.routes() else None
    return one.method == "get" or not getattr(view, "acts", "") or (bool(getattr(view, "asks", None)) and one.asks)


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in page_table.OBJECTS.values()}))
def test_buttons_of_a_page_that_stands_open_say_what_they_did(client, db, away, kind):
    """Every button of every state is pressed in every other: an error has words, and leads nobody away from a page that
    is still there."""
    sign_in(client, "admin")
    id = page_world.id_of(kind, "moved")
    buttons = _submissions(client, kind, id)
    assert buttons
    problems = []
    for state in (*states_of(kind), GONE):
        with transaction.atomic():
            page_world.move(kind, state, id)
            for one, path in buttons.items():
                with transaction.atomic():
                    if wrong := _press(client, one, path):
                        problems.append(f"{one.button} of {path} when {state}: {wrong}")
                    transaction.set_rollback(True)
            transaction.set_rollback(True)
    assert not problems, "\n".join(problems)


def _press(client: Client, one: Submission, path: str) -> str:
    """What is wrong with the answer; empty if nothing is."""
    action = of_ours(one.action, path) or path
    headers = {"Referer": f"http://testserver{path}"}
    if one.method == "get":
        answer = client.get(f"{action}?{one.query}", headers={**headers, **(ASK if one.asks else {})}, follow=True)
    else:
        data: dict[str, list[str]] = {}
        for name, value in one.fields:
            data.setdefault(name, []).append(value)
        answer = client.post(action, data, headers=headers, follow=True)
    return _wrong(client, answer, one, path)


def _wrong(client: Client, answer: Any, one: Submission, path: str) -> str:
    status = answer.status_code
    text = answer.content.decode()
    is_said = Markup(text).alerts or any(one in text for one in ('id="question-form"', TOASTS, *SHOWN_ONCE))
    if status >= 500:
        return f"answers {status}"
    if status == 404 and not is_said and client.get(path).status_code == 200:
        return "answers 404 although the page is still there"
    if status in (404, 403) and not is_said and "<h1" not in text:
        return f"answers {status} without words"
    if status in (409, 422) and not is_said:
        return f"answers {status} without words"
    if one.method == "post" and status == 200 and not is_said:
        return "says nothing"
    return ""

"""The release of many tenants: over all pages, with what each loses, asked once, answered per tenant."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core.errors import Conflict
from tenants import releases
from tenants.models import Assignment
from tests.make import make_assignment, make_held, make_pool, make_sync_spec
from tests.pages import text_of


@pytest.fixture
def operator(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def saving(db, data_dir):
    pool = make_pool("notes")
    make_sync_spec(pool)
    return pool


def fields_of(answer) -> dict[str, list[str]]:
    """What the question's form submits if nothing is typed."""
    form = answer.content.decode().split('id="question-form"')[1].split("</form>")[0]
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and value and name[1] != "csrfmiddlewaretoken":
            found.setdefault(name[1], []).append(value[1])
    return found


def states() -> dict[str, int]:
    found: dict[str, int] = {}
    for state in Assignment.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def test_all_that_match_are_released_and_not_only_the_page(operator, saving):
    for n in range(60):
        make_held(saving, f"t{n}")
    make_held(saving, "other")
    question = operator.get("/releases/?all=1&show=holding&q=t")
    assert "Release 61 tenants?" in text_of(question), "other has a t too"
    question = operator.get("/releases/?all=1&show=holding&q=t1")
    assert "Release 11 tenants?" in text_of(question)
    answer = operator.post("/releases/", {**fields_of(question), "typed": "11"})

    assert states() == {"releasing": 11, "assigned": 50}
    page = text_of(operator.get(answer.headers["Location"]))
    assert page.count("<tr id=") == 11
    assert "11 in progress" in page


def test_above_five_the_number_is_typed(operator, saving):
    for n in range(6):
        make_held(saving, f"t{n}")
    question = operator.get("/releases/?all=1")
    assert 'data-typed="6"' in question.content.decode()
    operator.post("/releases/", fields_of(question))
    operator.post("/releases/", {**fields_of(question), "typed": "5"})

    assert states() == {"assigned": 6}


def test_who_loses_state_is_named_by_pool_and_typed_also_for_one(operator, saving):
    make_held(saving, "safe")
    make_held(make_pool("scratch"), "lost")
    question = operator.get("/releases/?all=1")
    page = text_of(question)
    assert "1 tenant of scratch: disconnected now. Nothing is saved, the state is lost." in page
    assert "1 tenant in use: disconnected now, saved and released." in page
    assert 'data-typed="2"' in page


def test_an_answer_to_a_question_about_other_states_does_nothing(operator, saving):
    """C16: what was asked is what is done, although the list has changed since."""
    rows = [make_held(saving, f"t{n}") for n in range(3)]
    question = operator.get("/releases/?all=1")
    make_held(saving, "later")
    releases.begin("t1")
    again = operator.post("/releases/", fields_of(question))
    assert again.status_code == 409
    assert "Something has changed since you were asked." in text_of(again)
    operator.post("/releases/", fields_of(again))

    assert Assignment.objects.get(tenant_id="later").state == "assigned"
    assert {Assignment.objects.get(pk=row.pk).state for row in rows} == {"releasing"}


def test_a_tenant_that_claimed_again_is_not_released(operator, saving):
    old = make_held(saving, "alice")
    question = fields_of(operator.get("/releases/?all=1"))
    Assignment.objects.filter(pk=old.pk).update(state="ended")
    make_held(saving, "alice")
    operator.post("/releases/", question)

    assert states() == {"ended": 1, "assigned": 1}


def test_each_refusal_is_in_the_results_and_the_others_go_on(operator, saving, monkeypatch):
    for n in range(3):
        make_held(saving, f"t{n}")
    begin = releases.begin

    def begins(tenant_id):
        if tenant_id == "t1":
            raise Conflict("The engine is away.")
        return begin(tenant_id)

    question = fields_of(operator.get("/releases/?all=1"))
    monkeypatch.setattr(releases, "begin", begins)
    page = text_of(operator.get(operator.post("/releases/", question).headers["Location"]))

    assert states() == {"releasing": 2, "assigned": 1}
    row = page.split(">t1<")[1].split("</tr>")[0]
    assert "Not done" in row
    assert "The engine is away." in row


def test_the_results_follow_what_becomes_of_each(operator, saving):
    rows = [make_held(saving, f"t{n}") for n in range(2)]
    place = operator.post("/releases/", fields_of(operator.get("/releases/?all=1"))).headers["Location"]
    Assignment.objects.filter(pk=rows[0].pk).update(state="ended", outcome="released")
    Assignment.objects.filter(pk=rows[1].pk).update(state="release_failed", outcome_detail="403 from the sink.")
    page = text_of(operator.get(place))

    assert "1 of 2 released." in page
    assert "403 from the sink." in page.split(">t1<")[1].split("</tr>")[0]


def test_pending_claims_and_failed_saves_are_named_as_such(operator, saving):
    make_assignment("waiter", pool=saving)
    make_assignment("stuck", pool=saving, state="release_failed", was_assigned=True)
    page = text_of(operator.get("/releases/?all=1"))
    assert "1 claim in progress: cancelled." in page
    assert "1 failed save: tried again now." in page


@pytest.mark.parametrize("picked", [["x"], [], ["0" * 32]])
def test_what_is_picked_may_be_anything(operator, saving, picked):
    make_held(saving, "alice")
    for answer in (operator.get("/releases/", {"id": picked}), operator.post("/releases/", {"id": picked})):
        assert answer.status_code == 303
    assert states() == {"assigned": 1}


def test_results_are_of_the_session_that_asked(operator, saving, client):
    make_held(saving, "alice")
    place = operator.post("/releases/", fields_of(operator.get("/releases/?all=1"))).headers["Location"]
    client.force_login(User.objects.create_superuser("eve"))
    assert client.get(place).status_code == 404


def test_a_viewer_releases_nobody(client, saving):
    make_held(saving, "alice")
    user = User.objects.create_user("vera", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="viewer")[0])
    client.force_login(user)
    assert client.get("/releases/?all=1").status_code == 403
    assert client.post("/releases/", {"all": "1"}).status_code == 403
    assert states() == {"assigned": 1}

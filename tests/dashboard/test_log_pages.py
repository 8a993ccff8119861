"""Logs on pages: levels, searches, links to lines, what a refresh sends, and what a page may follow."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core.models import Session
from boilerhouse.dashboard import log_following
from boilerhouse.dashboard.log_lines import SHOWN, LogSearch, choose, log_lines, tone_of
from tests.make import make_container

pytestmark = pytest.mark.any_database
NOW = "2026-01-31T12:00:00.123456789Z"


@pytest.mark.parametrize(
    ("line", "tone"),
    [
        ('{"level":"info","msg":"0 errors, error rate 0"}', ""),
        ('{"level":"ERROR","msg":"all fine"}', "error"),
        ('{"severity":"Warning","message":"x"}', "warn"),
        ('{"level":50,"msg":"pino"}', "error"),
        ('{"level":30,"msg":"an error of pino that is none"}', ""),
        ('{"msg":"no level, but an error"}', "error"),
        ("{broken error", "error"),
        ('time=12:00 level=warn msg="error follows"', "warn"),
        ("2026-01-31 12:00:00 [INFO] retried after an error", ""),
        ("[error] 31#31: *1 open() failed", "error"),
        ("2026-01-31 12:00:00,123 - app - ERROR - it broke", "error"),
        ("ERROR:root:it broke", "error"),
        ("warning: unused variable", "warn"),
        ("INFO: an error page was shown", ""),
        ("E0131 12:00:00.1 1 main.go:1] failed", "error"),
        ("I0131 12:00:00.1 1 main.go:1] error count reset", ""),
        ("Traceback (most recent call last):", "error"),
        ("ValueError: x", "error"),
        ("compiled with 0 errors", ""),
        ("no error", ""),
        ("an error happened", "error"),
        ("terror in the text", ""),
        ("GET / 200", ""),
        ("", ""),
    ],
)
def test_a_lines_level_is_that_of_its_structure_before_its_words_are_asked(line, tone):
    """``INFO … error`` was red."""
    assert tone_of(line) == tone


def test_lines_of_a_tenant_cost_little_however_they_are_made():
    for hostile in ("{" * 100_000, "[" * 1_000_000, "level=" * 200_000, "A" * 1_000_000, '{"level":' * 9_000):
        assert tone_of(hostile) == ""


def at(number: int) -> str:
    return f"2026-01-31T12:{number // 60:02}:{number % 60:02}.000000000Z"


def some(count: int) -> bytes:
    return b"".join(f"{at(number)} line {number}\n".encode() for number in range(count))


def test_a_link_to_a_line_shows_its_context_and_a_search_the_newest_that_fit():
    lines = log_lines(some(2000))
    around = choose(lines, LogSearch(at=at(700)))
    assert (len(around), around[SHOWN // 2].text) == (SHOWN, "line 700")
    assert choose(lines, LogSearch(at="2025"))[0].text == "line 0"
    assert choose(lines, LogSearch(at="2027"))[-1].text == "line 1999"
    assert [line.text for line in choose(lines, LogSearch(words="LINE 1999"))] == ["line 1999"]
    assert len(choose(lines, LogSearch(words="line", without="9"))) == SHOWN
    assert choose(lines, LogSearch(level="error")) == []
    assert choose([], LogSearch(at=at(1))) == []


@pytest.fixture
def held(db, data_dir, monkeypatch):
    monkeypatch.setattr("tenants.activity.logs", lambda *_arguments, **_options: some(9000))
    return make_container(state="claimed")


def test_a_refresh_sends_no_log(client, held, monkeypatch):
    """It was 1.2 MB a refresh, although the page keeps what it has."""
    client.force_login(User.objects.create_superuser("ada"))
    path = f"/containers/{held.pk}/"
    page = client.get(path).content.decode()
    assert page.count("<p\n") + page.count("<p ") > SHOWN
    monkeypatch.setattr("tenants.activity.logs", lambda *_arguments, **_options: 1 / 0)
    refreshed = client.get(path, headers={"HX-Request": "true", "HX-Target": "main"}).content.decode()
    assert "line 8999" in page
    assert "data-at" not in refreshed
    assert 'id="log-keep"' in refreshed


def test_without_scripts_the_server_searches_all_it_can_read(client, held):
    client.force_login(User.objects.create_superuser("ada"))
    path = f"/containers/{held.pk}/"
    assert "line 1234<" in client.get(f"{path}?q=line+1234").content.decode()
    assert "None of the last 9000 lines fits." in client.get(f"{path}?q=line&without=line").content.decode()
    file = client.get(f"{path}logs?q=line+1234").content.decode()
    assert file == f"{at(1234)} line 1234\n"


# Following --------------------------------------------------------------------------------------------------------


class Source:
    def __init__(self, *chunks: bytes) -> None:
        self.chunks, self.is_closed = chunks, False

    def __iter__(self) -> Any:
        yield from self.chunks

    def close(self) -> None:
        self.is_closed = True


def follow(monkeypatch, user: Any, source: Any, *messages: str) -> list[dict[str, Any]]:
    """What the page gets for its messages."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("tenants.activity.follow_logs", lambda *_arguments, **_options: source)
    monkeypatch.setattr(log_following, "_fresh", lambda function, arguments: function(*arguments))

    async def write(message: dict[str, Any]) -> None:
        sent.append(json.loads(message["text"]))

    async def run() -> None:
        scope = {"user": user, "session": SimpleNamespace(session_key="s")}
        async with log_following.following(scope, SimpleNamespace(write=write)) as hear:  # type: ignore[arg-type]
            for message in messages:
                await hear(message)
            for _ in range(200):
                if any(one.get("state") in ("ended", "removed", "refused") for one in sent):
                    return
                await asyncio.sleep(0.01)

    asyncio.run(run())
    return sent


@pytest.fixture
def at_page(transactional_db, data_dir, settings):
    """A user of a role with a session. The threads of a follower see what is committed."""

    def make(role: str) -> User:
        user = User.objects.create_user(role, is_staff=True)
        user.groups.add(Group.objects.get_or_create(name=role)[0])
        Session.objects.get_or_create(pk="s", defaults={"session_data": "", "expire_date": "2099-01-01T00:00Z"})
        return user

    return make


def wish(container: Any) -> str:
    return json.dumps({"follow": str(container.pk), "since": NOW})


def test_new_lines_come_over_the_pages_socket_and_are_made_printable(at_page, monkeypatch):
    container, source = make_container(state="claimed"), Source(f"{NOW} a\x1b[2Jb\n".encode())
    sent = follow(monkeypatch, at_page("operator"), source, wish(container))
    assert [one.get("state") for one in sent] == ["following", None, "ended"]
    assert sent[1]["log"] == f"{NOW} a\\x1b[2Jb\n"
    assert source.is_closed


def test_a_viewer_follows_no_log(at_page, monkeypatch):
    """A page of a viewer asks for none; a program with its cookies may."""
    source = Source(b"not for viewers")
    sent = follow(monkeypatch, at_page("viewer"), source, wish(make_container(state="claimed")))
    assert [one["state"] for one in sent] == ["refused"]
    assert "operator" in sent[0]["detail"]


def test_a_removed_container_is_said_once_and_nonsense_is_no_wish(at_page, monkeypatch):
    gone = SimpleNamespace(pk="00000000-0000-7000-8000-000000000000")
    nonsense = ("", "[]", "{", '{"follow": 1}', '{"follow": null}', '{"x": 1}', "[" * 2000)
    sent = follow(monkeypatch, at_page("operator"), Source(), *nonsense, wish(gone))
    assert [one["state"] for one in sent] == ["removed"]


def test_who_stops_following_gets_no_more_and_holds_nothing(at_page, monkeypatch):
    from boilerhouse.process import budgets

    user, source = at_page("operator"), Source()
    sent = follow(monkeypatch, user, source, wish(make_container(state="claimed")), '{"unfollow": true}')
    assert not [one for one in sent if one.get("state") == "ended"]
    assert budgets.follows.used(budgets.user(user.get_username())) == 0
    assert source.is_closed or not sent

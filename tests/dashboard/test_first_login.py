"""The first start prints a link that opens the dashboard, where no log keeps it."""

from __future__ import annotations

import json
import sys

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command

from boilerhouse.core.errors import NotFound
from boilerhouse.operations import addresses, one_time_links, supervise, supervisor
from boilerhouse.operations.management.commands import up

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]


@pytest.fixture
def start(data_dir, settings, monkeypatch, capsys):
    """Starts ``up``, which begins no process here; returns what it wrote."""
    settings.BOILERHOUSE_GATEWAY_PORT = 0
    monkeypatch.setattr(up, "_migrate", lambda **_: None)
    monkeypatch.setattr(supervise, "become", lambda programs: None)
    listening: list[object] = []
    real = supervisor.listen
    monkeypatch.setattr(supervisor, "listen", lambda *where: listening.append(real(*where)) or listening[-1])

    def run(*, is_terminal: bool, **options: object) -> str:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
        call_command("up", port=0, skip_checks=True, **options)
        return capsys.readouterr().err

    yield run
    for one in listening:
        one.close()


def link_in(text: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith("Log in")]
    return line.split()[-1]


def test_the_first_start_prints_a_link_that_works_once(start, client):
    url = link_in(start(is_terminal=True))
    origin, slash, path = url.partition("/login/")
    assert origin.startswith("http://127.0.0.1:")
    assert client.get(slash + path).headers["Location"] == "/"
    client.logout()
    assert client.get(slash + path).status_code == 410


def test_the_second_start_prints_none(start):
    start(is_terminal=True)
    assert "/login/" not in start(is_terminal=True)


def test_what_is_not_a_terminal_gets_no_link_and_no_user_is_made(start):
    """A log file, or the journal of systemd, would keep a way in."""
    written = start(is_terminal=False)
    assert "/login/" not in written
    assert "login_link --create" in written
    assert not User.objects.exists()


@pytest.mark.parametrize(("is_active", "is_staff", "group"), [(False, True, "admin"), (True, True, "operator")])
def test_who_cannot_do_everything_is_no_admin(start, is_active, is_staff, group):
    user = User.objects.create_user("kim", is_active=is_active, is_staff=is_staff)
    user.groups.add(Group.objects.get_or_create(name=group)[0])
    assert "/login/" in start(is_terminal=True)


def test_a_member_of_admin_is_one(start):
    user = User.objects.create_user("kim", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="admin")[0])
    assert "/login/" not in start(is_terminal=True)


@pytest.mark.parametrize(
    ("over", "origin"),
    [
        ({}, "http://127.0.0.1:8123"),
        ({"CSRF_TRUSTED_ORIGINS": ["https://*.example.com", "https://bh.example.com"]}, "https://bh.example.com"),
        ({"BOILERHOUSE_HTTPS": True, "ALLOWED_HOSTS": [".example.com", "bh.example.com"]}, "https://bh.example.com"),
        ({"BOILERHOUSE_HTTPS": True, "ALLOWED_HOSTS": ["*"]}, ""),
    ],
)
def test_a_link_leads_through_the_proxy(data_dir, settings, capsys, over, origin):
    addresses.remember(addresses.origin_of("0.0.0.0", 8123))
    for name, value in over.items():
        setattr(settings, name, value)
    call_command("login_link", create=True, output="json", skip_checks=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["url"] == (origin + printed["path"] if origin else None)
    assert printed["path"].startswith("/login/")


def test_without_an_address_the_path_is_printed(data_dir):
    assert one_time_links.url_for("admin", creates=True).startswith("/login/")


def test_an_address_of_ipv6_has_brackets():
    assert addresses.origin_of("::", 80) == "http://[::1]:80"


@pytest.mark.parametrize(("is_there", "cure"), [(False, "--create"), (True, "--user")])
def test_a_link_for_who_may_not_sign_in_is_refused_with_the_cure(is_there, cure):
    if is_there:
        User.objects.create_user("ada")
    with pytest.raises(NotFound, match=cure):
        one_time_links.path_for("ada", creates=False)

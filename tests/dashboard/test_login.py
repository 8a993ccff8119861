"""Signing in to the pages and the admin: password guessing, sessions, forms and frames of other sites."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

PASSWORD = "the right long password"


@pytest.fixture
def guesser(client, db, data_dir, settings):
    settings.AXES_FAILURE_LIMIT = 3
    User.objects.create_superuser("ada", password=PASSWORD)
    User.objects.create_superuser("bob", password=PASSWORD)
    return client


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_who_guesses_too_often_waits_even_with_the_right_password(guesser, path):
    for number in range(3):
        answer = guesser.post(path, {"username": "ada", "password": f"wrong {number}"})
    assert answer.status_code == 429
    answer = guesser.post(path, {"username": "ada", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert "Too many wrong passwords" in answer.content.decode()
    assert "_auth_user_id" not in guesser.session


def test_a_guesser_locks_nobody_else_out(guesser):
    for number in range(4):
        guesser.post("/login/", {"username": "ada", "password": f"wrong {number}"}, REMOTE_ADDR="203.0.113.9")
    assert (
        guesser.post("/login/", {"username": "bob", "password": PASSWORD}, REMOTE_ADDR="203.0.113.9").status_code == 302
    )
    elsewhere = Client(REMOTE_ADDR="198.51.100.7")
    assert elsewhere.post("/login/", {"username": "ada", "password": PASSWORD}).status_code == 302


def test_a_login_that_works_forgets_the_failures(guesser):
    for _ in range(3):
        for number in range(2):
            guesser.post("/login/", {"username": "ada", "password": f"wrong {number}"})
        assert guesser.post("/login/", {"username": "ada", "password": PASSWORD}).status_code == 302
        guesser.logout()


def test_a_form_of_another_site_changes_nothing_and_no_frame_shows_us(db, data_dir):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("ada", password=PASSWORD))
    for path in ("/pools/new", "/logout/", "/theme", "/tenants/x/release", "/settings/keys/"):
        assert strict.post(path).status_code == 403, path
    answer = strict.get("/")
    assert answer["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]


def test_a_password_is_changed_and_other_sessions_end(client, db, data_dir):
    user = User.objects.create_superuser("ada", password=PASSWORD)
    other = Client()
    other.force_login(user)
    client.force_login(user)
    given = {"old_password": PASSWORD, "new_password1": "short", "new_password2": "short"}
    assert client.post("/password/", given).status_code == 200
    given |= {"new_password1": "another long password", "new_password2": "another long password"}
    assert client.post("/password/", given).status_code == 302
    assert client.get("/").status_code == 200
    assert other.get("/").status_code == 302

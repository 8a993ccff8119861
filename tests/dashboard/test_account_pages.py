"""Passwords after a one-time link, and forms that are sent twice."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.utils import timezone

from boilerhouse.core.models import ApiKey, Process
from boilerhouse.process import processes
from tests.pages import text_of

PASSWORD = "a quite long password"
NEW = {"new_password1": PASSWORD, "new_password2": PASSWORD}


@pytest.fixture
def by_link(client, db, data_dir, capsys):
    def sign_in():
        call_command("login_link", "--create", "--user", "ada")
        assert client.get(capsys.readouterr().out.strip()).status_code == 302
        return client

    return sign_in


def test_who_signed_in_by_link_can_set_a_password(by_link, client):
    """A14: there was no old password that could have been entered."""
    page = text_of(by_link().get("/password/"))
    assert "Old password" not in page
    assert client.post("/password/", NEW).status_code == 302
    assert client.get("/").status_code == 200
    client.logout()
    assert client.post("/login/", {"username": "ada", "password": PASSWORD}).status_code == 302
    assert client.get("/").status_code == 200


def test_who_forgot_the_password_can_set_another_by_link_and_only_once(by_link, client):
    User.objects.create_superuser("ada", password="forgotten by now")
    by_link()
    assert client.post("/password/", NEW).status_code == 302
    assert client.post("/password/", NEW).status_code == 200
    assert "Old password" in text_of(client.get("/password/"))


def test_a_password_of_a_session_that_knows_one_wants_the_old_one(by_link, client):
    user = User.objects.create_superuser("ada", password="the old password")
    by_link()
    client.post("/login/", {"username": "ada", "password": "the old password"})
    client.logout()
    client.force_login(user)
    assert client.post("/password/", NEW).status_code == 200
    user.refresh_from_db()
    assert user.check_password("the old password")


def test_a_reload_after_creating_a_key_creates_no_other(client, db, data_dir):
    """A13."""
    client.force_login(User.objects.create_superuser("ada"))
    form_id = re.search(r'name="form_id" value="([^"]+)"', text_of(client.get("/settings/keys/")))
    assert form_id
    form = {"name": "gateway", "role": "operator", "form_id": form_id[1]}
    assert "new-key" in text_of(client.post("/settings/keys/", form))
    again = client.post("/settings/keys/", form, follow=True)

    assert "No other key was created." in text_of(again)
    assert "new-key" not in text_of(again)
    assert ApiKey.objects.count() == 1


def test_a_form_that_was_wrong_can_be_sent_again(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    form = {"name": "", "role": "operator", "form_id": "once"}
    assert client.post("/settings/keys/", form).status_code == 422
    assert "new-key" in text_of(client.post("/settings/keys/", {**form, "name": "gateway"}))


def test_a_process_that_has_ended_is_not_listed_as_running(client, db, data_dir):
    """A15."""
    client.force_login(User.objects.create_superuser("ada"))
    processes.current()
    Process.objects.create(
        kind="worker", name="killed", node_id=Process.objects.get().node_id, pid_space="elsewhere", boot_id="b", pid=7,
        pid_started=1, heartbeat_at=timezone.now() - timedelta(minutes=12),
    )  # fmt: skip
    page = text_of(client.get("/settings/"))

    assert 'Processes <span class="count">1</span>' in page
    running, ended = page.split("Running</span>")[0], page.split('id="ended"')
    assert "killed" not in running
    assert "1 process ended unexpectedly in the last hour" in ended[1]
    assert "worker killed, pid 7" in ended[1]
    processes.stop_heartbeat()

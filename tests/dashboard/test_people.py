"""Users, roles, sessions and invitations, on the pages of settings."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from boilerhouse.core import users
from boilerhouse.core.models import AuditEntry, Role, Session
from boilerhouse.core.roles import role_of
from boilerhouse.dashboard.sign_ins import device
from tests.pages import text_of

PASSWORD = "a quite long password"
NEW = {"new_password1": PASSWORD, "new_password2": PASSWORD}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture
def admin(client, db, data_dir):
    user = User.objects.create_superuser("ada", password=PASSWORD)
    client.force_login(user)
    return user


def person(name: str, role: str = "viewer") -> User:
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def may_sign_in(name: str) -> bool:
    return Client().post("/login/", {"username": name, "password": PASSWORD}).status_code == 302


def link_of(answer) -> str:
    found = re.search(r'id="new-link">([^<]+)<', answer.content.decode())
    assert found, answer.content.decode()
    return found[1].removeprefix("http://testserver")


def test_who_is_invited_sets_a_password_once_and_has_the_role(client, admin):
    answer = client.post("/settings/users/", {"name": "olga", "role": "operator"})
    assert answer["Cache-Control"] == "no-store"
    link = link_of(answer)
    olga = User.objects.get(username="olga")
    assert link not in client.get(f"/settings/users/{olga.pk}/").content.decode()

    guest = Client()
    assert "Welcome, olga" in text_of(guest.get(link, follow=True))
    assert "Welcome, olga" in text_of(guest.get(link, follow=True)), "a preview of the link does not use it up"
    form = guest.get(link).headers["Location"]
    assert guest.post(form, {"new_password1": "x", "new_password2": "x"}).status_code == 200
    assert guest.post(form, NEW).status_code == 302
    assert guest.get("/").status_code == 200
    assert Client().get(link, follow=True).status_code == 410
    olga.refresh_from_db()
    assert role_of(olga) == Role.OPERATOR
    assert olga.check_password(PASSWORD)
    assert AuditEntry.objects.get(action="user.invite").actor == "user ada"


@pytest.mark.parametrize("name", ["", "ada", "two words", "x" * 200, "a\0b"])
def test_a_name_that_cannot_be_is_refused_beside_its_field(client, admin, name):
    answer = client.post("/settings/users/", {"name": name, "role": "viewer"})
    assert answer.status_code == 422
    assert 'id="e-name"' in answer.content.decode()
    assert User.objects.count() == 1


@pytest.mark.parametrize("path", ["disable", "role"])
def test_the_last_admin_stays_one(client, admin, path):
    answer = client.post(f"/settings/users/{admin.pk}/{path}", {"role": "viewer"}, follow=True)
    assert "only admin who can sign in" in text_of(answer)
    admin.refresh_from_db()
    assert role_of(admin) == Role.ADMIN
    assert not AuditEntry.objects.exists()

    disabled = person("gone", "admin")
    users.disable(disabled.pk)
    client.post(f"/settings/users/{admin.pk}/{path}", {"role": "viewer"})
    admin.refresh_from_db()
    assert role_of(admin) == Role.ADMIN, "one who cannot sign in does not count"

    person("other", "admin")
    client.post(f"/settings/users/{admin.pk}/{path}", {"role": "viewer"})
    admin.refresh_from_db()
    assert role_of(admin) != Role.ADMIN


def test_a_role_changes_both_ways_and_is_recorded(client, admin):
    olga = person("olga", "viewer")
    for role in ("admin", "operator"):
        client.post(f"/settings/users/{olga.pk}/role", {"role": role})
        assert role_of(User.objects.get(pk=olga.pk)) == role
    chief = User.objects.create_superuser("chief")
    client.post(f"/settings/users/{chief.pk}/role", {"role": "viewer"})
    assert role_of(User.objects.get(pk=chief.pk)) == Role.VIEWER
    entry = AuditEntry.objects.filter(action="user.role", object_id="olga").latest("at")
    assert (entry.before, entry.after, entry.actor) == ({"role": "admin"}, {"role": "operator"}, "user ada")
    answer = client.post(f"/settings/users/{olga.pk}/role", {"role": "king"}, follow=True)
    assert "Choose viewer, operator or admin." in text_of(answer)


@pytest.mark.parametrize("action", ["disable", "end-sessions", "new-password"])
def test_what_shuts_a_user_out_ends_their_sessions(client, admin, action):
    olga = person("olga")
    theirs = Client()
    theirs.force_login(olga)
    assert theirs.get("/").status_code == 200
    asked = client.get(f"/settings/users/{olga.pk}/{action}", headers={"HX-Request": "true", "HX-Target": "question"})
    assert "1 session ends now" in text_of(asked)
    answer = client.post(f"/settings/users/{olga.pk}/{action}")
    assert theirs.get("/").status_code == 302
    assert may_sign_in("olga") == (action == "end-sessions")
    if action == "new-password":
        guest = Client()
        guest.post(guest.get(link_of(answer)).headers["Location"], NEW)
        assert guest.get("/").status_code == 200
    if action == "disable":
        client.post(f"/settings/users/{olga.pk}/enable")
        assert may_sign_in("olga")


def test_a_disabled_user_gets_in_by_no_link(client, admin):
    link = link_of(client.post("/settings/users/", {"name": "olga", "role": "viewer"}))
    client.post(f"/settings/users/{User.objects.get(username='olga').pk}/disable")
    assert Client().get(link, follow=True).status_code == 410


def test_who_resets_their_own_password_sees_the_link_and_is_signed_out(client, admin):
    answer = client.post(f"/settings/users/{admin.pk}/new-password")
    assert answer.status_code == 200
    assert "You are signed out everywhere." in text_of(answer)
    assert client.get("/").status_code == 302
    assert "Welcome, ada" in text_of(Client().get(link_of(answer), follow=True))


def test_a_user_sees_their_sessions_and_ends_them(db, data_dir):
    person("olga")
    other = person("other")
    first, second, third, strangers = Client(), Client(), Client(), Client()
    for one in (first, second, third):
        one.post("/login/", {"username": "olga", "password": PASSWORD}, headers={"User-Agent": FIREFOX})
    strangers.force_login(other)
    page = text_of(first.get("/settings/account/"))
    assert page.count("Firefox on Linux") >= 3
    assert page.count("This session") == 1
    assert "127.0.0.1" in page
    for one in (first, second, strangers):
        assert one.session.session_key not in page, "a session's key signs a browser in"

    first.post(f"/settings/account/sessions/{users.handle_of(second.session.session_key)}/end")
    assert second.get("/").status_code == 302
    assert third.get("/").status_code == 200
    first.post(f"/settings/account/sessions/{users.handle_of(strangers.session.session_key)}/end")
    assert strangers.get("/").status_code == 200, "only one's own"
    first.post("/settings/account/end-others")
    assert third.get("/").status_code == 302
    assert first.get("/").status_code == 200
    assert set(AuditEntry.objects.values_list("action", "object_id")) == {("user.end_sessions", "olga")}


def test_a_session_keeps_its_sign_in_when_its_key_changes(client, db, data_dir):
    person("olga")
    client.post("/login/", {"username": "olga", "password": PASSWORD}, headers={"User-Agent": FIREFOX})
    before = Session.objects.get()
    given = {"old_password": PASSWORD, "new_password1": "another long one", "new_password2": "another long one"}
    assert client.post("/password/", given).status_code == 302
    after = Session.objects.get()
    assert after.pk != before.pk
    assert (after.user, after.agent, after.started_at) == (before.user, before.agent, before.started_at)


def test_a_session_that_is_used_is_seen(client, admin):
    Session.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    client.get("/settings/account/")
    assert Session.objects.get().seen_at > timezone.now() - timedelta(minutes=1)


def test_many_users_cost_as_many_queries_as_few(client, admin, django_assert_max_num_queries):
    for number in range(30):
        person(f"p{number}", "operator")
    with django_assert_max_num_queries(14):
        assert "p29" in client.get("/settings/users/").content.decode()


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/120.0 Safari/537.36 Edg/120.0", "Edge on Windows"),
        ("curl/8.5", "curl/8.5"),
        ("", "Unknown browser"),
    ],
)
def test_a_browser_is_named_as_people_name_it(agent, name):
    assert device(agent) == name


def test_a_session_that_has_ended_is_told_so_at_the_login_and_goes_on_where_it_was(client, db, data_dir):
    olga = person("olga")
    assert "Your session has ended." not in text_of(client.get("/sync/", follow=True)), "never signed in"
    client.force_login(olga)
    users.end_sessions(olga.pk)
    answer = client.get("/sync/?state=failed", follow=True)
    assert "Your session has ended." in text_of(answer)
    assert 'name="next" value="/sync/?state=failed"' in text_of(answer)
    wrong = client.post(answer.request["PATH_INFO"] + "?" + answer.request["QUERY_STRING"], {"username": "olga"})
    assert "Wrong user name or password" in text_of(wrong)
    client.force_login(olga)
    client.post("/logout/")
    assert "Your session has ended." not in text_of(client.get("/sync/", follow=True)), "signed out on purpose"


def test_what_the_footer_offers_is_in_the_menu_of_small_screens(client, db, data_dir):
    """C24: at 390 px there was no way to sign out, or to choose theme, times or password."""
    client.force_login(person("olga"))
    menu = text_of(client.get("/")).partition('class="nav-more"')[2].partition("</nav>")[0]
    for path in ("/settings/account/", "/settings/", "/workloads/", "/activity/"):
        assert f'href="{path}"' in menu
    for path in ("/logout/", "/theme", "/times"):
        assert f'action="{path}"' in menu
    assert 'href="/password/"' in text_of(client.get("/settings/account/"))


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/settings/", "Settings"), ("/settings/keys/", "API keys · Settings"), ("/settings/users/", "Users · Settings"),
        ("/settings/account/", "Your account · Settings"), ("/settings/credentials/", "Credentials · Settings"),
        ("/settings/registries/", "Registries · Settings"), ("/settings/deployment/", "Variables and policy · Settings"),
    ],
)  # fmt: skip
def test_each_page_of_settings_says_so_in_its_title(client, admin, path, title):
    """C25."""
    page = client.get(path).content.decode()
    assert f"<title>{title} · Boilerhouse</title>" in page
    assert f'data-title="{title}"' in page

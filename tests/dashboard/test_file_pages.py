"""The pages of a tenant's files: who may, what they show, what they change and record. The guest agent is the real one."""

from __future__ import annotations

import html
import os
import re
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from boilerhouse.core.models import AuditEntry
from boilerhouse.dashboard import file_listing
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.file_addresses import ASK, FILES, address
from tests.forms import form_of
from tests.held_files import held_files
from tests.make import make_assignment
from tests.pages import plain, text_of

pytestmark = pytest.mark.any_database
HOSTILE = [
    b"line\nbreak", "\u202efdp.exe".encode(), b"<img src=x onerror=alert(1)>", b"no utf-8 \xff", b"a?b#c%41&d", b"-rf", b" ",
]  # fmt: skip


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def held(db, data_dir, tmp_path, monkeypatch, home, settings):
    settings.BOILERHOUSE_FILE_BROWSER = True
    with held_files(tmp_path, home, monkeypatch) as row:
        yield row


def sign_in(client: Client, role: str) -> Client:
    user = User.objects.create_user(f"the {role}", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client.force_login(user)
    return client


@pytest.fixture
def operator(client, held):
    return sign_in(client, "operator")


def fields(held: Assignment, path: Any, **more: Any) -> dict[str, Any]:
    return {"path": quote(os.fsencode(path)), "generation": str(held.generation), **more}


def recorded() -> list[tuple[str, str, str]]:
    """Who did what with which path, in order; and forget it."""
    rows = [(one.actor, one.action, one.after["path"]) for one in AuditEntry.objects.order_by("at", "pk") if one.after]
    AuditEntry.objects.all().delete()
    return rows


def links_of(answer: Any) -> dict[str, str]:
    """The page of each file of a list, by its name as it is shown."""
    found = re.findall(r'<a class="mono" href="([^"]+)"[^>]*>\s*<bdi>(.*?)</bdi>', _table(answer), re.S)
    return {html.unescape(name): html.unescape(link) for link, name in found}


def names_of(answer: Any) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'(?s)<th scope="row".*?<bdi[^>]*>(.*?)</bdi>', _table(answer))]


def _table(answer: Any) -> str:
    table: str = answer.content.decode().split("<tbody>")[1].split("</tbody>")[0]
    return table


# Who may -----------------------------------------------------------------------------------------------------


GETS = ["", "view", "download", "archive", "edit", "move", "remove"]
POSTS = ["edit", "move", "remove", "directory", "upload"]


def test_viewers_read_and_change_no_file(client, held, home):
    (home / "f").write_text("CANARY")
    sign_in(client, "viewer")
    for what in GETS:
        answer = client.get(address(what, home / "f"))
        assert answer.status_code == 403, what
        assert "CANARY" not in answer.content.decode()
    for what in POSTS:
        body = fields(held, home / "f", text="x", etag="", do="save", to="g", name="n")
        assert client.post(FILES + what, body).status_code == 403, what
    assert client.put(address("upload", home / "g"), b"x").status_code == 403
    assert os.listdir(home) == ["f"]
    assert (home / "f").read_text() == "CANARY"
    assert FILES not in client.get("/tenants/alice/").content.decode()
    assert not AuditEntry.objects.exists()


def test_files_are_off_unless_the_deployment_allows_them(operator, held, home, settings):
    settings.BOILERHOUSE_FILE_BROWSER = False
    (home / "f").write_text("CANARY")
    for what in GETS[:-1]:
        page = operator.get(address(what, home / "f"))
        assert "CANARY" not in page.content.decode()
        assert "BOILERHOUSE_FILE_BROWSER=true" in text_of(page), what
    for what in POSTS:
        operator.post(FILES + what, fields(held, home / "f", text="x", etag="", do="save", to="g", name="n"))
    put = operator.put(address("upload", home / "g"), b"x")
    assert (put.status_code, put.json()["code"]) == (403, "files_off")
    assert os.listdir(home) == ["f"]
    assert (home / "f").read_text() == "CANARY"
    assert not AuditEntry.objects.exists()
    for path in ("/tenants/alice/", f"/containers/{held.container_ref}/"):
        assert "Files are off" in text_of(operator.get(path))


def test_pages_of_tenant_and_container_lead_to_the_files(operator, held):
    for path in ("/tenants/alice/", f"/containers/{held.container_ref}/"):
        assert f'href="{FILES}"' in text_of(operator.get(path))


def test_every_access_is_recorded_with_who_and_which_path(operator, held, home):
    (home / "d").mkdir()
    (home / "d" / "f").write_text("x")
    file, who = f"{home}/d/f", "user the operator"
    operator.get(FILES)
    operator.get(address("view", file))
    operator.get(address("download", file))
    operator.get(address("archive", home / "d"))
    operator.get(address("edit", file))
    operator.get(address("remove", home / "d"))
    assert recorded() == [
        (who, "container.file_list", str(home)), (who, "container.file_read", file), (who, "container.file_read", file),
        (who, "container.file_read", f"{home}/d"), (who, "container.file_read", file),
        (who, "container.file_list", f"{home}/d"),
    ]  # fmt: skip
    operator.post(f"{FILES}directory", fields(held, home, name="e"))
    operator.post(f"{FILES}edit", fields(held, home / "g", text="x", etag="", do="save"))
    operator.put(address("upload", home / "h"), b"x")
    operator.post(f"{FILES}move", fields(held, home / "h", to="i"))
    operator.post(f"{FILES}remove", fields(held, home / "i"))
    assert recorded() == [
        (who, "container.file_directory", f"{home}/e"), (who, "container.file_write", f"{home}/g"),
        (who, "container.file_write", f"{home}/h"), (who, "container.file_move", f"{home}/h"),
        (who, "container.file_remove", f"{home}/i"),
    ]  # fmt: skip


def test_secrets_of_the_claim_are_not_shown(operator, tmp_path):
    for what in ("", "view", "download", "archive", "edit"):
        answer = operator.get(address(what, tmp_path / "secrets"), follow=True)
        assert answer.status_code == 403, what


def test_a_form_without_our_token_changes_nothing(held, home):
    strict = sign_in(Client(enforce_csrf_checks=True), "operator")
    assert strict.post(f"{FILES}directory", fields(held, home, name="d")).status_code == 403
    assert strict.put(address("upload", home / "f"), b"x").status_code == 403
    assert os.listdir(home) == []


def test_a_script_of_a_user_who_is_signed_out_learns_that(client, held, home):
    """A redirect to the login page would be followed, and look like success."""
    answer = client.put(address("upload", home / "f"), b"x")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert os.listdir(home) == []


# What is shown -----------------------------------------------------------------------------------------------


def test_a_directory_lists_kinds_sizes_modes_and_where_links_lead(operator, home):
    (home / "b.txt").write_bytes(b"x" * 1500)
    (home / "b.txt").chmod(0o640)
    (home / "a").mkdir()
    (home / "link").symlink_to("b.txt")
    os.mkfifo(home / "pipe")
    answer = operator.get(FILES)
    page = plain(answer)
    assert names_of(answer)[0] == "a", "directories are first"
    assert {*names_of(answer)} >= {"a", "b.txt", "link", "pipe"}
    for words in ("1.5 kB", "-rw-r-----", "drwx", "link to b.txt", "fifo"):
        assert words in page
    assert names_of(operator.get(f"{FILES}?sort=-size"))[0] == "b.txt"
    assert "content of the link" not in page
    links = links_of(answer)
    assert "The name is a link to b.txt" in plain(operator.get(links["link"], follow=True))
    assert operator.get(links["a"]).status_code == 200
    assert "pipe" not in links, "it has no content to show"
    assert operator.get(address("view", home / "pipe")).status_code == 403


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_as_text_and_leads_to_its_own_file(operator, held, home, name):
    path = os.path.join(os.fsencode(home), name)
    with open(path, "wb") as file:
        file.write(b"the content of this one")
    answer = operator.get(FILES)
    text = answer.content.decode()
    assert "\u202e" not in text
    assert "<img" not in text
    [(shown, link)] = links_of(answer).items()
    assert "\n" not in shown
    page = operator.get(link)
    assert "the content of this one" in text_of(page)
    assert "\u202e" not in page.content.decode()
    got = operator.get(address("download", path))
    assert got.content == b"the content of this one"
    assert re.fullmatch(r"attachment; filename\*=UTF-8''[A-Za-z0-9%._~-]+", got["Content-Disposition"])
    question = operator.get(address("remove", path), headers=ASK)
    assert "\u202e" not in question.content.decode()
    body = form_of(question.content.decode().replace('id="question-form"', 'id="question-form">', 1), "question-form")
    assert operator.post(f"{FILES}remove", {**fields(held, path), "asked": body["asked"]}).status_code == 303
    assert os.listdir(home) == []


@pytest.mark.parametrize("name", ["page.html", "image.svg", "script.js", "data.xml"])
def test_content_is_never_a_page(operator, home, name):
    content = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(document.cookie)</script></svg>'
    (home / name).write_bytes(content)
    page = operator.get(address("view", home / name))
    assert "<script>alert" not in page.content.decode()
    assert "&lt;script&gt;alert" in page.content.decode()
    assert page["Cache-Control"] == "no-store"
    got = operator.get(address("download", home / name))
    assert got.content == content
    assert got["Content-Type"] == "application/octet-stream"
    assert got["X-Content-Type-Options"] == "nosniff"
    assert got["Content-Disposition"].startswith("attachment; ")
    assert "default-src" in got["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("content", "words", "is_edited"),
    [
        (b"hello\nworld\n", "hello world", True), (b"", "This file is empty", True), (b"\0\1", "This is a binary file", False),
        (b"\xff\xfe", "This is a binary file", False), (b"a\r\nb\n", "end in different ways", False),
        (b"bell \x07", "control characters", False), (b"x" * (300 << 10), "Only the first", False),
    ],
)  # fmt: skip
def test_a_file_is_shown_as_text_up_to_a_bound(operator, home, content, words, is_edited):
    (home / "f").write_bytes(content)
    page = operator.get(address("view", home / "f"))
    assert words in plain(page)
    assert (f'href="{FILES}edit?' in text_of(page)) is is_edited
    assert operator.get(address("edit", home / "f")).status_code == (200 if is_edited else 403)


def test_a_long_directory_is_read_in_parts_and_paged(operator, home, monkeypatch):
    monkeypatch.setattr(file_listing, "READ", 30)
    monkeypatch.setattr(file_listing, "ROWS", 10)
    for number in range(45):
        (home / f"f{number:02}").touch()
    seen: list[str] = []
    path = FILES
    for _ in range(10):
        answer = operator.get(path)
        seen += names_of(answer)
        text = answer.content.decode()
        following = re.search(r'href="([^"]*)">Next', text) or re.search(r'href="(\?[^"]*after=[^"]*)">Show', text)
        if not following:
            break
        path = FILES + html.unescape(following[1])
    assert sorted({*seen}) == [f"f{number:02}" for number in range(45)]


def test_without_a_container_an_agent_or_a_file_the_page_says_so(operator, held, home, monkeypatch):
    missing = operator.get(address("view", home / "none"))
    assert (missing.status_code, "There is no such file" in plain(missing)) == (404, True)
    assert operator.get(f"{FILES}?path=%2500").status_code == 404
    assert operator.get(f"{FILES}view").status_code == 404
    assert operator.get("/tenants/nobody/files/").status_code == 404
    Assignment.objects.filter(pk=held.pk).update(state=AssignmentState.RELEASING)
    assert "is being released" in plain(operator.get(FILES))
    Assignment.objects.filter(pk=held.pk).update(state=AssignmentState.ENDED)
    assert "holds no container" in plain(operator.get(FILES))
    make_assignment("carl", pool=held.pool)
    assert "holds no container" in plain(operator.get("/tenants/carl/files/"))
    Assignment.objects.filter(pk=held.pk).update(state=AssignmentState.ASSIGNED)
    monkeypatch.setattr("pools.guest.connections.run_dir", lambda _: home / "no agent")
    page = operator.get(FILES)
    assert (page.status_code, "This container has no guest agent" in plain(page)) == (200, True)


def test_a_download_of_any_length_and_a_directory_come_whole(operator, home):
    (home / "d").mkdir()
    (home / "d" / "f").write_bytes(b"x" * (1 << 20))
    assert operator.head(address("download", home / "d" / "f"))["Content-Length"] == str(1 << 20)
    answer = operator.get(address("archive", home / "d"))
    assert answer["Content-Type"] == "application/x-tar"
    assert answer["Content-Disposition"] == "attachment; filename*=UTF-8''d.tar"
    assert operator.get(address("view", home / "d")).status_code == 302
    assert operator.get(address("", home / "d" / "f")).status_code == 302

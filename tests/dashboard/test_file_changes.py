"""What an operator changes in a tenant's files on pages: nothing by mistake, nothing of another claim, no lost draft."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile

from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.file_addresses import ASK, FILES, address
from tests.forms import form_of
from tests.held_files import held_files
from tests.pages import plain, text_of

pytestmark = pytest.mark.any_database


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


@pytest.fixture
def operator(client, held):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


@pytest.fixture
def send(operator, held):
    """``send("move", path, to="g")``: the form of this file, in the claim of now."""

    def post(what: str, path: Any, **more: Any) -> Any:
        body = {"path": quote(os.fsencode(path)), "generation": str(held.generation), **more}
        return operator.post(FILES + what, body)

    return post


def draft_of(page: Any) -> dict[str, Any]:
    text = page.content.decode()
    start = text.index('id="file-form"')
    draft: dict[str, Any] = form_of('id="editor">' + text[text.index(">", start) + 1 :]).dict()
    return {**draft, "text": draft["text"].removeprefix("\n")}  # as a browser reads a textarea


# Editing -----------------------------------------------------------------------------------------------------


def test_what_changes_is_shown_before_it_is_saved(operator, home):
    file = home / "f"
    file.write_text("one\ntwo\n")
    file.chmod(0o600)
    draft = draft_of(operator.get(address("edit", file)))
    assert draft["text"] == "one\ntwo\n"
    draft["text"] = "one\r\n2 < 3\r\n"
    shown = operator.post(f"{FILES}edit", {**draft, "do": "check"})
    assert shown.status_code == 200
    assert '<span class="del">- two' in text_of(shown)
    assert '<span class="add">+ 2 &lt; 3' in text_of(shown)
    assert file.read_text() == "one\ntwo\n", "only a save saves"
    again = operator.post(f"{FILES}edit", {**draft_of(shown), "do": "back"})
    assert "2 &lt; 3" in again.content.decode()
    saved = operator.post(f"{FILES}edit", {**draft_of(shown), "do": "save"})
    assert (saved.status_code, saved["Location"]) == (303, address("view", file))
    assert file.read_bytes() == b"one\n2 < 3\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_keep_their_ends_and_a_first_empty_line_stays(operator, home):
    for content in (b"a\r\nb\r\n", b"\n\nfirst lines are empty\n"):
        (home / "f").write_bytes(content)
        draft = draft_of(operator.get(address("edit", home / "f")))
        assert operator.post(f"{FILES}edit", {**draft, "do": "save"}).status_code == 303
        assert (home / "f").read_bytes() == content


@pytest.mark.parametrize("do", ["check", "save"])
def test_two_editors_meet_a_conflict_and_lose_nothing(operator, home, do):
    file = home / "f"
    file.write_text("base\n")
    mine = draft_of(operator.get(address("edit", file)))
    theirs = draft_of(operator.get(address("edit", file)))
    assert operator.post(f"{FILES}edit", {**theirs, "text": "theirs\n", "do": "save"}).status_code == 303

    conflict = operator.post(f"{FILES}edit", {**mine, "text": "mine\n", "do": do})
    assert conflict.status_code == 409
    assert file.read_text() == "theirs\n"
    for words in ("the file has changed since you opened it", "- theirs", "+ mine"):
        assert words in plain(conflict)
    mine = draft_of(conflict)
    assert mine["text"] == "mine\n"
    assert operator.post(f"{FILES}edit", {**mine, "do": "save"}).status_code == 303
    assert file.read_text() == "mine\n"


def test_a_file_that_was_removed_or_made_meanwhile_is_a_conflict(operator, home):
    file = home / "f"
    file.write_text("base\n")
    draft = draft_of(operator.get(address("edit", file)))
    file.unlink()
    gone = operator.post(f"{FILES}edit", {**draft, "text": "mine\n", "do": "save"})
    assert (gone.status_code, "has been removed" in plain(gone)) == (409, True)
    assert not file.exists()
    anew = draft_of(gone)
    file.write_text("theirs\n")
    made = operator.post(f"{FILES}edit", {**anew, "do": "save"})
    assert (made.status_code, "- theirs" in plain(made)) == (409, True)
    assert file.read_text() == "theirs\n"


def test_a_draft_survives_what_prevents_its_save(operator, held, home):
    file = home / "f"
    file.write_text("base\n")
    draft = {**draft_of(operator.get(address("edit", file))), "text": "much work\n"}
    file.write_bytes(b"\0")
    for do in ("check", "save"):
        binary = operator.post(f"{FILES}edit", {**draft, "do": do})
        assert (binary.status_code, "much work" in plain(binary)) == (403, True)
    file.unlink()
    file.mkdir()
    assert "much work" in plain(operator.post(f"{FILES}edit", {**draft, "do": "save"}))
    Assignment.objects.filter(pk=held.pk).update(state=AssignmentState.RELEASING)
    releasing = operator.post(f"{FILES}edit", {**draft, "do": "save"})
    assert (releasing.status_code, "much work" in plain(releasing)) == (409, True)
    assert "Not saved" in plain(releasing)


def test_what_a_page_would_write_out_is_not_saved(operator, home):
    """A direction mark became the six characters that the page shows in its place."""
    (home / "f").write_text("base\n")
    draft = draft_of(operator.get(address("edit", home / "f")))
    for do in ("check", "save"):
        answer = operator.post(f"{FILES}edit", {**draft, "text": "a\u202eb", "do": do})
        assert (answer.status_code, "control characters" in plain(answer)) == (403, True)
    assert (home / "f").read_text() == "base\n"


def test_a_new_text_file_is_written_where_there_is_none(operator, home):
    page = operator.get(address("edit", home, name="a b?.txt"), follow=True)
    assert "The file is new." in plain(page)
    assert not (home / "a b?.txt").exists()
    saved = operator.post(f"{FILES}edit", {**draft_of(page), "text": "x", "do": "save"})
    assert saved.status_code == 303
    assert (home / "a b?.txt").read_text() == "x"


# Uploads -----------------------------------------------------------------------------------------------------


def test_a_form_uploads_files_and_replaces_none_unless_asked(send, home):
    files = [SimpleUploadedFile("a", b"1"), SimpleUploadedFile("b ü", b"\0\xff")]
    assert send("upload", home, file=files).status_code == 303
    assert (home / "a").read_bytes() == b"1"
    assert (home / "b ü").read_bytes() == b"\0\xff"
    answer = send("upload", home, file=SimpleUploadedFile("a", b"2"))
    assert "There is a file of this name already." in plain(followed(answer))
    assert (home / "a").read_bytes() == b"1"
    send("upload", home, file=SimpleUploadedFile("a", b"2"), replace="1")
    assert (home / "a").read_bytes() == b"2"
    assert send("upload", home).status_code == 303


def followed(answer: Any) -> Any:
    return answer.client.get(answer["Location"])


def test_a_script_uploads_a_body_and_reads_why_not(operator, held, home):
    def put(path: Any, data: bytes, **query: str) -> Any:
        return operator.put(address("upload", path, **query), data, content_type="application/octet-stream")

    assert put(home / "f", b"1", generation=str(held.generation)).json() == {"name": "f", "size": 1}
    again = put(home / "f", b"2")
    assert (again.status_code, again.json()["code"]) == (412, "precondition_failed")
    assert put(home / "f", b"2", replace="1").status_code == 200
    assert (home / "f").read_bytes() == b"2"
    assert put(home / "none" / "f", b"x").json()["code"] == "file_not_found"
    other = put(home / "g", b"x", generation="99")
    assert (other.status_code, other.json()["code"]) == (409, "other_claim")
    assert os.listdir(home) == ["f"]


# Names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../out", "/etc/x", "nul\0"])
def test_a_name_stays_in_its_directory(operator, send, home, tmp_path, name):
    inside = home / "d"
    inside.mkdir()
    before = sorted(tmp_path.rglob("*"))
    send("directory", inside, name=name)
    if os.path.basename(name) not in ("", ".", ".."):  # which Django itself refuses
        send("upload", inside, file=SimpleUploadedFile(name, b"x"))
    if name:
        operator.get(address("edit", inside, name=name))
    made = {*tmp_path.rglob("*")} - {*before}
    assert all(one.parent == inside and one.is_file() for one in made), "a form's file keeps the last part of its name"


def test_a_directory_is_made_once(operator, send, home):
    answer = send("directory", home, name="d")
    assert answer["Location"] == address("", home / "d")
    assert "Something else has this name already." in plain(followed(send("directory", home, name="d")))


def test_a_file_is_renamed_and_moved_and_replaces_none_unless_asked(operator, send, home):
    (home / "d").mkdir()
    (home / "f").write_text("f")
    (home / "g").write_text("g")
    page = operator.get(address("move", home / "f"))
    assert f'value="{home}/f"' in text_of(page)
    refused = send("move", home / "f", to="g")
    assert refused.status_code == 409
    assert "Not moved: Something else has this name already." in plain(refused)
    assert 'value="g"' in text_of(refused)
    assert send("move", home / "f", to="g", overwrite="1").status_code == 303
    assert (home / "g").read_text() == "f"
    assert send("move", home / "g", to=f"{home}/d/h").status_code == 303
    assert (home / "d" / "h").read_text() == "f"
    for nothing in ("", "/"):
        assert send("move", home / "d", to=nothing).status_code == 422
    assert operator.get(address("move", home / "none")).status_code == 404


# Deleting ----------------------------------------------------------------------------------------------------


def test_deleting_asks_by_how_much_goes(operator, send, home):
    (home / "f").write_bytes(b"x" * 2000)
    (home / "d").mkdir()
    for number in range(9):
        (home / "d" / f"n{number}").write_bytes(b"x" * 1000)
    one = text_of(operator.get(address("remove", home / "f"), headers=ASK))
    assert "The file has 2.0 kB." in one
    assert "data-typed" not in one
    many = text_of(operator.get(address("remove", home / "d"), headers=ASK))
    assert "9 names, 9.0 kB in files" in many
    assert 'data-typed="d"' in many
    send("remove", home / "d", asked="", typed="")
    assert (home / "d").exists()
    send("remove", home / "d", typed="d")
    assert sorted(os.listdir(home)) == ["f"]
    assert send("remove", home / "f")["Location"] == address("", home)
    assert os.listdir(home) == []


def test_only_a_link_goes_and_not_what_it_leads_to(operator, send, home, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "f").write_text("x")
    (home / "link").symlink_to(tmp_path / "kept")
    assert "Only the link goes" in text_of(operator.get(address("remove", home / "link"), headers=ASK))
    send("remove", home / "link")
    assert (os.listdir(home), os.listdir(tmp_path / "kept")) == ([], ["f"])


def test_an_answer_to_a_question_about_something_else_removes_nothing(operator, send, home, held):
    """The file became a directory between the question and the answer."""
    (home / "f").mkdir()
    (home / "f" / "kept").write_text("x")
    assert send("remove", home / "f", asked=f"{held.generation} file").status_code == 409
    assert (home / "f" / "kept").exists()


@pytest.mark.parametrize("what", ["edit", "move", "remove", "directory", "upload"])
def test_a_form_of_an_earlier_claim_changes_nothing(operator, send, home, what):
    """The page stood open while the tenant was released and claimed again: the path is that of other files."""
    (home / "f").write_text("x")
    more = {
        "edit": {"text": "y", "do": "save", "etag": ""}, "move": {"to": "g"}, "remove": {}, "directory": {"name": "d"},
        "upload": {"file": SimpleUploadedFile("u", b"x")},
    }[what]  # fmt: skip
    send(what, home if what in ("directory", "upload") else home / "f", **{**more, "generation": "99"})
    assert os.listdir(home) == ["f"]
    assert (home / "f").read_text() == "x"

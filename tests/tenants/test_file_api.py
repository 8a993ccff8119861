"""The API of files in a held container: who may, what it answers, what it records. The guest agent is the real one."""

from __future__ import annotations

import base64
import io
import json
import os
import time

import pytest
from django.core.management import CommandError, call_command

from boilerhouse.core.models import ApiKey, AuditEntry
from pools import guest
from pools.guest import connections
from tenants import file_links
from tenants.models import Assignment
from tenants.states import AssignmentState
from tests.api_calls import problem
from tests.held_files import held_files

pytestmark = pytest.mark.any_database


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def held(db, data_dir, tmp_path, monkeypatch, home):
    """Alice holds a container whose state volume is ``home``."""
    with held_files(tmp_path, home, monkeypatch) as row:
        yield row


@pytest.fixture
def ask(call, held):
    """``ask("GET", "files/list", path="x")`` for alice, or for her container with ``by="container"``."""

    def send(method, what, body=None, *, by="tenant", raw=None, key="admin", headers=None, **query):
        base = "tenants/alice" if by == "tenant" else f"containers/{held.container_ref}"
        from urllib.parse import urlencode

        kind = "application/octet-stream" if raw is not None else "application/json"
        where = f"{base}/{what}" + (f"?{urlencode(query)}" if query else "")
        return call(method, where, body, raw=raw, key=key, content_type=kind, **(headers or {}))

    return send


@pytest.mark.parametrize("by", ["tenant", "container"])
def test_a_file_is_written_read_listed_moved_and_removed(ask, home, by):
    wrote = ask("PUT", "files", raw=b"hello", by=by, path="d/f", mode="0600", parents="true")
    assert wrote.status_code == 200, wrote.content
    shown = wrote.json()
    assert (shown["path"], shown["name"], shown["size"], shown["mode"]) == (f"{home}/d/f", "f", 5, "0600")
    got = ask("GET", "files", by=by, path="d/f")
    assert (got.content, got["ETag"], got["Content-Type"]) == (b"hello", wrote["ETag"], "application/octet-stream")
    assert "attachment" in got["Content-Disposition"]
    asked = ask("HEAD", "files", by=by, path="d/f")
    assert (asked.status_code, asked["Content-Length"], asked.content) == (200, "5", b"")
    assert ask("GET", "files/stat", by=by, path="d").json()["type"] == "directory"
    items = ask("GET", "files/list", by=by, depth="2").json()["items"]
    assert [one["path"] for one in items] == [f"{home}/d", f"{home}/d/f"]
    assert ask("POST", "files/mkdir", {"path": "e/e"}, by=by).status_code == 201
    assert ask("POST", "files/mkdir", {"path": "e/e"}, by=by).status_code == 200
    assert ask("POST", "files/move", {"from": "d/f", "to": "e/g"}, by=by).json()["path"] == f"{home}/e/g"
    problem(ask("DELETE", "files", by=by, path="e"), 409, "is_directory")
    assert ask("DELETE", "files", by=by, path="e", recursive="true").json() == {"removed": 3}
    assert os.listdir(home) == ["d"]


def test_parts_and_conditions_of_reading(ask, home):
    (home / "f").write_bytes(b"0123456789")
    whole = ask("GET", "files", path="f")
    for header, status, content, said in [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"), ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"), ("bytes=0-999", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None), ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 416, b"", "bytes */10"), ("bytes=-0", 416, b"", "bytes */10"), ("bytes=5-2", 200, None, None),
    ]:  # fmt: skip
        answer = ask("GET", "files", path="f", headers={"Range": header})
        assert (answer.status_code, answer.get("Content-Range")) == (status, said), header
        assert content is None or answer.content == content, header
    assert ask("GET", "files", path="f", headers={"If_None_Match": whole["ETag"]}).status_code == 304
    assert ask("GET", "files", path="f", headers={"Range": "bytes=1-1", "If_Range": '"other"'}).status_code == 200


def test_conditions_of_writing(ask, home):
    first = ask("PUT", "files", raw=b"1", path="f", headers={"If_None_Match": "*"})
    problem(ask("PUT", "files", raw=b"2", path="f", headers={"If_None_Match": "*"}), 412, "precondition_failed")
    assert ask("PUT", "files", raw=b"2", path="f", headers={"If_Match": first["ETag"]}).status_code == 200
    problem(ask("PUT", "files", raw=b"3", path="f", headers={"If_Match": first["ETag"]}), 412, "precondition_failed")
    problem(ask("PUT", "files", raw=b"3", path="g", headers={"If_Match": "*"}), 412, "precondition_failed")
    assert (home / "f").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("method", "what", "query", "status", "code"),
    [
        ("GET", "files", {"path": "missing"}, 404, "file_not_found"),
        ("GET", "files", {}, 422, "invalid"),
        ("GET", "files", {"path": "x\0y"}, 422, "invalid"),
        ("GET", "files", {"path": "%00", "pathEncoding": "percent"}, 422, "invalid"),
        ("GET", "files", {"path": "x" * 300}, 422, "invalid"),
        ("GET", "files", {"path": "x/" * 3000}, 422, "invalid"),
        ("GET", "files", {"path": "x", "pathEncoding": "latin"}, 422, "invalid"),
        ("GET", "files", {"path": "x", "unknown": "1"}, 422, "invalid"),
        ("GET", "files", {"path": "/proc/self/status"}, 403, "file_denied"),
        ("GET", "files", {"path": "/dev/zero"}, 403, "file_denied"),
        ("GET", "files", {"path": "."}, 409, "is_directory"),
        ("PUT", "files", {"path": "."}, 409, "is_directory"),
        ("PUT", "files", {"path": "x/y"}, 404, "file_not_found"),
        ("PUT", "files", {"path": "x", "mode": "9"}, 422, "invalid"),
        ("PUT", "files/archive", {"path": "missing"}, 404, "file_not_found"),
        ("DELETE", "files", {"path": "missing"}, 404, "file_not_found"),
        ("GET", "files/list", {"path": "/etc/passwd"}, 409, "not_directory"),
        ("GET", "files/list", {"cursor": "%00"}, 422, "invalid"),
        ("GET", "files/list", {"limit": "1001"}, 422, "invalid"),
        ("GET", "files/stat", {"path": "missing"}, 404, "file_not_found"),
        ("GET", "files/watch", {"path": "missing"}, 404, "file_not_found"),
        ("GET", "files/archive", {"path": "missing"}, 404, "file_not_found"),
    ],
)  # fmt: skip
def test_each_mistake_says_what_it_is(ask, home, method, what, query, status, code):
    problem(ask(method, what, raw=b"" if method == "PUT" else None, **query), status, code)
    assert os.listdir(home) == []


def test_bodies_say_where_they_are_wrong(ask, home):
    for what, body, pointer in [
        ("files/mkdir", {"path": "x", "mode": "8"}, "/mode"), ("files/move", {"from": "x"}, "/to"),
        ("files/move", {"from": "x", "to": "y", "force": True}, "/force"), ("files/links", {"path": "x", "method": "DELETE"}, "/method"),
        ("files/links", {"path": "x", "expiresInS": 10**9}, "/expiresInS"),
    ]:  # fmt: skip
        document = problem(ask("POST", what, body), 422, "invalid")
        assert document["errors"][0]["pointer"] == pointer
    answer = ask("PUT", "files", raw=b"x", path="f", headers={"Content_Encoding": "gzip"})
    problem(answer, 415, "unsupported_media_type")


def test_names_that_are_no_text_travel_percent_encoded(ask, home):
    name = b"\xff\n%41"
    coded = "%FF%0A%2541"
    ask("PUT", "files", raw=b"x", path=coded, pathEncoding="percent")
    assert os.listdir(os.fsencode(home)) == [name]
    plain = ask("GET", "files/list").json()["items"][0]
    assert (plain["name"], plain["pathEncoding"]) == (coded, "percent")
    assert ask("GET", "files", path=coded, pathEncoding="percent").content == b"x"
    moved = ask("POST", "files/move", {"from": coded, "to": "%FE", "pathEncoding": "percent"})
    assert moved.json()["name"] == "%FE"


def test_a_list_goes_on_where_it_stopped(ask, home):
    for number in range(7):
        (home / f"f{number}").touch()
    got, cursor = [], {}
    while True:
        page = ask("GET", "files/list", limit="3", **cursor).json()
        got += [one["name"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert got == [f"f{number}" for number in range(7)]


def test_secrets_are_not_in_any_answer(ask, home, held, tmp_path):
    place = tmp_path / "secrets"
    guest.run(None, ("sh", "-c", f"echo s3cret > {place}/KEY; ln -s {place} {home}/l"), 9000)
    for path in (f"{place}/KEY", "l/KEY", f"/proc/self/root{place}/KEY"):
        problem(ask("GET", "files", path=path), 403, "file_denied")
        problem(ask("GET", "files/archive", path=path), 403, "file_denied")
    problem(ask("GET", "files/list", path="l"), 403, "file_denied")
    problem(ask("GET", "files/watch", path="l"), 403, "file_denied")


# Who may, and what is recorded ---------------------------------------------------------------------------------


def test_only_who_may_act_for_the_tenant(ask, call, home):
    (home / "f").write_bytes(b"x")
    own, other = call.key_of("tenant", tenant_ids=["alice"]), call.key_of("tenant", tenant_ids=["bob"])
    assert ask("GET", "files", path="f", key=own).content == b"x"
    assert ask("GET", "files", path="f", key=other).status_code == 404
    assert ask("GET", "files", path="f", key=own, by="container").status_code == 403
    assert ask("GET", "files", path="f", key=call.key_of("viewer")).status_code == 403
    assert ask("PUT", "files", path="f", raw=b"y", key=None).status_code == 401
    assert (home / "f").read_bytes() == b"x"


def test_what_changes_is_recorded_and_what_staff_reads(ask, call, home):
    own = call.key_of("tenant", tenant_ids=["alice"])
    ask("PUT", "files", path="f", raw=b"content", key=own)
    ask("GET", "files", path="f", key=own)
    ask("GET", "files", path="f")
    ask("POST", "files/move", {"from": "f", "to": "g"}, key=own)
    ask("DELETE", "files", path="g", key=own)
    rows = list(AuditEntry.objects.filter(kind="container").order_by("pk"))
    assert [row.action.partition("_")[2] for row in rows] == ["write", "read", "move", "remove"]
    assert rows[0].after["path"] == "f"
    assert "content" not in json.dumps([row.after for row in rows])


def test_calls_count_as_activity(ask, held, home):
    Assignment.objects.update(last_activity_at="2020-01-01T00:00:00Z")
    ask("GET", "files/list")
    assert Assignment.objects.get().last_activity_at.year > 2020


def test_without_a_container_or_an_agent_it_says_so(call, held, monkeypatch, tmp_path):
    monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "nothing")
    problem(call("GET", "tenants/alice/files/list"), 409, "no_guest_agent")
    problem(call("GET", "tenants/bob/files/list"), 409, "not_assigned")
    Assignment.objects.update(state=AssignmentState.RELEASING)
    problem(call("GET", "tenants/alice/files/list"), 409, "releasing")
    problem(call("GET", f"containers/{held.container_ref}/files/list"), 409, "releasing")
    problem(call("GET", "containers/nonsense/files/list"), 404, "container_not_found")


# Signed links ---------------------------------------------------------------------------------------------------


def link(ask, path="f", method="GET", **more):
    answer = ask("POST", "files/links", {"path": path, "method": method, **more})
    assert answer.status_code == 201, answer.content
    return answer.json()["url"].partition("/api/v1/")[2]


def test_a_link_needs_no_key(ask, call, home):
    (home / "f").write_bytes(b"x")
    assert call("GET", link(ask), key=None).content == b"x"
    assert call("GET", link(ask), key="bh_nonsense").content == b"x"
    done = call("PUT", link(ask, method="PUT"), key=None, raw=b"new", content_type="application/octet-stream")
    assert (done.status_code, (home / "f").read_bytes()) == (200, b"new")


def test_a_link_is_for_one_method_one_path_and_one_claim(ask, call, home, held):
    (home / "f").write_bytes(b"x")
    (home / "g").write_bytes(b"theirs")
    get = link(ask)
    problem(call("PUT", get, key=None, raw=b"y", content_type="application/octet-stream"), 403, "link_invalid")
    problem(call("GET", link(ask, method="PUT"), key=None), 403, "link_invalid")
    content, _, signature = get.partition("/")[2].partition(".")
    fields = json.loads(base64.urlsafe_b64decode(content + "=="))
    for index, value in [(0, "bob"), (1, 2), (2, "PUT"), (3, base64.b64encode(b"g").decode()), (4, 2**40)]:
        forged = [*fields[:index], value, *fields[index + 1 :]]
        token = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
        problem(call("GET", f"file-links/{token}.{signature}", key=None), 403, "link_invalid")
    for token in ("", "x", ".", "x.y", "é.x", "x" * 9000):
        assert call("GET", f"file-links/{token}", key=None).status_code in (403, 404)
    Assignment.objects.update(generation=2)
    problem(call("GET", get, key=None), 403, "link_invalid")
    Assignment.objects.update(generation=1, state=AssignmentState.RELEASING)
    problem(call("GET", get, key=None), 403, "link_invalid")
    Assignment.objects.update(state=AssignmentState.ASSIGNED)
    assert call("GET", get, key=None).status_code == 200
    Assignment.objects.all().delete()
    problem(call("GET", get, key=None), 403, "link_invalid")


def test_a_link_ends_with_its_time_and_with_its_key(ask, call, home, monkeypatch):
    (home / "f").write_bytes(b"x")
    short, long = link(ask, expiresInS=1), link(ask, expiresInS=file_links.MAX_S)
    now = time.time()
    monkeypatch.setattr(file_links.time, "time", lambda: now + 2)
    problem(call("GET", short, key=None), 403, "link_invalid")
    assert call("GET", long, key=None).status_code == 200
    ApiKey.objects.all().delete()
    problem(call("GET", long, key=None), 403, "link_invalid")


def test_a_link_of_another_deployment_is_none(ask, call, home, settings):
    (home / "f").write_bytes(b"x")
    one = link(ask)
    settings.SECRET_KEY = "another" * 10
    problem(call("GET", one, key=None), 403, "link_invalid")


# manage.py cp -------------------------------------------------------------------------------------------------


def cp(*words):
    out = io.StringIO()
    call_command("cp", *map(str, words), "--output", "json", stdout=out, skip_checks=True)
    return json.loads(out.getvalue() or "null")


def test_cp_copies_files_and_directories_both_ways(held, home, tmp_path):
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "sub" / "f").write_bytes(b"content")
    (local / "link").symlink_to("sub/f")
    assert cp(local / "sub" / "f", "alice:one") == {"files": 1, "bytes": 7}
    assert cp(local, "alice:") == {"files": 1, "bytes": 7}
    assert (home / "local" / "sub" / "f").read_bytes() == (home / "one").read_bytes() == b"content"
    back = tmp_path / "back"
    back.mkdir()
    cp("alice:one", back)
    cp("alice:local", back)
    assert (back / "local" / "sub" / "f").read_bytes() == (back / "one").read_bytes() == b"content"
    assert os.readlink(back / "local" / "link") == "sub/f"
    assert AuditEntry.objects.filter(action="container.file_read").count() == 2


def test_cp_writes_nothing_outside_whatever_the_tenant_planted(held, home, tmp_path):
    outside, back = tmp_path / "outside", tmp_path / "back"
    outside.mkdir()
    back.mkdir()
    (home / "d").mkdir()
    (home / "d" / "evil").symlink_to(outside)
    with pytest.raises(CommandError, match="Refused"):
        cp("alice:d", back)
    assert not os.path.lexists(back / "d" / "evil")
    for words in (("a", "b"), ("alice:a", "bob:b")):
        with pytest.raises(CommandError, match="once"):
            cp(*words)

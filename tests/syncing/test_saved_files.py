"""The last complete save is read by the API while nobody holds the state: what a restore would give, exactly."""

from __future__ import annotations

import asyncio
import os

import pytest

from boilerhouse.core.models import AuditEntry
from boilerhouse.process import budgets
from boilerhouse.web.streaming import Stream, Writer
from pools.guest.files import SMALL_BYTES
from syncing import saved_files
from syncing.models import SavedState
from tenants.models import Assignment
from tests import sink_servers
from tests.api_calls import problem
from tests.make import make_held
from tests.tenant_state import TENANT, UID, TenantState

pytestmark = pytest.mark.any_database

ROOT = "/state"


@pytest.fixture
def state(empty_sink_server, data_dir, transactional_db):
    return TenantState(empty_sink_server)


@pytest.fixture
def read(call, state):
    """``read("content", "a")``: the answer for a path below the saved directory, to the tenant's own key."""
    key = call.key_of("tenant", tenant_ids=[TENANT])

    def send(what, path="", *, key=key, headers=None, **query):
        from urllib.parse import urlencode

        whole = path if path.startswith("/") else f"{ROOT}/{path}".rstrip("/")
        return call("GET", f"tenants/{TENANT}/state/{what}?{urlencode({'path': whole, **query})}", key=key,
                    **(headers or {}))  # fmt: skip

    return send


def names(answer) -> dict[str, str]:
    assert answer.status_code == 200, answer.content
    return {item["name"]: item["type"] for item in answer.json()["items"]}


def is_not(answer, status: int, code: str) -> bool:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    return True


def test_everything_that_was_saved_is_listed_and_read(state, read):
    state.write(**{"plain": "text", "empty": "", "ünïcode ☃": "snow", "per%cent": "p", "#hash": "h", " space ": "s"})
    (state.state / "deep" / "er").mkdir(parents=True)
    (state.state / "hollow").mkdir()
    (state.state / "deep" / "er" / "file").write_bytes(bytes(range(256)) * 100)
    (state.state / "plain").chmod(0o640)
    os.utime(state.state / "plain", (1_000_000_000, 1_000_000_000))
    os.symlink("/etc/passwd", state.state / "out")
    for path in ("deep", "deep/er", "deep/er/file", "hollow", "out"):
        os.chown(state.state / path, UID, UID, follow_symlinks=False)
    state.save()

    listed = read("files")
    assert names(listed) == {
        "plain": "file", "empty": "file", "ünïcode ☃": "file", "per%cent": "file", "#hash": "file", " space ": "file",
        "deep": "directory", "hollow": "directory", "out": "symlink",
    }  # fmt: skip
    by_name = {item["name"]: item for item in listed.json()["items"]}
    plain = by_name["plain"]
    assert (plain["size"], plain["mode"], plain["mtime"][:10]) == (4, "0640", "2001-09-09")
    assert by_name["out"]["target"] == "/etc/passwd"
    assert names(read("files", "deep")) == {"er": "directory"}
    assert names(read("files", "hollow")) == {}
    assert names(read("files", "/")) == {"state": "directory"}
    for name, text in {"plain": "text", "empty": "", "ünïcode ☃": "snow", "per%cent": "p", "#hash": "h"}.items():
        assert read("content", name).content == text.encode()
    assert read("content", "deep/er/file").content == bytes(range(256)) * 100


def test_names_that_are_no_utf_8_are_read_percent_encoded(state, read):
    if isinstance(state.sink_server, sink_servers.MotoS3):
        pytest.skip("moto keeps no such names")
    path = os.fsencode(state.state) + b"/broken\xff"
    with open(path, "wb") as file:
        file.write(b"bytes")
    os.chown(path, UID, UID)
    state.save()

    (item,) = read("files").json()["items"]
    assert (item["name"], item["pathEncoding"]) == ("broken%FF", "percent")
    assert read("content", item["path"], pathEncoding="percent").content == b"bytes"


def test_a_list_is_read_in_parts(state, read):
    state.write(**{f"n{number}": str(number) for number in range(5)})
    state.save()

    seen, cursor = [], ""
    while cursor is not None:
        page = read("files", limit=2, **({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        cursor = page["nextCursor"]

    assert seen == [f"n{number}" for number in range(5)]


def test_after_an_interrupted_save_the_one_before_is_read_and_nothing_is_changed(state, read):
    """Twice in a row: the oldest backup counts, as after an undo."""
    state.write(a="1", b="1", gone="1")
    state.save()
    state.claim()
    state.write(a="22", new="2")
    state.remove("gone")
    state.cut("save.uploaded")
    state.write(a="333", b="3")
    state.cut("save.uploaded")
    before = sorted(state.sink_server.keys())

    assert names(read("files")) == {"a": "file", "b": "file", "gone": "file"}
    assert [read("content", name).content for name in ("a", "b", "gone")] == [b"1", b"1", b"1"]
    assert is_not(read("content", "new"), 404, "file_not_found")
    assert sorted(state.sink_server.keys()) == before
    state.lose_host()
    state.claim()
    assert state.look() == {"a": "1", "b": "1", "gone": "1"}


def test_no_path_leads_out_of_what_was_saved(state, read):
    state.write(a="1")
    os.symlink("/", state.state / "up")
    os.chown(state.state / "up", UID, UID, follow_symlinks=False)
    state.save()
    state.sink.put("t/bob/state/secret", b"bob's")

    for path in ("../../bob/state/secret", "up/etc/passwd", "a/..", "/etc/passwd", "/state/../state/a", "//state/a"):
        assert read("content", path).status_code in (404, 409), path
    assert is_not(read("content", "up"), 403, "file_denied")
    assert is_not(read("files", "up"), 409, "not_directory")
    assert is_not(read("files", "a"), 409, "not_directory")
    assert is_not(read("content", ""), 409, "is_directory")


def test_a_part_is_read_and_each_save_has_another_etag(state, read):
    state.write(a="0123456789")
    state.save()

    part = read("content", "a", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    etag = part["ETag"]
    assert read("content", "a", headers={"If-None-Match": etag}).status_code == 304
    assert read("content", "a", headers={"Range": "bytes=10-"}).status_code == 416
    state.claim()
    state.write(a="9876543210")
    state.save()
    assert read("content", "a", headers={"If-None-Match": etag}).content == b"9876543210"


def test_a_tenant_that_holds_a_container_reads_its_files_there(state, read):
    state.write(a="1")
    state.save()
    row = make_held(tenant=TENANT)

    assert is_not(read("files"), 409, "held")
    assert is_not(read("content", "a"), 409, "held")
    Assignment.objects.filter(pk=row.pk).delete()
    assert read("content", "a").content == b"1"


def test_a_claim_that_begins_while_a_file_is_read_is_an_error(state, read, monkeypatch):
    state.write(a="1")
    state.save()
    whole = saved_files.SavedTree.read

    def claimed_meanwhile(tree, path):
        content = whole(tree, path)
        make_held(tenant=TENANT)
        return content

    monkeypatch.setattr(saved_files.SavedTree, "read", claimed_meanwhile)
    assert is_not(read("content", "a"), 409, "held")


def test_a_file_that_the_sink_lost_or_changed_is_an_error_and_no_other_content(state, read):
    state.write(a="1", b="1")
    state.save()
    state.sink.delete("t/alice/state/a")
    state.sink.put("t/alice/state/b", b"longer")

    assert read("content", "a").status_code == 502
    assert read("content", "b").status_code == 502


def test_a_file_above_the_limit_is_refused_before_it_is_read(state, read, monkeypatch):
    state.write(a="12345")
    state.save()
    monkeypatch.setattr(saved_files, "MAX_CONTENT_BYTES", 4)

    assert is_not(read("content", "a"), 502, "object_too_large")


def test_a_long_file_is_counted_until_its_reader_has_it_or_leaves(state, read, settings, monkeypatch):
    content = os.urandom(2 * SMALL_BYTES + 1)
    (state.state / "long").write_bytes(content)
    os.chown(state.state / "long", UID, UID)
    state.save()

    with monkeypatch.context() as kept:
        kept.setattr(Stream, "close", lambda _: None)  # which the test's client calls before anyone has read
        answer = read("content", "long")
    assert (answer.status_code, answer.length, budgets.saved_files.used()) == (200, len(content), len(content))
    settings.BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_TENANT = len(content) + 1
    assert is_not(read("content", "long"), 429, "budget_exceeded")
    assert is_not(read("content", "long", key="admin"), 429, "budget_exceeded")
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)

    asyncio.run(answer.run(Writer(send, None)))
    assert b"".join(sent) == content
    answer.close()
    assert budgets.saved_files.used() == 0
    part = read("content", "long", headers={"Range": f"bytes={2 * SMALL_BYTES}-"})
    assert (part.status_code, part.content, budgets.saved_files.used()) == (206, content[-1:], 0)
    settings.BOILERHOUSE_SAVED_FILES_MAX_BYTES = settings.BOILERHOUSE_SAVED_FILES_MAX_BYTES_PER_TENANT = 1 << 30
    state.sink.delete("t/alice/state/long")
    assert is_not(read("content", "long"), 502, "incomplete")
    assert budgets.saved_files.used() == 0


def test_a_save_at_a_place_that_no_spec_names_any_more_is_an_error(state, read):
    state.write(a="1")
    state.save()
    SavedState.objects.update(location="t/alice/elsewhere")
    assert is_not(read("files"), 502, "state_moved")


def test_who_never_saved_has_no_files(state, read):
    assert names(read("files", "/")) == {}
    assert is_not(read("files"), 404, "file_not_found")


def test_others_keys_are_refused_and_what_staff_reads_is_recorded(state, read, call):
    state.write(a="1")
    state.save()
    other = call.key_of("tenant", tenant_ids=["bob"])

    assert problem(read("content", "a", key=other), 404)
    assert problem(read("files", key=call.key_of("viewer")), 403)
    assert read("content", "a").content == b"1"
    assert not AuditEntry.objects.filter(action="tenant.saved_file_read").exists()
    assert read("content", "a", key="admin").content == b"1"
    entry = AuditEntry.objects.get(action="tenant.saved_file_read")
    assert (entry.object_id, entry.after) == (TENANT, {"path": "/state/a"})


def test_of_two_names_that_a_sink_spells_alike_neither_is_taken_for_the_other():
    paths = {"a\n", "a\u240a", "b"}
    keys, alike = saved_files._keys(paths, ["a\u240a", "a\u201b\u240a", "b"])

    assert keys == {"a\u240a": "a\u240a", "a\u201b\u240a": "a\u201b\u240a", "b": "b"}
    assert alike == {"a\u240a", "a\u201b\u240a"}

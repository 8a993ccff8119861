"""Pages of the files of a tenant that holds nothing: those of its last save, read-only."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core.models import AuditEntry
from boilerhouse.dashboard import file_texts
from boilerhouse.process import budgets
from boilerhouse.web.streaming import Writer
from tests.make import make_assignment
from tests.pages import plain, text_of
from tests.tenant_state import TENANT, TenantState

pytestmark = pytest.mark.any_database
FILES = f"/tenants/{TENANT}/files/"


@pytest.fixture
def state(empty_sink_server, data_dir, transactional_db, settings):
    settings.BOILERHOUSE_FILE_BROWSER = True
    return TenantState(empty_sink_server)


@pytest.fixture
def operator(client, state):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


def body_of(stream: Any) -> bytes:
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)

    asyncio.run(stream.run(Writer(send, None)))
    stream.close()
    return b"".join(sent)


def test_saved_files_are_listed_shown_downloaded_and_recorded(operator, state):
    long = "x" * (file_texts.VIEWED + 1)
    state.write(plain="text <b>", long=long)
    os.symlink("/etc/passwd", state.state / "out")
    state.save()

    top, listed = operator.get(FILES), operator.get(f"{FILES}?path=/state")
    assert "holds no container" in plain(top)
    assert f'href="{FILES}?path=/state"' in text_of(top)
    assert "link to /etc/passwd" in plain(listed)
    for act in ("upload", "edit", "move", "remove", "archive"):
        assert f"{FILES}{act}" not in text_of(listed), act
    assert "text &lt;b&gt;" in text_of(operator.get(f"{FILES}view?path=/state/plain"))
    assert "too long to be shown" in plain(operator.get(f"{FILES}view?path=/state/long"))
    assert operator.get(f"{FILES}view?path=/state/out").status_code == 403
    got = operator.get(f"{FILES}download?path=/state/long")
    assert got["Content-Disposition"] == "attachment; filename*=UTF-8''long"
    assert body_of(got) == long.encode()
    assert budgets.saved_files.used() == 0
    read = AuditEntry.objects.filter(action="tenant.saved_file_read", actor="user olga")
    assert {one.after["path"] for one in read} == {"/", "/state", "/state/plain", "/state/long", "/state/out"}


@pytest.mark.parametrize("what", ["edit", "move", "remove", "directory", "upload"])
def test_saved_files_are_not_changed(operator, state, what):
    state.write(plain="text")
    state.save()
    body = {"path": quote("/state/plain"), "text": "y", "do": "save", "etag": "", "to": "g", "name": "d"}
    operator.post(FILES + what, body)
    assert "text" in plain(operator.get(f"{FILES}view?path=/state/plain"))
    put = operator.put(f"{FILES}upload?path=/state/plain&replace=1", b"x")
    assert (put.status_code, put.json()["code"]) == (403, "file_denied")


def test_a_tenant_without_a_save_has_no_files(operator, state):
    make_assignment("nothing", state="ended")
    assert "no state of it is saved" in plain(operator.get("/tenants/nothing/files/"))

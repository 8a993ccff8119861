"""The page of a container that is gone."""

from __future__ import annotations

import zlib
from base64 import b85encode
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.core.events import emit, recording
from pools import lifecycle, tombstones
from pools.models import LastOutput, Tombstone
from tenants import state_erasure
from tests.make import make_assignment, make_container, make_pool
from tests.pages import text_of

pytestmark = pytest.mark.any_database
LINES = b"2026-01-31T12:00:00.123456789Z first line\n2026-01-31T12:00:01.000000001Z <b>LAST-WORDS</b> error\n"


def gone(tenant: str = "alice", **over: Any) -> Tombstone:
    container = make_container(make_pool(), **{"state": "claimed", "image_digest": "sha256:1", **over})
    pool_id = container.pool_id
    if tenant:
        make_assignment(
            tenant, container=container, state="ended", was_assigned=True, outcome="released", released_by="user ada",
            ended_at=timezone.now(),
        )  # fmt: skip
    tombstones._write(container, tenant_id=tenant, exit_code=137)
    packed = b85encode(zlib.compress(LINES)).decode()
    LastOutput.objects.create(tombstone_id=container.pk, log=packed, size=1, usage=[[timezone.now().timestamp(), 1, 2]])
    with recording():
        emit("container.ready", pool_id=pool_id, container_id=container.pk, durationMs=3)
    lifecycle.forget(container.pk)
    return Tombstone.objects.get(pk=container.pk)


def sign_in(client: Any, group: str) -> None:
    user = User.objects.create_user(group, is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=group)[0])
    client.force_login(user)


def test_it_says_how_the_container_ended_and_what_it_printed(client, db, data_dir, django_assert_max_num_queries):
    """It answered 404 without navigation."""
    tombstone = gone()
    sign_in(client, "operator")
    with django_assert_max_num_queries(30):
        page = text_of(client.get(f"/containers/{tombstone.pk}/"))
    for words in (
        "This container was removed", "Released by user ada.", "137 (SIGKILL)", "alice",
        "boilerhouse/example-workload:1", "&lt;b&gt;LAST-WORDS&lt;/b&gt; error", "is ready after 3 ms",
        tombstone.node_id, tombstone.pool_id,
    ):  # fmt: skip
        assert words in page, words
    assert "Open shell" not in page
    file = client.get(f"/containers/{tombstone.pk}/logs")
    assert file.content == LINES


def test_viewers_see_the_facts_and_no_log(client, db, data_dir):
    tombstone = gone()
    sign_in(client, "viewer")
    page = client.get(f"/containers/{tombstone.pk}/")
    assert page.status_code == 200
    assert "LAST-WORDS" not in page.content.decode()
    assert client.get(f"/containers/{tombstone.pk}/logs").status_code == 403


def test_its_refresh_sends_no_log(client, db, data_dir):
    sign_in(client, "operator")
    headers = {"HX-Request": "true", "HX-Target": "main"}
    assert b"LAST-WORDS" not in client.get(f"/containers/{gone().pk}/", headers=headers).content


@pytest.mark.parametrize(
    ("over", "tenant", "words"),
    [
        (
            {"image_digest": "", "error": "It ended with exit code 3.", "state": "failed"},
            "",
            "It ended with exit code 3.",
        ),
        ({"removed_by": "user ada", "state": "idle"}, "", "It was removed by user ada while no tenant used it."),
        ({"fault": "oom", "error": "It exceeded its memory limit."}, "alice", "Died"),
    ],
)
def test_why_it_ended(client, db, data_dir, over, tenant, words):
    sign_in(client, "operator")
    assert words in text_of(client.get(f"/containers/{gone(tenant, **over).pk}/"))


def test_search_finds_it_by_the_end_of_its_id(client, db, data_dir):
    tombstone = gone()
    sign_in(client, "viewer")
    answer = client.get(f"/search?q=c-{tombstone.pk.hex[-8:]}")
    assert answer.headers["Location"] == f"/containers/{tombstone.pk}/"


def test_nothing_of_it_is_shown_after_its_tenant_was_erased(client, db, data_dir):
    tombstone = gone()
    state_erasure.begin("alice")
    sign_in(client, "operator")
    page = client.get(f"/containers/{tombstone.pk}/")
    assert page.status_code == 404
    assert "unless the state of their tenant is erased" in page.content.decode()
    assert "LAST-WORDS" not in page.content.decode()
    assert client.get(f"/containers/{tombstone.pk}/logs").status_code == 404


def test_it_outlives_its_pool(client, db, data_dir):
    tombstone = gone("")
    Tombstone.objects.filter(pk=tombstone.pk).update(pool_id="no-such-pool", workload_id="no-such-workload")
    sign_in(client, "operator")
    page = client.get(f"/containers/{tombstone.pk}/").content.decode()
    assert "no-such-pool" in page
    assert "/pools/no-such-pool/" not in page

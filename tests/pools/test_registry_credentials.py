"""Registry credentials through the API, pages, apply and admin: chosen by registry, and never shown (P10)."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from boilerhouse.core import clock
from boilerhouse.core.api_keys import create_key
from boilerhouse.core.models import AuditEntry, Event, Role
from pools import references, registry_logins
from pools.models import Pool, RegistryCredential
from tests.make import make_pool, make_workload

SECRET = "CANARY+of/a registry?&"
OTHER = "CANARY-of-the-next-one"
PLACE = {"id": "reg", "registry": "registry.example.com:5000", "username": "puller", "password": SECRET}


@pytest.fixture
def call(client, db, data_dir):
    key = create_key(name="admin", role=Role.ADMIN)[1]

    def call(method, path, body=None, status=200, **headers):
        data = "" if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {key}", **headers}
        answer = client.generic(method, f"/api/v1/{path}", data, content_type="application/json", headers=headers)
        assert answer.status_code == status, answer.content
        assert "CANARY" not in answer.content.decode()
        return answer if status == 412 or not answer.content else answer.json()

    return call


def login(image: str):
    return registry_logins.login_for(references.parse(image))


@pytest.mark.any_database
def test_it_is_stored_encrypted_shown_without_its_secret_and_replaced_as_a_whole(call):
    """Write-only: not in answers, the history of changes, events or, in plain text, the database (P10)."""
    made = call("POST", "registry-credentials", PLACE, 201)
    assert (made["id"], made["name"], made["username"]) == ("reg", "registry.example.com:5000", "puller")
    assert set(made) == {"id", "name", "registry", "username", "usedBy", "createdAt", "updatedAt"}
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM pools_registrycredential")
        assert b"CANARY" not in bytes(cursor.fetchone()[0])
    assert login("registry.example.com:5000/team/app:1").password == SECRET
    call("PUT", "registry-credentials/reg", {**made, "username": "other", "password": OTHER})
    found = login("registry.example.com:5000/team/app:1")
    assert (found.username, found.password, found.credential) == ("other", OTHER, "reg")
    assert "CANARY" not in repr(found)
    call("PUT", "registry-credentials/reg", {"registry": PLACE["registry"], "identityToken": OTHER})
    found = login("registry.example.com:5000/team/app:1")
    assert (found.username, found.password, found.identity_token) == ("", "", OTHER)
    assert call("GET", "registry-credentials")["items"][0]["username"] is None
    told = [*AuditEntry.objects.values_list("before", "after"), *Event.objects.values_list("payload")]
    assert "CANARY" not in str(told)
    assert '"changed"' in json.dumps(list(AuditEntry.objects.values_list("after", flat=True)))
    call("DELETE", "registry-credentials/reg", status=204)
    call("GET", "registry-credentials/reg", status=404)


def test_what_changed_meanwhile_is_not_overwritten(call):
    """If-Match, as for other objects."""
    call("POST", "registry-credentials", PLACE, 201)
    old = call("PUT", "registry-credentials/reg", PLACE)
    call("PUT", "registry-credentials/reg", {**PLACE, "password": OTHER})
    call("PUT", "registry-credentials/reg", PLACE, 412, **{"If-Match": '"000000000000000000000000"'})
    assert login(f"{old['registry']}/x").password == OTHER
    assert call("PUT", "registry-credentials/reg", {**PLACE, "registry": "ghcr.io"}, 422)["errors"] == [
        {"pointer": "/registry", "code": "fixed",
         "detail": "The registry of a credential cannot change (it is registry.example.com:5000). Store another credential."}
    ]  # fmt: skip


def test_one_for_each_place_and_the_nearest_is_used(call):
    """By host, or by a path below it, on whole segments; Docker Hub under each of its names."""
    for id, place in (
        ("hub", "index.docker.io"),
        ("gh", "GHCR.io"),
        ("acme", "ghcr.io/acme"),
        ("app", "ghcr.io/acme/app"),
    ):
        call("POST", "registry-credentials", {**PLACE, "id": id, "registry": place}, 201)
    taken = call("POST", "registry-credentials", {**PLACE, "id": "again", "registry": "docker.io"}, 409)
    assert (taken["code"], taken["detail"]) == (
        "registry_taken",
        "docker.io already has the credential hub. Replace that one.",
    )
    call("POST", "registry-credentials", {**PLACE, "id": "hub", "registry": "quay.io"}, 409)
    digest = f"sha256:{'0' * 64}"
    chosen = {
        image: (found := login(image)) and found.credential
        for image in (
            "nginx", "acme/nginx:1", "docker.io/library/nginx", f"nginx@{digest}", "ghcr.io/x/y", "ghcr.io/acme/other:2",
            "ghcr.io/acme/app:3", f"ghcr.io/acme/app/part@{digest}", "ghcr.io/acme-evil/app", "ghcr.io:5000/acme/app",
            "registry.example.com/x", digest,
        )
    }  # fmt: skip
    assert list(chosen.values()) == [
        "hub", "hub", "hub", "hub", "gh", "acme", "app", "app", "gh", None, None, None,
    ]  # fmt: skip


def test_one_in_use_is_kept_unless_it_is_forced(call):
    """The workloads whose image is pulled with it are named."""
    make_workload("w1", image="registry.example.com:5000/app:1")
    make_workload("w2", image="registry.example.com/app:1")
    assert call("POST", "registry-credentials", PLACE, 201)["usedBy"] == ["w1"]
    found = call("DELETE", "registry-credentials/reg", status=409)
    assert (found["code"], "w1" in found["detail"]) == ("in_use", True)
    call("DELETE", "registry-credentials/reg?force=true", status=204)
    assert not RegistryCredential.objects.exists()


def test_pools_that_could_not_start_from_there_try_again_at_once(call):
    """When it is stored and when it is replaced; no other pool's back-off ends early."""
    later = clock.now() + timedelta(minutes=1)
    waits = {"trouble": "start_failed", "last_error": "unauthorized", "failures": 6, "next_start_at": later}
    here = make_pool("here", workload=make_workload(image="registry.example.com:5000/app:1"), **waits)
    halted = {"trouble": "roll_halted", "last_error": "x", "halted_version": here.workload.latest}
    roll = make_pool("roll", workload=here.workload, **halted)
    elsewhere = make_pool("elsewhere", workload=make_workload(image="ghcr.io/app:1"), **waits)

    def rests() -> dict[str, bool]:
        return {pool.pk: pool.next_start_at is not None or pool.halted is not None for pool in Pool.objects.all()}

    call("POST", "registry-credentials", PLACE, 201)
    assert rests() == {"here": False, "roll": False, "elsewhere": True}
    Pool.objects.filter(pk=here.pk).update(**waits)
    Pool.objects.filter(pk=roll.pk).update(halted_version=here.workload.latest)
    call("PUT", "registry-credentials/reg", {**PLACE, "password": OTHER})
    assert rests() == {"here": False, "roll": False, "elsewhere": True}
    elsewhere.refresh_from_db()
    assert elsewhere.failures == 6


def test_pages_and_admin_set_and_replace_it_and_show_no_secret(client, db, data_dir):
    """Also not in a form that is shown again with errors (P10)."""
    client.force_login(User.objects.create_superuser("ada"))
    answer = client.post("/settings/registries/", {"registry": "", "username": "u", "password": SECRET})
    assert (answer.status_code, "CANARY" in answer.content.decode()) == (422, False)
    answer = client.post("/settings/registries/", PLACE, follow=True)
    assert "Images from registry.example.com:5000 are pulled with it" in answer.content.decode()
    assert "CANARY" not in answer.content.decode()
    answer = client.post("/settings/registries/reg/", {"username": "u:v", "password": OTHER})
    assert (answer.status_code, "CANARY" in answer.content.decode()) == (422, False)
    client.post("/settings/registries/reg/", {"username": "v", "password": OTHER})
    assert login("registry.example.com:5000/x").password == OTHER
    for url in ("/settings/registries/", "/settings/registries/reg/", "/admin/pools/registrycredential/",
                "/admin/pools/registrycredential/reg/change/", "/settings/changes/"):  # fmt: skip
        answer = client.get(url)
        assert (answer.status_code, "CANARY" in answer.content.decode()) == (200, False), url
    client.post("/settings/registries/reg/delete", {"typed": "reg"})
    assert not RegistryCredential.objects.exists()


def test_apply_says_whether_the_secret_is_another_and_never_shows_it(db, data_dir, tmp_path):
    """A document like the others (P10)."""
    file = tmp_path / "r.json"

    def applied(**more):
        file.write_text(json.dumps({"kind": "RegistryCredential", **PLACE, **more}))
        out = io.StringIO()
        call_command("apply", str(file), "--output", "json", stdout=out, stderr=io.StringIO(), skip_checks=True)
        assert "CANARY" not in out.getvalue()
        (one,) = json.loads(out.getvalue())["documents"]
        return one["outcome"], one["difference"]

    assert applied()[0] == "created"
    assert applied() == ("unchanged", [])
    outcome, difference = applied(password=OTHER)
    assert (outcome, [line for line in difference if line[:1] == "+"]) == ("changed", ['+  "secret": "another",'])
    assert login("registry.example.com:5000/x").password == OTHER


@pytest.mark.parametrize("place", ["acme", "acme/private", "a..example.com"])
def test_a_place_where_no_image_can_lie_is_refused(call, place):
    """It was stored, and the image ``acme/private`` was pulled without it: its full name is docker.io/acme/private."""
    (said,) = call("POST", "registry-credentials", {**PLACE, "registry": place}, 422)["errors"]
    assert (said["pointer"], f"docker.io/{place}" in said["detail"]) == ("/registry", True)
    assert call("GET", "registry-credentials", None, 200)["items"] == []


@pytest.mark.parametrize("place", ["localhost", "localhost:5000/a", "[::1]:5000", "GHCR.io/acme", "index.docker.io"])
def test_hosts_of_every_form_are_places(call, place):
    stored = call("POST", "registry-credentials", {**PLACE, "id": "form", "registry": place}, 201)["registry"]
    assert stored in ("docker.io", place, place.lower())

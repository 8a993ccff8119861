"""A tag that moves at a real registry, or on this machine: noticed, reported, and adopted by a new version."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace

import pytest
from django.core.management import call_command

from boilerhouse.core.api_keys import create_key
from boilerhouse.core.deployment import node_id
from boilerhouse.core.models import AuditEntry, Event, Role
from pools import dry_runs, image_pulls, registry_credentials, services, tags, version_images
from pools.errors import ImageGone, OtherImage
from pools.models import ImagePull, Pool
from pools.runtime import get_runtime
from pools.states import PullState
from tests import registry as registries
from tests.make import make_container, make_pool, make_spec, make_workload
from tests.pulls import found_for, pulled_beside
from tests.registry import PASSWORD, USER, bcrypted

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


@pytest.fixture
def made(registry, request):
    """A workload with a tag, and a pool that has had a healthy container: ``made("app")``."""
    names = []

    def make(name, **over):
        image = f"{registry.host}/{name}:1"
        names.append(image)
        first = registry.put(name)
        pool = make_pool(name, workload=make_workload(name, image=image, pull_policy="missing", **over))
        prove(pool.workload.latest)
        return pool.workload, first

    yield make
    for name in names:
        registries.forget(name)


def prove(version):
    image = version_images.for_start(version, found_for).image
    version_images.prove(version, image)
    return image


@pytest.fixture
def call(client):
    key = create_key(name="operator", role=Role.OPERATOR)[1]

    def call(method, path, body=None, status=200):
        answer = client.generic(
            method, f"/api/v1/{path}", json.dumps(body) if body else "", content_type="application/json",
            headers={"Authorization": f"Bearer {key}"},
        )  # fmt: skip
        assert answer.status_code == status, answer.content
        return answer.json()

    return call


def test_a_tag_that_moved_is_seen_and_said_and_changes_nothing_by_itself(registry, made, call, client):
    """At the workload and its pool, by one event and a metric; containers start from the proven image."""
    workload, first = made("app")
    version = workload.latest
    assert version.manifest_digest == first
    tags.look_around()
    status = call("GET", "workloads/app")["imageStatus"]
    assert (status["digest"], status["tagDigest"], status["moved"]) == (first, first, False)

    second = registry.put("app")
    tags.look(workload.latest)
    tags.look(workload.latest)
    shown = call("GET", "workloads/app")
    assert (shown["imageStatus"]["tagDigest"], shown["imageStatus"]["moved"]) == (second, True)
    assert [one["code"] for one in shown["warnings"]] == ["image_moved"]
    assert [one["code"] for one in call("GET", "pools/app")["status"]["warnings"]] == ["image_moved"]
    (event,) = Event.objects.filter(type="pool.warning")
    assert (event.payload["code"], event.payload["digest"]) == ("image_moved", second)
    assert 'boilerhouse_pool_image_moved{pool="app"} 1.0' in metrics(client)
    assert workload.latest == version
    assert prove(workload.latest).id == version.image_digest

    registry.stop()  # neither is it asked for what is here
    try:
        assert version_images.of_version(workload.latest, found_for).image.id == version.image_digest
    finally:
        registry.start()


def metrics(client):
    key = create_key(name="viewer", role=Role.VIEWER)[1]
    return client.get("/api/v1/metrics", headers={"Authorization": f"Bearer {key}"}).content.decode()


def test_a_refresh_is_a_new_version_of_the_new_image(registry, made, call):
    """202, done by a worker; pulled by digest; a changed spec keeps it, and another name does not."""
    workload, first = made("again")
    assert call("POST", "workloads/again/refresh", status=202)["imageStatus"]["refreshing"] is True
    tags.look_around()
    assert workload.latest.number == 1
    told = Event.objects.filter(type="workload.updated").latest("id").payload
    assert told["refreshed"] == "unchanged"

    second = registry.put("again")
    call("POST", "workloads/again/refresh", status=202)
    tags.look_around()
    shown = call("GET", "workloads/again")
    assert (shown["version"], shown["imageStatus"]["digest"]) == (2, second)
    assert (shown["imageStatus"]["moved"], shown["imageStatus"]["refreshing"]) == (False, False)
    assert AuditEntry.objects.filter(action="workload.refresh").count() == 2
    assert AuditEntry.objects.get(action="workload.update").after == {"version": 2, "digest": second}
    image = prove(workload.latest)
    assert f"{registry.host}/again@{second}" in image.digests
    assert image.id != workload.versions.get(number=1).image_digest
    items = call("GET", "workloads/again/versions")["items"]
    assert [one["manifestDigest"] for one in items] == [second, first]

    spec = workload.latest.spec
    services.update_workload(workload, name="again", spec=replace(spec, environment={"A": "b"}))
    kept = workload.latest
    assert (kept.number, kept.manifest_digest, kept.image_digest) == (3, second, image.id)
    services.update_workload(workload, name="again", spec=replace(spec, image="elsewhere:1"))
    assert (workload.latest.manifest_digest, workload.latest.image_digest) == ("", "")


@pytest.mark.parametrize("policy", ["missing", "always"])
def test_a_trial_runs_the_image_that_the_version_would_run(transactional_db, registry, made, policy):
    """By digest where the node has lost it, though the tag has moved; another name is tried as it is named."""
    workload, first = made("tried", ports=[])
    image, spec = workload.latest.spec.image, replace(workload.latest.spec, pull_policy=policy)
    registries.forget(image)
    ImagePull.objects.all().delete()
    second = registry.put("tried")
    with pulled_beside():
        tried = dry_runs.run(replace(spec, environment={"A": "b"}), workload.latest)
        assert tried.is_healthy, tried
        assert ImagePull.objects.get().image == f"{registry.host}/tried@{first}"
        assert dry_runs.run(replace(spec, image=f"{image}@{second}"), workload.latest).is_healthy
    registries.forget(f"{registry.host}/tried@{first}")
    registries.forget(f"{registry.host}/tried@{second}")


@pytest.mark.parametrize(
    ("over", "rolls"),
    [({}, False), ({"image_update": "roll"}, True), ({"image_update": "manual", "pull_policy": "always"}, False),
     ({"pull_policy": "always"}, True)],
)  # fmt: skip
def test_the_workload_says_what_is_done_when_its_tag_has_moved(registry, settings, over, rolls):
    """By the controller, after the interval."""
    first = registry.put("policy")
    over = {"pull_policy": "missing", **over}
    image = f"{registry.host}/policy:1"
    workload = make_pool(workload=make_workload(image=image, **over)).workload
    try:
        prove(workload.latest)
        second = registry.put("policy")
        tags.look_around()
        latest = workload.latest
        assert (latest.number, latest.manifest_digest) == ((2, second) if rolls else (1, first))
        assert tags.due() == [], "asked once in an interval"
        settings.BOILERHOUSE_IMAGE_CHECK_S = 0
        assert tags.due() == []
    finally:
        registries.forget(image)


def test_a_registry_that_does_not_answer_is_asked_once_in_a_round(registry, made, call):
    """Each workload reports it, nothing else changes, and none waits for it again before its time."""
    one, two = made("one")[0], made("two")[0]
    asked = []
    runtime = get_runtime()
    real = type(runtime).named_digest
    registry.stop()
    try:
        type(runtime).named_digest = lambda self, *a: asked.append(a) or real(self, *a)
        tags.look_around()
    finally:
        type(runtime).named_digest = real
        registry.start()
    assert len(asked) == 1
    for workload in (one, two):
        shown = call("GET", f"workloads/{workload.pk}")
        assert "connection refused" in shown["imageStatus"]["error"]
        assert [warning["code"] for warning in shown["warnings"]] == ["image_tag_unknown"]
        assert shown["imageStatus"]["moved"] is False
    assert tags.due() == []
    tags.ask_refresh("one")
    tags.look_around()
    assert call("GET", "workloads/one")["imageStatus"]["error"] is None


def test_a_private_registry_is_asked_with_its_credential(tmp_path):
    """The error names the credential without its secret; the roll pulls with it."""
    registry = registries.Registry(tmp_path / "private", f"{USER}:{bcrypted(PASSWORD)}\n")
    registry.start()
    image, login = f"{registry.host}/p:1", {"username": USER, "password": PASSWORD}
    try:
        registry.put("p", login=login)
        found = registry_credentials.create(id="reg", name="reg", registry=registry.host, secret=login)
        workload = make_pool(workload=make_workload("p", image=image, pull_policy="missing")).workload
        prove(workload.latest)
        second = registry.put("p", login=login)
        registry_credentials.replace(found, name="reg", secret={"username": USER, "password": "CANARY-WRONG"})
        tags.look_around()
        assert "The registry refused the credential reg" in workload.latest.tag_error
        assert "CANARY" not in workload.latest.tag_error
        registry_credentials.replace(found, name="reg", secret=login)
        assert tags.refresh("p").digest == second
        rolled = prove(workload.latest)
        assert f"{registry.host}/p@{second}" in rolled.digests
    finally:
        registry.close()
        registries.forget(image)


@pytest.mark.parametrize("policy", ["missing", "never"])
def test_an_image_that_only_this_machine_has(call, policy):
    """Its tag is looked up at the local engine; a missing one is reported, and a refresh uses the image that the tag
    names."""
    image = f"boilerhouse-test/local-{os.getpid()}:1"
    if policy == "missing" and get_runtime().capabilities().image_store == "containerd":
        pytest.xfail(
            "it gives an image that was made here a digest at a registry, and Docker Hub is asked about its tag"
        )
    registries.build(image, 16)
    try:
        workload = make_pool(workload=make_workload("local", image=image, pull_policy=policy)).workload
        old = prove(workload.latest).id
        registries.build(image, 16)
        tags.look_around()
        assert call("GET", "workloads/local")["imageStatus"]["moved"] is True
        assert version_images.of_version(workload.latest, found_for).image.id == old
        registries.forget(old)
        with pytest.raises(ImageGone, match="Refresh the workload"):
            version_images.of_version(workload.latest, found_for)
        out = io.StringIO()
        call_command("refresh_workload", "local", "--output", "json", stdout=out, skip_checks=True)
        assert json.loads(out.getvalue())["new"] is True
        new = prove(workload.latest).id
        assert (workload.latest.number, new != old) == (2, True)
    finally:
        registries.forget(image)


def test_a_version_from_before_manifests_were_kept_is_pulled_again_by_its_tag(registry, made):
    """Where the node has lost the image: the same one is taken and its manifest kept, another one is refused."""
    workload, first = made("before")
    workload.versions.update(manifest_digest="")
    registries.forget(workload.latest.spec.image)
    prove(workload.latest)
    assert workload.latest.manifest_digest == first

    workload.versions.update(manifest_digest="")
    registries.forget(workload.latest.spec.image)
    registry.put("before")
    with pytest.raises(ImageGone, match="Refresh the workload"):
        version_images.of_version(workload.latest, found_for)
    assert tags.refresh("before").is_new
    prove(workload.latest)


def test_an_image_by_digest_is_never_refreshed(call):
    """409, without a query of the registry."""
    make_workload("fixed", image=f"r.example/a@sha256:{'0' * 64}")
    assert call("POST", "workloads/fixed/refresh", status=409)["code"] == "fixed_image"
    assert call("POST", "workloads/nobody/refresh", status=404)["code"] == "workload_not_found"


def test_a_version_has_one_image_and_one_only(registry, made, call):
    """The first healthy container decides; another image is refused, the same image under another id is not."""
    workload, _ = made("gate")
    version, stale = workload.latest, workload.latest
    other = get_runtime().find_image("boilerhouse/example-workload:1")
    with pytest.raises(OtherImage):
        version_images.prove(stale, other)
    assert workload.latest == version
    same = replace(get_runtime().find_image(version.image_digest), id="sha256:as-another-store-calls-it")
    version_images.prove(stale, same)
    assert workload.latest.image_digest == same.id

    pool = Pool.objects.get(pk="gate")
    make_container(pool, image_digest=same.id)
    make_container(pool, image_digest="sha256:from-before", state="claimed")
    make_container(pool, image_digest="", state="starting")
    (warning,) = call("GET", "pools/gate")["status"]["warnings"]
    assert (warning["code"], warning["detail"][:16]) == ("image_mixed", "1 container runs")
    (one,) = call("GET", "workloads/gate/versions")["items"]
    assert {c["imageDigest"]: c["count"] for c in one["containers"]} == {same.id: 1, "sha256:from-before": 1}


def test_what_is_stored_from_before_reads_as_before():
    """No field, no new version."""
    spec = make_spec()
    old = {name: value for name, value in spec.to_json().items() if name != "image_update"}
    assert type(spec).from_json(old) == spec
    assert not spec.rolls_to_new_images


def test_a_roll_whose_image_the_registry_did_not_give_is_tried_again(registry, made):
    """The new version's image is pulled by digest; its failure concerns the pool until a pull succeeds."""
    workload, _ = made("later")
    registry.put("later")
    tags.refresh("later")
    latest, pool = workload.latest, workload.pools.get()
    assert latest.pinned_image.endswith(latest.manifest_digest)
    Pool.objects.update(
        good_version=workload.versions.get(number=1),
        good_network=pool.network,
        halted_version=latest,
        halted_network=pool.network,
    )
    failed = ImagePull.objects.create(node_id=node_id(), image=latest.pinned_image, state=PullState.FAILED)
    image_pulls.count_failure(Pool.objects.get(), failed)
    assert image_pulls.ask_again() == 1
    assert Pool.objects.get().failed_pull == failed
    assert ImagePull.objects.get(pk=failed.pk).state == PullState.WAITING

"""kill -9 of web, worker or controller at every step of fill, claim, restore, release, save and destroy (P8).

Each line arms one place in the code; whoever passes it first is killed there, as by a power cut. Within 30 seconds
everything is decided and done, nothing is left over, not a byte is lost. The whole table runs in ``make test-long``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import requests

from pools import volumes
from pools.models import Container
from tenants.models import Assignment
from tests.stack.conftest import eventually
from tests.stack.convergence import CONVERGED_S, claim_until_held, wait_until_converged

STATE = "t/${tenantId}/"
FAILPOINTS = Path(os.environ["BOILERHOUSE_FAILPOINTS"])


def table(*places: str, quick: set[str]) -> list[object]:
    return [pytest.param(p, marks=() if p in quick else pytest.mark.long, id=p) for p in places]


pytestmark = pytest.mark.postgresql


@pytest.fixture
def arm():
    armed = []

    def arm(place: str) -> Path:
        path = FAILPOINTS / place
        path.touch()
        armed.append(path)
        return path

    yield arm
    for path in armed:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from tests.s3 import S3Server

    server = S3Server(tmp_path_factory.mktemp("kill-s3"), tls=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pool(stack, server):
    name = stack.make_pool(sink=server.json(STATE), warm=2, maxSize=5)
    yield name
    stack.drop_pool(name)


def is_killed(path: Path) -> bool:
    return not path.exists()


def fill(stack, container_id: str) -> str:
    script = "cd /state; for i in 1 2 3 4 5; do head -c 200000 /dev/urandom > f$i; done; ln -s f1 link; mkdir empty"
    stack.exec(container_id, f"{script}; chmod 600 f2; sha256sum f? | sha256sum")
    return fingerprint(stack, container_id)


def fingerprint(stack, container_id: str) -> str:
    return stack.exec(container_id, "cd /state; (sha256sum f?; readlink link; stat -c '%n %a' *) | sha256sum")


@pytest.mark.parametrize(
    "place",
    table(
        "fill.inserted", "fill.prepared", "fill.created", "fill.started", "fill.healthy", "controller.fill_pools",
        "controller.resume_containers", quick={"fill.created"},
    ),
)  # fmt: skip
def test_fill(stack, pool, arm, place):
    wait_until_converged(pool)
    armed = arm(place)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 3}, 202)
    eventually(lambda: is_killed(armed), 30)
    eventually(lambda: stack.pool_status(pool)["idle"] == 3, CONVERGED_S)
    wait_until_converged(pool)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    wait_until_converged(pool)


@pytest.mark.parametrize("place", table("destroy.removed", "destroy.wiped", quick={"destroy.removed"}))
def test_destroy(stack, pool, arm, place):
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 3}, 202)
    wait_until_converged(pool)
    armed = arm(place)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    eventually(lambda: is_killed(armed), 30)
    wait_until_converged(pool)
    assert stack.pool_status(pool)["size"] == 2


@pytest.mark.parametrize(
    "place",
    table("claim.taken", "claim.latched", "claim.provisioned", "claim.decided", quick={"claim.latched"}),
)
def test_a_first_claim_whose_web_process_dies(stack, pool, arm, place):
    wait_until_converged(pool)
    tenant = f"first-{place.replace('.', '-')}-{time.time_ns()}"
    armed = arm(place)
    got = claim_until_held(stack, tenant, pool)
    assert is_killed(armed)

    held = Assignment.objects.live().filter(tenant_id=tenant)
    assert [str(row.container_ref) for row in held] == [got["containerId"]]
    assert stack.exec(got["containerId"], "cat /run/secrets/claim.json").count(tenant) == 1
    fill(stack, got["containerId"])
    stack.release(tenant)
    wait_until_converged(pool)


@pytest.mark.parametrize(
    "place",
    table(
        "restore.downloaded", "restore.moved-in", "claim.restored", "claim.provisioned", "claim.decided",
        "controller.resume_claims", quick={"restore.moved-in"},
    ),
)  # fmt: skip
def test_a_claim_with_restore(stack, pool, arm, place):
    tenant = f"again-{place.replace('.', '-')}-{time.time_ns()}"
    first = claim_until_held(stack, tenant, pool)
    before = fill(stack, first["containerId"])
    stack.release(tenant)
    wait_until_converged(pool)
    armed = arm(place)
    got = claim_until_held(stack, tenant, pool)
    eventually(lambda: is_killed(armed))

    assert got["containerId"] != first["containerId"]
    assert fingerprint(stack, got["containerId"]) == before
    stack.release(tenant)
    wait_until_converged(pool)


@pytest.mark.parametrize(
    "place",
    table(
        "release.fenced", "release.stopped", "save.marker-open", "save.uploaded", "save.marker-closed",
        "release.saved", "release.destroyed", "release.wiped", "controller.resume_releases",
        quick={"save.uploaded", "release.destroyed"},
    ),
)  # fmt: skip
def test_a_release_with_save(stack, pool, arm, place):
    tenant = f"bye-{place.replace('.', '-')}-{time.time_ns()}"
    first = claim_until_held(stack, tenant, pool)
    before = fill(stack, first["containerId"])
    armed = arm(place)
    try:
        answer = stack.call("POST", f"tenants/{tenant}/release", {}, timeout=CONVERGED_S + 10)
        assert answer.status_code in (200, 202), answer.text
    except requests.RequestException:
        assert place == "release.fenced"  # the web process itself
    eventually(lambda: is_killed(armed))
    eventually(lambda: not status_or_none(stack, tenant), CONVERGED_S, 0.3)

    wait_until_converged(pool)
    assert not volumes.home(Container(pk=first["containerId"]).pk).exists()
    got = claim_until_held(stack, tenant, pool)
    assert fingerprint(stack, got["containerId"]) == before
    stack.release(tenant)


def status_or_none(stack, tenant: str) -> bool:
    try:
        return bool(stack.status(tenant)["assigned"])
    except requests.RequestException:
        return True

"""Rules that span two objects are checked with both locked, so that concurrent changes see each other."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from boilerhouse.core.errors import BoilerhouseError
from pools import services as pool_services
from pools.models import Pool, Workload
from pools.states import ContainerState
from syncing import places, services
from syncing.models import SyncMapping, SyncSpec
from tenants import claims, validation
from tenants.models import Assignment
from tests.api_calls import problem
from tests.make import make_assignment, make_container, make_pool, make_spec, make_sync_spec, make_workload

pytestmark = pytest.mark.django_db(transaction=True)
UPLOAD = {"container_path": "/state", "pattern": "", "sink_path": "state/", "direction": "upload", "mode": "sync"}
SOON_S = 0.7


class Aside:
    """A change made by another thread on its own connection."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.error: BoilerhouseError | None = None
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()

    def _run(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BoilerhouseError as error:
            self.error = error
        finally:
            connection.close()

    def is_done(self, within_s: float = 60) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()


@pytest.fixture
def pool(data_dir) -> Pool:
    pool = make_pool("notes")
    make_container(pool, state=ContainerState.IDLE)
    make_sync_spec(pool, id="notes", is_settled=True, on_claim=False)
    return pool


def claim(tenant: str = "alice") -> None:
    claims.begin(validation.Claim(tenant_id=tenant, pool_id="notes", wait=False))


def first(act: Callable[[], object], then: Callable[..., object]) -> Callable[..., object]:
    """``then``, with a change just before it, as by another process."""

    def run(*arguments: object, **named: object) -> object:
        assert Aside(act).is_done()
        return then(*arguments, **named)

    return run


def changed(call, **over: object) -> dict[str, object]:
    return {**call("GET", "sync-specs/notes").json(), **over}


def test_a_tenant_that_claims_while_a_spec_is_changed_keeps_its_coverage(call, pool, monkeypatch):
    """The view checked for assigned containers before the sink was queried and the lock taken."""
    monkeypatch.setattr(places, "check_to_save", first(claim, places.check_to_save))
    mapping = {"containerPath": "/state/logs", "sinkPath": "logs/", "direction": "upload", "mode": "copy"}
    body = changed(call, mappings=[mapping])
    assert "/state" in problem(call("PUT", "sync-specs/notes", body), 409, "coverage_held")["detail"]
    assert SyncMapping.objects.get().container_path == "/state"
    assert call("PUT", "sync-specs/notes?force=true", body).status_code == 200


def test_a_tenant_that_claims_while_a_spec_is_deleted_keeps_its_coverage(call, pool, monkeypatch):
    """The view had checked before."""
    monkeypatch.setattr(services, "delete_spec", first(claim, services.delete_spec))
    problem(call("DELETE", "sync-specs/notes"), 409, "coverage_held")
    assert SyncSpec.objects.exists()


def test_no_claim_is_committed_between_the_rule_and_the_deletion(pool, monkeypatch):
    """The deletion sees the claim, or the claim finds the spec deleted."""
    order: list[str] = []
    claiming: list[Aside] = []
    lock = places.lock

    def while_locked() -> None:
        lock()
        claiming.append(Aside(lambda: (claim(), order.append("claimed"))))
        assert not claiming[0].is_done(SOON_S)
        order.append("deleted")

    monkeypatch.setattr(places, "lock", while_locked)
    services.delete_spec(SyncSpec.objects.get(), force=False)
    monkeypatch.undo()
    assert claiming[0].is_done()
    assert order == ["deleted", "claimed"]
    assert Assignment.objects.filter(tenant_id="alice").exists()


def test_a_spec_is_not_deleted_under_a_release_that_has_still_to_save(call, pool):
    """Such a tenant has no container, so it did not count; it was released without a save."""
    claimed = make_container(pool, state=ContainerState.REMOVING)
    held = make_assignment(
        "bob", pool=pool, container=claimed, container_ref=claimed.pk, state="releasing", step="stopping",
        was_assigned=True,
    )  # fmt: skip
    problem(call("DELETE", "sync-specs/notes"), 409, "coverage_held")
    held.step = "saved"
    held.save()
    assert call("DELETE", "sync-specs/notes").status_code == 204


def test_a_spec_that_was_deleted_meanwhile_is_not_found(call, pool, monkeypatch):
    """The view's earlier result was used; the answer was a 500."""
    body = changed(call)
    drop = first(lambda: SyncSpec.objects.all().delete(), places.check_to_save)
    monkeypatch.setattr(places, "check_to_save", drop)
    problem(call("PUT", "sync-specs/notes", body), 404, "sync_spec_not_found")
    problem(call("DELETE", "sync-specs/notes"), 404, "sync_spec_not_found")


def test_a_pool_is_not_deleted_under_a_tenant_that_has_just_claimed(call, pool, monkeypatch):
    """The claim committed after the count, and was released although the caller had not set ``force``."""
    claiming: list[Aside] = []
    count = Pool.held_count

    def while_counting(self: Pool) -> int:
        claiming.append(Aside(claim))
        assert not claiming[0].is_done(SOON_S)
        return count(self)

    monkeypatch.setattr(Pool, "held_count", while_counting)
    pool_services.start_deleting("notes", force=False)
    assert claiming[0].is_done()
    monkeypatch.undo()
    assert Pool.objects.get().is_deleting, "nobody held anything when it was decided"


# A workload and what is made for it -------------------------------------------------------------------


def test_a_volume_does_not_go_while_a_mapping_of_it_is_made(data_dir):
    """Each was checked before the other was stored, and both were accepted."""
    workload = make_workload(
        "two", volumes=[{"name": name, "container_path": f"/{name}", "mode": "rw"} for name in "ab"]
    )
    pool = make_pool("two", workload=workload)
    sink = {"type": "s3", "bucket": "b", "region": "r", "prefix": "t/${tenantId}/", "endpoint": "http://127.0.0.1:1"}
    mappings = [{**UPLOAD, "container_path": "/b"}]
    parts = {"sink": sink, "sink_secrets": {"accessKeyId": "A", "secretAccessKey": "S"}, "mappings": mappings}
    making: list[Aside] = []

    def meanwhile(_locked: Workload) -> None:
        making.append(Aside(lambda: services.create_spec(id="s", name=None, pool=pool, on_release=True, **parts)))
        making[0].is_done(SOON_S)

    one = make_spec(volumes=[{"name": "a", "container_path": "/a", "mode": "rw"}])
    refused = None
    try:
        pool_services.update_workload(workload, name="two", spec=one, check=meanwhile)
    except BoilerhouseError as error:
        refused = error
    assert making[0].is_done()
    assert bool(refused) != bool(making[0].error)
    has_volume = workload.latest.spec.volume_of("/b") is not None
    assert SyncSpec.objects.exists() == has_volume


def test_a_policy_is_not_promised_while_its_network_goes(data_dir):
    """Packets of containers on the host's network are not filtered, whatever the pool's policy is."""
    workload = make_workload("net")
    making: list[Aside] = []
    policy = {"egress": {"mode": "none", "allow": []}}

    def meanwhile(_locked: Workload) -> None:
        making.append(
            Aside(lambda: pool_services.create_pool(id="p", name=None, workload=workload, network=policy, max_size=1))
        )
        making[0].is_done(SOON_S)

    refused = None
    try:
        spec = make_spec(security={"network_mode": "host"})
        pool_services.update_workload(workload, name="net", spec=spec, check=meanwhile)
    except BoilerhouseError as error:
        refused = error
    assert making[0].is_done()
    assert bool(refused) != bool(making[0].error)
    assert Pool.objects.exists() == workload.latest.spec.takes_policies


def test_of_two_first_specs_at_one_location_one_is_refused(data_dir):
    """The lock was on existing specs; the first two specs had none to lock."""
    sink = {"type": "s3", "bucket": "b", "region": "r", "prefix": "t/${tenantId}/", "endpoint": "http://127.0.0.1:1"}
    pools = [make_pool(name) for name in ("one", "two")]
    barrier = threading.Barrier(2)

    def create(pool: Pool) -> None:
        parts = {"sink": sink, "sink_secrets": {"accessKeyId": "A", "secretAccessKey": "S"}, "mappings": [UPLOAD]}
        barrier.wait(60)
        services.create_spec(id=pool.pk, name=None, pool=pool, on_release=True, **parts)

    making = [Aside(lambda pool=pool: create(pool)) for pool in pools]
    assert all(one.is_done() for one in making)
    assert sorted(one.error.code for one in making if one.error) == ["invalid"]
    assert SyncSpec.objects.count() == 1

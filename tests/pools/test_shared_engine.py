"""Two nodes of a deployment on one real engine and one database: each keeps to the containers with its label."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from boilerhouse.core import clock, deployment
from boilerhouse.core.models import Process
from pools import cleanup, firewall, host, lifecycle, packet_filter, packet_rules, reconcile, volumes
from pools.errors import HostNotReady
from pools.host import machine_lock
from pools.models import Container, HostLease, Pool, ResolvedName
from tests.docker_command import docker
from tests.lan import run
from tests.real_engine import Engine

pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]
ALONE = {"security": {"network_mode": "none"}}


@pytest.fixture
def be_at(engine: Engine, data_dir: Path, tmp_path_factory, settings) -> Callable[[str], None]:
    places = {"home": data_dir, "away": tmp_path_factory.mktemp("away")}
    shutil.copy(data_dir / "deployment-id", places["away"])
    settings.BOILERHOUSE_ORPHAN_GRACE_S = -1

    def be_at(name: str) -> None:
        settings.BOILERHOUSE_DATA_DIR = places[name]
        settings.BOILERHOUSE_RAM_DIR = str(places[name] / "ram")
        deployment._checked.cache_clear()
        deployment.deployment_id()

    return be_at


def start(engine: Engine) -> Container:
    container, _ = engine.start(**ALONE)
    assert container is not None
    assert container.node_id == deployment.node_id()
    return container


def test_reconcile_and_purge_keep_to_their_own_nodes_containers(engine, be_at, monkeypatch):
    """A container of another node, without a row, was an orphan of this one; purge removed all of them."""
    monkeypatch.setattr(firewall, "remove", lambda _bridge: pytest.fail("the other node's rules, too"))
    be_at("home")
    start(engine)
    be_at("away")
    theirs, kept, orphan = start(engine), start(engine), start(engine)
    volumes.latch(kept.pk, "alice", 1)
    names = [lifecycle.runtime_name(one.pk) for one in (theirs, kept, orphan)]
    for row in (kept, orphan):
        Container.objects.filter(pk=row.pk).delete()
        HostLease.objects.filter(container_id=row.pk).delete()

    be_at("home")
    Process.objects.update(kind=Process.Kind.COMMAND)  # an earlier test may have made this process one that runs on
    assert reconcile.find_drift(set()) == []
    assert not lifecycle.remove_leftover(names[2])
    assert cleanup.purge()["containers"] == 1
    assert sorted(engine.names()) == sorted(names)
    assert "true" in docker("inspect", "--format", "{{.State.Running}}", names[1])

    be_at("away")
    drift = {one.subject: one.kind for one in reconcile.find_drift(set())}
    assert {drift[name] for name in names[1:]} == {"latched_orphan", "orphan"}
    assert lifecycle.remove_leftover(names[2])
    monkeypatch.undo()


def test_a_container_without_a_nodes_label_is_this_nodes(engine, be_at, monkeypatch):
    """Containers of the previous version have no label; if they were ignored, their tenants would be released."""
    monkeypatch.setattr(host, "node_labels", dict)
    be_at("home")
    row = start(engine)
    assert host.NODE_LABEL not in engine.inspect(row)["Config"]["Labels"]
    assert reconcile.find_drift(set()) == []


def verdicts() -> str:
    return run("nft", "list", "map", "inet", packet_rules.table(), "policies")


def test_each_nodes_containers_keep_their_rules(engine, be_at):
    """B.2: the nodes share the bridge and its tables; each wrote its own containers' rules and so cut the other off."""
    network = host.ensure_network()
    be_at("home")
    here, _ = engine.start()
    be_at("away")
    there, _ = engine.start()
    for place in ("away", "home"):
        be_at(place)
        for row in (here, there):
            assert f"{row.address} :" in verdicts()
        assert firewall.differences(network) == []
        packet_filter.keep()
        packet_filter.apply()


def test_a_nodes_containers_reach_what_its_own_resolvers_answer(engine, be_at):
    """B.2: their hosts files have the answers of their own node, so these are what opens."""
    addresses = {"home": "192.0.2.7", "away": "192.0.2.8"}
    rows = {}
    for place, address in addresses.items():
        be_at(place)
        row, _ = engine.start()
        Pool.objects.filter(pk=row.pool_id).update(egress={"mode": "list", "allow": ["x.example:80"]})
        rows[place], now = row, clock.now()
        ResolvedName.objects.create(
            node_id=deployment.node_id(), name="x.example", addresses={address: now.isoformat()}, next_at=now
        )
    for place in addresses:
        be_at(place)
        guarded = firewall._guarded(firewall._rows(), host.ensure_network())
        opened = {one.address: [str(entry.network) for entry in one.policy.allow] for one in guarded}
        assert opened == {rows[name].address: [f"{address}/32"] for name, address in addresses.items()}


def test_a_policy_is_in_force_where_its_own_node_has_applied_it(engine, be_at):
    """B.2: the other may be another machine, whose tables say nothing about this container."""
    be_at("home")
    row, _ = engine.start()
    Container.objects.filter(pk=row.pk).update(egress_asked=5, egress_in_force=1)
    be_at("away")
    firewall.apply(host.ensure_network())
    assert Container.objects.get(pk=row.pk).egress_in_force == 1
    be_at("home")
    firewall.apply(host.ensure_network())
    assert Container.objects.get(pk=row.pk).egress_in_force == 5


def test_a_purge_keeps_the_other_nodes_secrets_in_a_shared_directory(engine, be_at, settings, tmp_path):
    """B.2: by default, nodes of one machine use the same directory in RAM; a purge removed all that was there."""
    ram = Path(f"/dev/shm/bh-shared-{deployment.deployment_id()}")
    ram.mkdir()
    try:
        rows = {}
        for place in ("home", "away"):
            be_at(place)
            settings.BOILERHOUSE_RAM_DIR = str(ram)
            rows[place] = start(engine)
        Process.objects.update(kind=Process.Kind.COMMAND)
        cleanup.purge()
        assert [path.name for path in ram.iterdir()] == [str(rows["home"].pk)]
        assert volumes.secrets_dir(rows["home"].pk).is_dir()
        be_at("home")
        settings.BOILERHOUSE_RAM_DIR = str(ram)
        Container.objects.filter(pk=rows["away"].pk).delete()
        cleanup.purge()
        assert not ram.exists()
    finally:
        shutil.rmtree(ram, ignore_errors=True)


@pytest.mark.postgresql
def test_one_process_of_a_machine_at_a_time_changes_what_its_nodes_share(data_dir):
    """B.2: nodes have different data directories, so a file in one of them locks nothing for the other."""
    inside, order = threading.Event(), list[str]()

    def hold() -> None:
        try:
            with machine_lock.lock("firewall", 5):
                inside.set()
                time.sleep(0.5)
                order.append("first")
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(5)
    with pytest.raises(HostNotReady, match="Another node"), machine_lock.lock("firewall", 0.1):
        pytest.fail("two at once")
    with machine_lock.lock("ram", 0.1):
        pass
    with machine_lock.lock("firewall", 5):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]

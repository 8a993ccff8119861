"""Two nodes of a deployment on one real engine and one database: each keeps to the containers with its label."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from boilerhouse.core import deployment
from boilerhouse.core.models import Process
from pools import cleanup, firewall, host, lifecycle, reconcile, volumes
from pools.models import Container, HostLease
from tests.docker_command import docker
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

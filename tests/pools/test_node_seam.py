"""No code assumes that a container is on this machine: a node's resources are accessed through its node object."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django_q.models import OrmQ

from boilerhouse.core.deployment import node_id
from pools import nodes
from pools.errors import OtherNode
from pools.models import HostLease
from tests.make import make_container, make_node

pytestmark = pytest.mark.any_database
ROOT = Path(__file__).resolve().parents[2]
OWN = ("boilerhouse/core/deployment.py", "pools/nodes.py", "pools/host/", "pools/runtime/", "pools/volumes/")
"""The node's own packages."""
FACES = {"Volumes": ("volumes", "staged"), "Host": ("host",)}

ENGINE = {
    "boilerhouse/dashboard/pages/node.py": "the page of this node",
    "boilerhouse/operations/node_report.py": "the page of this node",
    # Of this machine as a whole, said by whoever runs on it.
    "boilerhouse/controller/engine_watch.py": "the events of this node's engine",
    "boilerhouse/operations/doctor.py": "what doctor runs beside",
    "boilerhouse/operations/health.py": "the engine beside this web process",
    "boilerhouse/operations/management/commands/demo.py": "the demo's image",
    "pools/cleanup.py": "a purge of this node",
    "pools/container_commands.py": "what node.commands leads to",
    "pools/liveness.py": "the same",
    # Images: each engine has its own, and no container is concerned.
    "pools/feasibility.py": "advice before a workload is saved",
    "pools/images.py": "builds the examples' images",
    "pools/pull_runs.py": "a pull of this node, by its worker",
    "pools/image_pulls.py": "the same, for the start of a container of this node",
    "pools/tags.py": "asks about tags in turn with other nodes",
    "pools/version_images.py": "an image that a start of this node needs",
    "pools/dry_runs.py": "a dry run has no row: it lives and ends here",
}
NODE_ID = {
    "boilerhouse/core/node_identity.py": "this node's certificate",
    "boilerhouse/operations/joining.py": "the node that this machine becomes",
    "boilerhouse/operations/management/commands/run_node.py": "names it, for people",
    "boilerhouse/controller/controller.py": "the leader samples its own node itself",
    "boilerhouse/attention/save_causes.py": "whether the state of a failed save is on this node, for people",
    "boilerhouse/operations/node_report.py": "the page of this node",
    "boilerhouse/dashboard/pages/node.py": "the page of this node",
    "boilerhouse/operations/demo_data/present.py": "demo rows belong to this node",
    "boilerhouse/operations/demo_data/filling.py": "the heartbeat of the node that has demo rows",
    "boilerhouse/core/nodes.py": "the heartbeat",
    "tenants/gateway/routes.py": "the gateway leads to this node's containers, and says so of others",
    "boilerhouse/operations/archives.py": "an archive names the node that made it",
    "boilerhouse/operations/restoration.py": "a restored deployment begins as one node",
    "boilerhouse/process/processes.py": "a process's row",
    "boilerhouse/queues/broker.py": "a worker takes its node's messages",
    "pools/packet_filter.py": "this node's report of its packet filter",
    "pools/policy_names.py": "names as this node resolved them",
    "pools/pull_runs.py": "this node's pulls",
    "pools/image_pulls.py": "this node's pulls",
    "pools/querysets.py": "here()",
    "pools/dry_runs.py": "a dry run lives and ends here",
    "pools/fencing/state.py": "what this node's fence keeps",
    "tenants/disks.py": "this node's tenants, in a query that is built once",
    "tenants/state_erasure.py": "every other node is told",
    "tenants/upkeep/containers.py": "what this node's freezer shows",
}
DIRECTORY = {
    "boilerhouse/core/node_identity.py": "this node's certificate",
    "boilerhouse/operations/joining.py": "what a machine that joins stores",
    "boilerhouse/web/node_server.py": "the socket behind this node's listener",
    "boilerhouse/operations/management/commands/join.py": "names it, for people",
    "boilerhouse/operations/node_report.py": "the page of this node",
    "boilerhouse/dashboard/pages/node.py": "the page of this node",
    "boilerhouse/operations/embedded_s3.py": "the port and keys of the embedded S3",
    "boilerhouse/operations/kept_backups.py": "backups made on the page of this node",
    "boilerhouse/operations/management/commands/demo_data.py": "makes it",
    "boilerhouse/operations/addresses.py": "the address at which `up` listens",
    # None of it is a tenant's.
    "boilerhouse/core/encryption.py": "the keys",
    "boilerhouse/dashboard/pages/settings.py": "its path, for people",
    "boilerhouse/operations/archives.py": "what a backup of this node holds",
    "boilerhouse/operations/doctor.py": "what doctor runs beside",
    "boilerhouse/operations/management/commands/up.py": "makes it",
    "boilerhouse/operations/restoration.py": "what a backup is restored into",
    "boilerhouse/operations/supervisor.py": "the embedded S3 and its log",
    "boilerhouse/queues/wakeup_pipes.py": "pipes of processes of this machine",
    "boilerhouse/queues/slow_work.py": "slots of processes of this machine",
    "boilerhouse/telemetry/metering.py": "counters of processes of this machine",
    "pools/guest/binary.py": "the program of the guest agent",
    "pools/guest/paths.py": "sockets of guest agents, to which node.commands leads",
    "pools/cleanup.py": "a purge of this node",
    "pools/firewall.py": "the lock of this machine's packet filter",
    "pools/reserve.py": "this disk's reserve",
    "pools/tags.py": "the lock of this machine's looks",
    "pools/dry_runs.py": "a dry run's directory",
    "syncing/probes.py": "the directory of a sink's probe",
    "syncing/rclone.py": "slots of transfers of this machine",
    "syncing/sinks/outbound.py": "where the embedded S3 listens",
}
KERNEL = {
    "boilerhouse/operations/node_report.py",
    # By a runtime id or a process id that came from the container's node, or of the own process.
    "boilerhouse/operations/supervisor.py", "boilerhouse/process/pids.py", "boilerhouse/process/processes.py",
    "boilerhouse/process/stalls.py",
    "boilerhouse/process/priority.py", "pools/bridging.py", "pools/fencing/guard.py", "pools/freezer.py", "pools/host_processes.py",
    "pools/guest/connections.py", "pools/mount_check.py", "pools/name_resolution.py", "pools/unlinked_files.py", "pools/usage.py", "syncing/connect_guard.py",
    "syncing/jail.py", "syncing/sinks/local.py",
}  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("boilerhouse", "pools", "syncing", "tenants"):
        for path in (ROOT / folder).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if "migrations" not in path.parts and not name.startswith(OWN):
                yield name, ast.parse(path.read_text())


def callers(*functions: str) -> set[str]:
    """Modules that call one of these, or read the setting behind them."""
    return {
        name
        for name, tree in modules()
        for one in ast.walk(tree)
        if (isinstance(one, ast.Call) and getattr(one.func, "attr", getattr(one.func, "id", "")) in functions)
        or (isinstance(one, ast.Attribute) and one.attr in functions and one.attr.isupper())
    }


def past_the_seam(name: str, tree: ast.Module) -> list[str]:
    """Uses of functions on a container's directories or host resources that bypass its node."""
    through = {f"{module}.{one}" for face, of in FACES.items() for one in vars(getattr(nodes, face)) for module in of}
    return [
        f"{name}:{one.lineno} {one.value.id}.{one.attr}"
        for one in ast.walk(tree)
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name)
        if f"{one.value.id}.{one.attr}" in through
    ]


def test_directories_and_leases_of_containers_are_reached_through_their_node():
    """A worker of another node looked for a directory here, and took the container for dead."""
    assert [one for name, tree in modules() for one in past_the_seam(name, tree)] == []


@pytest.mark.parametrize(
    ("allowed", "functions"),
    [
        (ENGINE, ["get_runtime"]),
        (NODE_ID, ["node_id"]),
        (DIRECTORY, ["data_dir", "ram_dir", "BOILERHOUSE_DATA_DIR", "BOILERHOUSE_RAM_DIR"]),
    ],
    ids=["engine", "node_id", "directory"],
)
def test_who_means_this_machine_is_known_by_name(allowed, functions):
    """Code with a container at hand uses the container's node, which refuses on another machine."""
    assert callers(*functions) == set(allowed)


def test_who_reads_the_kernels_files_is_known_by_name():
    """A process id and a cgroup are meaningful on their own machine only."""
    kernel = ("/proc/", "/sys/fs/")
    found = {
        name
        for name, tree in modules()
        for one in ast.walk(tree)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
        if one.value.startswith(kernel) or one.value == "/proc"
    }
    assert found - {"pools/mounts.py"} == KERNEL  # that one names mount points in containers


def test_the_search_finds_what_goes_past_the_seam():
    """Ensures that the first test above finds something."""
    text = "volumes.wipe(pk)\nnode.volumes.wipe(pk)\nvolumes.descend(path)\nhost.release_uid(pk)\nstaged.put_aside(pk)"
    found = past_the_seam("x", ast.parse(text))
    assert [one.partition(" ")[0] for one in found] == ["x:1", "x:4", "x:5"]


def test_another_nodes_things_are_refused_and_its_queue_is_not(data_dir, db):
    make_node("there")
    node = nodes.node_of(make_container(node="there"))
    assert (node.id, node.is_here) == ("there", False)
    for name in ("runtime", "volumes", "host"):
        with pytest.raises(OtherNode, match="there"):
            getattr(node, name)
    node.queue.hand_on("pool", "pools.tasks.destroy_container", uuid4())
    assert [one.key for one in OrmQ.objects.all()] == ["pool@there"]


def test_this_nodes_things_are_to_be_had(data_dir, db):
    """A single node needs no setting; rows without a node are on this one."""
    container = make_container()
    for node in (nodes.node_of(container), nodes.here(), nodes.find(container.pk), nodes.find(uuid4())):
        assert node.is_here
        assert node.volumes.home(container.pk).parent == data_dir / "containers"
    assert nodes.node_of(container).id == node_id()


def test_what_is_left_of_a_container_without_a_row_is_on_its_leases_node(data_dir, db):
    container_id = uuid4()
    HostLease.objects.create(resource="uid 1", container_id=container_id, node=make_node("there"))
    assert nodes.find(container_id).id == "there"
    assert nodes.at_home(container_id) is None

"""A node's own resources and who may use them: its engine, its containers' directories, its host and its queue.

A node's engine, directories, file locks and cgroups are its own. Code that works on a container gets them from the
container's node, which refuses on any other machine: what another node has cannot be seen here, which does not mean
that it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Protocol
from uuid import UUID

import structlog
from django.db import transaction

from boilerhouse.core.deployment import node_id
from boilerhouse.queues.tasks import enqueue
from pools import container_commands, host, liveness, volumes
from pools.errors import OtherNode
from pools.guest import files as guest_files
from pools.models import Container, HostLease
from pools.runtime import get_runtime
from pools.runtime.base import ContainerRuntime
from pools.volumes import staged_restores

log = structlog.get_logger(__name__)


class OnNode(Protocol):
    """A row about something on one node; null or empty if an earlier version did not record the node."""

    @property
    def node_id(self) -> str | None: ...


class Volumes:
    """The operations of ``pools.volumes`` on a container's directories; its other functions take handles and paths of
    these."""

    home = staticmethod(volumes.home)
    volume_path = staticmethod(volumes.volume_path)
    staging_dir = staticmethod(volumes.staging_dir)
    placeholder_dir = staticmethod(volumes.placeholder_dir)
    locked = staticmethod(volumes.locked)
    latch = staticmethod(volumes.latch)
    read_latch = staticmethod(volumes.read_latch)
    is_anothers = staticmethod(volumes.is_anothers)
    tenant_of = staticmethod(volumes.tenant_of)
    prepare = staticmethod(volumes.prepare)
    check = staticmethod(volumes.check)
    provision = staticmethod(volumes.provision)
    seed = staticmethod(volumes.seed)
    move_in = staticmethod(volumes.move_in)
    walk = staticmethod(volumes.walk)
    clear_snapshots = staticmethod(volumes.clear_snapshots)
    put_aside = staticmethod(staged_restores.put_aside)
    wipe = staticmethod(volumes.wipe)
    discard = staticmethod(volumes.discard)
    on_disk = staticmethod(volumes.on_disk)


class Host:
    """The resources that ``pools.host`` gives a container and takes back."""

    ensure_network = staticmethod(host.ensure_network)
    ensure_ram_dir = staticmethod(host.ensure_ram_dir)
    lease_address = staticmethod(host.lease_address)
    lease_host_port = staticmethod(host.lease_host_port)
    release_uid = staticmethod(host.release_uid)
    release_addresses = staticmethod(host.release_addresses)


class Commands:
    """Commands in a container: by its guest agent, else by the engine."""

    run = staticmethod(container_commands.run)
    run_by_engine = staticmethod(container_commands.run_by_engine)
    start = staticmethod(container_commands.start)
    attach = staticmethod(container_commands.attach)
    started = staticmethod(container_commands.started)
    open_terminal = staticmethod(container_commands.open_terminal)
    is_running = staticmethod(liveness.is_running)


class Files:
    """Files in a container, by its guest agent."""

    stat = staticmethod(guest_files.stat)
    list_directory = staticmethod(guest_files.list_directory)
    make_directory = staticmethod(guest_files.make_directory)
    move = staticmethod(guest_files.move)
    remove = staticmethod(guest_files.remove)
    open = staticmethod(guest_files.OpenFile)
    open_archive = staticmethod(guest_files.OpenArchive)
    begin_put = staticmethod(guest_files.begin_put)
    begin_unpack = staticmethod(guest_files.begin_unpack)
    watch = staticmethod(guest_files.Watch)


@dataclass(frozen=True, slots=True)
class NodeQueue:
    """Messages that only workers of one node take, however long they are away."""

    node: str

    def put(self, queue: str, function: str, *arguments: object, after_s: float = 0.0) -> None:
        """Have ``function`` run there; it is visible when the transaction commits."""
        enqueue(queue, function, *arguments, node=self.node, after_s=after_s)

    def hand_on(self, queue: str, function: str, *arguments: object) -> None:
        """The same immediately, for a message that arrived here although only a worker there may execute it."""
        with transaction.atomic():
            self.put(queue, function, *arguments)


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """One node. Its engine, directories and host are accessible only on that machine; its queue from anywhere."""

    id: str
    """Empty if no row names it: treated as this node, which was then the only one."""

    @property
    def is_here(self) -> bool:
        return not self.id or self.id == node_id()

    def check(self) -> None:
        """Check that this is the node. Raises OtherNode."""
        if not self.is_here:
            raise OtherNode(
                f"The container is on node {self.id}, but this request came to node {node_id()}. Send it to that node.",
                self.id,
            )

    @property
    def runtime(self) -> ContainerRuntime:
        """Raises OtherNode."""
        self.check()
        return get_runtime()

    @property
    def commands(self) -> type[Commands]:
        """Raises OtherNode."""
        self.check()
        return Commands

    @property
    def files(self) -> type[Files]:
        """Raises OtherNode."""
        self.check()
        return Files

    @property
    def volumes(self) -> type[Volumes]:
        """Raises OtherNode."""
        self.check()
        return Volumes

    @property
    def host(self) -> type[Host]:
        """Raises OtherNode."""
        self.check()
        return Host

    def lease_uid(self, container_id: UUID) -> int:
        """A uid for a container there. Works everywhere, because uids are rows of all nodes. Raises HostNotReady."""
        return host.lease_uid(container_id, self.id)

    @property
    def queue(self) -> NodeQueue:
        return NodeQueue(self.id)


def node_of(row: OnNode) -> NodeAccess:
    """The node of a container, of what uses one, or of anything else on one node; makes no query."""
    return NodeAccess(row.node_id or "")


def here() -> NodeAccess:
    """This node, for what it finds on itself: the engine's list, directories, rows selected as its own."""
    return NodeAccess(node_id())


def find(container_id: UUID) -> NodeAccess:
    """The node of a container, or of the remains of one without a row."""
    node = Container.objects.filter(pk=container_id).values_list("node_id", flat=True).first()
    if node is None:
        node = HostLease.objects.filter(container_id=container_id).values_list("node_id", flat=True).first()
    return NodeAccess(node or "")


def at_home(container_id: UUID) -> NodeAccess | None:
    """The container's node if it is this one, which may then touch it or its remains."""
    node = find(container_id)
    if node.is_here:
        return node
    log.info("container left to its own node", container=str(container_id), node=node.id)
    return None


def on_its_node(queue: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """A task for one container, on ``queue``: it runs on the container's node; elsewhere its message is sent there."""

    def bind(function: Callable[[str], None]) -> Callable[[str], None]:
        @wraps(function)
        def run(container_id: str) -> None:
            node = find(UUID(container_id))
            if node.is_here:
                function(container_id)
            else:
                node.queue.hand_on(queue, f"{function.__module__}.{function.__name__}", container_id)

        return run

    return bind

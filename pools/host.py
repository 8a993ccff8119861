"""What this host must offer before a container may start: network, RAM file system, uids, addresses."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings

from boilerhouse.core import clock, deployment, file_locks
from boilerhouse.core.models import Deployment
from pools import volumes
from pools.errors import HostNotReady
from pools.models import Container, HostLease
from pools.runtime import get_runtime
from pools.runtime.base import Network

PUBLISHED_PORTS = range(20_000, 30_000)
DEPLOYMENT_LABEL = "boilerhouse.deployment"
CHANGING_S = 60.0
"""Whoever changes the node is done by then, or stands still."""


def network_name() -> str:
    return f"boilerhouse-{deployment.deployment_id()}"


def bridge_name() -> str:
    return f"bh{deployment.deployment_id()}"


def labels() -> dict[str, str]:
    return {DEPLOYMENT_LABEL: deployment.deployment_id()}


def _subnets() -> Iterator[str]:
    if settings.BOILERHOUSE_SUBNET:
        yield settings.BOILERHOUSE_SUBNET
        return
    taken = _routed_networks()
    first = int(deployment.deployment_id(), 16) % 64
    for step in range(64):
        candidate = ipaddress.ip_network(f"10.{64 + (first + step) % 64}.0.0/16")
        if not any(candidate.overlaps(network) for network in taken):
            yield str(candidate)


def _routed_networks() -> list[ipaddress.IPv4Network]:
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i])[::-1], "big") for i in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return found


def ensure_network() -> Network:
    """Have the deployment's network. Raises HostNotReady, EngineUnavailable."""
    with _changing_the_host():  # two that make it at once would meet in the bridge's name
        return get_runtime().ensure_network(
            network_name(), bridge_name(), _subnets(), labels(), settings.BOILERHOUSE_IPV6_SUBNET
        )


def ensure_ram_dir() -> Path:
    """Have the directory for config and secrets on a RAM file system of our own. Raises HostNotReady."""
    path = deployment.ram_dir()
    if not settings.BOILERHOUSE_RAM_DIR and path.parent.is_dir():
        path.parent.chmod(0o700)  # an earlier version, or another deployment's, may have made it
    if _is_in_ram(path):
        return path
    with _changing_the_host():
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_in_ram(path):  # two mounts over each other would hide what the first one holds
            _mount_ram(path)
    return path


def _is_in_ram(path: Path) -> bool:
    if not path.is_dir() or _file_system(path) not in ("tmpfs", "ramfs"):
        return False
    return bool(settings.BOILERHOUSE_RAM_DIR) or os.path.ismount(path)


@contextmanager
def _changing_the_host() -> Iterator[None]:
    """One process at a time sets up what all share."""
    with (deployment.data_dir() / "host.lock").open("w") as file:
        if not file_locks.take(file.fileno(), CHANGING_S):
            raise HostNotReady(
                f"Another process has been changing this node for {CHANGING_S:.0f} s; it holds {file.name}."
            )
        yield


def _mount_ram(path: Path) -> None:
    options = f"size={settings.BOILERHOUSE_RAM_SIZE_MB}m,mode=0700,nosuid,nodev,noexec"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "boilerhouse", str(path)],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        raise HostNotReady(f"No RAM file system for secrets at {path}: {mounted.stderr.strip()[:200]}")


def remove_ram_dir() -> None:
    path = deployment.ram_dir()
    if os.path.ismount(path):
        subprocess.run(["umount", str(path)], timeout=15, check=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _file_system(path: Path) -> str:
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mountpoint, file_system, *_ = line.split()
        if path.is_relative_to(mountpoint) and len(mountpoint) >= len(best):
            best, kind = mountpoint, file_system
    return kind


# Disk ------------------------------------------------------------------------------------------------


def free_disk_mb() -> int:
    """What is free where containers' directories lie, in MiB."""
    seen = os.statvfs(deployment.data_dir())
    return seen.f_bavail * seen.f_frsize // (1 << 20)


def disk_is_low() -> bool:
    """Whether less is free than the floor below which no container is started."""
    return free_disk_mb() < int(settings.BOILERHOUSE_DISK_FLOOR_MB)


def disk_words() -> str:
    return (
        f"Less than {settings.BOILERHOUSE_DISK_FLOOR_MB} MiB are free on the disk of {deployment.data_dir()}; no"
        f" container is started until there is more. Free some, or lower BOILERHOUSE_DISK_FLOOR_MB."
    )


# Uids and addresses: given round robin, never two at a time, addresses rest 10 minutes (hazards.md#i1, #i2) ------


def _lease(resource: str, container_id: UUID) -> bool:
    if HostLease.objects.filter(pk=resource).exists():
        return False
    HostLease.objects.create(resource=resource, container_id=container_id, node=deployment.node_id())
    return True


def lease_uid(container_id: UUID) -> int:
    """A host uid that nothing on this host uses; call it in the transaction that inserts the container."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    uid = Deployment.objects.select_for_update().get().next_uid
    for _ in range(high - low):
        following = low + (uid + 1 - low) % (high - low)
        if _lease(f"uid {uid}", container_id):
            Deployment.objects.update(next_uid=following)
            return uid
        uid = following
    raise HostNotReady("Every uid of the range is in use.")


def lease_address(network: Network, container_id: UUID) -> str:
    """A free address of the deployment's network, leased in this transaction."""
    _forget_rested()
    row = Deployment.objects.select_for_update().get()
    subnet = ipaddress.ip_network(network.subnet)
    usable = subnet.num_addresses - 3
    for step in range(1, usable + 1):
        offset = (row.next_address + step) % usable
        address = str(subnet.network_address + 2 + offset)
        if address != network.gateway and _lease(address, container_id):
            Deployment.objects.update(next_address=offset)
            return address
    raise HostNotReady("Every address of the network is in use or was used within the last 10 minutes.")


def lease_host_port(container_id: UUID) -> str:
    """Where a published port answers, as ``127.0.0.2:20041``, leased in this transaction."""
    start = Deployment.objects.select_for_update().get().next_address
    for step in range(len(PUBLISHED_PORTS)):
        port = PUBLISHED_PORTS[(start + step) % len(PUBLISHED_PORTS)]
        place = f"{settings.BOILERHOUSE_PUBLISH_HOST}:{port}"
        if _lease(place, container_id):
            return place
    raise HostNotReady("Every port for publishing is in use or was used within the last 10 minutes.")


def release_addresses(container_id: UUID) -> None:
    """Send the container's addresses and ports into quarantine."""
    HostLease.objects.filter(container_id=container_id).exclude(resource__startswith="uid ").update(
        released_at=clock.now()
    )


def release_uid(container_id: UUID) -> None:
    """Give the uid back: nothing on this host belongs to it any more."""
    HostLease.objects.filter(container_id=container_id, resource__startswith="uid ").delete()


def _forget_rested() -> None:
    rested = clock.now() - timedelta(seconds=settings.BOILERHOUSE_ADDRESS_QUARANTINE_S)
    HostLease.objects.filter(released_at__lt=rested).delete()


def stray_leases(held: set[UUID]) -> list[HostLease]:
    """Leases of this node in use by containers that have no row, are not in ``held``, and have nothing on this disk.

    Rows are looked up by the same statement: a lease commits together with its container's row, so one that was just
    made is never taken for a stray.
    """
    rows = HostLease.objects.filter(released_at=None, node__in=["", deployment.node_id()]).exclude(
        container_id__in=Container.objects.values("pk")
    )
    rows = rows.exclude(container_id__in=held)
    return [row for row in rows if not volumes.home(row.container_id).exists()]

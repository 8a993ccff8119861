"""Leases of uids (hazards.md#i1), addresses and ports (hazards.md#i2): assigned round robin, each to one container.

Addresses and ports are quarantined for 10 minutes before they are assigned again.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from uuid import UUID

from django.conf import settings

from boilerhouse.core import clock, deployment
from pools import volumes
from pools.errors import HostNotReady
from pools.models import Container, HostCounter, HostLease
from pools.runtime.base import Network

PUBLISHED_PORTS = range(20_000, 30_000)


def _lease(resource: str, container_id: UUID, node_id: str = "") -> bool:
    """Whether this container has it now, on that node or this one. Processes of another version count separately, so
    the row decides, not the counter."""
    values = {"container_id": container_id, "node_id": node_id or deployment.node_id()}
    _, is_new = HostLease.objects.get_or_create(resource=resource, defaults=values)
    return is_new


def _counter(name: HostCounter.Of, first: int) -> HostCounter:
    """The counter, created at ``first`` if missing. Until the end of the transaction, no other process counts."""
    rows = HostCounter.objects.select_for_update(no_key=True).filter(pk=name)
    counter = rows.first()
    if counter is None:
        HostCounter.objects.get_or_create(pk=name, defaults={"position": first})
        counter = rows.get()
    return counter


def _advance(counter: HostCounter, position: int) -> None:
    HostCounter.objects.filter(pk=counter.pk).update(position=position)


def lease_uid(container_id: UUID, node_id: str = "") -> int:
    """A uid that nothing on any node uses, for a container of that node, or of this one; call it in the transaction
    that inserts the container."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    counter = _counter(HostCounter.Of.UID, low)
    uid = counter.position
    for _ in range(high - low):
        following = low + (uid + 1 - low) % (high - low)
        if _lease(f"uid {uid}", container_id, node_id):
            _advance(counter, following)
            return uid
        uid = following
    raise HostNotReady("All uids of the range are in use.")


def lease_address(network: Network, container_id: UUID) -> str:
    """A free address of the deployment's network, leased in this transaction."""
    _forget_rested()
    counter = _counter(HostCounter.Of.ADDRESS, 0)
    subnet = ipaddress.ip_network(network.subnet)
    usable = subnet.num_addresses - 3
    for step in range(1, usable + 1):
        offset = (counter.position + step) % usable
        address = str(subnet.network_address + 2 + offset)
        if address != network.gateway and _lease(address, container_id):
            _advance(counter, offset)
            return address
    raise HostNotReady("All addresses of the network are in use or were used within the last 10 minutes.")


def lease_host_port(container_id: UUID) -> str:
    """The address of a published port, as ``127.0.0.2:20041``, leased in this transaction."""
    start = _counter(HostCounter.Of.ADDRESS, 0).position
    for step in range(len(PUBLISHED_PORTS)):
        port = PUBLISHED_PORTS[(start + step) % len(PUBLISHED_PORTS)]
        place = f"{settings.BOILERHOUSE_PUBLISH_HOST}:{port}"
        if _lease(place, container_id):
            return place
    raise HostNotReady("All ports for publishing are in use or were used within the last 10 minutes.")


def release_addresses(container_id: UUID) -> None:
    """Quarantine the container's addresses and ports."""
    HostLease.objects.filter(container_id=container_id).exclude(resource__startswith="uid ").update(
        released_at=clock.now()
    )


def release_uid(container_id: UUID) -> None:
    """Free the uid: nothing on this host belongs to it any more."""
    HostLease.objects.filter(container_id=container_id, resource__startswith="uid ").delete()


def _forget_rested() -> None:
    rested = clock.now() - timedelta(seconds=settings.BOILERHOUSE_ADDRESS_QUARANTINE_S)
    HostLease.objects.filter(released_at__lt=rested).delete()


def stray_leases(in_use: set[UUID]) -> list[HostLease]:
    """Leases of this node for containers that have no row, are not in ``held``, and have nothing on this disk.

    The same statement reads the rows: a lease commits together with its container's row, so a new one never counts as a
    stray.
    """
    rows = HostLease.objects.here().filter(released_at=None).exclude(container_id__in=Container.objects.values("pk"))
    rows = rows.exclude(container_id__in=in_use)
    return [row for row in rows if not volumes.home(row.container_id).exists()]

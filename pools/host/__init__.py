"""What this host must provide before a container can start: network, RAM file system, disk, uids, addresses."""

from __future__ import annotations

from pools.host.disk import disk_is_low, disk_mb, disk_words, free_disk_mb
from pools.host.identity import (
    DEPLOYMENT_LABEL,
    NODE_LABEL,
    bridge_name,
    is_of_another_node,
    labels,
    network_name,
    node_labels,
    of_this_node,
)
from pools.host.leases import lease_address, lease_host_port, lease_uid, release_addresses, release_uid, stray_leases
from pools.host.network import ensure_network
from pools.host.ram import ensure_ram_dir, remove_ram_dir

__all__ = [
    "DEPLOYMENT_LABEL",
    "NODE_LABEL",
    "bridge_name",
    "disk_is_low",
    "disk_mb",
    "disk_words",
    "ensure_network",
    "ensure_ram_dir",
    "free_disk_mb",
    "is_of_another_node",
    "labels",
    "lease_address",
    "lease_host_port",
    "lease_uid",
    "network_name",
    "node_labels",
    "of_this_node",
    "release_addresses",
    "release_uid",
    "remove_ram_dir",
    "stray_leases",
]

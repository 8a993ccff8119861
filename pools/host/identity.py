"""Names and labels of this deployment's objects at the engine and in the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from boilerhouse.core import deployment
from pools.runtime.base import Observed

DEPLOYMENT_LABEL = "boilerhouse.deployment"
NODE_LABEL = "boilerhouse.node"


def network_name() -> str:
    return f"boilerhouse-{deployment.deployment_id()}"


def bridge_name() -> str:
    return f"bh{deployment.deployment_id()}"


def runtime_name(container_id: UUID) -> str:
    """The container's name at the engine."""
    return f"bh-{container_id}"


def labels() -> dict[str, str]:
    """The label of all objects of this deployment."""
    return {DEPLOYMENT_LABEL: deployment.deployment_id()}


def node_labels() -> dict[str, str]:
    """Additional labels of containers, because several nodes of a deployment may share an engine."""
    return {NODE_LABEL: deployment.node_id()}


def of_this_node(listed: Iterable[Observed]) -> list[Observed]:
    """Objects without another node's label. Containers of earlier versions, which had a single node, have no node
    label."""
    return [observed for observed in listed if not is_of_another_node(observed.labels)]


def is_of_another_node(labels: Mapping[str, str]) -> bool:
    """Whether a container with these labels belongs to another node of the deployment."""
    here = deployment.node_id()
    return labels.get(NODE_LABEL, here) != here

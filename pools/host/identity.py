"""How this deployment's things are named and labelled at the engine and in the kernel."""

from __future__ import annotations

from boilerhouse.core import deployment

DEPLOYMENT_LABEL = "boilerhouse.deployment"


def network_name() -> str:
    return f"boilerhouse-{deployment.deployment_id()}"


def bridge_name() -> str:
    return f"bh{deployment.deployment_id()}"


def labels() -> dict[str, str]:
    return {DEPLOYMENT_LABEL: deployment.deployment_id()}

"""The form of the deployment settings."""

from __future__ import annotations

from typing import Any

from boilerhouse.dashboard.documents import Part, Section

KEPT = (
    ("events", "Activity"),
    ("runs", "Sync runs"),
    ("probes", "Sink checks"),
    ("backups", "Backups of tenants' state"),
    ("audit", "Changes"),
)


def sections(_value: dict[str, Any]) -> list[Section]:
    return [
        Section("Variables", (
            Part("variables", "Variables", "One NAME=value per line. Not for secrets: workloads show them", "map"),
        ), "Used as ${NAME} in the environment of workloads."),
        Section("Security policy", (
            Part("allowRoot", "Workloads may run as root (BOILERHOUSE_ALLOW_ROOT)", kind="flag"),
            Part("allowHostNetwork", "Workloads may use the host network (BOILERHOUSE_ALLOW_HOST_NETWORK)",
                 kind="flag"),
            Part("allowedRuntimes", "Runtimes", "From BOILERHOUSE_ALLOWED_RUNTIMES, one per line", "list"),
            Part("allowedDevices", "Devices of the node", "From BOILERHOUSE_ALLOWED_DEVICES, one per line", "list"),
        ), "What workloads may ask for. A workload that asks for more is refused when it is saved."),
        Section("Networks", (
            Part("allowedNetworks", "Other networks", "From BOILERHOUSE_ALLOWED_NETWORKS, one per line", "list"),
        ), "Containers use the deployment's own network, which isolates them from each other, the host and the"
           " cloud's metadata address. Workloads may also use these networks."),
        Section("Retention", tuple(
            Part(f"{name}Ms", label, kind="ms") for name, label in KEPT
        ), "Limits set by environment variables cannot be exceeded.", "retention"),
    ]  # fmt: skip

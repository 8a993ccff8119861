"""The form of what admins set while Boilerhouse runs."""

from __future__ import annotations

from typing import Any

from boilerhouse.dashboard.documents import Part, Section

KEPT = (
    ("events", "Activity"),
    ("runs", "Sync runs"),
    ("probes", "Probes of sinks"),
    ("backups", "Backups of tenants' state"),
    ("audit", "Changes"),
)


def sections(_value: dict[str, Any]) -> list[Section]:
    return [
        Section("Variables", (
            Part("variables", "Variables", "NAME=value, one in a line. No secrets: workloads show them", "map"),
        ), "For ${NAME} in the environment of workloads."),
        Section("Security policy", (
            Part("allowRoot", "Workloads may run as root (BOILERHOUSE_ALLOW_ROOT)", kind="flag"),
            Part("allowHostNetwork", "The host's network is allowed (BOILERHOUSE_ALLOW_HOST_NETWORK)", kind="flag"),
            Part("allowedRuntimes", "Runtimes", "Of BOILERHOUSE_ALLOWED_RUNTIMES; one in a line", "list"),
            Part("allowedDevices", "Devices of the node", "Of BOILERHOUSE_ALLOWED_DEVICES; one in a line", "list"),
        ), "What workloads may ask for. A workload that asks for more is refused when it is saved."),
        Section("Networks", (
            Part("allowedNetworks", "Other networks", "Of BOILERHOUSE_ALLOWED_NETWORKS; one in a line", "list"),
        ), "Containers are on the deployment's own network, where none reaches another, the host or the cloud's"
           " metadata address. These are allowed besides."),
        Section("Kept for", tuple(
            Part(f"{name}Ms", label, kind="ms") for name, label in KEPT
        ), "A day has 86,400,000 ms. Never longer than the environment says.", "retention"),
    ]  # fmt: skip

"""Settings that admins can change at run time. The environment sets their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from django.conf import settings
from django.utils import timezone

from boilerhouse.core import audit
from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.events import recording
from boilerhouse.core.models import Settings

checks: list[Callable[[DeploymentSettings], list[FieldError]]] = []
"""Functions of other apps that check new settings; the apps append to it when they are loaded."""

RETENTION_CEILINGS = {
    "events": "BOILERHOUSE_EVENT_RETENTION_S",
    "runs": "BOILERHOUSE_RUN_RETENTION_S",
    "probes": "BOILERHOUSE_PROBE_RETENTION_S",
    "backups": "BOILERHOUSE_BACKUP_RETENTION_S",
    "audit": "BOILERHOUSE_AUDIT_RETENTION_S",
}


def ceiling_s(kind: str) -> int:
    return int(getattr(settings, RETENTION_CEILINGS[kind]))


def _ceilings() -> dict[str, int]:
    return {kind: ceiling_s(kind) for kind in RETENTION_CEILINGS}


@dataclass(frozen=True, slots=True)
class DeploymentSettings:
    """The settings in force: the stored values, within the limits of the current environment."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Values for ``${NAME}`` in the environment of workloads. Everyone who may read workloads sees them, so no secrets.
    """
    allow_host_network: bool = False
    allow_root: bool = False
    allowed_runtimes: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    allowed_devices: tuple[str, ...] = ()
    retention_s: Mapping[str, int] = field(default_factory=dict)


def current() -> DeploymentSettings:
    """The settings in force. Takes one query."""
    row = Settings.objects.filter(pk=1).first()
    return _in_force(row.values if row else {})


def _in_force(values: Mapping[str, Any]) -> DeploymentSettings:
    runtimes, networks = settings.BOILERHOUSE_ALLOWED_RUNTIMES, settings.BOILERHOUSE_ALLOWED_NETWORKS
    devices = settings.BOILERHOUSE_ALLOWED_DEVICES
    retention = {**_ceilings(), **values.get("retention_s", {})}
    return DeploymentSettings(
        variables=dict(values.get("variables", {})),
        allow_host_network=settings.BOILERHOUSE_ALLOW_HOST_NETWORK and values.get("allow_host_network", True),
        allow_root=settings.BOILERHOUSE_ALLOW_ROOT and values.get("allow_root", True),
        allowed_runtimes=tuple(r for r in values.get("allowed_runtimes", runtimes) if r in runtimes),
        allowed_networks=tuple(n for n in values.get("allowed_networks", networks) if n in networks),
        allowed_devices=tuple(d for d in values.get("allowed_devices", devices) if d in devices),
        retention_s={kind: min(ceiling_s(kind), int(retention[kind])) for kind in RETENTION_CEILINGS},
    )


def replace(new: DeploymentSettings, check: Callable[[DeploymentSettings], None]) -> DeploymentSettings:
    """Store ``wanted``. ``check`` gets the settings in force, under a lock, and raises an error to reject the change.

    Raises Invalid with a pointer to each value that the environment does not allow.
    """
    _refuse_beyond_ceiling(new)
    if wrong := [error for check_settings in checks for error in check_settings(new)]:
        raise Invalid(*wrong)
    with recording():
        Settings.objects.get_or_create(pk=1)
        row = Settings.objects.select_for_update().get(pk=1)
        before = _in_force(row.values)
        check(before)
        row.values = {f.name: _plain(getattr(new, f.name)) for f in fields(new)}
        row.version, row.updated_at = row.version + 1, timezone.now()
        row.save()
        after = _in_force(row.values)
        audit.record("settings.update", "settings", **audit.changes(asdict(before), asdict(after)))
    return after


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _refuse_beyond_ceiling(new: DeploymentSettings) -> None:
    wrong: list[FieldError] = []

    def refuse(pointer: str, detail: str) -> None:
        wrong.append(FieldError(pointer, detail, "not_allowed"))

    if new.allow_host_network and not settings.BOILERHOUSE_ALLOW_HOST_NETWORK:
        refuse("/allowHostNetwork", "The environment does not allow this (BOILERHOUSE_ALLOW_HOST_NETWORK).")
    if new.allow_root and not settings.BOILERHOUSE_ALLOW_ROOT:
        refuse("/allowRoot", "The environment does not allow this (BOILERHOUSE_ALLOW_ROOT).")
    lists = (
        ("allowedRuntimes", new.allowed_runtimes, "BOILERHOUSE_ALLOWED_RUNTIMES"),
        ("allowedNetworks", new.allowed_networks, "BOILERHOUSE_ALLOWED_NETWORKS"),
        ("allowedDevices", new.allowed_devices, "BOILERHOUSE_ALLOWED_DEVICES"),
    )
    for name, values, variable in lists:
        allowed = getattr(settings, variable)
        for index, value in enumerate(values):
            if value not in allowed:
                refuse(f"/{name}/{index}", f"The environment allows {', '.join(allowed) or 'none'} ({variable}).")
    for kind, seconds in new.retention_s.items():
        if seconds > ceiling_s(kind):
            detail = f"Must be at most {ceiling_s(kind) * 1000} ({RETENTION_CEILINGS[kind]})."
            refuse(f"/retention/{kind}Ms", detail)
    if wrong:
        raise Invalid(*wrong)

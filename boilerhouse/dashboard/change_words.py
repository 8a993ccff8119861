"""Entries of the audit log in words: what was done, to what, and which values differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from boilerhouse.core.models import AuditEntry
from boilerhouse.core.words import spaced
from boilerhouse.dashboard.templatetags.ui import duration, size
from pools.models import Container, Pool, RegistryCredential, Tombstone, Workload
from syncing.models import Credential, SyncRun, SyncSpec
from tenants.models import Tenant

NOUNS = {
    "api_key": "API key", "backup": "Backup", "cause": "Cause", "container": "Container", "credential": "Credential",
    "deployment": "Deployment", "node": "Node", "node_token": "Token for a node",
    "notification": "Notification rule", "pool": "Pool",
    "registry-credential": "Registry credential", "settings": "Settings", "sync_run": "Sync run",
    "sync_spec": "Sync spec", "tenant": "Tenant", "user": "User", "workload": "Workload",
}  # fmt: skip
VERBS = {
    "create": "created", "update": "changed", "delete": "deleted", "revoke": "revoked", "pause": "paused",
    "resume": "resumed", "drain": "drained", "scale": "scaled", "release": "released", "claim": "claimed",
    "remove": "removed", "cancel": "cancelled", "rotate": "rotated", "mute": "muted", "unmute": "unmuted",
    "disable": "disabled", "enable": "enabled", "test": "tested", "resend": "sent again", "take": "taken",
    "invite": "invited", "start": "started", "stop": "stopped", "restart": "restarted", "roll_back": "rolled back",
    "cordon": "cordoned", "uncordon": "uncordoned", "join": "joined", "lost": "declared lost",
}  # fmt: skip
ACTIONS = {
    "container.command": "Command started in container",
    "container.command_signal": "Signal sent to a command in container",
    "container.exec": "Command run in container",
    "container.file_directory": "Directory made in container",
    "container.file_link": "Link to a file signed in container",
    "container.file_list": "Directory listed in container",
    "container.file_move": "File moved in container",
    "container.file_read": "File read in container",
    "container.file_remove": "File removed in container",
    "container.file_unpack": "Archive unpacked in container",
    "container.file_write": "File written in container",
    "container.terminal": "Shell opened in container",
    "container.terminal_end": "Shell closed in container",
    "node.drain": "Drain started on node",
    "deployment.rotate_secrets": "Stored secrets re-encrypted",
    "settings.update": "Settings changed",
    "sync_spec.trigger": "Sync of all tenants started by",
    "user.end_sessions": "Sessions ended of user",
    "user.reset_password": "Password reset of user",
    "user.role": "Role changed of user",
    "tenant.claim": "Container claimed for",
    "tenant.erase_state": "Saved state erased of",
    "tenant.forget_state": "Lost state written off of",
    "tenant.port_link": "Link to a port signed for",
    "tenant.network": "Network policy changed of",
    "tenant.ttl": "End of the claim changed of",
    "tenant.restore_backup": "Backup restored of",
    "tenant.retry_save": "Save retried of",
    "tenant.saved_file_read": "Saved file read of",
    "tenant.sync": "Sync started of",
    "workload.refresh": "Image checked of workload",
}
"""What is not a noun and its verb."""
PARTS = {
    "configuration": (
        "Configuration",
        ("pool.", "workload.", "sync_spec.", "settings.", "deployment.", "notification.", "cause.", "backup.", "node."),
    ),
    "access": ("Access", ("api_key.", "credential.", "node_token.", "registry-credential.", "user.")),
    "tenants": ("Tenants", ("tenant.", "sync_run.")),
    "containers": ("Containers", ("container.",)),
}
ICONS = {
    "api_key": "i-key-round", "credential": "i-key-round", "node_token": "i-key-round",
    "registry-credential": "i-key-round", "user": "i-users", "container": "i-square", "pool": "i-boxes",
    "sync_run": "i-arrow-down-up", "sync_spec": "i-arrow-down-up",
    "tenant": "i-users", "workload": "i-blocks",
}  # fmt: skip
_PAGES: dict[str, tuple[Any, str]] = {
    "container": (Container, "container"), "credential": (Credential, "credential"), "pool": (Pool, "pool"),
    "registry-credential": (RegistryCredential, "registry-credential"), "sync_run": (SyncRun, "run"),
    "sync_spec": (SyncSpec, "sync-spec"), "tenant": (Tenant, "tenant"), "workload": (Workload, "workload"),
}  # fmt: skip
_SECRETS = {"secretAccessKey", "secret"}
_HIDDEN = {"generation"}
TENANT = "Tenant id"
IN_A_LINE = 3
"""Differences that a row names; the details have all."""


def words(action: str) -> str:
    """``Pool scaled``, ``Container claimed for``."""
    if action in ACTIONS:
        return ACTIONS[action]
    kind, _, verb = action.partition(".")
    return f"{NOUNS.get(kind, spaced(kind))} {VERBS.get(verb, verb.replace('_', ' '))}"


def actions_called(text: str) -> list[str]:
    """Actions whose words contain the text; the search finds changes by them."""
    actions = {*ACTIONS, *(f"{kind}.{verb}" for kind in NOUNS for verb in VERBS)}
    return sorted(action for action in actions if text.lower() in words(action).lower())


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that was set, removed or changed; None where there was or is none."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        name = self.name[:1].lower() + self.name[1:]
        return f"{name} {' → '.join(value for value in (self.before, self.after) if value is not None)}"


@dataclass(frozen=True, slots=True)
class Change:
    """An entry for the page."""

    entry: AuditEntry
    url: str
    """The page of the object; empty if there is none, or the object is gone."""
    differences: list[Difference]

    @property
    def pk(self) -> Any:
        return self.entry.pk

    @property
    def at(self) -> Any:
        return self.entry.at

    @property
    def words(self) -> str:
        return words(self.entry.action)

    @property
    def icon(self) -> str:
        return ICONS.get(self.entry.kind, "i-settings")

    @property
    def tenant_id(self) -> str:
        """The tenant of a container."""
        about = {**(self.entry.before or {}), **(self.entry.after or {})} if self.entry.kind == "container" else {}
        return str(about.get("tenantId") or "")

    @property
    def summary(self) -> str:
        """The first differences in a line."""
        return ", ".join(map(str, self.differences[:IN_A_LINE]))

    @property
    def further(self) -> int:
        """Differences that the line leaves out."""
        return max(0, len(self.differences) - IN_A_LINE)


def changes(entries: Iterable[AuditEntry]) -> list[Change]:
    """The entries in words; a query for each kind of object finds which have a page."""
    entries = list(entries)
    there: dict[str, set[str]] = {}
    for kind, (model, _) in _PAGES.items():
        if ids := {entry.object_id for entry in entries if entry.kind == kind}:
            there[kind] = {str(pk) for pk in model.objects.filter(pk__in=ids).values_list("pk", flat=True)}
    if missing := {entry.object_id for entry in entries if entry.kind == "container"} - there.get("container", set()):
        there["container"] |= {str(pk) for pk in Tombstone.objects.filter(pk__in=missing).values_list("pk", flat=True)}
    return [Change(one, _url(one, there), _differences(one)) for one in entries]


def _differences(entry: AuditEntry) -> list[Difference]:
    """Without the tenant of a container, whom its row names with a link."""
    rows = differences(entry.before, entry.after)
    return [one for one in rows if entry.kind != "container" or one.name != TENANT]


def _url(entry: AuditEntry, there: dict[str, set[str]]) -> str:
    if entry.object_id not in there.get(entry.kind, ()):
        return ""
    return reverse(_PAGES[entry.kind][1], args=[entry.object_id])


def differences(before: Any, after: Any) -> Iterator[Difference]:
    """The values that differ, by their path. What is only on one side was set or removed."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for path in {**old, **new}:
        if path[-1:] and path[-1] in _HIDDEN:
            continue
        was, now = old.get(path), new.get(path)
        if path[-1:] and path[-1] in _SECRETS and now == "changed":
            yield Difference("Secret", None, "replaced")
        elif was != now:
            yield Difference(_label(path), _text(path, was), _text(path, now))


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(one, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, one in enumerate(value, 1):
            yield from _leaves(one, (*path, str(number)))
    elif value is not None or path:
        yield path, value


def _label(path: tuple[str, ...]) -> str:
    """``("spec", "stop_timeout_ms")`` as ``Spec, stop timeout``."""
    return ", ".join(spaced(name) for name in path).capitalize() if path else "Value"


def _text(path: tuple[str, ...], value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _amount(path, value)
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value)) or "empty"
    return (value or "empty") if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _amount(path: tuple[str, ...], value: float) -> str:
    for name in reversed(path):
        if name.endswith(("_ms", "Ms")):
            return duration(value / 1000)
        if name.endswith(("_s", "seconds", "Seconds")):
            return duration(value)
        if name.lower().endswith("bytes"):
            return size(int(value))
    return f"{value:,}"

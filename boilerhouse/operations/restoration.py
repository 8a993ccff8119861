"""Restores a backup into an empty database, and adapts it to this machine.

On the machine where it was taken, containers and directories may still exist: they are adopted, and the controller
repairs later differences. Claims whose directories are gone are marked as lost, so that nothing is saved from a missing
directory and each tenant gets its last complete save with its next claim.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from boilerhouse.core import deployment, encryption, keys
from boilerhouse.core.deployment import node_id
from boilerhouse.core.errors import Conflict, Invalid
from boilerhouse.core.models import Process
from boilerhouse.operations import archives
from boilerhouse.operations.archives import Archive, Row
from boilerhouse.process import processes
from pools.models import HostCounter
from pools.nodes import here
from pools.states import ContainerState
from tenants.models import CLEARED
from tenants.states import LIVE, AssignmentState, ReleaseStep

BATCH = 500
EVENTS_BETWEEN = 1_000_000
ADDRESSES_BETWEEN = 1 << 15
"""Gaps for ids and addresses that may have been assigned after the backup and must not be assigned again."""
REPLACED = ("core.Deployment", "core.Node", "pools.HostCounter")
"""Tables that may contain rows before: a deployment without pools has them too."""


class NotEmpty(Conflict):
    """A backup can only be restored into an empty database."""

    code = "not_empty"


@dataclass(slots=True)
class Outcome:
    """The result of a restore."""

    rows: int = 0
    containers_found: int = 0
    containers_gone: int = 0
    tenants_gone: list[str] = field(default_factory=list)
    """Claimed containers that are not here: their tenants get their last complete save."""


def restore(archive: Archive, given_keys: dict[str, str] | None) -> Outcome:
    """Restore everything or nothing.

    Raises NotEmpty, KeysMissing, NotABackup, DeploymentMismatch, Conflict while processes run, Invalid for a newer
    version's backup.
    """
    _check_idle()
    if given_keys and encryption.are_given():
        raise Conflict("The environment sets the encryption keys. Set them there, and leave --keys out.")
    available = given_keys or {}
    all_keys = encryption.parse(available["encryption-key"]) if available else encryption.in_force()
    archive.check(all_keys, available.get("key-pepper", settings.BOILERHOUSE_KEY_PEPPER))
    _check_version(archive)
    _check_deployment(archive)
    for name, value in available.items():
        keys.replace(Path(settings.BOILERHOUSE_DATA_DIR) / "keys" / name, value)
    state = _tables(archive)
    with transaction.atomic():
        _let_rows_come_in_any_order()
        fitting = _Fitting(archive)
        for label in archive.labels:
            fitting.outcome.rows += _load(state, label, fitting)
        if "core.Node" in archive.labels:
            state.get_model("core.Node")(pk=node_id(), name=socket.gethostname()[:64]).save(force_insert=True)
        _reset_sequences(state, fitting)
        keys.replace(Path(settings.BOILERHOUSE_DATA_DIR) / "deployment-id", archive.manifest.deployment_id)
    call_command("migrate", verbosity=0)
    _people(archive)
    return fitting.outcome


def _check_idle() -> None:
    tables = connection.introspection.table_names()
    if Process._meta.db_table not in tables:
        return
    living = Process.objects.filter(pk__in=processes.living()).exclude(kind=Process.Kind.COMMAND)
    if living.exists():
        raise Conflict(f"{living.count()} processes of this deployment are running; stop them first.")
    for label in archives.KEPT:
        model = apps.get_model(label)
        if label in (*REPLACED, "auth.Group") or model._meta.db_table not in tables:
            continue
        if model._base_manager.exists():
            raise NotEmpty(
                f"The database already contains {model._meta.verbose_name_plural}. Restore into an empty database."
            )


def _check_version(archive: Archive) -> None:
    migrations = MigrationExecutor(connection).loader.disk_migrations
    unknown = [f"{app}.{name}" for app, name in archive.manifest.migrations if (app, name) not in migrations]
    if unknown:
        raise Invalid(
            detail=f"The backup was taken by version {archive.manifest.version}, whose {unknown[0]} this version does"
            " not know. Restore it with that version."
        )


def _check_deployment(archive: Archive) -> None:
    path, theirs = Path(settings.BOILERHOUSE_DATA_DIR) / "deployment-id", archive.manifest.deployment_id
    ours = path.read_text().strip() if path.exists() else theirs
    if ours != theirs:
        raise deployment.DeploymentMismatch(
            f"{path.parent} belongs to deployment {ours}, but the backup belongs to {theirs}. Restore with an"
            f" empty data directory, or run purge and then remove {path} and the database."
        )


def _tables(archive: Archive) -> Any:
    """Bring the tables to the state of the backup's version, and return the models that match them."""
    executor = MigrationExecutor(connection)
    graph = executor.loader.graph
    names = {(app, name) for app, name in archive.manifest.migrations}
    applied = set(MigrationRecorder(connection).applied_migrations())
    if applied - names:
        raise Conflict(
            f"The tables here are newer than those of version {archive.manifest.version}, which took the backup."
            " Use a database without tables: restore creates the old tables, fills them and migrates them."
        )
    targets = [node for node in names if not any(child.key in names for child in graph.node_map[node].children)]
    executor.migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


def _let_rows_come_in_any_order() -> None:
    if connection.vendor == "postgresql":  # SQLite checks the references of a transaction at its end
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def _load(state: Any, label: str, fitting: _Fitting) -> int:
    if label == "auth.Group":
        return 0  # with their permissions, once those exist
    model = state.get_model(label)
    if label in REPLACED:
        model._base_manager.all().delete()
    columns = {f.attname: f for f in model._meta.concrete_fields}
    count, batch = 0, list[Any]()
    for row in fitting.rows(label):
        batch.append(model(**{name: archives.value_of(f, row[name]) for name, f in columns.items() if name in row}))
        count += 1
        if len(batch) == BATCH:
            model._base_manager.bulk_create(batch)
            batch.clear()
    model._base_manager.bulk_create(batch)
    return count


class _Fitting:
    """Rows of the backup, adapted to this machine, in the order of ``archives.KEPT``."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.outcome = Outcome()
        self.now = timezone.now().isoformat()
        self.last_event = 0
        self.first_event = EVENTS_BETWEEN
        self._here: set[str] = set()
        self._release: set[str] = set()
        """Containers of pending claims: their secrets are lost, so the claims are aborted."""
        self._failed: dict[str, int] = {}

    def rows(self, label: str) -> Iterator[Row]:
        fit = {
            "core.Event": self._event,
            "core.Deployment": self._deployment,
            "core.Node": self._node,
            "pools.Container": self._container,
            "tenants.Assignment": self._assignment,
            "pools.Pool": self._pool,
            "pools.HostLease": self._lease,
            "pools.HostCounter": self._counter,
        }.get(label)
        if label == "pools.Container":
            self._look_around()
        for row in self.archive.rows(label):
            fitted = fit(row) if fit else row
            if fitted is not None:
                yield fitted

    def _look_around(self) -> None:
        """The containers whose directories are here, and those whose claim was pending."""
        for row in self.archive.rows("pools.Container"):
            if here().volumes.home(UUID(row["id"])).is_dir():
                self._here.add(row["id"])
        for row in self.archive.rows("tenants.Assignment"):
            ref = row["container_ref"]
            if row["state"] in LIVE and ref and self._is_kept(row):
                self._here.add(ref)
                if row["state"] == AssignmentState.PENDING:
                    self._release.add(ref)

    def _is_kept(self, row: Row) -> bool:
        """Whether the container's directory is here and still belongs to this claim."""
        latch = here().volumes.read_latch(UUID(row["container_ref"]))
        if latch is None:
            return row["state"] == AssignmentState.PENDING and here().volumes.home(UUID(row["container_ref"])).is_dir()
        try:
            document = json.loads(latch)
        except ValueError:
            return False
        return (document.get("tenantId"), document.get("generation")) == (row["tenant_id"], row["generation"])

    def _event(self, row: Row) -> Row:
        self.last_event = row["id"]  # rows come in the order of their ids
        return row

    def _deployment(self, row: Row) -> Row:
        """Keep uids, addresses and event ids assigned after the backup from being assigned again."""
        if "next_uid" in row:  # of a version that kept these counters here
            row |= {"next_uid": _far(row["next_uid"]), "next_address": row["next_address"] + ADDRESSES_BETWEEN}
        self.first_event = max(self.last_event, row["events_forgotten_to"]) + EVENTS_BETWEEN
        row["events_forgotten_to"] = self.first_event
        return row

    def _node(self, row: Row) -> Row | None:
        """Create this node's row again. Other nodes own nothing any more and are deleted in time."""
        return None if row["id"] == node_id() else row

    def _container(self, row: Row) -> Row | None:
        if row["id"] not in self._here:
            self.outcome.containers_gone += 1
            return None
        self.outcome.containers_found += 1
        row |= {"owner": None, **_here(row)}
        if row["id"] in self._release:
            row |= {"state": ContainerState.REMOVING, "state_changed_at": self.now}
        return row

    def _assignment(self, row: Row) -> Row:
        row["owner"] = None
        if row["state"] in LIVE and not (row["container_ref"] and self._is_kept(row)):
            if row["was_assigned"]:
                self.outcome.tenants_gone.append(row["tenant_id"])
            row |= {
                "state": AssignmentState.ENDED, "step": "", "outcome": "host_lost", "ended_at": self.now, **CLEARED,
                "outcome_detail": "Restored from a backup on a machine that does not have the container's directory.",
                "next_attempt_at": None,
            }  # fmt: skip
        elif row["state"] == AssignmentState.PENDING:
            row |= {
                "state": AssignmentState.RELEASING, "step": ReleaseStep.STOPPING, "outcome": "claim_aborted",
                "outcome_detail": "The run was in progress when the backup was taken.", "state_changed_at": self.now,
            }  # fmt: skip
        elif row["state"] == AssignmentState.RELEASE_FAILED:
            self._failed[row["pool_id"]] = self._failed.get(row["pool_id"], 0) + 1
        if row["container_id"] not in self._here:
            row["container_id"] = None
        if row.get("directory_node"):
            row["directory_node"] = node_id()
        return row

    def _counter(self, row: Row) -> Row:
        is_uid = row["name"] == HostCounter.Of.UID
        position = _far(row["position"]) if is_uid else row["position"] + ADDRESSES_BETWEEN
        return row | {"position": position}

    def _pool(self, row: Row) -> Row:
        row |= {"waiting": 0, "release_failed": self._failed.get(row["id"], 0)}
        return row

    def _lease(self, row: Row) -> Row | None:
        if row["container_id"] in self._here:
            return row | _here(row)
        if row["resource"].startswith("uid "):
            return None
        return row | {"released_at": row["released_at"] or self.now}


def _far(uid: int) -> int:
    """The uid at the other side of the range, which is assigned round robin."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    return int(low + (uid - low + (high - low) // 2) % (high - low))


def _here(row: Row) -> Row:
    """The column that names a row's node, in this version or the backup's."""
    return {"node_id" if "node_id" in row else "node": node_id()}


def _reset_sequences(state: Any, fitting: _Fitting) -> None:
    loaded = [state.get_model(label) for label in fitting.archive.labels if label != "auth.Group"]
    events = state.get_model("core.Event")._meta.db_table
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), loaded):
            cursor.execute(statement)
        if connection.vendor == "postgresql":
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [events, fitting.first_event])
        else:
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [events])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [events, fitting.first_event])


def _people(archive: Archive) -> None:
    """Assign permissions of groups and users by name, because migrate gives them new numbers."""
    rights = {
        archives.permission_name(permission): permission
        for permission in Permission.objects.select_related("content_type")
    }
    with transaction.atomic():
        for row in archive.rows("auth.Group"):
            group, _ = Group.objects.get_or_create(name=row["name"])
            group.permissions.set(rights[word] for word in row["permissions"] if word in rights)
        for row in archive.rows("auth.User"):
            user = User.objects.get(pk=row["id"])
            user.groups.set(Group.objects.filter(name__in=row["groups"]))
            user.user_permissions.set(rights[word] for word in row["user_permissions"] if word in rights)

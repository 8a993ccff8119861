"""The file of ``backup`` and ``restore``: the deployment's rows, whatever database they lie in.

A ZIP with one JSON line per row, and ``manifest.json`` last: a file without it was cut off. Encrypted values stay
encrypted, and the keys are apart. What is only true while processes run, or can be made again, is left out.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection, models, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Cast
from django.utils import timezone

from boilerhouse.core import encryption
from boilerhouse.core.deployment import deployment_id, node_id
from boilerhouse.core.errors import Conflict, Invalid, NotFound
from boilerhouse.core.fields import EncryptedJSONField

FORMAT = 1
KEPT = [
    # Events before the deployment: where their ids go on stands there.
    "core.Event", "core.Deployment", "core.Settings", "core.ApiKey", "core.AuditEntry",
    "pools.Workload", "pools.WorkloadVersion", "pools.RegistryCredential", "pools.ImagePull",
    # Containers and assignments before pools: how many wait there follows from them.
    "pools.Container", "tenants.Tenant", "tenants.Assignment", "pools.Pool", "pools.HostLease", "pools.PoolUsage",
    "syncing.Credential", "syncing.SyncSpec", "syncing.SyncMapping", "syncing.SyncRun", "syncing.MappingRestore",
    "syncing.SinkPlace", "syncing.SavedState", "syncing.Backup", "syncing.SinkProbe",
    "auth.Group", "auth.User",
]  # fmt: skip
LEFT_OUT = {
    "core.Process": "true only while they run",
    "core.Lease": "true only while they run",
    "core.FailingStep": "true only while they run",
    "core.QueueHealth": "true only while they run",
    "core.IdempotencyRecord": "answers of a day, secrets among them",
    "pools.ContainerUsage": "hours of charts",
    "tenants.Death": "days of what tenants print",
    "django_q.OrmQ": "the controller queues again what is due",
    "django_q.Task": "results of tasks",
    "django_q.Schedule": "not used",
    "auth.Permission": "made by migrate",
    "contenttypes.ContentType": "made by migrate",
    "sessions.Session": "people sign in again",
    "admin.LogEntry": "core.AuditEntry has it all",
    "axes.AccessAttempt": "minutes of guessing",
    "axes.AccessAttemptExpiration": "minutes of guessing",
    "axes.AccessFailureLog": "minutes of guessing",
    "axes.AccessLog": "minutes of guessing",
}
_CHECK = b"boilerhouse"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    format: int
    version: str
    deployment_id: str
    node_id: str
    taken_at: str
    database: str
    migrations: list[list[str]]
    rows: dict[str, int]
    key_check: str
    """A known word, encrypted by the newest key."""
    pepper_check: str


class NotABackup(Invalid):
    """The file is no backup of Boilerhouse, or it was cut off or damaged."""

    code = "not_a_backup"


class KeysMissing(Conflict):
    """The backup's secrets or API keys were made with keys that are not here."""

    code = "keys_missing"


# Writing ----------------------------------------------------------------------------------------------


def write(path: Path, tell: Callable[[str], None]) -> Manifest:
    """Write all rows as they are at one moment, beside running processes, into a new file (0600).

    The file appears whole. Raises Conflict when there is one already.
    """
    if path.exists():
        raise Conflict(f"{path} exists already; a backup never writes over another file.")
    deployment_id()  # written now where there was none yet: afterwards nothing is
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with _moment(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                counts: dict[str, int] = {}
                for label in KEPT:
                    counts[label] = _write_rows(archive, label)
                    tell(f"{label}: {counts[label]} rows")
                manifest = _manifest(counts)
                archive.writestr("manifest.json", json.dumps(asdict(manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename it never takes another's place
    except FileExistsError:
        raise Conflict(f"{path} exists already; a backup never writes over another file.") from None
    finally:
        draft.unlink(missing_ok=True)
    return manifest


@contextmanager
def _moment() -> Iterator[None]:
    """All that is read in the block is of one moment; nobody who writes waits for it."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    else:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")  # atomic() would take the writers' lock
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def _manifest(counts: dict[str, int]) -> Manifest:
    return Manifest(
        format=FORMAT,
        version=settings.VERSION,
        deployment_id=deployment_id(),
        node_id=node_id(),
        taken_at=timezone.now().isoformat().replace("+00:00", "Z"),
        database=connection.vendor,
        migrations=sorted([app, name] for app, name in MigrationRecorder(connection).applied_migrations()),
        rows=counts,
        key_check=encryption.cipher().encrypt(_CHECK).decode(),
        pepper_check=_pepper_check(settings.BOILERHOUSE_KEY_PEPPER),
    )


def _write_rows(archive: zipfile.ZipFile, label: str) -> int:
    model, count = apps.get_model(label), 0
    with archive.open(f"{label}.ndjson", "w", force_zip64=True) as file:
        for row in _rows(model):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def _rows(model: type[models.Model]) -> Iterator[Row]:
    if model is Group:
        for group in Group.objects.prefetch_related("permissions__content_type").order_by("pk"):
            yield {"name": group.name, "permissions": sorted(permission_name(one) for one in group.permissions.all())}
        return
    fields = model._meta.concrete_fields
    hidden = [field for field in fields if isinstance(field, EncryptedJSONField)]
    raw = {f"raw_{field.attname}": Cast(field.attname, models.BinaryField()) for field in hidden}
    names = [f"raw_{f.attname}" if f in hidden else f.attname for f in fields]
    query = model._base_manager.annotate(**raw).order_by("pk").values_list(*names)
    for values in query.iterator(chunk_size=1000):
        row = {f.attname: _plain(value) for f, value in zip(fields, values, strict=True)}
        if model._meta.label == "tenants.Assignment":
            row["secrets"] = None  # of claims that are over by the time anybody restores this
        if model is User:
            user = User.objects.get(pk=row["id"])
            row["groups"] = sorted(user.groups.values_list("name", flat=True))
            row["user_permissions"] = sorted(permission_name(one) for one in user.user_permissions.all())
        yield row


def permission_name(permission: Any) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, datetime):
        return value.isoformat()  # to the microsecond, unlike Django's encoder
    return str(value) if isinstance(value, UUID) else value


# Reading ----------------------------------------------------------------------------------------------


class Archive:
    """A backup that is read. Raises NotFound, NotABackup."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFound(f"There is no file {path}.")
        try:
            self._zip = zipfile.ZipFile(path)
            found = json.loads(self._zip.read("manifest.json"))
            if found.get("format") != FORMAT:
                raise NotABackup(detail=f"{path} has format {found.get('format')!r}; this version reads {FORMAT}.")
            self.manifest = Manifest(**found)
            damaged = self._zip.testzip()
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
            raise NotABackup(detail=f"{path} is no backup, or it was cut off or damaged: {error}") from error
        if damaged:
            raise NotABackup(detail=f"{path} is damaged at {damaged}.")

    def rows(self, label: str) -> Iterator[Row]:
        """The rows of a model, as JSON. Raises NotABackup where some are missing."""
        count = 0
        with self._zip.open(f"{label}.ndjson") as file:
            for line in file:
                yield json.loads(line)
                count += 1
        if count != self.manifest.rows[label]:
            raise NotABackup(detail=f"{label} has {count} rows; the manifest says {self.manifest.rows[label]}.")

    def check_keys(self, keys: tuple[str, ...], pepper: str) -> None:
        """Raises KeysMissing unless these keys open what the backup holds."""
        try:
            MultiFernet([Fernet(key) for key in keys]).decrypt(self.manifest.key_check.encode())
        except InvalidToken:
            raise KeysMissing(
                "None of the encryption keys here opens this backup's secrets. Say --keys FILE, or set"
                " BOILERHOUSE_ENCRYPTION_KEYS to the keys that were in force when it was taken."
            ) from None
        if not hmac.compare_digest(_pepper_check(pepper), self.manifest.pepper_check):
            raise KeysMissing(
                "The key pepper is another one: no API key of the backup would work. Say --keys FILE, or set"
                " BOILERHOUSE_KEY_PEPPER."
            )


def _pepper_check(pepper: str) -> str:
    return hmac.digest(pepper.encode(), b"backup of " + _CHECK, "sha256").hex()


def value_of(field: Any, value: Any) -> Any:
    """The value of a column from its JSON."""
    if value is None or isinstance(field, models.JSONField):
        return value
    if isinstance(field, EncryptedJSONField):
        return encryption.Ciphertext(base64.b64decode(value))
    if isinstance(field, models.BinaryField):
        return base64.b64decode(value)
    return field.target_field.to_python(value) if field.is_relation else field.to_python(value)


# Keys, apart -------------------------------------------------------------------------------------------

KEY_FILES = ("secret-key", "key-pepper", "encryption-key", "s3-access-key", "s3-secret-key")
"""In ``<data>/keys``; those of the embedded S3 server only where it ran."""


def write_keys(path: Path) -> None:
    """Write the keys in force into a new file (0600). Raises Conflict when there is one already."""
    held = {
        "secret-key": settings.SECRET_KEY,
        "key-pepper": settings.BOILERHOUSE_KEY_PEPPER,
        "encryption-key": ",".join(encryption.in_force()),
    }
    for name in KEY_FILES[3:]:
        kept = Path(settings.BOILERHOUSE_DATA_DIR) / "keys" / name
        if kept.exists():
            held[name] = kept.read_text().strip()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already; keys are never written over another file.") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(held, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_keys(path: Path) -> dict[str, str]:
    """Raises NotFound, NotABackup."""
    if not path.is_file():
        raise NotFound(f"There is no file {path}.")
    try:
        held = json.loads(path.read_text())
        missing = [name for name in KEY_FILES[:3] if not isinstance(held.get(name), str)]
    except (ValueError, AttributeError) as error:
        raise NotABackup(detail=f"{path} does not hold keys.") from error
    if missing:
        raise NotABackup(detail=f"{path} lacks {', '.join(missing)}.")
    return {name: held[name] for name in KEY_FILES if name in held}

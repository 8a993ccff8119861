"""The file format of ``backup`` and ``restore``: the deployment's rows, independent of the database.

A ZIP with one JSON line per row, then ``manifest.json`` and its signature; a file without them is truncated. Encrypted
values stay encrypted, and the keys are stored separately. Rows that are only valid while processes run, or that can be
recreated, are left out.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from django.db.models.functions import Cast, Now
from django.utils import timezone

from boilerhouse.core import deployment, encryption
from boilerhouse.core.deployment import deployment_id, node_id
from boilerhouse.core.errors import Conflict, Failed, NotFound
from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.core.models import Deployment
from boilerhouse.operations import signatures
from boilerhouse.operations.signatures import Hashed, NotABackup

FORMAT, UNSIGNED_FORMAT = 2, 1
KEPT = [
    # Events before the deployment, which records where their ids continue.
    "core.Event", "core.Deployment", "core.Node", "core.CertificateAuthority", "core.Settings", "core.ApiKey",
    "core.AuditEntry", "core.TenantUsage",
    "pools.Workload", "pools.WorkloadVersion", "pools.RegistryCredential", "pools.ImagePull",
    # Containers and assignments before pools, whose count of waiting claims follows from them.
    "pools.Container", "tenants.Tenant", "tenants.Assignment", "pools.Pool", "pools.HostLease", "pools.HostCounter",
    "pools.PoolUsage",
    "syncing.Credential", "syncing.SyncSpec", "syncing.SyncMapping", "syncing.SyncRun", "syncing.MappingRestore",
    "syncing.SinkPlace", "syncing.SavedState", "syncing.Backup", "syncing.SinkProbe",
    "notifications.Target", "notifications.Mute",
    "auth.Group", "auth.User",
]  # fmt: skip
LEFT_OUT = {
    "core.NodeToken": "hours of invitations",
    "core.Process": "true only while they run",
    "core.Lease": "true only while they run",
    "core.FailingStep": "true only while they run",
    "core.QueueHealth": "true only while they run",
    "core.IdempotencyRecord": "answers of a day, secrets among them",
    "pools.ContainerUsage": "hours of charts",
    "pools.Tombstone": "days of what is gone",
    "pools.LastOutput": "days of what tenants print",
    "pools.NetworkReport": "the node writes it again",
    "pools.ResolvedName": "the node asks again",
    "tenants.Death": "days of what tenants print",
    "notifications.Incident": "present causes are seen again",
    "notifications.Delivery": "a log; a message that was not sent is told again if its cause lasts",
    "django_q.OrmQ": "the controller queues again what is due",
    "django_q.Task": "results of tasks",
    "django_q.Schedule": "not used",
    "auth.Permission": "made by migrate",
    "contenttypes.ContentType": "made by migrate",
    "core.Session": "people sign in again",
    "sessions.Session": "not used",
    "admin.LogEntry": "core.AuditEntry has it all",
    "axes.AccessAttempt": "minutes of guessing",
    "axes.AccessAttemptExpiration": "minutes of guessing",
    "axes.AccessFailureLog": "minutes of guessing",
    "axes.AccessLog": "minutes of guessing",
}
_CHECK = b"boilerhouse"
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
"""What reading a ZIP raises if it is truncated, altered, or uses unsupported features."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The backup's description of itself."""

    format: int
    version: str
    deployment_id: str
    node_id: str
    taken_at: str
    database: str
    migrations: list[list[str]]
    rows: dict[str, int]
    key_check: str
    """A known plaintext, encrypted with the newest key."""
    pepper_check: str
    seals: dict[str, list[Any]] = field(default_factory=dict)
    """Size and SHA-256 of each part. Empty in backups of versions that did not sign."""


class NotSigned(Failed):
    """The backup is of a version that did not sign backups, so its author is unknown."""

    code = "not_signed"


class KeysMissing(Conflict):
    """The backup's secrets or API keys were created with keys that are not here."""

    code = "keys_missing"


def write(path: Path, tell: Callable[[str], None]) -> Manifest:
    """Write a consistent snapshot of all rows to a new file (0600) while processes run.

    The file appears only when it is complete. Raises Conflict if the file exists.
    """
    if path.exists():
        raise Conflict(f"{path} already exists; a backup does not overwrite files.")
    deployment_id()  # created now if missing, because the snapshot does not change later
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with _moment(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                counts: dict[str, int] = {}
                seals: dict[str, list[Any]] = {}
                for label in KEPT:
                    counts[label], seals[_part(label)] = _write_rows(archive, label)
                    tell(f"{label}: {counts[label]} rows")
                manifest = _manifest(counts, seals)
                text = json.dumps(asdict(manifest), indent=1).encode()
                archive.writestr(signatures.MANIFEST, text)
                archive.writestr(signatures.SIGNATURE, signatures.signature(text, encryption.in_force()[0]))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, a link never replaces a file
        Deployment.objects.update(backed_up_at=Now())
    except FileExistsError:
        raise Conflict(f"{path} already exists; a backup does not overwrite files.") from None
    finally:
        draft.unlink(missing_ok=True)
    return manifest


@contextmanager
def _moment() -> Iterator[None]:
    """Everything read in the block is one consistent snapshot; writers do not wait for it."""
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


def _manifest(counts: dict[str, int], seals: dict[str, list[Any]]) -> Manifest:
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
        seals=seals,
    )


def _part(label: str) -> str:
    return f"{label}.ndjson"


def _write_rows(archive: zipfile.ZipFile, label: str) -> tuple[int, list[Any]]:
    """Write the rows; return their number and the seal of the part."""
    model, count = apps.get_model(label), 0
    with archive.open(_part(label), "w", force_zip64=True) as file:
        hashed = Hashed(file)
        for row in _rows(model):
            hashed.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count, hashed.seal


def _rows(model: type[models.Model]) -> Iterator[Row]:
    if model is Group:
        for group in Group.objects.prefetch_related("permissions__content_type").order_by("pk"):
            yield {
                "name": group.name,
                "permissions": sorted(permission_name(permission) for permission in group.permissions.all()),
            }
        return
    fields = model._meta.concrete_fields
    hidden = [field for field in fields if isinstance(field, EncryptedJSONField)]
    raw = {f"raw_{field.attname}": Cast(field.attname, models.BinaryField()) for field in hidden}
    names = [f"raw_{f.attname}" if f in hidden else f.attname for f in fields]
    query = model._base_manager.annotate(**raw).order_by("pk").values_list(*names)
    for values in query.iterator(chunk_size=1000):
        row = {f.attname: _plain(value) for f, value in zip(fields, values, strict=True)}
        if model._meta.label == "tenants.Assignment":
            row["secrets"] = None  # of claims that will have ended when this is restored
        if model is User:
            user = User.objects.get(pk=row["id"])
            row["groups"] = sorted(user.groups.values_list("name", flat=True))
            row["user_permissions"] = sorted(permission_name(permission) for permission in user.user_permissions.all())
        yield row


def permission_name(permission: Any) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, datetime):
        return value.isoformat()  # with microseconds, unlike Django's encoder
    return str(value) if isinstance(value, UUID) else value


class Archive:
    """A backup that is being read. Nothing of it is used before ``check`` has verified that it is complete and the
    deployment's own.

    Raises NotFound, NotABackup, and NotSigned for an older version's backup without ``allow_unsigned``.
    """

    def __init__(self, path: Path, *, allow_unsigned: bool = False) -> None:
        if not path.is_file():
            raise NotFound(f"No file {path}.")
        self._path, self._is_checked = path, False
        try:
            self._zip = zipfile.ZipFile(path)
            signatures.check_parts(self._zip.infolist())
            self._text = signatures.read_small(self._zip, signatures.MANIFEST)
            document = json.loads(self._text)
            if document.get("format") not in (FORMAT, UNSIGNED_FORMAT):
                raise NotABackup(
                    detail=f"{path} has format {document.get('format')!r}; this version reads format {FORMAT}."
                )
            self.manifest = Manifest(**document)
            self._signature = b"" if self._is_unsigned else signatures.read_small(self._zip, signatures.SIGNATURE)
        except (*UNREADABLE, KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotABackup(detail=f"{path} is not a backup, or is truncated or damaged: {error}") from error
        if self._is_unsigned and not allow_unsigned:
            raise NotSigned(
                detail=f"{path} is a backup of a version that did not sign backups: anyone who could write the file may"
                " have added users and keys. Use --unsigned if only you could write it."
            )
        if not deployment.is_id(self.manifest.deployment_id):
            raise NotABackup(detail=f"{path} does not name a deployment: its id is not one that Boilerhouse creates.")

    @property
    def _is_unsigned(self) -> bool:
        return self.manifest.format == UNSIGNED_FORMAT

    @property
    def labels(self) -> list[str]:
        """The models in the backup, in the order of ``KEPT``; a backup of an older version lacks newer models."""
        return [label for label in KEPT if label in self.manifest.rows]

    def check(self, keys: tuple[str, ...], pepper: str) -> None:
        """Raise KeysMissing unless these keys can decrypt the backup, NotABackup unless one of them signed it."""
        try:
            MultiFernet([Fernet(key) for key in keys]).decrypt(str(self.manifest.key_check).encode())
        except (InvalidToken, ValueError):
            raise KeysMissing(
                "None of the encryption keys here can decrypt this backup's secrets. Use --keys FILE, or set"
                " BOILERHOUSE_ENCRYPTION_KEYS to the keys that were in use when the backup was taken."
            ) from None
        if not hmac.compare_digest(_pepper_check(pepper).encode(), str(self.manifest.pepper_check).encode()):
            raise KeysMissing(
                "The key pepper differs, so no API key of the backup would work. Use --keys FILE, or set"
                " BOILERHOUSE_KEY_PEPPER."
            )
        self._check_seals(keys)
        self._is_checked = True

    def _check_seals(self, keys: tuple[str, ...]) -> None:
        try:
            if self._is_unsigned:
                damaged = self._zip.testzip()
                if damaged:
                    raise NotABackup(detail=f"{self._path} is damaged at {damaged}.")
                return
            if not signatures.is_signed(self._text, self._signature, keys):
                raise NotABackup(
                    detail=f"{self._path} was altered or written by another deployment: no key of this deployment made"
                    " its signature. Nothing was restored. Use another copy."
                )
            signatures.check_contents(self._zip, self.manifest.seals)
        except UNREADABLE as error:
            raise NotABackup(detail=f"{self._path} is truncated or damaged: {error}") from error

    def rows(self, label: str) -> Iterator[Row]:
        """The rows of a model, as JSON. Raises NotABackup if rows are missing or differ from the checked ones."""
        assert self._is_checked
        count, name = 0, _part(label)
        with self._zip.open(name) as file:
            hashed = Hashed(file)
            for line in hashed:
                yield json.loads(line)
                count += 1
        if not self._is_unsigned and hashed.seal != self.manifest.seals[name]:
            raise signatures.altered(name)
        if count != self.manifest.rows[label]:
            raise NotABackup(detail=f"{label} has {count} rows; the manifest says {self.manifest.rows[label]}.")


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


KEY_FILES = ("secret-key", "key-pepper", "encryption-key", "s3-access-key", "s3-secret-key")
"""In ``<data>/keys``; the embedded S3 server's keys exist only if it has run."""


def write_keys(path: Path) -> None:
    """Write the keys in use to a new file (0600). Raises Conflict if the file exists."""
    contents = {
        "secret-key": settings.SECRET_KEY,
        "key-pepper": settings.BOILERHOUSE_KEY_PEPPER,
        "encryption-key": ",".join(encryption.in_force()),
    }
    for name in KEY_FILES[3:]:
        stored = Path(settings.BOILERHOUSE_DATA_DIR) / "keys" / name
        if stored.exists():
            contents[name] = stored.read_text().strip()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} already exists; keys are never written to an existing file.") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(contents, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_keys(path: Path) -> dict[str, str]:
    """Raises NotFound, NotABackup."""
    if not path.is_file():
        raise NotFound(f"No file {path}.")
    try:
        contents = json.loads(path.read_text())
        missing = [name for name in KEY_FILES[:3] if not isinstance(contents.get(name), str)]
    except (ValueError, AttributeError) as error:
        raise NotABackup(detail=f"{path} does not contain keys.") from error
    if missing:
        raise NotABackup(detail=f"{path} lacks {', '.join(missing)}.")
    return {name: contents[name] for name in KEY_FILES if name in contents}

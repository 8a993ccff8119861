"""The file of ``backup`` and ``restore``: the deployment's rows, whatever database they lie in.

A ZIP with one JSON line per row, then ``manifest.json`` and its signature: a file without them was cut off. Encrypted
values stay encrypted, and the keys are apart. What is only true while processes run, or can be made again, is left out.
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
from django.db.models.functions import Cast
from django.utils import timezone

from boilerhouse.core import deployment, encryption
from boilerhouse.core.deployment import deployment_id, node_id
from boilerhouse.core.errors import Conflict, Failed, NotFound
from boilerhouse.core.fields import EncryptedJSONField
from boilerhouse.operations import sealing
from boilerhouse.operations.sealing import Hashed, NotABackup

FORMAT, UNSIGNED_FORMAT = 2, 1
KEPT = [
    # Events before the deployment: where their ids go on stands there.
    "core.Event", "core.Deployment", "core.Node", "core.Settings", "core.ApiKey", "core.AuditEntry",
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
    "pools.NetworkReport": "the node writes it again",
    "pools.ResolvedName": "the node asks again",
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
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
"""What reading a ZIP raises that was cut, altered, or made with what this reader does not know."""

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
    seals: dict[str, list[Any]] = field(default_factory=dict)
    """Of each part its size and SHA-256. Empty in backups that were not signed yet."""


class NotSigned(Failed):
    """The backup is of a version that did not sign; nothing tells who wrote it."""

    code = "not_signed"


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
                seals: dict[str, list[Any]] = {}
                for label in KEPT:
                    counts[label], seals[_part(label)] = _write_rows(archive, label)
                    tell(f"{label}: {counts[label]} rows")
                manifest = _manifest(counts, seals)
                text = json.dumps(asdict(manifest), indent=1).encode()
                archive.writestr(sealing.MANIFEST, text)
                archive.writestr(sealing.SIGNATURE, sealing.signature(text, encryption.in_force()[0]))
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
    """How many there are, and the seal of what was written."""
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
    """A backup that is read. Nothing of it is used before ``check`` has found it whole and the deployment's own.

    Raises NotFound, NotABackup, and NotSigned for an older version's without ``allow_unsigned``.
    """

    def __init__(self, path: Path, *, allow_unsigned: bool = False) -> None:
        if not path.is_file():
            raise NotFound(f"There is no file {path}.")
        self._path, self._is_checked = path, False
        try:
            self._zip = zipfile.ZipFile(path)
            sealing.check_parts(self._zip.infolist())
            self._text = sealing.read_small(self._zip, sealing.MANIFEST)
            found = json.loads(self._text)
            if found.get("format") not in (FORMAT, UNSIGNED_FORMAT):
                raise NotABackup(detail=f"{path} has format {found.get('format')!r}; this version reads {FORMAT}.")
            self.manifest = Manifest(**found)
            self._signature = b"" if self._is_unsigned else sealing.read_small(self._zip, sealing.SIGNATURE)
        except (*UNREADABLE, KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotABackup(detail=f"{path} is no backup, or it was cut off or damaged: {error}") from error
        if self._is_unsigned and not allow_unsigned:
            raise NotSigned(
                detail=f"{path} is a backup of a version that did not sign: whoever could write the file may have put"
                " people and keys into it. Say --unsigned if it has been where only you could write."
            )
        if not deployment.is_id(self.manifest.deployment_id):
            raise NotABackup(detail=f"{path} names no deployment: its id is none that Boilerhouse makes.")

    @property
    def _is_unsigned(self) -> bool:
        return self.manifest.format == UNSIGNED_FORMAT

    @property
    def labels(self) -> list[str]:
        """The models that it holds, in the order of ``KEPT``; an older version's lacks those of later ones."""
        return [label for label in KEPT if label in self.manifest.rows]

    def check(self, keys: tuple[str, ...], pepper: str) -> None:
        """Raise KeysMissing unless these keys open what the backup holds, NotABackup unless one of them signed it."""
        try:
            MultiFernet([Fernet(key) for key in keys]).decrypt(str(self.manifest.key_check).encode())
        except (InvalidToken, ValueError):
            raise KeysMissing(
                "None of the encryption keys here opens this backup's secrets. Say --keys FILE, or set"
                " BOILERHOUSE_ENCRYPTION_KEYS to the keys that were in force when it was taken."
            ) from None
        if not hmac.compare_digest(_pepper_check(pepper).encode(), str(self.manifest.pepper_check).encode()):
            raise KeysMissing(
                "The key pepper is another one: no API key of the backup would work. Say --keys FILE, or set"
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
            if not sealing.is_signed(self._text, self._signature, keys):
                raise NotABackup(
                    detail=f"{self._path} was altered, or another deployment wrote it: its signature is not by a key"
                    " of this one. Nothing was restored; take another copy of it."
                )
            sealing.check_contents(self._zip, self.manifest.seals)
        except UNREADABLE as error:
            raise NotABackup(detail=f"{self._path} was cut off or damaged: {error}") from error

    def rows(self, label: str) -> Iterator[Row]:
        """The rows of a model, as JSON. Raises NotABackup where some are missing, or not as they were checked."""
        assert self._is_checked
        count, name = 0, _part(label)
        with self._zip.open(name) as file:
            hashed = Hashed(file)
            for line in hashed:
                yield json.loads(line)
                count += 1
        if not self._is_unsigned and hashed.seal != self.manifest.seals[name]:
            raise sealing.altered(name)
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

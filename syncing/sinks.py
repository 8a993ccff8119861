"""Sinks: the far end of a sync. A kind of sink is one class: rclone's remote, and a small in-process client.

The in-process client answers "is anything there?" in 2-4 ms, where an rclone process needs 75 ms (hazard A10).
"""

from __future__ import annotations

import contextlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from syncing.errors import SinkDenied, SinkMissing, SinkUnreachable, SyncFailed
from syncing.locations import MARKER_ROOT

CLAIM_DEADLINE_S, RUN_DEADLINE_S, COPY_DEADLINE_S = 2, 15, 300
REMOTE = "bh"


@dataclass(frozen=True, slots=True)
class Listing:
    """Totals of the objects at a location."""

    files: int
    bytes: int


class Sink(ABC):
    """One far end, resolved: with its secrets, ready to be used."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """rclone's remote ``bh:`` as environment variables; secrets go nowhere else."""

    @abstractmethod
    def remote(self, location: str) -> str:
        """rclone's path of a location, always ending in a slash."""

    @abstractmethod
    def flags(self) -> list[str]: ...

    @abstractmethod
    def get(self, key: str, deadline_s: int) -> bytes | None:
        """An object's content, None if there is none. Raises SyncFailed, SinkMissing for a missing bucket."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None: ...

    @abstractmethod
    def delete(self, key: str) -> None: ...

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Copy an object within the sink, its modification time and metadata included."""

    @abstractmethod
    def has_objects(self, location: str, deadline_s: int) -> bool: ...

    @abstractmethod
    def names(self, location: str) -> Iterator[tuple[str, int]]:
        """Relative key and size of every object at the location."""

    @abstractmethod
    def folders(self, location: str) -> Iterator[str]:
        """The locations right below ``location``."""

    @abstractmethod
    def delete_all(self, location: str) -> None:
        """Delete every object at the location."""

    @property
    @abstractmethod
    def place(self) -> tuple[str, str]:
        """Endpoint and bucket: where locations of different specs can meet."""

    def probe(self) -> None:
        """Write, read and delete an object. Raises SyncFailed with the reason."""
        key = f"{MARKER_ROOT}/probe"
        self.put(key, b"probe")
        if self.get(key, RUN_DEADLINE_S) != b"probe":
            raise SyncFailed("The sink did not give back what was written.")
        self.delete(key)


_clients: dict[tuple[Any, ...], Any] = {}
_clients_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class S3Sink(Sink):
    """AWS S3 and everything that speaks it."""

    bucket: str
    region: str
    prefix: str
    endpoint: str = ""
    provider: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    rclone_flags: tuple[str, ...] = ()

    type: ClassVar[str] = "s3"

    @property
    def place(self) -> tuple[str, str]:
        return self.endpoint.rstrip("/").lower(), self.bucket

    def environment(self) -> dict[str, str]:
        values = {
            "TYPE": "s3",
            "PROVIDER": self.provider or ("Other" if self.endpoint else "AWS"),
            "REGION": self.region,
            "ENDPOINT": self.endpoint,
            "ACCESS_KEY_ID": self.access_key_id,
            "SECRET_ACCESS_KEY": self.secret_access_key,
            "ENV_AUTH": "false" if self.access_key_id else "true",
        }
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items() if value}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self.bucket}/{location}/"

    def flags(self) -> list[str]:
        return ["--s3-no-check-bucket", *self.rclone_flags]

    def _client(self, deadline_s: int) -> Any:
        # Imported here: it takes a quarter of a second, and most processes never ask a sink.
        import boto3.session
        from botocore.config import Config

        key = (self, deadline_s)
        with _clients_lock:
            if key not in _clients:
                style: Any = {"addressing_style": "path" if self.endpoint else "auto"}
                _clients[key] = boto3.session.Session().client(
                    "s3",
                    region_name=self.region,
                    endpoint_url=self.endpoint or None,
                    aws_access_key_id=self.access_key_id or None,
                    aws_secret_access_key=self.secret_access_key or None,
                    config=Config(
                        connect_timeout=deadline_s,
                        read_timeout=deadline_s,
                        retries={"total_max_attempts": 1 if deadline_s == CLAIM_DEADLINE_S else 3},
                        s3=style,
                        max_pool_connections=16,
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return _clients[key]

    def get(self, key: str, deadline_s: int) -> bytes | None:
        from botocore.exceptions import ClientError

        with self._translated():
            try:
                found = self._client(deadline_s).get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    return None
                raise
            content: bytes = found["Body"].read()
            return content

    def put(self, key: str, content: bytes) -> None:
        with self._translated():
            self._client(RUN_DEADLINE_S).put_object(Bucket=self.bucket, Key=key, Body=content)

    def delete(self, key: str) -> None:
        with self._translated():
            self._client(RUN_DEADLINE_S).delete_object(Bucket=self.bucket, Key=key)

    def copy(self, source: str, target: str) -> None:
        with self._translated():
            origin = {"Bucket": self.bucket, "Key": source}
            self._client(COPY_DEADLINE_S).copy_object(Bucket=self.bucket, Key=target, CopySource=origin)

    def has_objects(self, location: str, deadline_s: int) -> bool:
        with self._translated():
            found = self._client(deadline_s).list_objects_v2(Bucket=self.bucket, Prefix=f"{location}/", MaxKeys=1)
            return bool(found.get("Contents"))

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        prefix = f"{location}/"
        with self._translated():
            pages = self._client(RUN_DEADLINE_S).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield item["Key"][len(prefix) :], item["Size"]

    def folders(self, location: str) -> Iterator[str]:
        prefix = f"{location}/"
        with self._translated():
            pages = self._client(RUN_DEADLINE_S).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                for item in page.get("CommonPrefixes", ()):
                    yield item["Prefix"].rstrip("/")

    def delete_all(self, location: str) -> None:
        keys = [f"{location}/{name}" for name, _ in self.names(location)]
        for start in range(0, len(keys), 1000):
            batch = {"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True}
            with self._translated():
                self._client(RUN_DEADLINE_S).delete_objects(Bucket=self.bucket, Delete=batch)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"{self.bucket} at {self.endpoint or 'AWS'}"
        try:
            yield
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if code == "NoSuchBucket":
                raise SinkMissing(f"Bucket {where} does not exist.") from error
            if status in (401, 403):
                raise SinkDenied(f"Bucket {where} answered {status} {code}.") from error
            if status >= 500:
                raise SinkUnreachable(f"Bucket {where} answered {status} {code}.") from error
            raise SyncFailed(f"Bucket {where} answered {status} {code}.") from error
        except (BotoCoreError, OSError) as error:
            raise SinkUnreachable(f"Bucket {where} cannot be reached ({type(error).__name__}).") from error


# Flags a spec may add: exact names, typed values (facts: rclone §7) ---------------------------------

_SIZE, _NUMBER = r"\d{1,9}[KMG]?", r"\d{1,2}"
_BOOL = r"true|false"
ALLOWED_FLAGS = {
    "--s3-upload-cutoff": _SIZE,
    "--s3-chunk-size": _SIZE,
    "--s3-upload-concurrency": _NUMBER,
    "--s3-storage-class": r"[A-Z_]{1,30}",
    "--s3-acl": r"private",
    "--s3-server-side-encryption": r"AES256|aws:kms",
    "--s3-sse-kms-key-id": r"[A-Za-z0-9:/_-]{1,200}",
    "--s3-requester-pays": _BOOL,
    "--s3-disable-checksum": _BOOL,
    "--transfers": r"[1-9]|[1-5]\d|6[0-4]",
    "--checkers": r"[1-9]|[1-5]\d|6[0-4]",
    "--bwlimit": r"\d{1,6}[KMG]?",
    "--tpslimit": r"\d{1,5}",
    "--buffer-size": r"\d{1,2}M",
    "--multi-thread-streams": _NUMBER,
}


def check_flag(flag: str) -> str | None:
    """What is wrong with one rclone flag; None if it may be used."""
    name, equals, value = flag.partition("=")
    if name not in ALLOWED_FLAGS:
        return f"The flag {name[:60]} is not allowed."
    if not equals or not re.fullmatch(ALLOWED_FLAGS[name], value):
        return f"Write {name}=VALUE with a value that fits."
    return None

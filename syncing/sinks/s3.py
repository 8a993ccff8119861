"""S3: AWS and everything that speaks it."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from syncing.errors import RemoteChanged, SinkDenied, SinkMissing, SinkUnreachable, SinkUntrusted, SyncFailed
from syncing.locations import MARKER_ROOT
from syncing.sinks import rclone_names, reaching
from syncing.sinks.base import CLAIM_DEADLINE_S, COPY_DEADLINE_S, REMOTE, RUN_DEADLINE_S, Sink

if TYPE_CHECKING:
    from syncing.sinks.s3_access import Access

_MD5 = re.compile("[0-9a-f]{32}")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_accesses: dict[tuple[S3Sink, int], Access] = {}
_accesses_lock = threading.Lock()
_HOST_KEYS = (
    "The spec has none of its own, so the node's are looked for: in its environment, a profile, a web identity, or the"
    " instance's role."
)


@dataclass(frozen=True, slots=True)
class S3Sink(Sink):
    """A bucket, and the keys for it."""

    bucket: str
    region: str
    prefix: str
    endpoint: str = ""
    provider: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    rclone_flags: tuple[str, ...] = ()

    type: ClassVar[str] = "s3"

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink of a spec's body and its secrets ``{accessKeyId, secretAccessKey}``."""
        return cls(
            bucket=sink["bucket"],
            region=sink["region"],
            prefix=sink["prefix"],
            endpoint=sink.get("endpoint") or "",
            provider=sink.get("provider") or "",
            access_key_id=secrets.get("accessKeyId") or sink.get("accessKeyId") or "",
            secret_access_key=secrets.get("secretAccessKey") or "",
            rclone_flags=tuple(sink.get("rcloneFlags") or ()),
        )

    @property
    def place(self) -> tuple[str, str]:
        return self.endpoint.rstrip("/").lower(), self.bucket

    @property
    def address(self) -> str:
        if self.endpoint:
            return self.endpoint
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return f"https://{self.bucket}.s3.{self.region}.{domain}"

    def environment(self) -> dict[str, str]:
        access_key_id, secret_access_key, session_token = self._keys()
        values = {
            "TYPE": "s3",
            "PROVIDER": self.provider or ("Other" if self.endpoint else "AWS"),
            "REGION": self.region,
            "ENDPOINT": self.endpoint,
            "ACCESS_KEY_ID": access_key_id,
            "SECRET_ACCESS_KEY": secret_access_key,
            "SESSION_TOKEN": session_token,
            "ENV_AUTH": "false",
        }
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items() if value}

    def _keys(self) -> tuple[str, str, str]:
        """Key id, secret and session token; without keys of its own those that the host has right now.

        rclone in its jail sees nothing of where the host's come from: environment, profile, web identity or role.
        """
        if self.access_key_id:
            return self.access_key_id, self.secret_access_key, ""
        from syncing.sinks.s3_access import host_keys

        with self._translated():
            return host_keys()

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self.bucket}/{location}/"

    def flags(self) -> list[str]:
        own = [f"--s3-encoding={rclone_names.ENCODING}"] if self.provider == "Rclone" else []
        return ["--s3-no-check-bucket", *own, *self.rclone_flags]

    def respelling(self, paths: Collection[str]) -> list[str]:
        return rclone_names.respelling(paths) if self.provider == "Rclone" else []

    def listed(self, key: str) -> str:
        return rclone_names.listed(key) if self.provider == "Rclone" else key

    def _client(self, deadline_s: int) -> Any:
        return self._access(deadline_s).client

    def _access(self, deadline_s: int) -> Access:
        # Imported here: it takes a quarter of a second, and most processes never ask a sink.
        from syncing.sinks.s3_access import Access

        key = (self, deadline_s)
        with _accesses_lock:
            if key not in _accesses:
                keys = self.access_key_id, self.secret_access_key
                attempts = 1 if deadline_s == CLAIM_DEADLINE_S else 3
                proxies = reaching.proxies_for(self.address)
                _accesses[key] = Access(self.bucket, self.region, self.endpoint, *keys, proxies, deadline_s, attempts)
            return _accesses[key]

    def get(self, key: str, deadline_s: int) -> bytes | None:
        return self.read(key, deadline_s)[0]

    def read(self, key: str, deadline_s: int) -> tuple[bytes | None, str]:
        from botocore.exceptions import ClientError

        from syncing.sinks.s3_access import Unclear

        with self._translated():
            with contextlib.suppress(Unclear):
                return self._access(deadline_s).read(key)
            try:
                found = self._client(deadline_s).get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    return None, ""
                raise
            return found["Body"].read(), found["ETag"]

    def put_if(self, key: str, content: bytes, tag: str) -> str:
        from botocore.exceptions import ClientError

        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with self._translated():
            try:
                done = self._client(RUN_DEADLINE_S).put_object(Bucket=self.bucket, Key=key, Body=content, **condition)
                return str(done["ETag"])
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (404, 409, 412):
                    raise
        now, new_tag = self.read(key, RUN_DEADLINE_S)
        if now == content:
            return new_tag  # our own write, whose answer was lost
        raise RemoteChanged(f"Another has written {key} at the same time.")

    def has_conditional_writes(self) -> bool:
        key = f"{MARKER_ROOT}/probe-{uuid.uuid4().hex}"
        try:
            tag = self.put_if(key, b"one", "")
            for stale in ("", '"0123456789abcdef0123456789abcdef"'):
                try:
                    self.put_if(key, b"two", stale)
                except RemoteChanged:
                    continue
                return False
            return self.put_if(key, b"three", tag) != tag
        except SyncFailed:
            return False
        finally:
            self.delete(key)

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
        from syncing.sinks.s3_access import Unclear

        with self._translated():
            with contextlib.suppress(Unclear):
                return self._access(deadline_s).has_objects(f"{location}/")
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

    def unhashed(self, location: str) -> list[str]:
        prefix, is_kms = f"{location}/", "--s3-server-side-encryption=aws:kms" in self.rclone_flags
        with self._translated():
            client = self._client(RUN_DEADLINE_S)
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            found = [item for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
            doubtful = [item["Key"] for item in found if is_kms or not _MD5.fullmatch(item["ETag"].strip('"').lower())]
            if not doubtful:
                return []

            def has_none(key: str) -> bool:
                # rclone keeps it there where it cannot be the tag.
                return "md5chksum" not in client.head_object(Bucket=self.bucket, Key=key)["Metadata"]

            with ThreadPoolExecutor(16) as threads:
                return [
                    key[len(prefix) :]
                    for key, lacks in zip(doubtful, threads.map(has_none, doubtful), strict=True)
                    if lacks
                ]

    def folders(self, location: str) -> Iterator[str]:
        prefix = f"{location}/"
        with self._translated():
            pages = self._client(RUN_DEADLINE_S).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                for item in page.get("CommonPrefixes", ()):
                    yield item["Prefix"].rstrip("/")

    def delete_all(self, location: str) -> None:
        keys = [f"{location}/{name}" for name, _ in self.names(location)]
        for key in keys:  # a request for many of them is XML, which cannot name all
            if _NOT_XML.search(key):
                self.delete(key)
        keys = [key for key in keys if not _NOT_XML.search(key)]
        for start in range(0, len(keys), 1000):
            batch = {"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True}
            with self._translated():
                self._client(RUN_DEADLINE_S).delete_objects(Bucket=self.bucket, Delete=batch)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        from syncing.sinks.s3_access import NO_HOST_KEYS, is_about_host_keys

        where = f"{self.bucket} at {self.endpoint or 'AWS'}"
        try:
            yield
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if is_about_host_keys(error):
                raise SinkDenied(f"{error.operation_name} answered {status} {code}. {_HOST_KEYS}") from error
            if code == "NoSuchBucket":
                raise SinkMissing(f"Bucket {where} does not exist.") from error
            if status in (401, 403):
                raise SinkDenied(f"Bucket {where} answered {status} {code}.") from error
            if status >= 500:
                raise SinkUnreachable(f"Bucket {where} answered {status} {code}.") from error
            if status == reaching.PROXY_DENIES:
                raise SinkUnreachable(f"The proxy before bucket {where} demands other credentials.") from error
            raise SyncFailed(f"Bucket {where} answered {status} {code}.") from error
        except NO_HOST_KEYS as error:
            raise SinkDenied(f"There are no keys for bucket {where} ({type(error).__name__}). {_HOST_KEYS}") from error
        except (BotoCoreError, OSError) as error:
            if reaching.is_untrusted(error):
                raise SinkUntrusted(f"The certificate of bucket {where} cannot be verified.") from error
            raise SinkUnreachable(f"Bucket {where} cannot be reached ({type(error).__name__}).") from error

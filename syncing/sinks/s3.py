"""S3: AWS and all compatible stores."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import structlog

from boilerhouse.process import stalls
from syncing import endpoints
from syncing.errors import (
    ClockSkewed,
    RemoteChanged,
    SinkArchived,
    SinkClosed,
    SinkDenied,
    SinkElsewhere,
    SinkMissing,
    SinkRefused,
    SinkStumbled,
    SinkThrottled,
    SinkUnreachable,
    SinkUnreliable,
    SinkUntrusted,
)
from syncing.sinks import conditions, deadlines, network_settings, rclone_names, refusals, sizes
from syncing.sinks.base import (
    CLAIM_DEADLINE_S,
    COPY_DEADLINE_S,
    LISTING_DEADLINE_S,
    REMOTE,
    RUN_DEADLINE_S,
    FormField,
    Sink,
    whole_s,
)
from syncing.sinks.flags import KMS, Carried
from syncing.sinks.retries import retry

if TYPE_CHECKING:
    from syncing.sinks.inputs import InputClass
    from syncing.sinks.s3_access import Access, ObjectMetadata

log = structlog.get_logger(__name__)

T = TypeVar("T")
AT_ONCE = 1000
"""How many objects S3 deletes per request."""
IN_HOST = frozenset({
    "AWS", "Alibaba", "Cubbit", "DigitalOcean", "Dreamhost", "GCS", "Hetzner", "HuaweiOBS", "ImpossibleCloud",
    "Intercolo", "Leviia", "Linode", "LyveCloud", "Netease", "OVHcloud", "Petabox", "Rabata", "RackCorp", "Scaleway",
    "Selectel", "Servercore", "Storj", "Synology", "TencentCOS", "Wasabi", "Zata", "us3",
})  # fmt: skip
"""The providers for which rclone puts the bucket into the host name; for all others it is in the path."""

_MD5 = re.compile("[0-9a-f]{32}")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_accesses: dict[tuple[S3Sink, int], Access] = {}
_accesses_lock = threading.Lock()
_HOST_KEYS = (
    "The spec has none of its own, so the node's are looked for: in its environment, a profile, a web identity, or the"
    " instance's role."
)
_last_objects: dict[S3Sink, ObjectMetadata] = {}
_SIGNS: refusals.Signs = (
    (("nosuchbucket",), SinkMissing),
    (("requesttimetooskewed",), ClockSkewed),
    (
        ("permanentredirect", "authorizationheadermalformed", "can't set region", "statuscode: 301"),
        SinkElsewhere,
    ),
    (("invalidobjectstate", "restore first"), SinkArchived),
    (("accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch", "statuscode: 403"), SinkDenied),
    (("slowdown", "statuscode: 503", "statuscode: 429", "toomanyrequests"), SinkThrottled),
)


@dataclass(frozen=True, slots=True)
class S3Sink(Sink):
    """A bucket and its keys."""

    bucket: str
    region: str
    prefix: str
    endpoint: str = ""
    provider: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    rclone_flags: tuple[str, ...] = ()

    type: ClassVar[str] = "s3"
    label: ClassVar[str] = "S3, or compatible"
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("bucket", "Bucket"),
        FormField("region", "Region"),
        FormField("endpoint", "Endpoint", "http(s)://host[:port]. Leave empty for AWS"),
        FormField("prefix", "Prefix", "Prepended to every path; ${tenantId} separates tenants"),
        FormField("provider", "Provider", "rclone's name for it, such as Minio or Cloudflare"),
        FormField("credentialId", "Credential", "From Settings, Credentials", "credential"),
        FormField("accessKeyId", "Access key id", "If no credential is selected"),
        FormField("secretAccessKey", "Secret access key", "Stored encrypted. Leave empty to keep it", "secret"),
        FormField("rcloneFlags", "rclone flags", "Only flags that do not change what is saved", "list"),
    )
    rclone_signs: ClassVar[refusals.Signs] = _SIGNS

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

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.s3_input import S3SinkInput

        return S3SinkInput

    @classmethod
    def warm(cls) -> None:
        from syncing.sinks.s3_access import warm

        warm()

    def secrets(self) -> Iterator[str]:
        if self.secret_access_key:
            yield self.secret_access_key

    @property
    def place(self) -> tuple[str, str]:
        return self.endpoint.rstrip("/").lower(), self.bucket

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        if endpoints.is_aws(self.endpoint):
            return ("aws", self.bucket), template
        server = f"{endpoints.server(self.endpoint)}/{endpoints.path(self.endpoint)}".rstrip("/")
        return (server, self.bucket), template

    def addresses(self) -> list[str]:
        return endpoints.resolved(self.endpoint)

    @property
    def address(self) -> str:
        if self.endpoint:
            return self.endpoint
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return f"https://{self.bucket}.s3.{self.region}.{domain}"

    @property
    def has_changing_addresses(self) -> bool:
        return endpoints.is_aws(self.address)

    def hosts(self) -> Iterator[str]:
        for host in Sink.hosts(self):
            yield host
            yield f"{self.bucket}.{host}"  # where the bucket is part of it

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
        """Key id, secret and session token; without keys of its own, the node's current ones.

        rclone in its sandbox cannot see the node's sources of keys: environment, profile, web identity or role.
        """
        if self.access_key_id:
            return self.access_key_id, self.secret_access_key, ""
        from syncing.sinks.s3_access import host_keys

        with deadlines.within(whole_s(RUN_DEADLINE_S)), self._translated():
            return host_keys()

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self.bucket}/{location}/"

    def flags(self, location: str) -> list[str]:
        own = [f"--s3-encoding={rclone_names.ENCODING}"] if self.provider == "Rclone" else []
        return ["--s3-no-check-bucket", *own, *self.rclone_flags, *self._encryption(location)]

    def respelling(self, paths: Collection[str]) -> list[str]:
        return rclone_names.respelling(paths) if self.provider == "Rclone" else []

    def listed(self, key: str) -> str:
        return rclone_names.listed(key) if self.provider == "Rclone" else key

    def _encryption(self, location: str) -> list[str]:
        """rclone flags for a bucket that encrypts with KMS by default, where no ETag is an MD5.

        Naming the key that the bucket uses anyway changes nothing else.
        """
        if self.names_encryption:
            return []
        last = self.last_object or self._ask(RUN_DEADLINE_S, lambda access: _first(access, f"{location}/"))
        if last is None or last.encryption != KMS:
            return []
        key = [f"--s3-sse-kms-key-id={last.key_id}"] if last.key_id else []
        return [f"--s3-server-side-encryption={KMS}", *key]

    @property
    def names_encryption(self) -> bool:
        """Whether the spec's own flags set how objects are encrypted."""
        return any(flag.startswith("--s3-server-side-encryption=") for flag in self.rclone_flags)

    @property
    def last_object(self) -> ObjectMetadata | None:
        """The object that this process last wrote or read there."""
        return _last_objects.get(self)

    @property
    def carried(self) -> Carried:
        """The flags that apply to every request, with rclone's choice of the bucket's position."""
        carried = Carried.by(self.rclone_flags)
        is_in_path = bool(self.endpoint) and self.provider not in IN_HOST and carried.has_path_style
        return replace(carried, has_path_style=is_in_path)

    def _client(self, deadline_s: int) -> Any:
        return self._access(deadline_s).client

    def _access(self, deadline_s: int) -> Access:
        # Imported here, because it takes a quarter of a second, and most processes never use S3.
        from syncing.sinks.s3_access import Access

        key = (self, deadline_s)
        with _accesses_lock:
            if key not in _accesses:
                keys = self.access_key_id, self.secret_access_key
                proxies = network_settings.proxies_for(self.address)
                _accesses[key] = Access(
                    self.bucket, self.region, self.endpoint, *keys, proxies, self.carried, deadline_s
                )
            return _accesses[key]

    def _ask(self, deadline_s: int, ask: Callable[[Access], T], size: int = 0) -> T:
        """The result of ``ask``: a claim's query is made once, a run's with retries. Raises SyncFailed.

        ``size`` is the size of the request in bytes.
        """

        def once() -> T:
            with deadlines.within(whole_s(deadline_s, size)), self._translated():
                return ask(self._access(deadline_s))

        return once() if deadline_s == CLAIM_DEADLINE_S else retry(once)

    def get(self, key: str, deadline_s: int) -> bytes | None:
        return self.read(key, deadline_s)[0]

    def read(self, key: str, deadline_s: int) -> tuple[bytes | None, str]:
        answer = self._ask(deadline_s, lambda access: _read(access, key))
        if answer is None:
            return None, ""
        content, metadata = answer
        _last_objects[self] = metadata
        return content, metadata.tag

    def put_if(self, key: str, content: bytes, tag: str) -> str:
        from botocore.exceptions import ClientError

        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}

        def put(access: Access) -> ObjectMetadata | None:
            try:
                return _put(access, key, content, **condition)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (404, 409, 412):
                    raise
                return None

        if written := self._ask(RUN_DEADLINE_S, put, len(content)):
            _last_objects[self] = written
            return written.tag
        now, new_tag = self.read(key, RUN_DEADLINE_S)
        if now == content:
            return new_tag  # our own write, whose response was lost
        raise RemoteChanged(f"Another has written {key} at the same time.")

    def create(self, key: str, content: bytes) -> bool:
        return conditions.create(self, key, content)

    def has_conditional_writes(self) -> bool:
        return conditions.are_honoured(self, '"0123456789abcdef0123456789abcdef"')

    def probe(self) -> None:
        from syncing.sinks.s3_checks import check

        check(self)

    def put(self, key: str, content: bytes) -> None:
        _last_objects[self] = self._ask(RUN_DEADLINE_S, lambda access: _put(access, key, content), len(content))

    def delete(self, key: str) -> None:
        self._ask(RUN_DEADLINE_S, lambda access: access.ask("delete_object", Key=key))

    def copy(self, source: str, target: str) -> None:
        origin, stored = {"Bucket": self.bucket, "Key": source}, self.carried.storage_class
        more = {"StorageClass": stored} if stored else {}
        self._ask(COPY_DEADLINE_S, lambda access: access.ask("copy_object", Key=target, CopySource=origin, **more))

    def has_objects(self, location: str, deadline_s: int) -> bool:
        return self._ask(deadline_s, lambda access: _has_objects(access, f"{location}/"))

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        prefix = f"{location}/"
        for page in self._pages(Prefix=prefix):
            for item in page.get("Contents", ()):
                stalls.step()
                if not item["Key"].endswith("/"):
                    yield item["Key"][len(prefix) :], item["Size"]

    def unhashed(self, location: str) -> list[str]:
        prefix, is_kms = f"{location}/", f"--s3-server-side-encryption={KMS}" in self.flags(location)
        items = [item for page in self._pages(Prefix=prefix) for item in page.get("Contents", ())]
        doubtful = [
            item["Key"]
            for item in items
            if not item["Key"].endswith("/") and (is_kms or not _MD5.fullmatch(item["ETag"].strip('"').lower()))
        ]
        if not doubtful:
            return []
        with ThreadPoolExecutor(16) as threads:
            hashed = list(threads.map(self._names_md5, doubtful))
        return [key[len(prefix) :] for key, is_hashed in zip(doubtful, hashed, strict=True) if not is_hashed]

    def _names_md5(self, key: str) -> bool:
        """Whether the object's metadata contain it: rclone stores it there if the tag cannot be the MD5."""
        return "md5chksum" in self._ask(RUN_DEADLINE_S, lambda access: access.ask("head_object", Key=key))["Metadata"]

    def folders(self, location: str) -> Iterator[str]:
        for page in self._pages(Prefix=f"{location}/", Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].rstrip("/")

    def _pages(self, **what: Any) -> Iterator[Mapping[str, Any]]:
        """The pages of a complete listing. Raises SinkUnreliable if it never ends."""
        token, until = "", time.monotonic() + LISTING_DEADLINE_S
        while True:
            if time.monotonic() > until:
                raise SinkUnreliable(f"A listing of {self._where} has not ended after {LISTING_DEADLINE_S} s.")
            more: dict[str, Any] = {"ContinuationToken": token} if token else {}
            page = self._ask(RUN_DEADLINE_S, partial(_list, **what, **more))
            yield page
            if not page.get("IsTruncated"):
                return
            last, token = token, page.get("NextContinuationToken") or ""
            if token in ("", last):
                raise SinkUnreliable(f"A listing of {self._where} goes on, but it does not say where.")

    def delete_all(self, location: str) -> None:
        keys = [f"{location}/{name}" for name, _ in self.names(location)]
        unnamed = [key for key in keys if _NOT_XML.search(key)]  # a request for several is XML, which cannot name all
        self._delete_each(unnamed)
        keys = [key for key in keys if not _NOT_XML.search(key)]
        for start in range(0, len(keys), AT_ONCE):
            self._delete_many(keys[start : start + AT_ONCE])

    def _delete_many(self, keys: list[str]) -> None:
        """With one request, and the remaining ones one by one: not every store supports it, or accepts our form of
        it."""
        batch = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = self._ask(RUN_DEADLINE_S, lambda access: access.ask("delete_objects", Delete=batch))
            failed = [one["Key"] for one in answer.get("Errors", ())]
        except SinkRefused as error:
            log.info("many objects are deleted one by one", place=self.place_name, detail=error.detail)
            failed = keys
        self._delete_each(failed)

    def _delete_each(self, keys: list[str]) -> None:
        if keys:
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(self.delete, keys))

    @property
    def _where(self) -> str:
        return f"bucket {self.bucket} at {self.endpoint or 'AWS'}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        from syncing.sinks.s3_access import BRIEF, NO_HOST_KEYS, is_about_host_keys

        try:
            yield
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if is_about_host_keys(error):
                raise SinkDenied(f"{error.operation_name} answered {status} {code}. {_HOST_KEYS}") from error
            if status == network_settings.PROXY_DENIES:
                raise SinkUnreachable(f"The proxy before {self._where} demands other credentials.") from error
            raise refusals.of_s3(self._where, error.response) from error
        except NO_HOST_KEYS as error:
            raise SinkDenied(f"There are no keys for {self._where} ({type(error).__name__}). {_HOST_KEYS}") from error
        except (BotoCoreError, OSError) as error:
            if isinstance(closed := getattr(error, "kwargs", {}).get("error"), SinkClosed):
                raise closed from error
            if network_settings.is_untrusted(error):
                raise SinkUntrusted(f"The certificate of {self._where} cannot be verified.") from error
            kind = SinkStumbled if isinstance(error, BRIEF) else SinkUnreachable
            raise kind(f"The {self._where} cannot be reached ({type(error).__name__}).") from error


def _read(access: Access, key: str) -> tuple[bytes, ObjectMetadata] | None:
    from botocore.exceptions import ClientError

    from syncing.sinks.s3_access import Unclear

    with contextlib.suppress(Unclear):
        return access.read(key)
    try:
        answer = access.ask("get_object", Key=key)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "NoSuchKey" or (code in ("AccessDenied", "Forbidden") and not _is_listed(access, key)):
            return None
        raise
    sizes.check(int(answer.get("ContentLength") or 0), key)
    content = sizes.joined(answer["Body"].iter_chunks(sizes.CHUNK), key)
    return content, _as_metadata(content, answer)


def _first(access: Access, prefix: str) -> ObjectMetadata | None:
    """One of the objects below a prefix, without its content."""
    for item in _list(access, Prefix=prefix, MaxKeys=1).get("Contents", ()):
        return _as_metadata(b"", access.ask("head_object", Key=item["Key"]))
    return None


def _as_metadata(content: bytes, answer: Mapping[str, Any]) -> ObjectMetadata:
    from syncing.sinks.s3_access import ObjectMetadata

    facts = answer["ETag"], answer.get("ServerSideEncryption", ""), answer.get("SSEKMSKeyId", "")
    return ObjectMetadata.of(content, *facts)


def _is_listed(access: Access, key: str) -> bool:
    """Whether there is such an object, from a listing.

    Some stores refuse the query of a missing key instead of reporting it as missing. If the listing is refused too,
    nothing is known, which is an error.
    """
    return any(item["Key"] == key for item in _list(access, Prefix=key, MaxKeys=1).get("Contents", ()))


def _has_objects(access: Access, prefix: str) -> bool:
    from syncing.sinks.s3_access import Unclear

    with contextlib.suppress(Unclear):
        return access.has_objects(prefix)
    return bool(_list(access, Prefix=prefix, MaxKeys=1).get("Contents"))


def _list(access: Access, **what: Any) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = access.ask("list_objects_v2", **what)
    return answer


def _put(access: Access, key: str, content: bytes, **condition: str) -> ObjectMetadata:
    """Buckets with Object Lock require Content-MD5."""
    from syncing.sinks.s3_access import md5

    return _as_metadata(content, access.ask("put_object", Key=key, Body=content, ContentMD5=md5(content), **condition))

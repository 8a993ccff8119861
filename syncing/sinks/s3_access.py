"""Access to S3: botocore's client, and for the two queries of every claim only its signer and transport.

A client validates parameters, resolves the endpoint and calls hooks for each request; for two small queries that was a
third of a claim's time (ADR 25). Any unexpected response is left to the client, which handles redirects, retries and
all errors.

Importing this takes a quarter of a second, and creating the first client another; a process that often uses S3 does
both in advance (``warm``).
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSRequest,
    AWSResponse,
)
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import (
    ClientError,
    ConfigNotFound,
    ConnectionClosedError,
    ConnectTimeoutError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
    UnknownCredentialError,
)
from botocore.handlers import add_expect_header
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from django.conf import settings
from urllib3.exceptions import HTTPError

from syncing.errors import Oversized
from syncing.sinks import guarded_connections, network_settings, sizes
from syncing.sinks.flags import Carried


def new_session() -> Session:
    """A shared session; it looks for the node's keys on first use."""
    session = Session()
    session.set_config_variable("ca_bundle", network_settings.ca_bundle())  # of requests for keys
    # Modification times are not used here, and parsing them was half of the cost of a long listing.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return session


_session = new_session()
"""One for all, because it caches S3's description; only creating something with it takes the lock."""
_making = threading.Lock()

_ENCRYPTION = "x-amz-server-side-encryption"
_KEY_ID = f"{_ENCRYPTION}-aws-kms-key-id"


class _Http(guarded_connections.Guarded, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _Https(guarded_connections.Guarded, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(AWSHTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _Https


def _guard(transport: Any) -> None:
    """Make the transport connect only to addresses where a sink may be."""
    transport._pool_classes_by_scheme = transport._manager.pool_classes_by_scheme = _POOLS


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class Unclear(Exception):
    """Not an expected response: use the client."""


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """An object, as described by a response."""

    tag: str
    has_md5_tag: bool
    """False if the tag looks like an MD5 but is not that of the content."""
    encryption: str = ""
    """The encryption that S3 reports: AES256, aws:kms, or empty."""
    key_id: str = ""

    @classmethod
    def of(cls, content: bytes, tag: str, encryption: str, key_id: str) -> Self:
        plain = tag.strip('"')
        is_md5 = plain == hashlib.md5(content, usedforsecurity=False).hexdigest()
        return cls(tag, is_md5 or not _MD5.fullmatch(plain), encryption, key_id)


_MD5 = re.compile(r"[0-9a-f]{32}")


def md5(content: bytes) -> str:
    """In the form of Content-MD5."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """Instead of a newer checksum, which many stores reject for a request that requires one."""
    params["context"].pop("checksum", None)
    params["headers"]["Content-MD5"] = md5(params["body"])


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Do not redirect to another region: rclone cannot follow if the spec names the endpoint."""
    context["s3_redirect"]["redirected"] = True


def _body(answer: AWSResponse, what: str) -> bytes:
    """The complete response. Raises Unclear if it is truncated, Oversized if it exceeds the limit."""
    try:
        sizes.check(int(answer.headers.get("Content-Length") or 0), what)
        return sizes.joined(answer.raw.stream(sizes.CHUNK), what)
    except (HTTPError, ValueError) as error:
        raise Unclear from error
    except Oversized:
        answer.raw.close()
        raise


def warm() -> None:
    """Afterwards a client is created in milliseconds, here and in forked processes."""
    Access("", "us-east-1", "http://127.0.0.1", "none", "none", {}, Carried(), deadline_s=1).client.close()


BRIEF = (ReadTimeoutError, ConnectTimeoutError, ConnectionClosedError, IncompleteReadError)
"""Errors that a working sink may cause once."""
NO_HOST_KEYS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, ConfigNotFound, UnknownCredentialError)
"""Errors if the node has no keys; other errors mean that this is unknown at the moment."""


def host_keys() -> tuple[str, str, str]:
    """The node's current key id, secret and session token, renewed if they expire soon.

    Raises botocore's own errors.
    """
    now = _host_credentials().get_frozen_credentials()
    return now.access_key, now.secret_key, now.token or ""


def is_about_host_keys(error: ClientError) -> bool:
    """Whether the error is from the source of the node's keys and not from S3."""
    return error.operation_name.startswith(("AssumeRole", "GetSession", "GetRoleCredentials"))


def _host_credentials() -> Any:
    with _making:
        credentials = _session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    return credentials


@dataclass(frozen=True)
class Access:
    """One bucket, used with one pair of keys (empty: the node's own) and one deadline."""

    bucket: str
    region: str
    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    proxies: dict[str, str] = field(repr=False)
    carried: Carried
    deadline_s: int

    def ask(self, operation: str, **parameters: Any) -> Any:
        """One of the client's operations on the bucket, with the parameters of the spec's flags. Raises botocore's
        errors."""
        client = self.client
        model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
        carried = {name: value for name, value in self.carried.parameters if name in model.input_shape.members}
        return getattr(client, operation)(Bucket=self.bucket, **{**carried, **parameters})

    @cached_property
    def client(self) -> Any:
        style: Any = {"addressing_style": self._addressing}
        with _making:
            client: Any = _session.create_client(
                "s3",
                region_name=self.region,
                endpoint_url=self.endpoint or None,
                aws_access_key_id=self.access_key_id or None,
                aws_secret_access_key=self.secret_access_key or None,
                verify=network_settings.ca_bundle(),
                config=Config(
                    proxies=self.proxies,
                    proxies_config=self._proxies_config,
                    connect_timeout=self.deadline_s,
                    read_timeout=self.deadline_s,
                    retries={"total_max_attempts": 1},  # the caller decides how often (``retries``)
                    s3=style,
                    max_pool_connections=16,
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        _guard(client._endpoint.http_session)
        # "Expect: 100-continue" costs each small write a round trip.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
        if self.endpoint:
            client.meta.events.register("before-parameter-build.s3", _stay)
        return client

    @property
    def _addressing(self) -> str:
        if not self.endpoint:
            return "auto"
        return "path" if self.carried.has_path_style else "virtual"

    def read(self, key: str) -> tuple[bytes, ObjectMetadata] | None:
        """An object's content, and the object; None if there is none. Raises Unclear, or botocore's own errors."""
        answer = self._get(f"/{quote(key, safe='/~')}")
        content, headers = _body(answer, key), answer.headers
        if answer.status_code == 200 and headers.get("Content-Length") == str(len(content)) and "ETag" in headers:
            facts = headers["ETag"], headers.get(_ENCRYPTION, ""), headers.get(_KEY_ID, "")
            return content, ObjectMetadata.of(content, *facts)
        if answer.status_code == 404 and b"<Code>NoSuchKey</Code>" in content:
            return None
        raise Unclear

    def has_objects(self, prefix: str) -> bool:
        """Whether any key begins with ``prefix``. Raises Unclear, or botocore's own errors."""
        answer = self._get("", {"list-type": "2", "max-keys": "1", "prefix": prefix})
        content = _body(answer, f"The listing of {prefix}")
        if answer.status_code == 200 and b"</ListBucketResult>" in content:
            if b"<Contents>" in content:
                return True
            if b"Contents" not in content:
                return False
        raise Unclear

    def _get(self, path: str, query: dict[str, str] | None = None) -> AWSResponse:
        own = {"User-Agent": f"boilerhouse/{settings.VERSION}"}
        if ("RequestPayer", "requester") in self.carried.parameters:
            own["x-amz-request-payer"] = "requester"
        request = AWSRequest("GET", self._address + path, headers=own, params=query, stream_output=True)
        # Frozen, because a role's credentials may be renewed while a request is signed.
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self.region).add_auth(request)
        try:
            return self._transport.send(request.prepare())
        except (ConnectionClosedError, SSLError) as error:
            raise Unclear from error

    @cached_property
    def _credentials(self) -> Any:
        if self.access_key_id:
            return Credentials(self.access_key_id, self.secret_access_key)
        return _host_credentials()

    @cached_property
    def _address(self) -> str:
        if self._addressing == "path":
            return f"{self.endpoint.rstrip('/')}/{self.bucket}"
        # Here the client chooses whether the bucket is part of the host or of the path.
        signed = self.client.generate_presigned_url("list_objects_v2", Params={"Bucket": self.bucket})
        return str(signed).partition("?")[0].rstrip("/")

    @property
    def _proxies_config(self) -> Any:
        is_https = any(proxy.startswith("https:") for proxy in self.proxies.values())
        return {"proxy_ca_bundle": network_settings.ca_bundle()} if is_https else None

    @cached_property
    def _transport(self) -> URLLib3Session:
        verify: Any = network_settings.ca_bundle()
        transport = URLLib3Session(
            verify=verify,
            proxies=self.proxies,
            proxies_config=self._proxies_config,
            timeout=self.deadline_s,
            max_pool_connections=16,
        )
        _guard(transport)
        return transport

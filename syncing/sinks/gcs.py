"""Google Cloud Storage, by its JSON API and the key of a service account."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets as randomness
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from syncing import endpoints
from syncing.errors import (
    ClockSkewed,
    SinkDenied,
    SinkMissing,
    SinkRefused,
    SinkStumbled,
    SinkThrottled,
    SinkUnreliable,
    SyncFailed,
)
from syncing.sinks import http_requests, refusals
from syncing.sinks.base import REMOTE, FormField
from syncing.sinks.object_store import Item, ObjectStore, Page

if TYPE_CHECKING:
    import requests

    from syncing.sinks.gcs_access import Account
    from syncing.sinks.inputs import InputClass

PAGE = 1000
GOOGLE = "https://storage.googleapis.com"
GOOGLES_TOKENS = "https://oauth2.googleapis.com/token"
_FIELDS = "items(name,size,md5Hash),prefixes,nextPageToken"
_TOKEN = re.compile(r"ya29\.[\w.-]+|eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=Bearer )\S+")
_NO_BUCKET = "bucket does not exist"
_SIGNS: refusals.Signs = (
    ((_NO_BUCKET,), SinkMissing),
    (("reasonable timeframe",), ClockSkewed),
    (("googleapi: error 401", "googleapi: error 403", "invalid_grant", "cannot fetch token: 40"), SinkDenied),
    (("googleapi: error 429", "googleapi: error 503", "ratelimitexceeded", "cannot fetch token: 503"), SinkThrottled),
)


@dataclass(frozen=True, slots=True)
class GcsSink(ObjectStore):
    """A bucket, and the service account that reads and writes it."""

    bucket: str
    prefix: str
    endpoint: str = ""
    email: str = ""
    key_id: str = ""
    private_key: str = field(default="", repr=False)

    type: ClassVar[str] = "gcs"
    label: ClassVar[str] = "Google Cloud Storage"
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("bucket", "Bucket"),
        FormField("prefix", "Prefix", "Prepended to every path; ${tenantId} separates tenants"),
        FormField("endpoint", "Endpoint", "http(s)://host[:port]. Leave empty for Google"),
        FormField(
            "serviceAccountKey",
            "Service account key",
            "The JSON file. Stored encrypted. Leave empty to keep it",
            "secret",
        ),
    )
    rclone_signs: ClassVar[refusals.Signs] = _SIGNS
    stale_tag: ClassVar[str] = "1"

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink of a spec's body and its secrets ``{serviceAccountKey}``, a JSON document."""
        key = json.loads(secrets.get("serviceAccountKey") or "{}")
        return cls(
            sink["bucket"], sink["prefix"], (sink.get("endpoint") or "").rstrip("/"), key.get("client_email", ""),
            key.get("private_key_id", ""), key.get("private_key", ""),
        )  # fmt: skip

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.gcs_input import GcsSinkInput

        return GcsSinkInput

    @property
    def place(self) -> tuple[str, str]:
        return f"gcs {self.address.lower()}", self.bucket

    @property
    def address(self) -> str:
        return self.endpoint or GOOGLE

    @property
    def is_googles(self) -> bool:
        """Whether it is one of Google's own names, with their port and a certificate."""
        parts = urlsplit(self.address)
        host = (parts.hostname or "").rstrip(".")
        return parts.scheme == "https" and parts.port in (None, 443) and f".{host}".endswith(".googleapis.com")

    @property
    def token_url(self) -> str:
        """Where tokens come from: never the address in the account's key, which its author may have chosen."""
        return GOOGLES_TOKENS if self.is_googles else f"{self.address}/token"

    @property
    def has_changing_addresses(self) -> bool:
        return self.is_googles

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        """As S3's with the same endpoint, which Google's buckets also have."""
        return (endpoints.server(self.address), self.bucket), template

    def addresses(self) -> list[str]:
        return endpoints.resolved(self.address)

    def secrets(self) -> Iterator[str]:
        if self.private_key:
            yield self.private_key
            yield from (line for line in self.private_key.splitlines() if not line.startswith("-"))

    def scrub(self, words: str) -> str:
        """Without tokens and statements too: rclone has some of its own, which nobody else knows."""
        return _TOKEN.sub("…", ObjectStore.scrub(self, words))

    # rclone ---------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        account = {
            "type": "service_account",
            "client_email": self.email,
            "private_key_id": self.key_id,
            "private_key": self.private_key,
            "token_uri": self.token_url,
        }
        values = {
            "TYPE": "google cloud storage",
            "SERVICE_ACCOUNT_CREDENTIALS": json.dumps(account),
            "ENDPOINT": f"{self.endpoint}/storage/v1/" if self.endpoint else "",
            "BUCKET_POLICY_ONLY": "true",  # buckets with uniform access refuse an object's own rules
            "NO_CHECK_BUCKET": "true",
            "ENV_AUTH": "false",
        }
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items() if value}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self.bucket}/{location}/"

    # The client in this process -------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return f"bucket {self.bucket} at {self.endpoint or 'Google'}"

    def _read(self, key: str, deadline_s: int) -> tuple[bytes, str] | None:
        answer = self._send("GET", self._object(key), deadline_s, params={"alt": "media"}, good=(200, 404))
        if answer.status_code == 404:
            if _NO_BUCKET in answer.text:
                raise self._refusal("GET", answer)
            return None
        return answer.content, answer.headers.get("x-goog-generation", "")

    def _write(self, key: str, content: bytes, condition: str | None, deadline_s: int) -> str | None:
        """With its MD5, by which the server refuses what has changed on its way."""
        about = {
            "name": key,
            "md5Hash": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
        }
        boundary, params = randomness.token_hex(16), {"uploadType": "multipart"}
        if condition is not None:
            params["ifGenerationMatch"] = condition or "0"
        body = b"".join((
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n".encode(),
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(), content,
            f"\r\n--{boundary}--\r\n".encode(),
        ))  # fmt: skip
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        url = f"{self.address}/upload/storage/v1/b/{self.bucket}/o"
        answer = self._send("POST", url, deadline_s, params=params, data=body, headers=headers, good=(200, 412))
        return None if answer.status_code == 412 else str(self._document(answer).get("generation") or "")

    def _delete(self, key: str, deadline_s: int) -> None:
        self._send("DELETE", self._object(key), deadline_s, good=(200, 204, 404))

    def _copy(self, source: str, target: str, deadline_s: int) -> None:
        """With the metadata, where rclone keeps the time; a large object takes several requests."""
        url = f"{self._object(source)}/rewriteTo/b/{self.bucket}/o/{quote(target, safe='')}"
        params: dict[str, str] = {}
        while True:
            answer = self._document(self._send("POST", url, deadline_s, params=params))
            if answer.get("done"):
                return
            if not answer.get("rewriteToken"):
                raise SinkUnreliable(f"A copy in {self.where} goes on, but it does not say where.")
            params = {"rewriteToken": str(answer["rewriteToken"])}

    def _page(self, prefix: str, token: str, deadline_s: int, *, most: int = 0, by_folder: bool = False) -> Page:
        params = {"prefix": prefix, "fields": _FIELDS, "pageToken": token, "maxResults": str(most or PAGE)}
        if by_folder:
            params["delimiter"] = "/"
        answer = self._document(self._send("GET", f"{self._bucket}/o", deadline_s, params=params))
        items = (Item(one["name"], int(one["size"]), bool(one.get("md5Hash"))) for one in answer.get("items", ()))
        return Page(tuple(items), tuple(answer.get("prefixes", ())), str(answer.get("nextPageToken") or ""))

    @property
    def _bucket(self) -> str:
        return f"{self.address}/storage/v1/b/{self.bucket}"

    def _object(self, key: str) -> str:
        return f"{self._bucket}/o/{quote(key, safe='')}"

    @property
    def _account(self) -> Account:
        from syncing.sinks.gcs_access import Account

        return Account(self.email, self.key_id, self.private_key, self.token_url)

    def _send(
        self, method: str, url: str, deadline_s: int, *, good: tuple[int, ...] = (200,), **more: Any
    ) -> requests.Response:
        """The answer with one of the ``good`` statuses; asked once more with a new token if the token is refused."""
        from syncing.sinks import gcs_access

        headers: dict[str, str] = more.pop("headers", {})
        for is_last in (False, True):
            token = gcs_access.token(self._account, deadline_s)
            answer = http_requests.send(
                http_requests.session(), method, url, deadline_s, where=self.where,
                headers={**headers, "Authorization": f"Bearer {token}"}, **more,
            )  # fmt: skip
            if answer.status_code != 401 or is_last:
                break
            gcs_access.forget(self._account, token)
        if answer.status_code in good:
            return answer
        raise self._refusal(method, answer)

    def _document(self, answer: requests.Response) -> Mapping[str, Any]:
        try:
            document = json.loads(answer.content)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise SyncFailed(f"The {self.where} gave an answer that cannot be read.")
        return document

    def _refusal(self, method: str, answer: requests.Response) -> SyncFailed:
        status, words = answer.status_code, refusals.words(self.scrub(_sentence(answer.content)))
        detail = f"The {self.where} answered {status} to {method}"
        detail = f"{detail}: {words}" if words else f"{detail}."
        if status == 404 and (_NO_BUCKET in answer.text or "/o/" not in answer.url.partition("?")[0]):
            return SinkMissing(f"The {self.where} does not exist.")
        if status in (401, 403):
            return SinkDenied(detail)
        if status in (429, 503):
            return SinkThrottled(detail, refusals.after_s(answer.headers.get("Retry-After")))
        return SinkStumbled(detail) if status == 408 or (status >= 500 and status != 501) else SinkRefused(detail)


def _sentence(content: bytes) -> str:
    """The message of an error in Google's form; empty for any other content, which is not disclosed."""
    try:
        return str(json.loads(content[:20_000])["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""

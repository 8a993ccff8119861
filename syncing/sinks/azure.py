"""Azure Blob Storage, by an account's key."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote
from xml.etree import ElementTree

from boilerhouse.process import stalls
from syncing import endpoints
from syncing.errors import (
    ClockSkewed,
    SinkArchived,
    SinkDenied,
    SinkMissing,
    SinkRefused,
    SinkStumbled,
    SinkThrottled,
    SinkUnreliable,
    SyncFailed,
    Unsaveable,
)
from syncing.sinks import azure_names, http_requests, refusals
from syncing.sinks.base import REMOTE, RUN_DEADLINE_S, FormField
from syncing.sinks.object_store import Item, ObjectStore, Page

if TYPE_CHECKING:
    import requests

    from syncing.sinks.inputs import InputClass

PAGE = 5000
POLL_S = 0.5
_CODE = re.compile(r"<Code>(\w{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)")
_DETAIL = re.compile(r"<AuthenticationErrorDetail>([^<]*)")
_OLD_DATE = "is too old"
"""What Azure says of a request's date that is not that of its own clock."""
_ARCHIVED = "It lies in the archive tier; rehydrate it there first."
_SIGNS: refusals.Signs = (
    (("error code: containernotfound",), SinkMissing),
    (("error code: blobarchived",), SinkArchived),
    ((_OLD_DATE,), ClockSkewed),
    (("response 401", "response 403", "error code: authentication", "error code: authorization"), SinkDenied),
    (("error code: serverbusy", "response 429", "response 503"), SinkThrottled),
)


@dataclass(frozen=True, slots=True)
class AzureBlobSink(ObjectStore):
    """A container of a storage account."""

    account: str
    container: str
    prefix: str
    endpoint: str = ""
    account_key: str = field(default="", repr=False)

    type: ClassVar[str] = "azureblob"
    label: ClassVar[str] = "Azure Blob Storage"
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("account", "Storage account"),
        FormField("container", "Container", "Must exist"),
        FormField("prefix", "Prefix", "Prepended to every path; ${tenantId} separates tenants"),
        FormField("endpoint", "Endpoint", "http(s)://host[:port][/path]. Leave empty for Azure"),
        FormField("accountKey", "Account key", "Stored encrypted. Leave empty to keep it", "secret"),
    )
    rclone_signs: ClassVar[refusals.Signs] = _SIGNS
    stale_tag: ClassVar[str] = '"0x8D0000000000000"'

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink of a spec's body and its secrets ``{accountKey}``."""
        endpoint = (sink.get("endpoint") or "").rstrip("/")
        return cls(sink["account"], sink["container"], sink["prefix"], endpoint, secrets.get("accountKey") or "")

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.azure_input import AzureBlobSinkInput

        return AzureBlobSinkInput

    @property
    def place(self) -> tuple[str, str]:
        return f"azureblob {self.address.lower()}", self.container

    @property
    def address(self) -> str:
        return self.endpoint or f"https://{self.account}.blob.core.windows.net"

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        server = f"{endpoints.server(self.address)}/{endpoints.path(self.address)}".rstrip("/")
        return (server, self.container), template

    def addresses(self) -> list[str]:
        return endpoints.resolved(self.address)

    def secrets(self) -> Iterator[str]:
        if self.account_key:
            yield self.account_key

    # rclone ---------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        values = {
            "TYPE": "azureblob",
            "ACCOUNT": self.account,
            "KEY": self.account_key,
            "ENDPOINT": self.address,
            "NO_CHECK_CONTAINER": "true",
            "COPY_CUTOFF": "5Ti",  # one request copies a blob of any size within its account
            "ENV_AUTH": "false",
        }
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items()}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self.container}/{location}/"

    def respelling(self, paths: Collection[str]) -> list[str]:
        if changed := azure_names.lost(paths):
            raise Unsaveable(f"{len(changed)} names end in a way that Azure would not give back: {changed[0]!a}")
        return []

    def rclone_failure(self, lines: list[str]) -> SyncFailed | None:
        """From lines without the rules and empty lines by which Azure's client divides its errors."""
        return refusals.of_rclone([refusals.words(re.sub(r"-{5,}", " ", line)) for line in lines], self.rclone_signs)

    # The client in this process -------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return f"container {self.container} at {self.address}"

    def _read(self, key: str, deadline_s: int) -> tuple[bytes, str] | None:
        answer = self._send("GET", self._blob(key), deadline_s, good=(200, 404))
        if answer.status_code == 404:
            if _code(answer) != "BlobNotFound":
                raise self._refusal("GET", answer)
            return None
        return answer.content, answer.headers.get("ETag", "")

    def _write(self, key: str, content: bytes, condition: str | None, deadline_s: int) -> str | None:
        """With its MD5, by which the server refuses what has changed on its way, and which it keeps."""
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        headers = {"x-ms-blob-type": "BlockBlob", "content-md5": md5, "content-type": "application/octet-stream"}
        if condition is not None:
            headers |= {"if-match": condition} if condition else {"if-none-match": "*"}
        answer = self._send(
            "PUT", self._blob(key), deadline_s, headers=headers, data=content, good=(201, 404, 409, 412)
        )
        if answer.status_code == 201:
            return answer.headers.get("ETag", "")
        if condition is None or _code(answer) not in ("ConditionNotMet", "BlobAlreadyExists", "BlobNotFound"):
            raise self._refusal("PUT", answer)
        return None

    def _delete(self, key: str, deadline_s: int) -> None:
        headers = {"x-ms-delete-snapshots": "include"}
        answer = self._send("DELETE", self._blob(key), deadline_s, headers=headers, good=(202, 404))
        if answer.status_code == 404 and _code(answer) != "BlobNotFound":
            raise self._refusal("DELETE", answer)

    def _copy(self, source: str, target: str, deadline_s: int) -> None:
        """With the metadata, where rclone keeps the time. Azure may go on copying after its answer."""
        url, headers = self._blob(target), {"x-ms-copy-source": self._blob(source)}
        answer = self._send("PUT", url, deadline_s, headers=headers, good=(202,))
        while (status := answer.headers.get("x-ms-copy-status")) == "pending":
            stalls.step()
            time.sleep(POLL_S)
            answer = self._send("HEAD", url, RUN_DEADLINE_S)
        if status != "success":
            raise SinkUnreliable(f"A copy in {self.where} ended as {refusals.words(status)}.")

    def _page(self, prefix: str, token: str, deadline_s: int, *, most: int = 0, by_folder: bool = False) -> Page:
        params = {"restype": "container", "comp": "list", "prefix": azure_names.stored(prefix)}
        params |= {"delimiter": "/"} if by_folder else {}
        params |= {"marker": token} if token else {}
        params |= {"maxresults": str(most or PAGE)}
        answer = self._send("GET", self._container, deadline_s, params=params)
        try:
            listing = ElementTree.fromstring(answer.content)  # noqa: S314 - expat bounds what entities may grow to
        except ElementTree.ParseError as error:
            raise SyncFailed(f"The {self.where} answered a listing that cannot be read.") from error
        items = tuple(
            _item(one) for one in listing.iter("Blob") if one.findtext("Properties/ResourceType") != "directory"
        )
        folders = tuple(_name(one) for one in listing.iter("BlobPrefix"))
        return Page(items, folders, listing.findtext("NextMarker") or "")

    def _check(self, folder: str, aside: str) -> None:
        params = {"restype": "account", "comp": "properties"}
        answer = self._ask(RUN_DEADLINE_S, lambda within_s: self._send("GET", self._container, within_s, params=params))
        if answer.headers.get("x-ms-is-hns-enabled") == "true":
            raise SinkUnreliable(
                "The account has a hierarchical namespace, where a folder stays when it is empty and stands in the way"
                " of a file. Use an account without one."
            )
        ObjectStore._check(self, folder, aside)

    @property
    def _container(self) -> str:
        return f"{self.address}/{self.container}"

    def _blob(self, key: str) -> str:
        return f"{self._container}/{quote(azure_names.stored(key), safe='/')}"

    def _send(
        self,
        method: str,
        url: str,
        deadline_s: int,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
        good: tuple[int, ...] = (200,),
    ) -> requests.Response:
        """The answer with one of the ``good`` statuses."""
        from syncing.sinks.azure_access import signed

        params = params or {}
        whole = signed(self.account, self.account_key, method, url, params, headers or {}, len(data))
        answer = http_requests.send(
            http_requests.session(), method, url, deadline_s, where=self.where, params=params, headers=whole, data=data
        )
        if answer.status_code in good:
            return answer
        raise self._refusal(method, answer)

    def _refusal(self, method: str, answer: requests.Response) -> SyncFailed:
        status, code = answer.status_code, _code(answer)
        words = refusals.words(self.scrub(_sentence(answer.text))) if code else ""
        detail = f"The {self.where} answered {status} {code} to {method}".replace("  ", " ")
        detail = f"{detail}: {words}" if words else f"{detail}."
        if code == "ContainerNotFound" or (status == 404 and not code):
            return SinkMissing(f"The {self.where} does not exist.")
        if code == "BlobArchived":
            return SinkArchived(f"{detail} {_ARCHIVED}")
        if status in (401, 403):
            return ClockSkewed(f"{detail} Set this machine's clock.") if _OLD_DATE in words else SinkDenied(detail)
        if status in (429, 503):
            return SinkThrottled(detail, refusals.after_s(answer.headers.get("Retry-After")))
        return SinkStumbled(detail) if status == 408 or (status >= 500 and status != 501) else SinkRefused(detail)


def _item(blob: ElementTree.Element) -> Item:
    properties = blob.find("Properties")
    size, md5 = (
        ("0", "") if properties is None else (properties.findtext("Content-Length"), properties.findtext("Content-MD5"))
    )
    return Item(_name(blob), int(size or 0), bool(md5))


def _name(element: ElementTree.Element) -> str:
    from syncing.sinks.azure_access import name_of

    name = element.find("Name")
    return "" if name is None else azure_names.read(name_of(name.text or "", name.get("Encoded")))


def _code(answer: requests.Response) -> str:
    """Azure's name for an error; empty for any other answer."""
    match = _CODE.search(answer.text[:20_000])
    return answer.headers.get("x-ms-error-code") or (match[1] if match else "")


def _sentence(text: str) -> str:
    """The message of an error in Azure's form, without the request's number and time."""
    matches = [pattern.search(text[:20_000]) for pattern in (_MESSAGE, _DETAIL)]
    return " ".join(one[1].partition("\nRequestId:")[0].strip() for one in matches if one)

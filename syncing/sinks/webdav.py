"""WebDAV: any server, below one address.

Servers have no common way to keep checksums or modification times. So a save sends every file, and the marker contains
the times.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import requests

from boilerhouse.process import stalls
from syncing import endpoints
from syncing.errors import (
    DiskFull,
    SinkDenied,
    SinkMissing,
    SinkRefused,
    SinkStumbled,
    SinkThrottled,
    SinkUnreliable,
    SyncFailed,
)
from syncing.sinks import deadlines, http_requests, rclone_names, refusals
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
from syncing.sinks.retries import retry

if TYPE_CHECKING:
    from syncing.sinks.inputs import InputClass

_BUSY = (423, 429, 503)
"""Locked by another of our concurrent requests, or too many requests."""
_ANY_OF_THE_ROOT = (200, 207, 301, 302, 403, 404, 405, 501)
"""Permissions may begin below the endpoint; only 404 means that it does not exist."""
CLAIM_WAITS_S = 0.8
"""How long a claim's query is retried if the server is busy."""
_DAV = "{DAV:}"
_ASK = b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'


@dataclass(frozen=True, slots=True)
class WebDavSink(Sink):
    """Collections below ``endpoint``; every request has ``headers``, whose values are secrets."""

    endpoint: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    type: ClassVar[str] = "http"
    label: ClassVar[str] = "WebDAV"
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("endpoint", "Address", "http(s)://host[:port]/path"),
        FormField("headers", "Headers", "As JSON; null keeps the stored value", "json"),
    )
    compares: ClassVar[tuple[str, ...]] = ("--ignore-times",)
    resumes_saves: ClassVar[bool] = False

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink for a spec's body and its secrets ``{headers: {name: value}}``."""
        return cls(sink["endpoint"].rstrip("/"), tuple(sorted((secrets.get("headers") or {}).items())))

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.webdav_input import HttpSinkInput

        return HttpSinkInput

    @property
    def place(self) -> tuple[str, str]:
        return self.endpoint.lower(), ""

    @property
    def address(self) -> str:
        return self.endpoint

    def secrets(self) -> Iterator[str]:
        for _, value in self.headers:
            yield from {value, *value.split()}

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        path = endpoints.path(self.endpoint)
        return (endpoints.server(self.endpoint), ""), f"{path}/{template}" if path else template

    def addresses(self) -> list[str]:
        return endpoints.resolved(self.endpoint)

    def above(self) -> Iterator[tuple[Sink, str]]:
        parts = urlsplit(self.endpoint)
        names = [name for name in parts.path.split("/") if name]
        for depth in range(len(names) - 1, -1, -1):
            path = "/".join(["", *names[:depth]])
            yield WebDavSink(f"{parts.scheme}://{parts.netloc}{path}", self.headers), unquote("/".join(names[depth:]))

    def environment(self) -> dict[str, str]:
        # By default, rclone sends one request every 10 ms, and slows down if a server asks for it.
        values = {"TYPE": "webdav", "URL": self.endpoint, "VENDOR": "other", "PACER_MIN_SLEEP": "1ms"}
        if self.headers:
            line = io.StringIO()
            csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow(
                [word for pair in self.headers for word in pair]
            )
            values["HEADERS"] = line.getvalue()
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items()}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{location}/"

    def flags(self, location: str) -> list[str]:
        return [f"--webdav-encoding={rclone_names.ENCODING}"]

    def respelling(self, paths: Collection[str]) -> list[str]:
        return rclone_names.respelling(paths)

    def get(self, key: str, deadline_s: int) -> bytes | None:
        answer = self._ask("GET", key, deadline_s, good=(200, 404))
        return answer.content if answer.status_code == 200 else None

    def put(self, key: str, content: bytes) -> None:
        answer = self._ask("PUT", key, RUN_DEADLINE_S, data=content, good=(200, 201, 204, 404, 409, 500))
        if not answer.ok:  # most answer 409 if the collection is missing; some anything
            self._make_collection(key.rpartition("/")[0])
            self._ask("PUT", key, RUN_DEADLINE_S, data=content, good=(200, 201, 204))

    def delete(self, key: str) -> None:
        self._ask("DELETE", key, RUN_DEADLINE_S, good=(200, 204, 404))

    def copy(self, source: str, target: str) -> None:
        headers = {"Destination": self._url(target), "Overwrite": "T"}
        answer = self._ask("COPY", source, COPY_DEADLINE_S, headers=headers, good=(201, 204, 404, 409, 500))
        if not answer.ok:
            self._make_collection(target.rpartition("/")[0])
            self._ask("COPY", source, COPY_DEADLINE_S, headers=headers, good=(201, 204))

    def has_objects(self, location: str, deadline_s: int) -> bool:
        with deadlines.within(whole_s(deadline_s)):  # of all collections together: their number is unlimited
            if next(self._walk(location, deadline_s), None) is not None:
                return True
            # A server answers 404 for a missing location, and also if the whole endpoint is missing.
            answer = self._ask("PROPFIND", "", deadline_s, data=_ASK, headers={"Depth": "0"}, good=_ANY_OF_THE_ROOT)
            if answer.status_code == 404:
                raise self._refusal("PROPFIND", answer)
            return False

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        return self._walk(location, RUN_DEADLINE_S)

    def folders(self, location: str) -> Iterator[str]:
        for name, size in self._list(location, RUN_DEADLINE_S):
            if size is None:
                yield f"{location}/{name}"

    def delete_all(self, location: str) -> None:
        self._ask("DELETE", f"{location}/", COPY_DEADLINE_S, good=(200, 204, 404))

    def _walk(self, location: str, deadline_s: int) -> Iterator[tuple[str, int]]:
        todo, until = [""], time.monotonic() + LISTING_DEADLINE_S
        while todo:
            deadlines.check()
            if time.monotonic() > until:
                raise SinkUnreliable(f"A listing of {self.endpoint} has not ended after {LISTING_DEADLINE_S} s.")
            inside = todo.pop()
            for name, size in self._list(f"{location}/{inside}".rstrip("/"), deadline_s):
                stalls.step()
                if size is None:
                    todo.append(f"{inside}{name}/")
                else:
                    yield f"{inside}{name}", size

    def _list(self, location: str, deadline_s: int) -> Iterator[tuple[str, int | None]]:
        """Name and size of a collection's entries; None for a collection."""
        headers = {"Depth": "1", "Content-Type": "application/xml"}
        answer = self._ask("PROPFIND", f"{location}/", deadline_s, data=_ASK, headers=headers, good=(207, 404))
        if answer.status_code == 404:
            return
        try:
            listing = ElementTree.fromstring(answer.content)  # noqa: S314 - expat bounds what entities may grow to
        except ElementTree.ParseError as error:
            raise SyncFailed(f"{self.endpoint} answered a listing that cannot be read.") from error
        own = unquote(urlsplit(self._url(f"{location}/")).path).rstrip("/")
        for response in listing.iter(f"{_DAV}response"):
            path = unquote(urlsplit(response.findtext(f"{_DAV}href") or "").path).rstrip("/")
            parent, _, name = path.rpartition("/")
            if parent != own or not name:
                continue  # the collection itself
            if response.find(f".//{_DAV}collection") is not None:
                yield name, None
            else:
                yield name, int(response.findtext(f".//{_DAV}getcontentlength") or 0)

    def _make_collection(self, location: str) -> None:
        parts = location.split("/")
        for depth in range(1, len(parts) + 1):
            answer = self._ask("MKCOL", "/".join(parts[:depth]) + "/", RUN_DEADLINE_S, good=(200, 201, 405, 409, 301))
            if answer.status_code == 409:
                raise SinkMissing(f"{self.endpoint} does not exist: it answered 409 to a new collection.")

    def _url(self, key: str) -> str:
        return f"{self.endpoint}/{quote(key)}"

    def _ask(self, method: str, key: str, deadline_s: int, *, good: tuple[int, ...], **more: Any) -> requests.Response:
        """A response with one of the ``good`` statuses; retried as the server asks if it is busy."""
        headers = {**dict(self.headers), **more.pop("headers", {})}

        size = len(more.get("data", b""))

        def once() -> requests.Response:
            with deadlines.within(whole_s(deadline_s, size)), http_requests.new_session() as session:
                answer = http_requests.send(
                    session, method, self._url(key), deadline_s, where=self.endpoint, headers=headers, **more
                )
            if answer.status_code in good:
                return answer
            raise self._refusal(method, answer)

        if deadline_s == CLAIM_DEADLINE_S:
            return retry(once, within_s=CLAIM_WAITS_S, tries=1)
        return retry(once)

    def _refusal(self, method: str, answer: requests.Response) -> SyncFailed:
        status = answer.status_code
        detail = f"{self.endpoint} answered {status} to {method}"
        detail = f"{detail}: {sentence}" if (sentence := self._sentence(answer)) else f"{detail}."
        if status in _BUSY:
            return SinkThrottled(detail, refusals.after_s(answer.headers.get("Retry-After")))
        if status in (401, 403):
            return SinkDenied(detail)
        if status == 507:
            return DiskFull(detail)
        if status in (404, 409):
            return SinkMissing(detail)
        return SinkStumbled(detail) if status >= 500 and status != 501 else SinkRefused(detail)

    def _sentence(self, answer: requests.Response) -> str:
        """The server's message, without the secrets that we sent."""
        return refusals.words(self.scrub(refusals.sentence_of(answer.content)))

"""What stores of objects have in common that are asked by plain requests: Google Cloud Storage and Azure.

A kind says how an object is read, written under a condition, copied and deleted, and what a page of a listing is.
"""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

from boilerhouse.process import stalls
from syncing.errors import RemoteChanged, SinkUnreliable, SyncFailed
from syncing.locations import BACKUP_ROOT, MARKER_ROOT
from syncing.sinks import conditions, deadlines
from syncing.sinks.base import (
    CLAIM_DEADLINE_S,
    COPY_DEADLINE_S,
    LISTING_DEADLINE_S,
    RUN_DEADLINE_S,
    Sink,
    whole_s,
)
from syncing.sinks.retries import retry

T = TypeVar("T")
AT_ONCE = 16
"""How many objects are deleted at once, each by a request of its own."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object in a listing."""

    key: str
    size: int
    has_md5: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a listing."""

    items: tuple[Item, ...]
    folders: tuple[str, ...]
    """What the keys have in common up to the next slash, which is included; only where folders were asked for."""
    token: str
    """Where the next page begins; empty for the last one."""


class ObjectStore(Sink):
    """A sink whose objects have tags (a version each) and whose writes may depend on them."""

    __slots__ = ()

    stale_tag: ClassVar[str]
    """A tag as the store writes them, which no object has."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The bucket or container, in errors."""

    @abstractmethod
    def _read(self, key: str, deadline_s: int) -> tuple[bytes, str] | None:
        """An object's content and tag; None if there is none."""

    @abstractmethod
    def _write(self, key: str, content: bytes, condition: str | None, deadline_s: int) -> str | None:
        """The new tag; None if the condition does not hold.

        The condition is the tag that the object must have, empty for none such object, None for any.
        """

    @abstractmethod
    def _delete(self, key: str, deadline_s: int) -> None: ...

    @abstractmethod
    def _page(self, prefix: str, token: str, deadline_s: int, *, most: int = 0, by_folder: bool = False) -> Page:
        """A page of the keys with this prefix, of at most ``most`` entries if that is not 0."""

    @abstractmethod
    def _copy(self, source: str, target: str, deadline_s: int) -> None: ...

    def _ask(self, deadline_s: int, ask: Callable[[int], T], size: int = 0) -> T:
        """The result of ``ask``, which is called with the deadline: once for a claim, for a run with retries."""

        def once() -> T:
            with deadlines.within(whole_s(deadline_s, size)):
                return ask(deadline_s)

        return once() if deadline_s == CLAIM_DEADLINE_S else retry(once)

    # The client in this process -------------------------------------------------------------------------

    def get(self, key: str, deadline_s: int) -> bytes | None:
        return self.read(key, deadline_s)[0]

    def read(self, key: str, deadline_s: int) -> tuple[bytes | None, str]:
        return self._ask(deadline_s, partial(self._read, key)) or (None, "")

    def put(self, key: str, content: bytes) -> None:
        self._ask(RUN_DEADLINE_S, partial(self._write, key, content, None), len(content))

    def copy(self, source: str, target: str) -> None:
        self._ask(COPY_DEADLINE_S, partial(self._copy, source, target))

    def put_if(self, key: str, content: bytes, tag: str) -> str:
        if new_tag := self._ask(RUN_DEADLINE_S, partial(self._write, key, content, tag), len(content)):
            return new_tag
        now, current = self.read(key, RUN_DEADLINE_S)
        if now == content:
            return current  # our own write, whose answer was lost
        raise RemoteChanged(f"Another has written {key} at the same time.")

    def create(self, key: str, content: bytes) -> bool:
        return conditions.create(self, key, content)

    def has_conditional_writes(self) -> bool:
        return conditions.are_honoured(self, self.stale_tag)

    def delete(self, key: str) -> None:
        self._ask(RUN_DEADLINE_S, partial(self._delete, key))

    def has_objects(self, location: str, deadline_s: int) -> bool:
        with deadlines.within(whole_s(deadline_s)):  # of all pages together: one may be empty and have a next one
            return any(page.items for page in self._pages(f"{location}/", deadline_s, most=1))

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        for item in self._items(location):
            yield item.key[len(location) + 1 :], item.size

    def unhashed(self, location: str) -> list[str]:
        return [item.key[len(location) + 1 :] for item in self._items(location) if not item.has_md5]

    def folders(self, location: str) -> Iterator[str]:
        for page in self._pages(f"{location}/", RUN_DEADLINE_S, by_folder=True):
            for folder in page.folders:
                yield folder.rstrip("/")

    def delete_all(self, location: str) -> None:
        keys = [item.key for item in self._items(location, is_all=True)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.delete, keys))

    def _items(self, location: str, *, is_all: bool = False) -> Iterator[Item]:
        """The objects at a location; with ``is_all``, those too that other programs made for folders."""
        for page in self._pages(f"{location}/", RUN_DEADLINE_S):
            for item in page.items:
                stalls.step()
                if is_all or not item.key.endswith("/"):
                    yield item

    def _pages(self, prefix: str, deadline_s: int, *, most: int = 0, by_folder: bool = False) -> Iterator[Page]:
        """The pages of a complete listing. Raises SinkUnreliable if it never ends."""
        token, until = "", time.monotonic() + LISTING_DEADLINE_S
        while True:
            if time.monotonic() > until:
                raise SinkUnreliable(f"A listing of {self.where} has not ended after {LISTING_DEADLINE_S} s.")
            page = self._ask(deadline_s, partial(self._page, prefix, token, most=most, by_folder=by_folder))
            yield page
            if not page.token:
                return
            if page.token == token:
                raise SinkUnreliable(f"A listing of {self.where} goes on, but it does not say where.")
            token = page.token

    def probe(self) -> None:
        """Try every request of claims and saves. Raises SyncFailed with the one that is refused."""
        name = f"probe-{uuid.uuid4().hex}"
        folder, aside = f"{MARKER_ROOT}/{name}", f"{BACKUP_ROOT}/{name}"
        try:
            self._check(folder, aside)
        finally:
            for location in (folder, aside):
                with suppress(SyncFailed):
                    self.delete(f"{location}/one")

    def _check(self, folder: str, aside: str) -> None:
        self.put(f"{folder}/one", b"probe")
        if self.get(f"{folder}/one", RUN_DEADLINE_S) != b"probe":
            raise SinkUnreliable("The sink did not return what was written.")
        if self.get(f"{folder}/none", RUN_DEADLINE_S) is not None:
            raise SinkUnreliable("The sink returns an object that does not exist.")
        if dict(self.names(folder)) != {"one": len(b"probe")}:
            raise SinkUnreliable("The sink does not list what was written.")
        if self.unhashed(folder):
            raise SinkUnreliable("The sink keeps no MD5 of what is written, so no transfer could be verified.")
        self.copy(f"{folder}/one", f"{aside}/one")
        if self.get(f"{aside}/one", RUN_DEADLINE_S) != b"probe":
            raise SinkUnreliable("A copy at the sink differs from the original.")
        for location in (folder, aside):
            self.delete_all(location)
            if self.has_objects(location, RUN_DEADLINE_S):
                raise SinkUnreliable("The sink still lists what was deleted.")

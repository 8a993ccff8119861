"""A sink, where state is stored. A kind of sink is one class (docs/adr/0056-a-kind-of-sink-is-one-class.md).

It declares how a spec describes it (serializer, form), how rclone reaches it and what rclone's failures mean. It is
also a small in-process client, which answers "is anything there?" in 2-4 ms; an rclone process needs 75 ms
(hazards.md#a10).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import urlsplit

from syncing.errors import SinkUnreliable, SyncFailed
from syncing.locations import MARKER_ROOT
from syncing.sinks import refusals

if TYPE_CHECKING:
    from syncing.sinks.inputs import InputClass

CLAIM_DEADLINE_S, RUN_DEADLINE_S, COPY_DEADLINE_S = 2, 15, 300
"""How long a sink may send nothing."""
PATIENT_DEADLINE_S = 8
"""How long a claim's question may take on a worker, which has a large marker to read over a slow line."""
LISTING_DEADLINE_S = 3600
SLOWEST_BYTES_PER_S = 65_536
REMOTE = "bh"

SHORTEST_SECRET = 5
"""A shorter one is left where it stands: words would be torn apart, and tell it."""


def whole_s(deadline_s: int, size: int = 0) -> float:
    """How long a question may take in all, whatever the sink sends; ``size`` is what it is sent, in bytes.

    A claim's is short. Others read what is long, or wait for a copy that a server reports on meanwhile.
    """
    return deadline_s if deadline_s == CLAIM_DEADLINE_S else 4 * deadline_s + size / SLOWEST_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class FormField:
    """One value of a spec's sink, as the form asks for it."""

    path: str
    """From the sink's object, such as ``bucket``."""
    label: str
    hint: str = ""
    kind: str = "text"
    """A kind of the form's parts, or ``credential``: one of the stored ones."""


class Sink(ABC):
    """One sink, resolved: with its secrets, ready to be used. Locations and keys are relative to it.

    All methods that query it raise SinkUnreachable, SinkDenied, SinkMissing, DiskFull, or SyncFailed for any other
    error.
    """

    type: ClassVar[str]
    """The kind, as a spec's ``sink.type`` names it."""
    label: ClassVar[str]
    """The kind in the form's words."""
    form: ClassVar[tuple[FormField, ...]]
    rclone_signs: ClassVar[refusals.Signs] = ()
    """Which words of rclone mean which error at this kind; the first that is met counts."""
    compares: ClassVar[tuple[str, ...]] = ("--checksum",)
    """How rclone tells what has changed; never by size or time alone."""
    resumes_saves: ClassVar[bool] = True
    """Whether a save that is tried again sends only what the sink does not have yet."""

    @classmethod
    @abstractmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink of a spec's ``sink`` as it is shown, and of its secrets."""

    @classmethod
    @abstractmethod
    def serializer(cls) -> InputClass:
        """How the API reads a spec's ``sink``. Imported when it is asked for: most processes read none."""

    @classmethod
    def prefix_of(cls, sink: Mapping[str, Any]) -> str:
        """What a spec's sink itself puts before every sink path: a location template."""
        return str(sink.get("prefix") or "")

    @classmethod
    def warm(cls) -> None:
        """Do what the first question would otherwise wait for, once per process."""
        return

    @property
    @abstractmethod
    def place(self) -> tuple[str, str]:
        """What tells it from every other sink: locations of the same place are the same objects."""

    @property
    def address(self) -> str:
        """The URL that is asked; empty for a sink that is on no network."""
        return ""

    def hosts(self) -> Iterator[str]:
        """The names, or addresses, by which rclone asks it; that of ``address`` first."""
        if self.address:
            yield urlsplit(self.address).hostname or ""

    @property
    def has_changing_addresses(self) -> bool:
        """Whether rclone must ask the resolver itself: the server has too many addresses to name them before."""
        return False

    def far_end(self, location: str) -> str:
        """What is slow, or dead, for all transfers with it when it is for the one at ``location``."""
        return self.address or self.place_name

    @property
    def place_name(self) -> str:
        """The place as one string, as rows hold it."""
        return " ".join(self.place)

    def secrets(self) -> Iterator[str]:
        """What of the sink nobody may be shown."""
        return iter(())

    def scrub(self, words: str) -> str:
        """The words without the sink's secrets, should its server have sent one back."""
        for secret in sorted(self.secrets(), key=len, reverse=True):
            words = words.replace(secret, "…") if len(secret) > SHORTEST_SECRET else words
        return words

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        """Where a location template lies, as far as the sink's spelling tells: two of one place meet where their
        objects do."""
        return self.place, template

    def addresses(self) -> list[str]:
        """The addresses of the sink's server, asked of the resolver; none for a directory."""
        return []

    def anchors(self, prefix: str) -> list[str]:
        """Folders of the sink that may be reached by other ways too, each to be known by an object of its own."""
        return [""]

    def above(self) -> Iterator[tuple[Sink, str]]:
        """The sinks of the folders that hold this one, nearest first, and where it lies in them."""
        return iter(())

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """rclone's remote ``bh:`` as environment variables; secrets go nowhere else."""

    @abstractmethod
    def remote(self, location: str) -> str:
        """rclone's path of a location, always ending in a slash."""

    def flags(self, location: str) -> list[str]:
        """More of rclone's flags for a transfer from or to a location."""
        return []

    def rclone_failure(self, lines: list[str]) -> SyncFailed | None:
        """The error of the sink that rclone's error lines report; None if they report another one."""
        return refusals.of_rclone(lines, self.rclone_signs)

    def respelling(self, paths: Collection[str]) -> list[str]:
        """The flags under which an upload of these files gives them names that the sink gives back.

        Raises Unsaveable where none do.
        """
        return []

    def listed(self, key: str) -> str:
        """How a listing spells a key that an earlier listing spelled so."""
        return key

    def binds(self, locations: Sequence[str], uid: int | None) -> list[tuple[Path, str]]:
        """What the jail must show for rclone to reach these locations: (on the host, inside).

        With a uid that user may write there, and what is missing is made.
        """
        return []

    @abstractmethod
    def get(self, key: str, deadline_s: int) -> bytes | None:
        """An object's content, None if there is none."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Afterwards the object has this content, or, after an error, what it had before."""

    def create(self, key: str, content: bytes) -> bool:
        """``put`` where there is no such object yet, as far as the sink can tell.

        Returns whether it is certain that no other's was overwritten, by now or later.
        """
        self.put(key, content)
        return False

    @abstractmethod
    def delete(self, key: str) -> None:
        """Afterwards there is no such object; none before is no error."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Copy an object within the sink, its modification time included where the sink keeps one."""

    def move(self, source: str, target: str) -> None:
        """``copy``, then ``delete``; cut in between, both are there."""
        self.copy(source, target)
        self.delete(source)

    @abstractmethod
    def has_objects(self, location: str, deadline_s: int) -> bool: ...

    @abstractmethod
    def names(self, location: str) -> Iterator[tuple[str, int]]:
        """Relative key and size of every object at the location."""

    def unhashed(self, location: str) -> list[str]:
        """Relative keys of the objects there whose MD5 rclone cannot know, where it compares by that."""
        return []

    @abstractmethod
    def folders(self, location: str) -> Iterator[str]:
        """The locations right below ``location``."""

    @abstractmethod
    def delete_all(self, location: str) -> None:
        """Delete every object at the location."""

    def tidy(self, location: str) -> None:  # noqa: B027 - most have nothing to do
        """Remove what an empty location leaves behind where folders exist by themselves."""

    def read(self, key: str, deadline_s: int) -> tuple[bytes | None, str]:
        """``get``, and the object's tag for ``put_if``: empty where there is no object, or no conditional writes."""
        return self.get(key, deadline_s), ""

    def put_if(self, key: str, content: bytes, tag: str) -> str:
        """``put`` only if the object still has that tag (empty: there is none); returns its new tag.

        Raises RemoteChanged. Only for sinks whose ``has_conditional_writes`` was found true.
        """
        raise NotImplementedError

    def probe(self) -> None:
        """Write, read and delete an object. Raises SyncFailed with the reason."""
        key = f"{MARKER_ROOT}/probe"
        self.put(key, b"probe")
        if self.get(key, RUN_DEADLINE_S) != b"probe":
            raise SinkUnreliable("The sink did not give back what was written.")
        self.delete(key)

    def has_conditional_writes(self) -> bool:
        """Whether a second conditional write is refused; tried, for servers that ignore the condition say nothing."""
        return False

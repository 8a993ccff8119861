"""An attempt of a save: what is under way at one location of a sink, and how that is taken back."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from boilerhouse.process import stalling
from syncing import errors, listings
from syncing.markers import Marker
from syncing.sinks import Sink

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a save at a location of a sink, which the open marker there names.

    Whatever it replaces or deletes is moved into a backup of its own first: what an earlier attempt moved must not be
    overwritten.
    """

    sink: Sink
    location: str
    marker: Marker
    """Open; its last entry of ``undo`` is this attempt."""
    tag: str = ""
    """The marker's, for sinks that write only where nobody else has."""

    @property
    def backup(self) -> str:
        """Where what it replaces goes."""
        return str(self.marker.undo[-1]["backup"])

    def names(self) -> dict[str, int]:
        """What lies at the location now, by name and size, as the sink lists it."""
        return dict(self.sink.names(self.location))

    def present(self) -> dict[str, int]:
        """The same, from the listing of the last save where nothing was begun since."""
        if len(self.marker.undo) == 1:
            try:
                return listings.read(self.sink, self.marker)
            except errors.Incomplete:
                pass  # lost at the sink: this save writes a new one
        return self.names()

    def put_aside(self, names: Iterable[str]) -> None:
        """Move these objects into the backup. Raises SyncFailed."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in threads.map(self._put_aside, names):
                stalling.step()

    def _put_aside(self, name: str) -> None:
        self.sink.move(f"{self.location}/{name}", f"{self.backup}/{name}")

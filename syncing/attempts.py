"""An attempt of a save: its changes at one location of a sink, and how to undo them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from boilerhouse.process import stalls
from syncing import errors, listings
from syncing.markers import Marker
from syncing.sinks import Sink

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a save at a location of a sink, recorded in the open marker there.

    What it replaces or deletes is first moved to a separate backup, because the backup of an earlier attempt must not
    be overwritten.
    """

    sink: Sink
    location: str
    marker: Marker
    """The open marker; its last entry of ``undo`` is this attempt."""
    tag: str = ""
    """The marker's tag, for sinks with conditional writes."""

    @property
    def backup(self) -> str:
        """The backup for what it replaces."""
        return str(self.marker.undo[-1]["backup"])

    def names(self) -> dict[str, int]:
        """The current objects of the location, by name and size, from a listing of the sink."""
        return dict(self.sink.names(self.location))

    def present(self) -> dict[str, int]:
        """The same, from the listing of the last save if nothing was changed since."""
        if len(self.marker.undo) == 1:
            try:
                return listings.read(self.sink, self.marker)
            except errors.Incomplete:
                pass  # lost at the sink: this save writes a new one
        return self.names()

    def put_aside(self, names: Iterable[str]) -> None:
        """Move these objects to the backup. Raises SyncFailed."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in threads.map(self._put_aside, names):
                stalls.step()

    def _put_aside(self, name: str) -> None:
        self.sink.move(f"{self.location}/{name}", f"{self.backup}/{name}")

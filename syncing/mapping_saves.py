"""The save of one mapping within a run: the one object that its steps hand each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

from syncing import patterns, rclone
from syncing.jail import Jail
from syncing.models import MappingRestore, SyncMapping, SyncRun
from syncing.runs import ProgressReporter, add_step, persist
from syncing.sinks import Sink
from syncing.sites import Site, place_of
from syncing.states import Mode, Trigger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MappingSave:
    """What is saved, from where, to where, and within which run."""

    run: SyncRun
    mapping: SyncMapping
    site: Site
    sink: Sink
    keep_going: Callable[[], bool]
    location: str
    deletes: bool
    """Whether it may delete at the sink."""
    reporter: ProgressReporter

    @classmethod
    def of(cls, run: SyncRun, mapping: SyncMapping, site: Site, sink: Sink, keep_going: Callable[[], bool]) -> Self:
        location = mapping.location(site.tenant_id)
        deletes = may_delete(mapping, site, location)
        return cls(run, mapping, site, sink, keep_going, location, deletes, ProgressReporter(run, site))

    @property
    def place(self) -> tuple[Path, PurePosixPath]:
        """The volume on this node that holds the mapping's directory, and the path in it. Raises DirectoryMissing."""
        return place_of(self.site, self.mapping)

    @property
    def matches(self) -> Callable[[str], bool] | None:
        """Whether a path is part of the mapping; None where all are."""
        return patterns.matcher(self.mapping.pattern)

    def send(
        self,
        arguments: list[str],
        directory: Path,
        binds: list[tuple[Path, str]],
        size: int,
        opens: Callable[[], int] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> rclone.Outcome:
        """Run rclone over what is in ``directory``, or what ``opens`` opens; ``size`` is how much, in bytes.

        ``check`` is called now and then, and raises what ends it.
        """

        def keep_going() -> bool:
            check()
            return self.keep_going()

        jail = Jail(directory, self.site.owner, writable=False, binds=tuple(binds), opens=opens)
        self.reporter.begin_try(*self.reporter.sent)
        return rclone.run(
            arguments, self.sink, jail, self.site.lock, location=self.location, size=size,
            on_progress=self.reporter, keep_going=keep_going, is_awaited=Trigger(self.run.trigger).is_awaited,
        )  # fmt: skip

    def persist(self, attempt: Callable[[], T], *, is_fixed: bool) -> T:
        """Where what is sent is fixed, tries go on where the last one stopped, and there are as many as bring a file.

        What goes on changing could keep them busy for ever.
        """
        return persist(attempt, self.reporter, self.keep_going, resumes=self.sink.resumes_saves and is_fixed)

    def add_step(self, files: int, size: int, **more: Any) -> None:
        """Write into the run what this mapping had."""
        add_step(self.run, self.mapping, self.location, files, size, **more)

    def note_missing(self) -> None:
        self.add_step(0, 0, note="The directory does not exist yet.")


def may_delete(mapping: SyncMapping, site: Site, location: str) -> bool:
    """Whether this generation restored the mapping as it is now, so that its save may delete there (P5)."""
    if mapping.mode != Mode.SYNC:
        return False
    return MappingRestore.objects.filter(
        tenant_id=site.tenant_id,
        generation=site.generation,
        mapping=mapping,
        location=location,
        pattern=mapping.pattern,
        spec_version=mapping.spec.version,
    ).exists()

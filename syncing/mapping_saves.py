"""The save of one mapping within a run: the object that its steps share."""

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
from syncing.states import Mode, Trigger
from syncing.targets import TransferTarget, place_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MappingSave:
    """What is saved, from where, to where, and in which run."""

    run: SyncRun
    mapping: SyncMapping
    target: TransferTarget
    sink: Sink
    keep_going: Callable[[], bool]
    location: str
    deletes: bool
    """Whether it may delete at the sink."""
    reporter: ProgressReporter

    @classmethod
    def of(
        cls, run: SyncRun, mapping: SyncMapping, target: TransferTarget, sink: Sink, keep_going: Callable[[], bool]
    ) -> Self:
        location = mapping.location(target.tenant_id)
        deletes = may_delete(mapping, target, location)
        return cls(run, mapping, target, sink, keep_going, location, deletes, ProgressReporter(run, target))

    @property
    def place(self) -> tuple[Path, PurePosixPath]:
        """The volume on this node that contains the mapping's directory, and the path in it. Raises
        DirectoryMissing."""
        return place_of(self.target, self.mapping)

    @property
    def matches(self) -> Callable[[str], bool] | None:
        """Whether a path is part of the mapping; None if all are."""
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
        """Run rclone on ``directory``, or on what ``opens`` opens; ``size`` is the approximate size in bytes.

        ``check`` is called regularly, and raises an error to end it.
        """

        def keep_going() -> bool:
            check()
            return self.keep_going()

        jail = Jail(directory, self.target.owner, writable=False, binds=tuple(binds), opens=opens)
        self.reporter.begin_try(*self.reporter.sent)
        return rclone.run(
            arguments, self.sink, jail, self.target.lock, location=self.location, size=size,
            on_progress=self.reporter, keep_going=keep_going, is_awaited=Trigger(self.run.trigger).is_awaited,
        )  # fmt: skip

    def persist(self, attempt: Callable[[], T], *, is_fixed: bool) -> T:
        """For fixed content, retries continue where the last one stopped, as long as each brings a file.

        Content that keeps changing could cause endless retries.
        """
        return persist(attempt, self.reporter, self.keep_going, resumes=self.sink.resumes_saves and is_fixed)

    def add_step(self, files: int, size: int, **more: Any) -> None:
        """Record the mapping's result in the run."""
        add_step(self.run, self.mapping, self.location, files, size, **more)

    def note_missing(self) -> None:
        self.add_step(0, 0, note="The directory does not exist yet.")


def may_delete(mapping: SyncMapping, target: TransferTarget, location: str) -> bool:
    """Whether this generation restored the mapping in its present form, so that its save may delete there (P5)."""
    if mapping.mode != Mode.SYNC:
        return False
    return MappingRestore.objects.filter(
        tenant_id=target.tenant_id,
        generation=target.generation,
        mapping=mapping,
        location=location,
        pattern=mapping.pattern,
        spec_version=mapping.spec.version,
    ).exists()

"""Saves: of a release, a periodic save, or an explicit request.

A save runs under the container's file lock, which rclone inherits, and deletes at the sink only what this generation
restored first (P5).
"""

from __future__ import annotations

from collections.abc import Callable

from boilerhouse.process import stalls
from syncing import errors, places, services
from syncing.live_saves import save_live
from syncing.mapping_saves import MappingSave
from syncing.models import SyncRun, SyncSpec
from syncing.runs import running
from syncing.states import Direction, Trigger
from syncing.stopped_saves import save_stopped
from syncing.targets import TransferTarget


def save(
    target: TransferTarget,
    specs: list[SyncSpec],
    trigger: Trigger,
    keep_going: Callable[[], bool],
    run_of: Callable[[SyncSpec], SyncRun | None] = lambda _spec: None,
) -> None:
    """Upload every upload mapping of ``specs``. Raises the first SyncFailed; earlier mappings stay saved.

    A stopped container is read in place. Of a running one, a snapshot is taken and sent.
    """
    failure: errors.SyncFailed | None = None
    for spec in specs:
        mappings = [mapping for mapping in spec.mappings.all() if mapping.uploads]
        for mapping in mappings:
            mapping.spec = spec
        try:
            going = stalls.while_going(keep_going, errors.TransferCancelled)
            with running(spec, target, Direction.UPLOAD, trigger, run_of(spec)) as run, going:
                sink = places.sink_of(spec)
                saves = [MappingSave.of(run, mapping, target, sink, keep_going) for mapping in mappings]
                if target.is_stopped:
                    for step in saves:
                        save_stopped(step)
                elif saves:
                    save_live(saves, spec)
            services.seen_to_work(spec)
        except errors.SyncFailed as error:
            failure = failure or error
    if failure:
        raise failure

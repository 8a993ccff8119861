"""The save of a stopped container, which is read in place."""

from __future__ import annotations

import os

from boilerhouse.core import failpoints
from pools import volumes
from syncing import patterns, rclone
from syncing.mapping_saves import MappingSave
from syncing.save_steps import Sent, begin_attempt, check_in_place, complete, count
from syncing.targets import planted


def save_stopped(save: MappingSave) -> None:
    volume, relative = save.place
    try:
        with planted(save.mapping):
            root = volumes.descend(volume, relative, create_for=save.target.owner)
    except FileNotFoundError:
        save.note_missing()
        return
    try:
        local = count(save, root)
        filters = patterns.to_rclone(save.mapping.pattern) if save.mapping.pattern else []

        def send() -> Sent:
            attempt, binds = begin_attempt(save, local, local.stamps)
            inside = str(relative) if relative.parts else ""
            arguments = rclone.upload(
                save.sink,
                save.location,
                filters,
                deletes=save.deletes,
                inside=inside,
                backup=attempt.backup,
                paths=local.stamps,
            )
            progress = save.send(arguments, volume, binds, local.bytes).progress
            return Sent(attempt, progress.bytes, progress.deletes)

        sent = save.persist(send, is_fixed=True)
        failpoints.reach("save.uploaded")
        check_in_place(save.mapping, volume, relative, root)
    finally:
        os.close(root)
    complete(save, local, sent)

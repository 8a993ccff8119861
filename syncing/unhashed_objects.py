"""Objects without an MD5, which rclone would compare by size alone.

Other programs uploaded them in parts, or an earlier version was configured without checksums. A save moves them away
before it starts, so that it sends them again; objects sent by rclone have an MD5, so that happens once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import structlog

from boilerhouse.core import failpoints
from pools.file_names import plain
from syncing.attempts import Attempt

log = structlog.get_logger(__name__)


def clear(attempt: Attempt, unhashed: Iterable[str], sent: Collection[str]) -> None:
    """Move objects without an MD5 that a save of the paths ``sent`` replaces to the backup of its attempt.

    Others stay: in mode copy, the sink has files that the container lacks. Raises SyncFailed.
    """
    names = list(unhashed)
    if not names:
        return
    ours = set(map(plain, sent))
    aside = [name for name in names if plain(name) in ours]
    attempt.put_aside(aside)
    failpoints.reach("save.unhashed-aside")
    log.info("objects without a checksum sent again", location=attempt.location, count=len(aside))

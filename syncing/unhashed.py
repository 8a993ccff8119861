"""Objects whose content rclone cannot tell: they have no MD5, so it would compare them by size alone.

Others put them there in several parts, or an earlier version of this product was allowed to leave checksums out. A save
puts them aside before it begins, so that it sends them again; what rclone sends has an MD5, so that happens once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import structlog

from boilerhouse.core import failpoints
from pools.names import plain
from syncing.attempts import Attempt

log = structlog.get_logger(__name__)


def clear(attempt: Attempt, unhashed: Iterable[str], sent: Collection[str]) -> None:
    """Move objects without an MD5 that a save of the paths ``sent`` replaces into the backup of its attempt.

    Others stay: in mode copy the sink has files that the container has not. Raises SyncFailed.
    """
    names = list(unhashed)
    if not names:
        return
    ours = set(map(plain, sent))
    aside = [name for name in names if plain(name) in ours]
    attempt.put_aside(aside)
    failpoints.reach("save.unhashed-aside")
    log.info("objects without a checksum are sent again", location=attempt.location, count=len(aside))

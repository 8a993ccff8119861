"""Objects whose content rclone cannot tell: they have no MD5, so it would compare them by size alone.

Others put them there in several parts, or an earlier version of this product was allowed to leave checksums out. A save
puts them aside before it begins, so that it sends them again; what rclone sends has an MD5, so that happens once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from boilerhouse.core import failpoints, stalling
from pools.names import plain
from syncing.sinks import Sink

log = structlog.get_logger(__name__)

AT_ONCE = 16


def clear(sink: Sink, location: str, unhashed: Iterable[str], sent: Collection[str], backup: str) -> None:
    """Move objects without an MD5 that a save of the paths ``sent`` replaces into the backup of its attempt.

    Others stay: in mode copy the sink has files that the container has not. Raises SyncFailed.
    """
    names = list(unhashed)
    if not names:
        return
    ours = set(map(plain, sent))
    aside = [name for name in names if plain(name) in ours]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(lambda name: sink.move(f"{location}/{name}", f"{backup}/{name}"), aside):
            stalling.step()
    failpoints.reach("save.unhashed-aside")
    log.info("objects without a checksum are sent again", location=location, count=len(aside))

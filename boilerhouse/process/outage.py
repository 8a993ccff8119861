"""The database went away, or became read-only, in the middle of something: what was begun is neither done nor failed.

Whoever meets this must not decide anything, for it could not write it down. It gives up its identity instead: the rows
that name it as their owner are taken over as those of a dead process, by whoever has the database first.
"""

from __future__ import annotations

from django.db import InterfaceError, InternalError, OperationalError, connection

from boilerhouse.process import processes

DATABASE_LOST = (OperationalError, InterfaceError, InternalError)
"""InternalError is what a standby answers, and a primary that was made read-only."""


def renounce() -> None:
    """Stop being the owner of anything; from now on this process is another one. Needs no database."""
    connection.close()
    processes.stop_heartbeat(wait=False)

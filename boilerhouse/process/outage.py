"""The database went away, or became read-only, in the middle of something: what was begun is neither done nor failed.

Whoever meets this must not decide anything, for it could not write it down. It gives its rows up instead
(``process.ownership``), and whoever comes first takes them over.
"""

from __future__ import annotations

from django.db import InterfaceError, InternalError, OperationalError

DATABASE_LOST = (OperationalError, InterfaceError, InternalError)
"""InternalError is what a standby answers, and a primary that was made read-only."""

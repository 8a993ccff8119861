"""What a process does when the database fails or becomes read-only while it works: the outcome of its work is then
unknown.

Whoever meets this must not decide anything, for it could not write it down. It gives its rows up instead
(``process.ownership``), and whoever comes first takes them over.
"""

from __future__ import annotations

from django.db import InterfaceError, InternalError, OperationalError

DATABASE_LOST = (OperationalError, InterfaceError, InternalError)
"""InternalError is what a standby answers, and a primary that was made read-only."""

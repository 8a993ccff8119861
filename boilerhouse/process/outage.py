"""What a process does when the database fails or becomes read-only while it works: the outcome of its work is then
unknown.

The code must not decide anything, because it could not record the decision. It gives its rows up instead
(``process.ownership``), and another thread or process takes them over.
"""

from __future__ import annotations

from django.db import InterfaceError, InternalError, OperationalError

DATABASE_LOST = (OperationalError, InterfaceError, InternalError)
"""A standby, or a primary that was made read-only, raises InternalError."""

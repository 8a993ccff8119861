"""Converts unexpected exceptions into a public error that names the log entry and hides the exception's text.

An exception's text is written for developers. It may contain paths of the node, rows and values.
"""

from __future__ import annotations

import structlog

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError, Internal
from boilerhouse.core.ids import uuid7

log = structlog.get_logger(__name__)


def as_public_error(error: BaseException) -> BoilerhouseError:
    """The error itself if it is a BoilerhouseError, whose message is for people; otherwise an Internal, with the rest
    in the log.

    The Internal contains the request id of the log entry: that of the request, or a new one outside requests.
    """
    if isinstance(error, BoilerhouseError):
        return error
    request_id = context.request_id() or uuid7().hex
    log.error("unexpected error", request_id=request_id, exc_info=error)
    # The C library's message, such as "No space left on device", without the file's name.
    message = f" The system reports: {error.strerror}." if isinstance(error, OSError) and error.strerror else ""
    return Internal(f"Internal error.{message} Search the log for request id {request_id}.")

"""What is told of an error that nothing foresaw: where the log has it, and nothing of its text.

The text of an exception is written for whoever reads the code. It may hold paths of the node, rows and values.
"""

from __future__ import annotations

import structlog

from boilerhouse.core import context
from boilerhouse.core.errors import BoilerhouseError, Internal
from boilerhouse.core.ids import uuid7

log = structlog.get_logger(__name__)


def explained(error: BaseException) -> BoilerhouseError:
    """The error if it is one of ours, whose words are for people; of any other an Internal, and the log has the rest.

    The Internal names the id that the log's line bears: the request's, or a new one where no request asked for it.
    """
    if isinstance(error, BoilerhouseError):
        return error
    request_id = context.request_id() or uuid7().hex
    log.error("unforeseen error", request_id=request_id, exc_info=error)
    # A phrase of the C library's table, as "No space left on device", without the file's name.
    said = f" The system said: {error.strerror}." if isinstance(error, OSError) and error.strerror else ""
    return Internal(f"Boilerhouse did not foresee this.{said} Its log names it by the request id {request_id}.")

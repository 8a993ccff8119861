"""Error families. The class docstring is the default message; HTTP is decided in ``web.problems``.

BoilerhouseError
├── Forbidden    → 403
├── NotFound     → 404
├── TooSlow      → 408
├── Conflict     → 409
├── PreconditionFailed → 412
├── Invalid      → 422   carries a list of FieldError
├── TooMany      → 429   a limit is reached; ``retry_after`` as below
├── Failed       → 502   a system outside Boilerhouse (engine, sink, hook) failed
├── Unavailable  → 503   try again, ``retry_after`` seconds from now
├── TimedOut     → 504
├── Full         → 507   the disk that it writes to
└── Internal     → 500   any other exception; made by ``core.unforeseen``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class BoilerhouseError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (self.__doc__ or self.code).strip()
        super().__init__(self.detail)


class Forbidden(BoilerhouseError):
    """Not allowed."""

    code = "forbidden"


class NotFound(BoilerhouseError):
    """Not found."""

    code = "not_found"


class TooSlow(BoilerhouseError):
    """The request did not arrive in time. Send it again."""

    code = "too_slow"


class Conflict(BoilerhouseError):
    """The current state does not allow this."""

    code = "conflict"


class PreconditionFailed(BoilerhouseError):
    """The object has changed since the version in If-Match. Read it again."""

    code = "precondition_failed"


@dataclass(frozen=True, slots=True)
class FieldError:
    pointer: str
    """JSON Pointer into the request's body, e.g. ``/config/model``."""
    detail: str
    code: str = "invalid"


class Invalid(BoilerhouseError):
    """The request is not valid."""

    code = "invalid"

    def __init__(self, *errors: FieldError, detail: str | None = None) -> None:
        self.errors = list(errors)
        super().__init__(
            detail or "; ".join(f"{e.pointer}: {e.detail}" if e.pointer else e.detail for e in errors) or None
        )


class TooMany(BoilerhouseError):
    """The limit is reached. Try again when some of it is free."""

    code = "too_many"
    retry_after: ClassVar[int] = 1


class Failed(BoilerhouseError):
    """A system outside Boilerhouse failed."""

    code = "failed"


class Unavailable(BoilerhouseError):
    """Unavailable. Try again."""

    code = "unavailable"
    retry_after = 2


class Elsewhere(Unavailable):
    """This is on another node."""

    code = "other_node"

    def __init__(self, detail: str | None = None, node: str = "") -> None:
        super().__init__(detail)
        self.node = node
        """Its id. The web server passes the request on to it, if it can."""


class TimedOut(BoilerhouseError):
    """The operation timed out."""

    code = "timed_out"
    retry_after = 1


class Full(BoilerhouseError):
    """No space is left."""

    code = "no_space"


class Internal(BoilerhouseError):
    """Internal error. See the log."""

    code = "internal"

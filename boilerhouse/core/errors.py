"""Error families. The class docstring is the default message; HTTP is decided in ``web.problems``.

BoilerhouseError
├── NotFound     → 404
├── Conflict     → 409
├── PreconditionFailed → 412
├── Invalid      → 422   carries a list of FieldError
├── TooMany      → 429   somebody uses as much as one may; ``retry_after`` as below
├── Failed       → 502   something beyond us (engine, sink, hook) said no
├── Unavailable  → 503   try again, ``retry_after`` seconds from now
├── TimedOut     → 504
└── Internal     → 500   nobody foresaw it; made by ``core.unforeseen``
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


class NotFound(BoilerhouseError):
    """There is no such thing."""

    code = "not_found"


class Conflict(BoilerhouseError):
    """The present state does not allow this."""

    code = "conflict"


class PreconditionFailed(BoilerhouseError):
    """The object is no longer what If-Match names; get it again."""

    code = "precondition_failed"


@dataclass(frozen=True, slots=True)
class FieldError:
    pointer: str
    """JSON Pointer into the request's body, e.g. ``/config/model``."""
    detail: str
    code: str = "invalid"


class Invalid(BoilerhouseError):
    """The request does not describe something possible."""

    code = "invalid"

    def __init__(self, *errors: FieldError, detail: str | None = None) -> None:
        self.errors = list(errors)
        super().__init__(
            detail or "; ".join(f"{e.pointer}: {e.detail}" if e.pointer else e.detail for e in errors) or None
        )


class TooMany(BoilerhouseError):
    """You use as much as one may at a time; try again when some of it has ended."""

    code = "too_many"
    retry_after: ClassVar[int] = 1


class Failed(BoilerhouseError):
    """Something outside Boilerhouse failed."""

    code = "failed"


class Unavailable(BoilerhouseError):
    """Not possible right now; try again."""

    code = "unavailable"
    retry_after = 2


class TimedOut(BoilerhouseError):
    """It took longer than allowed."""

    code = "timed_out"
    retry_after = 1


class Internal(BoilerhouseError):
    """Boilerhouse did not foresee this; its log says more."""

    code = "internal"

"""What can go wrong, as classes: one per status of the API, told apart further by ``code``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boilerhouse_client.answers import CommandResult


class ApiError(Exception):
    """The API answered with a problem document.

    ``code`` says what went wrong, for programs; ``errors`` lists ``{pointer, detail, code}`` per field of the body;
    ``document`` is the whole answer.
    """

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.status, self.document, self.retry_after = status, problem, retry_after
        self.code = str(problem.get("code", "error"))
        self.detail = str(problem.get("detail", problem.get("title", "")))
        self.errors: list[dict[str, str]] = problem.get("errors", [])
        self.request_id = str(problem.get("requestId", ""))
        super().__init__(f"{status} {self.code}: {self.detail}")


class Unauthorized(ApiError):
    """401: no key, or one that is wrong, expired or revoked."""


class Forbidden(ApiError):
    """403: the key's role may not do that."""


class NotFound(ApiError):
    """404: there is no such thing, or it is another tenant's."""


class Conflict(ApiError):
    """409: not in its present state."""


class PreconditionFailed(ApiError):
    """412: the object has changed since it was read."""


class Invalid(ApiError):
    """400, 413, 415, 416, 422: something in the request cannot be."""


class Throttled(ApiError):
    """429: too many requests of this key."""


class Failed(ApiError):
    """502: something beyond Boilerhouse failed: a sink, the engine, a hook."""


class Unavailable(ApiError):
    """503: not now."""


class NoSpace(ApiError):
    """507: the disk of the container is full."""


class TimedOut(ApiError):
    """504: not within its time.

    ``stdout_bytes`` and ``stderr_bytes`` are what a command had printed until then.
    """

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.stdout_bytes = base64.b64decode(problem.get("stdout", ""))
        self.stderr_bytes = base64.b64decode(problem.get("stderr", ""))
        super().__init__(status, problem, retry_after)


class CommandFailed(Exception):
    """``CommandResult.check``: the command ended with another exit code than 0. ``result`` is what it did."""

    def __init__(self, result: CommandResult) -> None:
        self.result = result
        by = f"was ended by {result.signal}" if result.signal else f"ended with exit code {result.exit_code}"
        super().__init__(f"The command {by}: {result.stderr.strip()[-400:]}")


class Unreachable(Exception):
    """The server could not be reached, or went away before all of its answer had come."""


BY_STATUS: dict[int, type[ApiError]] = dict.fromkeys((400, 413, 415, 416, 422), Invalid) | {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    429: Throttled,
    502: Failed,
    503: Unavailable,
    504: TimedOut,
    507: NoSpace,
}

"""A client for the REST API of Boilerhouse."""

from boilerhouse_client.client import Claim, Client, Collection, Event, Executed, PendingClaim, Tenant
from boilerhouse_client.errors import (
    ApiError,
    Conflict,
    Failed,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unreachable,
)

__all__ = [
    "ApiError",
    "Claim",
    "Client",
    "Collection",
    "Conflict",
    "Event",
    "Executed",
    "Failed",
    "Forbidden",
    "Invalid",
    "NotFound",
    "PendingClaim",
    "PreconditionFailed",
    "Tenant",
    "Throttled",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]

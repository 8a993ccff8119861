"""A client for the REST API of Boilerhouse: ``Client``, and ``AsyncClient`` with the same methods."""

from boilerhouse_client._async.client import AsyncClient
from boilerhouse_client._async.collections import AsyncCollection
from boilerhouse_client._async.commands import AsyncCommand, AsyncCommands
from boilerhouse_client._async.files import AsyncFiles
from boilerhouse_client._async.tenants import AsyncClaim, AsyncContainer, AsyncPendingClaim, AsyncTenant
from boilerhouse_client._async.terminals import AsyncTerminal
from boilerhouse_client._sync.client import Client
from boilerhouse_client._sync.collections import Collection
from boilerhouse_client._sync.commands import Command, Commands
from boilerhouse_client._sync.files import Files
from boilerhouse_client._sync.tenants import Claim, Container, PendingClaim, Tenant
from boilerhouse_client._sync.terminals import Terminal
from boilerhouse_client.answers import (
    Change,
    CommandResult,
    CommandStatus,
    Event,
    Executed,
    Exit,
    FileInfo,
    Gap,
    Link,
    Output,
)
from boilerhouse_client.errors import (
    ApiError,
    CommandFailed,
    Conflict,
    Failed,
    Forbidden,
    Invalid,
    NoSpace,
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
    "AsyncClaim",
    "AsyncClient",
    "AsyncCollection",
    "AsyncCommand",
    "AsyncCommands",
    "AsyncContainer",
    "AsyncFiles",
    "AsyncPendingClaim",
    "AsyncTenant",
    "AsyncTerminal",
    "Change",
    "Claim",
    "Client",
    "Collection",
    "Command",
    "CommandFailed",
    "CommandResult",
    "CommandStatus",
    "Commands",
    "Conflict",
    "Container",
    "Event",
    "Executed",
    "Exit",
    "Failed",
    "FileInfo",
    "Files",
    "Forbidden",
    "Gap",
    "Invalid",
    "Link",
    "NoSpace",
    "NotFound",
    "Output",
    "PendingClaim",
    "PreconditionFailed",
    "Tenant",
    "Terminal",
    "Throttled",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]

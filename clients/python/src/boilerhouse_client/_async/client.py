"""The client: a handle per tenant and per claim, collections of everything else, and events."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from boilerhouse_client._async import platform
from boilerhouse_client._async.collections import (
    AsyncApiKeys,
    AsyncCauses,
    AsyncCollection,
    AsyncContainers,
    AsyncListing,
    AsyncNodes,
    AsyncNodeTokens,
    AsyncNotifications,
    AsyncPools,
    AsyncSyncRuns,
    AsyncSyncSpecs,
    AsyncWorkloads,
    Filter,
)
from boilerhouse_client._async.deployment import AsyncDeployment
from boilerhouse_client._async.tenants import AsyncClaim, AsyncContainer, AsyncPendingClaim, AsyncTenant
from boilerhouse_client.answers import Event, Json
from boilerhouse_client.errors import ApiError, Unreachable
from boilerhouse_client.wire import Words, claim_body, may_pass

EVENTS_PAUSE_S = 0.5


class AsyncClient(AsyncDeployment):
    """Talks to one Boilerhouse with one key. Several tasks or threads may use it at once."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60,
        retries: int = 3,
        patience_s: float = 60,
        verify: ssl.SSLContext | bool = True,
        transport: platform.HttpTransport | None = None,
    ) -> None:
        """``url`` and ``key`` default to BOILERHOUSE_URL and BOILERHOUSE_API_KEY.

        ``timeout_s`` is how long an answer may take beyond what the request itself asks to wait; ``retries`` how often
        a request is sent again; ``patience_s`` how long a stream that broke waits for the server. ``verify`` is for a
        certificate authority of one's own, ``transport`` replaces how httpx sends (terminals do not use it).
        """
        super().__init__(
            url or os.environ["BOILERHOUSE_URL"],
            key or os.environ["BOILERHOUSE_API_KEY"],
            timeout_s=timeout_s,
            retries=retries,
            patience_s=patience_s,
            verify=verify,
            transport=transport,
        )
        self.workloads = AsyncWorkloads(self, "workloads")
        self.pools = AsyncPools(self, "pools")
        self.sync_specs = AsyncSyncSpecs(self, "sync-specs")
        self.sync_runs = AsyncSyncRuns(self, "sync-runs")
        self.containers = AsyncContainers(self, "containers")
        self.nodes = AsyncNodes(self, "nodes")
        self.node_tokens = AsyncNodeTokens(self, "nodes/tokens")
        self.credentials = AsyncCollection(self, "credentials")
        self.registry_credentials = AsyncCollection(self, "registry-credentials")
        self.notifications = AsyncNotifications(self, "notifications")
        self.causes = AsyncCauses(self, "causes")
        self.api_keys = AsyncApiKeys(self, "api-keys")
        self.audit = AsyncListing(self, "audit")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Claims -----------------------------------------------------------------------------------------

    async def claim(
        self,
        tenant_id: str,
        pool_id: str,
        *,
        config: Json | None = None,
        secrets: dict[str, str] | None = None,
        metadata: Json | None = None,
        network: Json | None = None,
        ttl_s: float | None = None,
        command: Words | None = None,
        timeout_s: float = 30,
    ) -> AsyncClaim:
        """Claim a container for the tenant, or find the one that it holds.

        Use it in a ``with`` block, which releases at its end. ``command`` runs once the container is ready, in the same
        request: ``claim.first_result``. After ``ttl_s`` the tenant is released, with a save, however active it is.
        Raises ApiError.
        """
        body = claim_body(pool_id, config, secrets, metadata, network, ttl_s, command=command)
        return AsyncClaim(self, await self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    async def begin_claim(
        self,
        tenant_id: str,
        pool_id: str,
        *,
        config: Json | None = None,
        secrets: dict[str, str] | None = None,
        metadata: Json | None = None,
        network: Json | None = None,
        ttl_s: float | None = None,
        timeout_s: float = 30,
    ) -> AsyncPendingClaim:
        """Claim without waiting (``wait: false``), for a state whose restore takes longer than a request may.

        ``timeout_s`` bounds only the wait for a container. Raises ApiError when the claim is refused.
        """
        body = claim_body(pool_id, config, secrets, metadata, network, ttl_s, wait=False)
        return AsyncPendingClaim(self, await self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    def tenant(self, tenant_id: str) -> AsyncTenant:
        return AsyncTenant(self, tenant_id)

    def tenants(self, **filters: Filter) -> AsyncIterator[Json]:
        """Tenants that hold something. ``filters``: ``poolId``, ``state``."""
        return AsyncListing(self, "tenants").list(**filters)

    def container(self, container_id: str) -> AsyncContainer:
        """A container by its id, for staff."""
        return AsyncContainer(self, container_id)

    # Events -----------------------------------------------------------------------------------------

    async def events(self, after: int | None = None, **filters: str | Sequence[str]) -> AsyncIterator[Event]:
        """Events from now on, or after an id, for ever: a broken connection is made again where it broke.

        ``filters``: ``type``, ``poolId``, ``tenantId``, ``containerId``. Raises Unauthorized when the key is revoked.
        """
        last = after
        while True:
            headers = {"Last-Event-ID": str(last)} if last is not None else {}
            try:
                async with platform.closing(self.events_of("events/stream", filters, headers)) as told:
                    async for one in told:
                        if isinstance(one.data, dict) and "type" in one.data:
                            last = one.data["id"]
                            yield Event(last, one.data["type"], one.data["payload"], one.data["timestamp"])
            except Unreachable:
                pass
            except ApiError as error:
                if not may_pass(error):
                    raise
            await platform.sleep(EVENTS_PAUSE_S)

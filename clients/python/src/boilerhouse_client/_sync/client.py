# Made of _async/client.py by scripts/python-client.sh: change that one.
"""The client: a handle per tenant and per claim, collections of everything else, and events."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from types import TracebackType

from boilerhouse_client._sync import platform
from boilerhouse_client._sync.collections import (
    ApiKeys,
    Causes,
    Collection,
    Containers,
    Filter,
    Listing,
    Nodes,
    NodeTokens,
    Notifications,
    Pools,
    SyncRuns,
    SyncSpecs,
    Workloads,
)
from boilerhouse_client._sync.deployment import Deployment
from boilerhouse_client._sync.tenants import Claim, Container, PendingClaim, Tenant
from boilerhouse_client.answers import Event, Json
from boilerhouse_client.errors import ApiError, Unreachable
from boilerhouse_client.wire import Words, claim_body, may_pass

EVENTS_PAUSE_S = 0.5


class Client(Deployment):
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
        self.workloads = Workloads(self, "workloads")
        self.pools = Pools(self, "pools")
        self.sync_specs = SyncSpecs(self, "sync-specs")
        self.sync_runs = SyncRuns(self, "sync-runs")
        self.containers = Containers(self, "containers")
        self.nodes = Nodes(self, "nodes")
        self.node_tokens = NodeTokens(self, "nodes/tokens")
        self.credentials = Collection(self, "credentials")
        self.registry_credentials = Collection(self, "registry-credentials")
        self.notifications = Notifications(self, "notifications")
        self.causes = Causes(self, "causes")
        self.api_keys = ApiKeys(self, "api-keys")
        self.audit = Listing(self, "audit")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Claims -----------------------------------------------------------------------------------------

    def claim(
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
    ) -> Claim:
        """Claim a container for the tenant, or find the one that it holds.

        Use it in a ``with`` block, which releases at its end. ``command`` runs once the container is ready, in the same
        request: ``claim.first_result``. After ``ttl_s`` the tenant is released, with a save, however active it is.
        Raises ApiError.
        """
        body = claim_body(pool_id, config, secrets, metadata, network, ttl_s, command=command)
        return Claim(self, self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    def begin_claim(
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
    ) -> PendingClaim:
        """Claim without waiting (``wait: false``), for a state whose restore takes longer than a request may.

        ``timeout_s`` bounds only the wait for a container. Raises ApiError when the claim is refused.
        """
        body = claim_body(pool_id, config, secrets, metadata, network, ttl_s, wait=False)
        return PendingClaim(self, self.tenant(tenant_id)._wait("POST", "claim", body, timeout_s))

    def tenant(self, tenant_id: str) -> Tenant:
        return Tenant(self, tenant_id)

    def tenants(self, **filters: Filter) -> Iterator[Json]:
        """Tenants that hold something. ``filters``: ``poolId``, ``state``."""
        return Listing(self, "tenants").list(**filters)

    def container(self, container_id: str) -> Container:
        """A container by its id, for staff."""
        return Container(self, container_id)

    # Events -----------------------------------------------------------------------------------------

    def events(self, after: int | None = None, **filters: str | Sequence[str]) -> Iterator[Event]:
        """Events from now on, or after an id, for ever: a broken connection is made again where it broke.

        ``filters``: ``type``, ``poolId``, ``tenantId``, ``containerId``. Raises Unauthorized when the key is revoked.
        """
        last = after
        while True:
            headers = {"Last-Event-ID": str(last)} if last is not None else {}
            try:
                with platform.closing(self.events_of("events/stream", filters, headers)) as told:
                    for one in told:
                        if isinstance(one.data, dict) and "type" in one.data:
                            last = one.data["id"]
                            yield Event(last, one.data["type"], one.data["payload"], one.data["timestamp"])
            except Unreachable:
                pass
            except ApiError as error:
                if not may_pass(error):
                    raise
            platform.sleep(EVENTS_PAUSE_S)

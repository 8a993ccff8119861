"""Claim, release, status and sync of tenants."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.event_views import reads_logs
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.core.events import afterwards
from boilerhouse.core.models import Role
from boilerhouse.process import budgets
from boilerhouse.web import throttling
from syncing.api.serializers import RunsOutput, render_run
from tenants import claims, commands, idle, releases, syncs, ttl, validation, wait_queue
from tenants.api import claim_commands
from tenants.api.claim_commands import ClaimCommand
from tenants.api.serializers import (
    ClaimInput,
    ClaimOutput,
    HeldOutput,
    PendingOutput,
    ReleaseInput,
    ReleaseOutput,
    StatusOutput,
    SyncInput,
    TtlInput,
    TtlOutput,
    first_command,
    render_claim,
    render_held,
    render_pending,
)
from tenants.api.waiting import TIMEOUT, Awaited, WaitingView, check_room, patience, timeout_ms
from tenants.models import Assignment
from tenants.states import AssignmentState, Source
from tenants.status import tenant_status

DEFAULT_CLAIM_MS, DEFAULT_RELEASE_MS = 30_000, 60_000


COMMAND_S = commands.DEFAULT_WAIT_MS / 1000 + 30
"""How long a claim may wait for its command, which has a deadline of its own."""


def _claimed(
    assignment: Assignment, begun: claims.Begun, arrived: float, command: dict[str, Any] | None = None
) -> Response:
    if assignment.state == AssignmentState.PENDING:
        return Response(render_pending(assignment, begun.ignored), status=202)
    latency = max(1, round((time.time() - arrived) * 1000))
    if begun.is_new:
        body = render_claim(assignment, assignment.source, latency)
        return Response(body if command is None else {**body, "command": command}, status=201)
    return Response(render_claim(assignment, Source.EXISTING, latency, begun.ignored), status=200)


class ClaimView(WaitingView):
    lane = "claim"

    @operation(
        operation_id="claimContainer",
        acts="A worker takes and fills the container. A repeated claim joins it, or gets the same container.",
        problems={
            404: "pool_not_found",
            409: "other_pool releasing release_failed draining claim_aborted restoring_backup erasing",
            429: "too_many_claims",
            502: "restore_failed state_missing state_moved location_conflict place_changed hook_failed container_died",
            503: "pool_exhausted pool_error pool_paused engine_unavailable outcome_unknown too_many_waiting"
            " sink_throttled computing_busy",
            504: "claim_timeout",
        },
        summary="Claim a container for the tenant",
        description="Answers when the tenant's state, config and secrets are in the container. A"
        " second claim returns the same container, unchanged. With `wait: false`, the"
        " answer is 202 if this takes a while. The tenant's status and `sync.progress`"
        " events show the restore's progress; `container.claimed` or"
        " `container.claim_failed` gives the result.",
        parameters=[TIMEOUT],
        request=ClaimInput,
        responses={201: ClaimOutput, 200: ClaimOutput, 202: PendingOutput},
    )
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        return self.answer(request, partial(self._begin, request, tenant_id))

    def _begin(self, request: Any, tenant_id: str) -> Awaited | Response:
        arrived = time.time()
        allowed_ms = timeout_ms(request, DEFAULT_CLAIM_MS)
        body = self.read(ClaimInput)
        tenant_key = request.auth.pk if request.auth.role == Role.TENANT else ""
        asked = dict(body.validated_data)
        wish = first_command(asked)
        claim = validation.Claim(tenant_id, timeout_ms=allowed_ms, tenant_key=tenant_key, **asked)
        owners = budgets.owners(request.auth, budgets.tenant(tenant_id), budgets.pool(claim.pool_id))
        check_room(owners)
        begun, until = claims.begin(claim), arrived + allowed_ms / 1000
        if not claim.wait:
            return _claimed(claims.peek(begun), begun, arrived)
        if wish is not None and begun.is_new:
            return self._with_command(begun, wish, arrived, until, owners)
        if wish is not None:
            begun = replace(begun, ignored=tuple(sorted((*begun.ignored, "command"))))

        def settle() -> Response | None:
            assignment = claims.settle(begun, until)
            return None if assignment is None else _claimed(assignment, begun, arrived)

        return Awaited(begun.assignment_id, wait_queue.settled, settle, until, owners)

    def _with_command(
        self, begun: claims.Begun, wish: commands.Wish, arrived: float, until: float, owners: tuple[budgets.Owner, ...]
    ) -> Awaited:
        """A claim whose answer has the result of its first command."""
        command_id = commands.new_id(self._record.id if self._record is not None else None)
        command = ClaimCommand(begun.assignment_id, wish, command_id, until)

        def settle() -> Response | None:
            try:
                assignment = claims.settle(begun, until)
            except BaseException:
                command.forget()
                raise
            if assignment is None:
                return None
            slow = tuple(owner for owner in owners if owner.kind != budgets.Kind.POOL)
            result = command.result(assignment.held_container, slow)
            return None if result is None else _claimed(assignment, begun, arrived, result)

        return Awaited(begun.assignment_id, claim_commands.settled, settle, until + COMMAND_S, owners)

    def still_holds(self, response: HttpResponse) -> bool:
        """A stored claim is returned again only while its generation is live, because another tenant may get its
        address later."""
        body = json.loads(response.content)
        assignments = Assignment.objects.filter(tenant_id=self.kwargs["tenant_id"], generation=body["generation"])
        # A pending claim that has become assigned returns the complete response.
        return assignments.filter(state=body["state"]).exists()


class ReleaseView(WaitingView):
    @operation(
        operation_id="releaseContainer",
        acts="A worker saves and destroys the container. A repeated release joins it.",
        is_body_optional=True,
        problems={404: "nothing_held", 502: "save_failed"},
        summary="Release the tenant's container",
        description="200: the state is saved and the container is gone. 202: not finished yet;"
        " immediately if too many requests are waiting. 502 `save_failed`: the state"
        " stays on the node and the save is retried.",
        parameters=[TIMEOUT],
        request=ReleaseInput,
        responses={200: ReleaseOutput, 202: ReleaseOutput},
    )
    def post(self, request: Any, tenant_id: str) -> HttpResponse:
        return self.answer(request, partial(self._begin, request, tenant_id))

    def _begin(self, request: Any, tenant_id: str) -> Awaited:
        until = time.time() + timeout_ms(request, DEFAULT_RELEASE_MS) / 1000
        body = self.read(ReleaseInput)
        release = releases.begin(tenant_id, **body.validated_data)
        owners = budgets.owners(request.auth, budgets.tenant(tenant_id))

        def settle() -> Response | None:
            return Response({"tenantId": tenant_id, "state": None}) if releases.settle(release) else None

        def late() -> Response:
            return Response({"tenantId": tenant_id, "state": AssignmentState.RELEASING}, status=202)

        return Awaited(release.assignment_id, releases.settled, settle, patience(until, owners), owners, late)


class StatusView(ApiView):
    @operation(operation_id="getTenantStatus", summary="Show what is known of a tenant", responses=StatusOutput)
    def get(self, request: Any, tenant_id: str) -> Response:
        return Response(tenant_status(validation.check_tenant_id(tenant_id), reads_logs=reads_logs(request.auth)))


class SyncView(ApiView):
    @operation(
        operation_id="syncTenant",
        problems={409: "not_assigned"},
        summary="Sync the tenant's state now",
        description="`inward` overwrites files that differ and deletes nothing; `both` is outward,"
        " then inward. If such a run is already queued, the answer is that run.",
        request=SyncInput,
        responses={202: RunsOutput},
    )
    def post(self, request: Any, tenant_id: str) -> Response:
        body = self.read(SyncInput)
        runs = syncs.begin(tenant_id, body.validated_data["direction"])
        afterwards(partial(throttling.charge, request.auth, throttling.SYNC))
        return Response({"runs": [render_run(run) for run in runs]}, status=202)


class HeartbeatView(ApiView):
    @operation(
        operation_id="heartbeat",
        problems={404: "nothing_held"},
        summary="Say that the tenant is active",
        description="Moves the deadline of a pool's `idleTimeoutMs`. 404 when the tenant holds nothing.",
        request=None,
        responses={204: None},
    )
    def post(self, request: Any, tenant_id: str) -> Response:
        idle.heartbeat(validation.check_tenant_id(tenant_id))
        return Response(status=204)


class TtlView(ApiView):
    @operation(
        operation_id="setTenantTtl",
        problems={409: "not_assigned releasing"},
        summary="Change when the tenant's claim ends",
        description="Replaces the end that the claim's `ttlMs` has set. Then the tenant is released, with a save.",
        request=TtlInput,
        responses=TtlOutput,
    )
    def put(self, request: Any, tenant_id: str) -> Response:
        ends_at = ttl.set_ttl(tenant_id, self.read(TtlInput).validated_data["ttl_ms"])
        return Response({"tenantId": tenant_id, "endsAt": ends_at})


class TenantListView(ApiView):
    @operation(
        operation_id="listTenants",
        summary="List tenants that hold a container or have unsaved state",
        parameters=[query("poolId"), query("state"), LIMIT, CURSOR],
        responses=page_of("TenantPage", HeldOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Assignment.objects.live(), render_held, {"poolId": "pool_id", "state": "state"})

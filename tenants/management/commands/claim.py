"""Claim a container for a tenant, and wait until the claim has ended."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.api.parsers import check_body
from boilerhouse.process import commands
from tenants import claims, validation
from tenants.api.serializers import ClaimInput, render_claim, render_pending
from tenants.models import Assignment
from tenants.states import AssignmentState, Source

LOOK_EVERY_S = 0.02


class Command(commands.Command):
    help = "Claim a container for a tenant, as POST /api/v1/tenants/{id}/claim does."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("--pool", required=True)
        parser.add_argument("--config", metavar="FILE", help="a JSON file; - reads stdin")
        parser.add_argument("--secrets", metavar="FILE", help="a JSON file with names and values; - reads stdin")
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=30_000)
        parser.add_argument(
            "--no-wait",
            action="store_true",
            help="do not wait for the restore; --timeout-ms then limits only the wait for a container",
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["config"] == options["secrets"] == "-":
            raise CommandError("Only one of --config and --secrets can read stdin.", returncode=commands.USAGE)
        body: dict[str, Any] = {"poolId": options["pool"], "wait": not options["no_wait"]}
        body |= {name: _read(options[name]) for name in ("config", "secrets") if options[name]}
        claim_input = ClaimInput(data=body)
        if not claim_input.is_valid():
            raise CommandError(f"Invalid claim: {json.dumps(claim_input.errors)}", returncode=commands.USAGE)
        arrived, timeout_ms = time.time(), options["timeout_ms"]
        claim = validation.Claim(tenant_id=options["tenant"], timeout_ms=timeout_ms, **claim_input.validated_data)
        begun, until = claims.begin(claim), arrived + timeout_ms / 1000
        assignment = None if claim.wait else claims.peek(begun)
        while assignment is None and (assignment := claims.settle(begun, until)) is None:
            time.sleep(LOOK_EVERY_S)
        if assignment.state == AssignmentState.PENDING:
            self._tell_pending(options, assignment, begun)
        else:
            self._tell_held(options, assignment, begun, max(1, round((time.time() - arrived) * 1000)))

    def _tell_held(self, options: dict[str, Any], assignment: Assignment, begun: claims.Begun, latency_ms: int) -> None:
        source = str(assignment.source) if begun.is_new else str(Source.EXISTING)
        body = render_claim(assignment, source, latency_ms, begun.ignored)
        places = ", ".join(f"{endpoint['host']}:{endpoint['port']}" for endpoint in assignment.endpoints) or "no port"
        where = f"{assignment.container_ref} of {assignment.pool_id}"
        self.result(options, body, f"{assignment.tenant_id} holds {where} ({source}, {latency_ms} ms) at {places}")

    def _tell_pending(self, options: dict[str, Any], assignment: Assignment, begun: claims.Begun) -> None:
        tenant, pool = assignment.tenant_id, assignment.pool_id
        where = f"{assignment.container_ref} of {pool}" if assignment.container_ref else f"a container of {pool}"
        ends = f"the claim is given up at {assignment.deadline:%H:%M:%S} UTC unless it makes progress"
        self.result(options, render_pending(assignment, begun.ignored), f"{tenant} is claiming {where}; {ends}")
        self.say(
            f"Follow: manage.py events --follow --tenant {tenant}\nWait: manage.py claim {tenant} --pool"
            f" {pool}\nProgress: GET /api/v1/tenants/{tenant}/status, or the tenant's page"
        )


def _read(source: str) -> Any:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as error:
        raise CommandError(f"Cannot read {source}: {error.strerror}.", returncode=commands.USAGE) from error
    try:
        return check_body(text)
    except ValueError as error:
        raise CommandError(f"{source}: {error}", returncode=commands.USAGE) from error

"""Claim a container for a tenant and wait until it is ready."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.core import commands
from boilerhouse.core.api.parsers import check_body
from tenants import claims, validation
from tenants.api.serializers import ClaimInput, render_claim
from tenants.states import Source

LOOK_EVERY_S = 0.02


class Command(commands.Command):
    help = "Claim a container for a tenant, as POST /api/v1/tenants/{id}/claim does."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("--pool", required=True)
        parser.add_argument("--config", metavar="FILE", help="JSON; - reads it from stdin")
        parser.add_argument(
            "--secrets", metavar="FILE", help="a JSON object of names and values; - reads it from stdin"
        )
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=30_000)
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["config"] == options["secrets"] == "-":
            raise CommandError("Only one of --config and --secrets can be stdin.", returncode=commands.USAGE)
        body = {"poolId": options["pool"]}
        body |= {name: _read(options[name]) for name in ("config", "secrets") if options[name]}
        given = ClaimInput(data=body)
        if not given.is_valid():
            raise CommandError(f"Not a claim: {json.dumps(given.errors)}", returncode=commands.USAGE)
        arrived, timeout_ms = time.time(), options["timeout_ms"]
        claim = validation.Claim(tenant_id=options["tenant"], timeout_ms=timeout_ms, **given.validated_data)
        begun, until = claims.begin(claim), arrived + timeout_ms / 1000
        while (assignment := claims.settle(begun, until)) is None:
            time.sleep(LOOK_EVERY_S)
        latency = max(1, round((time.time() - arrived) * 1000))
        source = str(assignment.source) if begun.is_new else str(Source.EXISTING)
        shown = render_claim(assignment, source, latency, begun.ignored)
        places = ", ".join(f"{one['host']}:{one['port']}" for one in assignment.endpoints) or "no port"
        where = f"{assignment.container_ref} of {assignment.pool_id}"
        self.result(options, shown, f"{assignment.tenant_id} holds {where} ({source}, {latency} ms) at {places}")


def _read(source: str) -> Any:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}.", returncode=commands.USAGE) from error
    try:
        return check_body(text)
    except ValueError as error:
        raise CommandError(f"{source}: {error}", returncode=commands.USAGE) from error

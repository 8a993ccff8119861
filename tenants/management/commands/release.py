"""Release a tenant's container and wait until its state is saved and the container is gone."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.process import commands
from tenants import releases

LOOK_EVERY_S = 0.1


class Command(commands.Command):
    help = (
        "Save a tenant's state and release its container. A failed save is retried; --discard gives up unsaved state."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("--discard", action="store_true", help="give up unsaved state; requires --yes")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=60_000)
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        tenant, until = options["tenant"], time.monotonic() + options["timeout_ms"] / 1000
        if options["discard"] and not options["yes"]:
            if not sys.stdin.isatty():
                raise CommandError("Nothing was discarded: add --yes.", returncode=commands.USAGE)
            if input(f"Give up the unsaved state of {tenant}? Type the tenant's id: ") != tenant:
                raise CommandError("Nothing was discarded.")
        release = releases.begin(tenant, discard=options["discard"])
        while not releases.settle(release):
            if time.monotonic() > until:
                raise CommandError(f"{tenant} is still being released.", returncode=commands.TIMED_OUT)
            time.sleep(LOOK_EVERY_S)
        outcome = "discarded" if options["discard"] else "saved"
        body = {"tenantId": tenant, "state": None}
        self.result(options, body, f"{tenant} is released; its state is {outcome}.")

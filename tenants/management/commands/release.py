"""Release what a tenant holds and wait until its state is safe and its container gone."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.core import commands
from tenants import releases

LOOK_EVERY_S = 0.1


class Command(commands.Command):
    help = "Release a tenant's container, saved first. A failed save is tried again; --discard gives it up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("--discard", action="store_true", help="give up what is not saved; wants --yes")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=60_000)
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        tenant, until = options["tenant"], time.monotonic() + options["timeout_ms"] / 1000
        if options["discard"] and not options["yes"]:
            if not sys.stdin.isatty():
                raise CommandError("Nothing was discarded: say --yes.", returncode=commands.USAGE)
            if input(f"Give up what {tenant} has not saved? Type its id: ") != tenant:
                raise CommandError("Nothing was discarded.")
        release = releases.begin(tenant, discard=options["discard"])
        while not releases.settle(release):
            if time.monotonic() > until:
                raise CommandError(f"{tenant} is still being released.", returncode=commands.TIMED_OUT)
            time.sleep(LOOK_EVERY_S)
        done = "given up" if options["discard"] else "saved"
        shown = {"tenantId": tenant, "state": None}
        self.result(options, shown, f"{tenant} is released; its state is {done}.")

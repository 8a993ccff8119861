"""Save or restore tenants' state now."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.process import commands
from syncing.api.serializers import render_run
from syncing.models import SyncRun
from syncing.services import find_spec
from syncing.states import UNFINISHED, Direction, SyncRunState
from tenants import previews, syncs

LOOK_EVERY_S = 0.2
SAY_EVERY_S = 5.0


class Command(commands.Command):
    help = "Save (outward) or restore (inward) the state of a tenant, or of all tenants of a sync spec."

    def add_arguments(self, parser: CommandParser) -> None:
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("tenant", nargs="?")
        who.add_argument("--spec", help="sync all tenants that hold a container of this spec's pool")
        parser.add_argument("--direction", choices=sorted(syncs.DIRECTIONS), default="outward")
        parser.add_argument(
            "--dry-run", action="store_true", help="show what would be transferred; for one tenant only"
        )
        parser.add_argument("--wait", action="store_true", help="wait until the runs have ended")
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=600_000)
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"]:
            self._preview(options)
            return
        tenant, spec, direction = options["tenant"], options["spec"], options["direction"]
        runs = syncs.begin(tenant, direction) if tenant else syncs.trigger(find_spec(spec), direction, None)
        if options["wait"]:
            runs = self._wait(runs, options["timeout_ms"])
        lines = [f"{run.direction:<9} {run.tenant_id:<24} {run.state:<10} {run.error_detail}".rstrip() for run in runs]
        self.result(options, {"runs": [render_run(run) for run in runs]}, "\n".join(lines) or "Nothing to sync.")
        failed = [run for run in runs if run.state in (SyncRunState.FAILED, SyncRunState.CANCELLED)]
        if failed:
            raise CommandError(f"{len(failed)} of {len(runs)} runs failed.", returncode=commands.FAILED)

    def _preview(self, options: dict[str, Any]) -> None:
        if not options["tenant"]:
            raise CommandError("--dry-run needs a tenant.", returncode=commands.USAGE)
        planned = [
            {"direction": way.value, **asdict(plan)}
            for way in syncs.DIRECTIONS[options["direction"]]
            for plan in previews.of_sync(options["tenant"], Direction(way))
        ]
        lines = [
            f"{plan['direction']:<9} {plan['container_path']:<20} new {plan['new']}, changed {plan['changed']},"
            f" same {plan['same']}, deleted {plan['deletes']} {plan['problem']}".rstrip()
            for plan in planned
        ]
        self.result(options, {"planned": planned}, "\n".join(lines) or "Nothing to sync.")

    def _wait(self, runs: list[SyncRun], timeout_ms: int) -> list[SyncRun]:
        until, reported_at = time.monotonic() + timeout_ms / 1000, time.monotonic()
        while True:
            rows = list(SyncRun.objects.filter(pk__in=[run.pk for run in runs]).order_by("created_at"))
            open_runs = [run for run in rows if run.state in UNFINISHED]
            if not open_runs:
                return rows
            if time.monotonic() > until:
                raise CommandError(f"{len(open_runs)} runs have not ended yet.", returncode=commands.TIMED_OUT)
            if time.monotonic() - reported_at > SAY_EVERY_S:
                reported_at = time.monotonic()
                self.say(f"{len(rows) - len(open_runs)} of {len(rows)} runs have ended")
            time.sleep(LOOK_EVERY_S)

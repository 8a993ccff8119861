"""Create or change workloads, pools, credentials and sync specs from files."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.operations import resources
from boilerhouse.process import commands


class Command(commands.Command):
    help = (
        "Apply YAML documents (kind: and the API's body). Shows the difference, then applies all of them or none."
        " Never deletes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "paths", nargs="+", type=Path, metavar="PATH", help="a YAML file, or a directory with *.yaml files"
        )
        parser.add_argument("--dry-run", action="store_true", help="show the difference and change nothing")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        missing = [str(path) for path in options["paths"] if not path.exists()]
        if missing:
            raise CommandError(f"Not found: {', '.join(missing)}", returncode=commands.NOT_FOUND)
        results = resources.apply(list(resources.read(options["paths"])), dry_run=options["dry_run"])
        lines = []
        for change in results:
            lines.append(f"{change.outcome:<10} {change.kind:<11} {change.id or change.place}")
            lines += [f"    {line}" for line in change.difference]
            lines += [
                f"    warning: {change.place}: {warning.pointer}: {warning.detail}" for warning in change.warnings
            ]
            lines += [f"    {change.place}: {error.pointer or '/'}: {error.detail}" for error in change.errors]
        failed = sum(change.outcome == "failed" for change in results)
        is_applied = not options["dry_run"] and not failed
        body = {
            "dryRun": options["dry_run"],
            "applied": is_applied,
            "documents": [asdict(change) for change in results],
        }
        self.result(options, body, "\n".join(lines) or "No documents given.")
        if failed:
            sys.stdout.flush()
            detail = f"{failed} of {len(results)} documents failed. Nothing was changed."
            raise CommandError(detail, returncode=commands.FAILED)

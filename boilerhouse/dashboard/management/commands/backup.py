"""Write the deployment's rows, as they are at one moment, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.core import commands
from boilerhouse.dashboard import archives


class Command(commands.Command):
    help = "Write the deployment's rows, as they are now, into a new file, while everything runs. Keep keys apart."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--keys", type=Path, help="write the deployment's keys into this file, to be kept apart")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if options["keys"]:
            archives.write_keys(options["keys"])
        manifest = archives.write(path, self.say)
        if not options["keys"]:
            self.say("The keys are not in it: without them nobody opens its secrets (--keys FILE, or <data>/keys).")
        rows, size = sum(manifest.rows.values()), path.stat().st_size
        shown = {
            "file": str(path), "bytes": size, "rows": rows, "takenAt": manifest.taken_at,
            "deploymentId": manifest.deployment_id, "version": manifest.version,
        }  # fmt: skip
        self.result(options, shown, f"{path}: {rows} rows of deployment {manifest.deployment_id}, {size} bytes.")

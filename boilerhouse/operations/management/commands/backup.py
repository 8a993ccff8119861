"""Write a consistent snapshot of the deployment's rows to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.operations import archives
from boilerhouse.process import commands


class Command(commands.Command):
    help = "Write the deployment's rows to a new file, while everything runs. Store the keys separately."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--keys", type=Path, help="also write the deployment's keys to this file; store it separately"
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if options["keys"]:
            archives.write_keys(options["keys"])
        manifest = archives.write(path, self.say)
        if not options["keys"]:
            self.say(
                "The backup does not contain the keys. Its secrets cannot be read without them (--keys FILE, or"
                " <data>/keys)."
            )
        rows, size = sum(manifest.rows.values()), path.stat().st_size
        body = {
            "file": str(path), "bytes": size, "rows": rows, "takenAt": manifest.taken_at,
            "deploymentId": manifest.deployment_id, "version": manifest.version,
        }  # fmt: skip
        self.result(options, body, f"{path}: {rows} rows of deployment {manifest.deployment_id}, {size} bytes.")

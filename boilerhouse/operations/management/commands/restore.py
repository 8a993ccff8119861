"""Restore a backup into an empty database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.operations import archives, restoration
from boilerhouse.process import commands


class Command(commands.Command):
    help = "Restore a backup into an empty database. Start the processes afterwards."
    requires_system_checks: list[str] = []  # the checks would read the database

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--keys", type=Path, help="the file that backup --keys wrote")
        parser.add_argument(
            "--unsigned",
            action="store_true",
            help="accept an unsigned backup of an older version",
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        archive = archives.Archive(options["file"], allow_unsigned=options["unsigned"])
        keys = archives.read_keys(options["keys"]) if options["keys"] else None
        result = restoration.restore(archive, keys)
        missing = sorted(result.tenants_gone)
        body = {
            "deploymentId": archive.manifest.deployment_id, "takenAt": archive.manifest.taken_at, "rows": result.rows,
            "containers": {"found": result.containers_found, "gone": result.containers_gone},
            "tenantsBackToTheirLastSave": missing,
        }  # fmt: skip
        words = [
            f"Deployment {archive.manifest.deployment_id} as of {archive.manifest.taken_at}: {result.rows} rows.",
            f"Containers: {result.containers_found} are here; {result.containers_gone} are gone and will be replaced.",
        ]
        if missing:
            words.append(f"Tenants that get their last complete save with the next claim: {', '.join(missing)}.")
        self.result(options, body, "\n".join(words))

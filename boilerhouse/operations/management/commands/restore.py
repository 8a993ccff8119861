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
        held = archives.read_keys(options["keys"]) if options["keys"] else None
        done = restoration.restore(archive, held)
        gone = sorted(done.tenants_gone)
        shown = {
            "deploymentId": archive.manifest.deployment_id, "takenAt": archive.manifest.taken_at, "rows": done.rows,
            "containers": {"found": done.containers_found, "gone": done.containers_gone},
            "tenantsBackToTheirLastSave": gone,
        }  # fmt: skip
        words = [
            f"Deployment {archive.manifest.deployment_id} as of {archive.manifest.taken_at}: {done.rows} rows.",
            f"Containers: {done.containers_found} are here; {done.containers_gone} are gone and will be replaced.",
        ]
        if gone:
            words.append(f"Tenants that get their last complete save with the next claim: {', '.join(gone)}.")
        self.result(options, shown, "\n".join(words))

"""Create a new encryption key and encrypt all secrets with it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.core import audit, encryption
from boilerhouse.core.deployment import check_has_only_keys, deployment_id
from boilerhouse.process import commands


class Command(commands.Command):
    help = (
        "Create a new encryption key and encrypt all stored secrets with it, while everything runs. If the"
        " environment sets the keys, encrypt with the first of them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--forget-old", action="store_true", help="create no key; delete all but the newest (after a rotation)"
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not encryption.are_given():
            check_has_only_keys()
        counts = encryption.rotate(forget_old=options["forget_old"])
        audit.record("deployment.rotate_secrets", deployment_id(), after=counts)
        rows = sum(counts["reencrypted"].values())
        keys = f"{counts['keys']} key{'s are' if counts['keys'] != 1 else ' is'} kept"
        self.result(options, counts, f"{rows} rows encrypted anew; {keys}{', the newest is new' * counts['made']}.")

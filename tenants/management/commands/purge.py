"""Remove every container, network, rule and directory of this deployment."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.core.deployment import deployment_id
from boilerhouse.process import commands
from pools import cleanup
from tenants import purge
from tenants.models import Assignment
from tenants.states import AssignmentState


class Command(commands.Command):
    help = "Remove every container, network, rule and directory of this deployment. Unsaved state is lost."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        count = Assignment.objects.live().exclude(state=AssignmentState.PENDING).count()
        if not options["yes"]:
            if not sys.stdin.isatty():
                raise CommandError("Nothing was removed: add --yes.", returncode=commands.USAGE)
            question = (
                f"Remove all containers of deployment {deployment_id()}? {count} tenants' unsaved state is lost. "
            )
            if input(question + "Type the deployment's id: ") != deployment_id():
                raise CommandError("Nothing was removed.")
        removed = cleanup.purge()
        purge.end_all()
        self.result(
            options, removed, f"Removed {removed['containers']} containers, {removed['directories']} directories."
        )

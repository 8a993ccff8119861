"""Print the log of a tenant's container."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.process import commands
from pools.models import Container
from tenants import activity, deaths
from tenants.errors import NotAssigned, Releasing


class Command(commands.Command):
    help = "Print the log of the container that a tenant holds."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("--tail", type=commands.whole(0, 10_000), default=100)
        parser.add_argument(
            "--since",
            type=commands.moment,
            metavar="MOMENT",
            help="only lines since this time, such as 2026-01-31T12:00:00Z",
        )
        parser.add_argument("--timestamps", action="store_true")
        parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the container ends")

    def handle(self, *args: Any, **options: Any) -> None:
        since = options["since"].timestamp() if options["since"] else None
        query: dict[str, Any] = {"timestamps": options["timestamps"]}
        try:
            container = Container.objects.get(pk=activity.held_by(options["tenant"]))
        except (NotAssigned, Releasing, Container.DoesNotExist):
            death = deaths.last_of(options["tenant"])
            if death is None:
                raise
            self.say(f"The container is gone: {death.detail} This is the stored part of its log.")
            commands.Output(sys.stdout).write(deaths.log_of(death, options["tail"], since, **query), is_last=True)
            return
        if not options["follow"]:
            commands.Output(sys.stdout).write(activity.logs(container, options["tail"], since, **query), is_last=True)
            return
        source = activity.follow_logs(container, options["tail"], since, **query)
        output = commands.Output(sys.stdout)
        try:
            for chunk in source:
                output.write(chunk)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            source.close()

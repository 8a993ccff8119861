"""Print a link that logs a staff user in once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.operations import one_time_links
from boilerhouse.operations.addresses import public_origin
from boilerhouse.process import commands


class Command(commands.Command):
    help = (
        "Print a link that logs a staff user in once; only its path if the dashboard's address is not known."
        " It is valid for a few days or until the next login."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", default="admin")
        parser.add_argument("--create", action="store_true", help="create a superuser of that name if there is none")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        path = one_time_links.path_for(options["user"], creates=options["create"])
        url = public_origin() + path
        self.result(options, {"path": path, "url": url if url != path else None, "user": options["user"]}, url)

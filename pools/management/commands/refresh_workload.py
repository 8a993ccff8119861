"""Roll to the image that the tag of a workload's image names now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.process import commands
from pools import tags


class Command(commands.Command):
    help = "Check which image a workload's tag names now. Pools roll to a new one after one container is healthy."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workload", help="the workload's id")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        outcome = tags.refresh(options["workload"])
        value = {
            "workloadId": options["workload"],
            "version": outcome.version,
            "digest": outcome.digest,
            "new": outcome.is_new,
        }
        message = (
            f"Version {outcome.version} runs {outcome.digest}; pools roll to it."
            if outcome.is_new
            else "Nothing has changed."
        )
        self.result(options, value, message)

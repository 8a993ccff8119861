"""Run what the tag of a workload's image names now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.core import commands
from pools import tags


class Command(commands.Command):
    help = "Ask the registry what a workload's tag names now; pools roll to another image once it is proven."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workload", help="its id")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        done = tags.refresh(options["workload"])
        value = {"workloadId": options["workload"], "version": done.version, "digest": done.digest, "new": done.is_new}
        said = (
            f"Version {done.version} runs {done.digest}; pools roll to it." if done.is_new else "Nothing has changed."
        )
        self.result(options, value, said)

"""Report the state of everything that a deployment needs, with remedies."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.operations import doctor
from boilerhouse.process import commands

SHAPES = {doctor.OK: "ok     ", doctor.WARN: "warning", doctor.FAILURE: "FAILURE"}


class Command(commands.Command):
    help = "Check the deployment: database, engine, privileges, firewall, transfers, sinks, processes. Changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        found = doctor.examine()
        lines = [
            f"{SHAPES[one.state]}  {one.name:<10} {one.detail}" + (f"\n{'':21}→ {one.todo}" if one.todo else "")
            for one in found
        ]
        self.result(options, {"findings": [asdict(one) for one in found]}, "\n".join(lines))
        failures = sum(one.state == doctor.FAILURE for one in found)
        if failures:
            raise CommandError(f"{failures} of {len(found)} checks failed.", returncode=commands.FAILED)

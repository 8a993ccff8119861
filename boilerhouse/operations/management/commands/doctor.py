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
        results = doctor.examine()
        lines = [
            f"{SHAPES[result.state]}  {result.name:<10} {result.detail}"
            + (f"\n{'':21}→ {result.todo}" if result.todo else "")
            for result in results
        ]
        self.result(options, {"findings": [asdict(result) for result in results]}, "\n".join(lines))
        failures = sum(result.state == doctor.FAILURE for result in results)
        if failures:
            raise CommandError(f"{failures} of {len(results)} checks failed.", returncode=commands.FAILED)

"""Shared parts of all commands: exit codes and output formats."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.dateparse import parse_datetime

from boilerhouse.core import bounds, context
from boilerhouse.core.errors import BoilerhouseError, Conflict, Invalid, NotFound, TimedOut
from boilerhouse.core.text import Printer, printable

FAILED, USAGE, NOT_FOUND, CONFLICT, TIMED_OUT = 1, 2, 3, 5, 6
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argument type: a whole number from ``low`` to ``high``."""

    def whole_number(text: str) -> int:
        number = bounds.natural(text, high)
        if number is None or number < low:
            raise ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return number

    return whole_number


def number(low: float, high: float) -> Callable[[str], float]:
    """An argument type: a number from ``low`` to ``high``."""

    def any_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ArgumentTypeError(f"must be a number from {low:g} to {high:g}")
        return value

    return any_number


def moment(text: str) -> datetime:
    """An argument type: a time with a zone, since 1970."""
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() < 0:
        raise ArgumentTypeError("must be a time such as 2026-01-31T12:00:00Z")
    return at


PORT = whole(0, 65535)
TIMEOUT_MS = whole(1, 86_400_000)
"""At most one day."""


class Printed(OutputWrapper):
    """Escapes control characters in text written to it, because names in it may come from tenants."""

    def write(self, msg: str = "", style_func: Any = None, ending: str | None = None) -> None:  # type: ignore[override]
        super().write(printable(msg), style_func, ending)


class Command(BaseCommand):
    """Data on stdout, everything else on stderr; service errors become exit codes."""

    def __init__(self, stdout: Any = None, stderr: Any = None, **options: Any) -> None:
        super().__init__(stdout, stderr, **options)
        style = self.stderr.style_func
        self.stdout, self.stderr = Printed(stdout or sys.stdout), Printed(stderr or sys.stderr)
        self.stderr.style_func = style

    def add_output(self, parser: CommandParser) -> None:
        parser.add_argument("--output", choices=["table", "json"], default="table")

    def execute(self, *args: Any, **options: Any) -> Any:
        for name in ("stdout", "stderr"):
            if value := options.pop(name, None):
                setattr(self, name, Printed(value))
        try:
            with context.acting(f"command {type(self).__module__.rpartition('.')[2]}"):
                return super().execute(*args, **options)
        except BoilerhouseError as error:
            raise CommandError(error.detail, returncode=exit_code(error)) from error

    def say(self, text: str) -> None:
        self.stderr.write(text)

    def result(self, options: dict[str, Any], value: dict[str, Any], table: str) -> None:
        """Print the command's data in the requested format."""
        self.stdout.write(json.dumps(value, cls=DjangoJSONEncoder) if options["output"] == "json" else table)


class Output:
    """Write a container's output to one of our streams: unchanged, but with control characters escaped for a
    terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._printer = Printer() if stream.isatty() else None

    def write(self, data: bytes, *, is_last: bool = False) -> None:
        self._stream.buffer.write(self._printer.feed(data, is_last=is_last) if self._printer else data)
        self._stream.flush()


def exit_code(error: BoilerhouseError) -> int:
    match error:
        case NotFound():
            return NOT_FOUND
        case Conflict():
            return CONFLICT
        case Invalid():
            return USAGE
        case TimedOut():
            return TIMED_OUT
    return FAILED

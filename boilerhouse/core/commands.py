"""What all commands share: exit codes, output forms, signals, children that die with their parent."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.dateparse import parse_datetime

from boilerhouse.core import bounds, context
from boilerhouse.core.errors import BoilerhouseError, Conflict, Invalid, NotFound, TimedOut

FAILED, USAGE, NOT_FOUND, CONFLICT, TIMED_OUT = 1, 2, 3, 5, 6
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a whole number from ``low`` to ``high``."""

    def whole_number(text: str) -> int:
        number = bounds.natural(text, high)
        if number is None or number < low:
            raise ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return number

    return whole_number


def number(low: float, high: float) -> Callable[[str], float]:
    """An argument's type: a number from ``low`` to ``high``."""

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
    """An argument's type: a moment with its zone, since 1970."""
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() < 0:
        raise ArgumentTypeError("must be a moment such as 2026-01-31T12:00:00Z")
    return at


PORT = whole(0, 65535)
TIMEOUT_MS = whole(1, 86_400_000)
"""At most a day."""


class Command(BaseCommand):
    """Data on stdout, all else on stderr; errors of services become exit codes."""

    def add_output(self, parser: CommandParser) -> None:
        parser.add_argument("--output", choices=["table", "json"], default="table")

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            with context.acting(f"command {type(self).__module__.rpartition('.')[2]}"):
                return super().execute(*args, **options)
        except BoilerhouseError as error:
            raise CommandError(error.detail, returncode=exit_code(error)) from error

    def say(self, text: str) -> None:
        self.stderr.write(text)

    def result(self, options: dict[str, Any], value: dict[str, Any], table: str) -> None:
        """Print the command's data in the asked form."""
        self.stdout.write(json.dumps(value, cls=DjangoJSONEncoder) if options["output"] == "json" else table)


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


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that made it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def spawn(
    arguments: Sequence[str], environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own that dies with this process."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
        **options,
    )

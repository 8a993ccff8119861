"""Run a command in a tenant's container; its output and exit code become those of this command."""

from __future__ import annotations

import base64
import sys
from argparse import REMAINDER
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from boilerhouse.process import commands
from pools.errors import ExecTimedOut
from pools.runtime.base import Executed
from tenants import activity, terminals


class Command(commands.Command):
    help = (
        "Run a command in the container that a tenant holds: manage.py exec TENANT -- ls -l /state;"
        " on a terminal: manage.py exec -it TENANT -- sh"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-i", "--stdin", action="store_true", help="pass stdin to the command")
        parser.add_argument("-t", "--tty", action="store_true", help="run it on this terminal, without a timeout: -it")
        parser.add_argument("--timeout-ms", type=commands.TIMEOUT_MS, default=30_000)
        self.add_output(parser)
        parser.add_argument("tenant")
        parser.add_argument("words", nargs=REMAINDER, metavar="command")

    def handle(self, *args: Any, **options: Any) -> None:
        words = tuple(options["words"][1:] if options["words"][:1] == ["--"] else options["words"])
        if not words:
            raise CommandError("No command given. Usage: exec TENANT -- COMMAND…", returncode=commands.USAGE)
        if options["tty"]:
            sys.exit(_on_terminal(options, words))
        stdin = _read_stdin() if options["stdin"] else None
        try:
            result = activity.run(activity.held_by(options["tenant"]), words, options["timeout_ms"], stdin)
        except ExecTimedOut as error:
            _pass_on(error)
            raise
        if options["output"] == "json":
            out, err = (base64.b64encode(data).decode() for data in (result.stdout, result.stderr))
            body = {"exitCode": result.exit_code, "stdout": out, "stderr": err, "truncated": result.truncated,
                    "stdoutTruncated": result.stdout_truncated, "stderrTruncated": result.stderr_truncated,
                    "durationMs": result.duration_ms, "encoding": "base64"}  # fmt: skip
            self.result(options, body, "")
        else:
            _pass_on(result)
            if result.truncated:
                self.say(f"The output was truncated at {settings.BOILERHOUSE_EXEC_OUTPUT_MAX_BYTES} bytes per stream.")
        sys.stderr.flush()
        if result.exit_code:
            sys.exit(result.exit_code if 0 < result.exit_code < 256 else commands.FAILED)


def _on_terminal(options: dict[str, Any], words: tuple[str, ...]) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("There is no terminal here for --tty; use --stdin.", returncode=commands.USAGE)
    return terminals.interact(activity.held_by(options["tenant"]), words, sys.stdin.fileno(), sys.stdout.fileno())


def _pass_on(result: Executed | ExecTimedOut) -> None:
    for stream, data in ((sys.stdout, result.stdout), (sys.stderr, result.stderr)):
        commands.Output(stream).write(data, is_last=True)


def _read_stdin() -> bytes:
    highest = settings.BOILERHOUSE_EXEC_STDIN_MAX_BYTES
    content = sys.stdin.buffer.read(highest + 1)
    if len(content) > highest:
        raise CommandError(f"Nothing was run: stdin is longer than {highest} bytes.", returncode=commands.USAGE)
    return content

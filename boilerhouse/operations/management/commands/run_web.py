"""Run a web process until SIGTERM; several may run behind a proxy."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.operations import supervisor
from boilerhouse.process import commands

FIRST_PASSED = 3
"""systemd passes sockets starting with this descriptor."""


class Command(commands.Command):
    help = "Serve HTTP and WebSockets until SIGTERM. Running requests finish first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=commands.PORT, default=8000)
        parser.add_argument(
            "--fd", type=commands.whole(0, 1 << 20), help="the file descriptor of an inherited listening socket"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        number = options["fd"]
        if number is None and os.environ.get("LISTEN_PID") == str(os.getpid()):
            if os.environ.get("LISTEN_FDS") != "1":
                raise CommandError(
                    "systemd passed several sockets, but a web process takes only one. Give each web process its own."
                )
            number = FIRST_PASSED
        where = ["-b", options["host"], "-p", str(options["port"])] if number is None else ["--fd", str(number)]
        if number is not None:
            os.set_inheritable(number, True)
        os.chdir(commands.MANAGE.parent)
        # Replace this process, because the server must be the first to choose its event loop.
        os.execv(sys.executable, [sys.executable, *supervisor.WEB, *where])  # noqa: S606

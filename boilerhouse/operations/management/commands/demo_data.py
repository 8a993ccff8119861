"""Fill a deployment with demo data, show them, or remove them."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandParser

from boilerhouse.core.deployment import data_dir
from boilerhouse.operations import addresses, one_time_links, supervisor
from boilerhouse.operations.demo_data import filling
from boilerhouse.operations.supervise import Program
from boilerhouse.process import commands, pids

SETTINGS = "boilerhouse.operations.demo_data.settings"
BEAT_S = 2.0


class Command(commands.Command):
    help = "Fill an empty deployment with five pools, 24 tenants and a week of history, as rows without containers."
    requires_system_checks = ()  # a database without tables is filled too

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--skip-checks", action="store_true", help="Skip system checks.")
        parser.add_argument("--seed", type=commands.whole(0, 1 << 32), default=1, help="other data for another number")
        parser.add_argument("--remove", action="store_true", help="delete exactly the demo data")
        parser.add_argument(
            "--serve", action="store_true", help="fill anew, then serve the dashboard until Ctrl-C; nothing else runs"
        )
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=commands.PORT, default=8000)
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        data_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
        if options["remove"]:
            filling.remove()
            self.say("The demo data are removed.")
            return
        if options["serve"]:
            filling.remove()  # their times are of when they were filled
        counts = filling.fill(options["seed"])
        words = ", ".join(f"{count} {name}" for name, count in counts.items())
        self.result(options, {"ok": True, **counts}, f"Filled: {words}.")
        if options["serve"]:
            self._serve(options["host"], options["port"])

    def _serve(self, host: str, port: int) -> None:
        listening = supervisor.listen(host, port)
        web = supervisor.web(listening)
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS}
        with pids.stopping() as stop:
            process = Program(web.name, web.command, environment, web.sockets).start()
            addresses.remember(addresses.origin_of(host, listening.getsockname()[1]))
            self.say(f"Log in    {one_time_links.url_for('admin', creates=True)}")
            self.say("The link works once; manage.py login_link prints another. Ctrl-C ends the dashboard.")
            sys.stderr.flush()
            while process.poll() is None and not stop.wait(BEAT_S):
                filling.beat()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()

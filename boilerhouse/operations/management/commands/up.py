"""Run everything in one terminal: migrate, then web, worker, controller, and optionally the embedded S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.urls import reverse

from boilerhouse.core.deployment import check_node, data_dir, deployment_id
from boilerhouse.core.errors import Failed
from boilerhouse.operations import addresses, gateway, one_time_links, supervise, supervisor
from boilerhouse.process import commands
from tenants.gateway import public_urls


class Command(commands.Command):
    help = "Run Boilerhouse in this terminal: web, worker, controller and, with --s3, an S3 server."
    requires_system_checks = ()  # the migrating process runs them; here they would keep memory in use

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--skip-checks", action="store_true", help="Skip system checks.")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=commands.PORT, default=8000)
        parser.add_argument(
            "--s3", action="store_true", help="also run an S3 server that stores its objects in the data directory"
        )
        parser.add_argument("--s3-port", type=commands.PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        data_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        _migrate(skip_checks=options["skip_checks"])
        self.say(f"Deployment {deployment_id()}, data in {data_dir()}")
        check_node()
        programs = []
        if options["s3"]:
            s3 = supervisor.embedded_s3(options["s3_port"])
            programs.append(supervisor.serve_s3(s3))
            self.say(f"S3 at {s3.endpoint}, bucket {s3.bucket}, keys in {data_dir() / 'keys'}")
        host, port = options["host"], options["port"]
        listening = supervisor.listen(host, port)
        asked = self._gateway(host, programs)
        programs.append(supervisor.web(listening, asked))
        programs.append(supervisor.command("controller", "run_controller"))
        programs.append(supervisor.command("worker", "run_worker"))
        addresses.remember(addresses.origin_of(host, listening.getsockname()[1]))
        self.say(f"Dashboard at {addresses.public_origin()}{reverse('overview')}")
        self._first_login()
        self.say("Ctrl-C stops everything; pools stay warm.")
        supervise.become(programs)

    def _gateway(self, host: str, programs: list[supervise.Program]) -> socket.socket | None:
        """Add the gateway, and return the socket that it asks; where it cannot run, everything else does."""
        port = settings.BOILERHOUSE_GATEWAY_PORT
        if not port:
            return None
        try:
            program, asked = gateway.start(host, port)
        except Failed as error:
            self.say(f"No gateway: {error.detail}.")
            os.environ["BOILERHOUSE_GATEWAY_PORT"] = "0"  # so that no answer names it
            return None
        programs.append(program)
        self.say(f"Gateway at {public_urls.origin_of(f'<port>-<label>.{settings.BOILERHOUSE_GATEWAY_DOMAIN}')}/")
        return asked

    def _first_login(self) -> None:
        """Until there is an admin, print a link that logs one in once; only on a terminal, because logs are kept."""
        if one_time_links.has_admin():
            return
        if not sys.stderr.isatty():
            self.say("Nobody can sign in yet: manage.py login_link --create prints a link that works once.")
            return
        self.say(f"Log in    {one_time_links.url_for('admin', creates=True)}")
        self.say("The link works once. Another one: manage.py login_link")


def _migrate(*, skip_checks: bool) -> None:
    """Migrate in a separate process, whose memory is then returned."""
    command = [sys.executable, str(commands.MANAGE), "migrate", "-v", "0", "--no-input"]
    if skip_checks:
        command.append("--skip-checks")
    if code := subprocess.run(command, check=False).returncode:
        raise CommandError("The database was not migrated.", returncode=code)

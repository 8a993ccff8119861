"""Everything in one terminal: migrate, then web, worker, controller, and the embedded S3 where asked."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandParser

from boilerhouse.core import commands
from boilerhouse.core.deployment import check_node, data_dir, deployment_id
from boilerhouse.dashboard import supervisor


class Command(commands.Command):
    help = "Run Boilerhouse in this terminal: web, worker, controller and, with --s3, an S3 server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=commands.PORT, default=8000)
        parser.add_argument(
            "--s3", action="store_true", help="also run an S3 server that stores its objects in the data directory"
        )
        parser.add_argument("--s3-port", type=commands.PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        data_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        call_command("migrate", verbosity=0, interactive=False)
        self.say(f"Deployment {deployment_id()}, data in {data_dir()}")
        check_node()
        everything = supervisor.Supervisor()
        if options["s3"]:
            s3 = supervisor.embedded_s3(options["s3_port"])
            everything.add("s3", lambda: supervisor.start_s3(s3))
            self.say(f"S3 at {s3.endpoint}, bucket {s3.bucket}, keys in {data_dir() / 'keys'}")
        host, port = options["host"], options["port"]
        listening = supervisor.listen(host, port)
        everything.add("web", lambda: supervisor.web(listening))
        everything.add("controller", lambda: supervisor.command("run_controller"))
        everything.add("worker", lambda: supervisor.command("run_worker"))
        self.say(f"Dashboard at http://{host}:{port}/  (Ctrl-C stops everything; pools stay warm)")
        with commands.stopping() as stop:
            everything.run(stop)

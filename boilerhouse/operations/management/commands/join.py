"""Make this machine a node of a deployment."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.core.deployment import data_dir
from boilerhouse.operations import joining
from boilerhouse.process import commands


class Command(commands.Command):
    help = (
        "Make this machine a node of a deployment. DATABASE_URL must lead to the deployment's PostgreSQL. The data"
        " directory gets the deployment's id and keys, and a certificate; then start run_node."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("url", help="the address of the deployment, such as https://boilerhouse.example.com")
        parser.add_argument(
            "--token", required=True, help="made there with manage.py nodes token; - reads it from standard input"
        )
        parser.add_argument("--ca", default="", metavar="FILE", help="certificates that verify the deployment's server")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        given = options["token"]
        token = sys.stdin.readline().strip() if given == "-" else given
        if not token:
            raise CommandError("No token was given.", returncode=commands.USAGE)
        joined = joining.join(options["url"], token, ca_file=options["ca"])
        if joined.are_keys_given:
            self.say(
                "The deployment's environment sets BOILERHOUSE_ENCRYPTION_KEYS. Set the same here: a rotation changes"
                " only the environment."
            )
        self.say("Start it: manage.py run_node, or systemctl enable --now boilerhouse-node")
        self.result(
            options,
            {"deploymentId": joined.deployment_id, "nodeId": joined.node_id, "dataDir": str(data_dir())},
            f"Node {joined.node_id} belongs to deployment {joined.deployment_id}.",
        )

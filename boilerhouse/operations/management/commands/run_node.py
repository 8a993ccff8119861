"""Run what a machine needs to be a node: its fence, a controller that watches it, and a worker."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from boilerhouse.core import node_identity, node_tokens, nodes
from boilerhouse.core.deployment import check_node, deployment_id, node_id
from boilerhouse.operations import supervise, supervisor
from boilerhouse.process import commands
from pools import freezer


class Command(commands.Command):
    help = (
        "Run a fence, a worker and a controller on this machine until SIGTERM, and start them again when they end; with"
        " BOILERHOUSE_NODE_ADDRESS also a server for other nodes. For nodes of a deployment on PostgreSQL; on one"
        " machine with SQLite, use up."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        node_tokens.check_database()
        _check_migrations()
        deployment_id()
        check_node()
        node_identity.renew()
        nodes.record_address(settings.BOILERHOUSE_NODE_ADDRESS)
        self.say(f"Node {node_id()} of deployment {deployment_id()}")
        connection.close()
        programs = [supervisor.command("controller", "run_controller"), supervisor.command("worker", "run_worker")]
        if freezer.is_visible():
            programs.insert(0, supervisor.command("fence", "run_fence"))
        else:
            self.say("The kernel's freezer is not visible here: this node has no fence (docs/nodes.md).")
        if settings.BOILERHOUSE_NODE_ADDRESS:
            self.say(f"Other nodes reach it at {settings.BOILERHOUSE_NODE_ADDRESS}")
            programs.append(supervisor.node_server())
        supervise.become(programs)


def _check_migrations() -> None:
    """Nodes do not migrate: several start at once, and only the operator knows when all have the new release."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("The database is of an earlier release. Run manage.py migrate first (docs/upgrade.md).")

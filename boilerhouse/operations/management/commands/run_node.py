"""Run what a machine needs to be a node: a controller that watches it, and a worker."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from boilerhouse.core import node_identity, node_tokens
from boilerhouse.core.deployment import check_node, deployment_id, node_id
from boilerhouse.operations import supervise, supervisor
from boilerhouse.process import commands


class Command(commands.Command):
    help = (
        "Run a worker and a controller on this machine until SIGTERM, and start them again when they end. For nodes of"
        " a deployment on PostgreSQL; on one machine with SQLite, use up."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        node_tokens.check_database()
        _check_migrations()
        deployment_id()
        check_node()
        node_identity.renew()
        self.say(f"Node {node_id()} of deployment {deployment_id()}")
        connection.close()
        supervise.become(
            [supervisor.command("controller", "run_controller"), supervisor.command("worker", "run_worker")]
        )


def _check_migrations() -> None:
    """Nodes do not migrate: several start at once, and only the operator knows when all have the new release."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("The database is of an earlier release. Run manage.py migrate first (docs/upgrade.md).")

"""Run this node's fence until SIGTERM."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from boilerhouse.process import commands, garbage_collection, pids
from pools import freezer
from pools.fencing import state
from pools.fencing.fence import Fence

WITHIN_MS = 3000
"""How long the database may take for an answer, and the network for an acknowledgement."""


class Command(commands.Command):
    help = (
        "Run this node's fence until SIGTERM. It stops the tenants' containers when the node cannot renew its lease, so"
        " that others may give the node up. One on each node of a deployment with several."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if connection.vendor != "postgresql":
            raise CommandError("On SQLite, a deployment has one node, which needs no fence.")
        if not freezer.is_visible():
            raise CommandError("The kernel's freezer is not visible here: run the fence on the node itself, as root.")
        connection.settings_dict["OPTIONS"] |= {
            "connect_timeout": 3,
            "tcp_user_timeout": WITHIN_MS,
            "options": f"-c statement_timeout={WITHIN_MS}",
        }
        garbage_collection.tune()
        state.prepare()
        with pids.stopping() as stop:
            Fence(settings.BOILERHOUSE_FENCE_ADDRESS).run(stop)

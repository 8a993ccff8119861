"""Bring pools to their desired size now."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from boilerhouse.process import commands
from pools import sizing
from pools.errors import PoolNotFound
from pools.models import Pool


class Command(commands.Command):
    help = "Refill pools now. Workers start the containers; --wait waits for them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--pool", help="refill only this pool")
        parser.add_argument("--wait", action="store_true", help="wait until the pools have their desired size")
        parser.add_argument(
            "--timeout", type=commands.number(0, 86_400), default=120, help="seconds to wait with --wait (default 120)"
        )
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        pools = Pool.objects.with_counts().order_by("pk")
        if options["pool"]:
            pools = pools.filter(pk=options["pool"])
            if not pools.exists():
                raise PoolNotFound(f"No pool {options['pool']}.")
        started = {pool.pk: sizing.refill(pool.pk) for pool in pools}
        deadline = time.monotonic() + options["timeout"]
        while options["wait"]:
            lacking = [p.pk for p in pools.all() if p.status().idle + p.status().claimed < p.status().desired_size]
            if not lacking:
                break
            if time.monotonic() > deadline:
                raise CommandError(
                    f"Timed out. These pools are still below their desired size: {', '.join(lacking)}",
                    returncode=commands.TIMED_OUT,
                )
            time.sleep(0.2)
        status = {pool.pk: pool.status() for pool in pools.all()}
        items = [
            {"poolId": pk, "started": started.get(pk, 0), "size": s.size, "idle": s.idle, "desiredSize": s.desired_size}
            for pk, s in status.items()
        ]
        lines = [
            f"{i['poolId']}: {i['idle']} idle of {i['desiredSize']} desired, {i['started']} started" for i in items
        ]
        self.result(options, {"items": items}, "\n".join(lines) or "There are no pools.")

"""Compare the engine, the disk and the packet filter with the rows, and repair differences."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.process import commands
from pools import packet_filter, reconcile
from tenants import upkeep


class Command(commands.Command):
    help = (
        "Repair differences between rows, engine, disk and packet filter; --dry-run only shows them."
        " A running deployment does this by itself."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="show the differences and change nothing")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        items = []
        for drift in (*reconcile.find_drift(upkeep.held_containers()), *packet_filter.drift()):
            is_healed = drift.heal is not None and not options["dry_run"]
            if is_healed and drift.heal:
                drift.heal()
            items.append(
                {
                    "kind": drift.kind,
                    "subject": drift.subject,
                    "detail": drift.detail,
                    "wouldHeal": drift.heal is not None,
                    "healed": is_healed,
                }
            )
        lines = [f"{i['kind']:<16} {i['subject']}  {i['detail']}{_verdict(i)}" for i in items]
        self.result(options, {"items": items}, "\n".join(lines) or "Rows, engine, disk and packet filter agree.")


def _verdict(item: dict[str, Any]) -> str:
    if item["healed"]:
        return "  (repaired)"
    return "  (would be repaired)" if item["wouldHeal"] else "  (left alone)"

"""List nodes, and say whether one gets new containers."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.core import node_changes
from boilerhouse.core.models import Node
from boilerhouse.process import commands
from pools import capacity
from pools.api.node_fields import render_node

COLUMNS = ("node", "state", "containers", "memory", "disk free", "release", "engine")


class Command(commands.Command):
    help = "List nodes, cordon one so that it gets no new containers, or uncordon it."

    def add_arguments(self, parser: CommandParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        self.add_output(acts.add_parser("list", help="all nodes"))
        cordon = acts.add_parser("cordon", help="give a node no new containers; what it has stays")
        cordon.add_argument("node")
        cordon.add_argument("--reason", default="", help="shown to operators")
        uncordon = acts.add_parser("uncordon", help="give a node new containers again")
        uncordon.add_argument("node")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["act"]:
            case "list":
                self._list(options)
            case "cordon":
                node_changes.cordon(options["node"], options["reason"][:500])
                self.say(f"Node {options['node']} gets no new containers.")
            case "uncordon":
                node_changes.uncordon(options["node"])
                self.say(f"Node {options['node']} gets new containers.")

    def _list(self, options: dict[str, Any]) -> None:
        promised = capacity.promised()
        rows = [render_node(node, promised[node.pk]) for node in Node.objects.order_by("pk")]
        self.result(options, {"items": rows}, _table([COLUMNS, *(_cells(row) for row in rows)]))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    state = f"{row['state']}, cordoned" if row["cordoned"] else row["state"]
    memory = f"{row['promised']['memoryMb']} of {row['memoryMb'] or '?'} MiB promised"
    free = "?" if row["diskFreeMb"] is None else f"{row['diskFreeMb']} MiB"
    engine = row["engineError"] or row["engineVersion"] or "?"
    return row["id"], state, str(row["promised"]["containers"]), memory, free, row["version"] or "?", engine


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

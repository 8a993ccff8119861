"""List nodes, say whether one gets new containers, and let further machines join."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from boilerhouse.core import node_changes, node_loss, node_tokens
from boilerhouse.core.models import Node
from boilerhouse.process import commands
from pools import capacity
from pools.api.node_fields import render_node
from tenants import node_removals

LONGEST_DRAIN = 30 * 24 * 60
LONGEST_TTL = int(node_tokens.MAX_TTL.total_seconds() // 60)
DEFAULT_TTL = int(node_tokens.DEFAULT_TTL.total_seconds() // 60)
COLUMNS = ("node", "state", "containers", "memory", "disk free", "release", "engine")


class Command(commands.Command):
    help = "List nodes, cordon, drain or remove one, declare one lost, or let a further machine join."

    def add_arguments(self, parser: CommandParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        self.add_output(acts.add_parser("list", help="all nodes"))
        cordon = acts.add_parser("cordon", help="give a node no new containers; what it has stays")
        cordon.add_argument("node")
        cordon.add_argument("--reason", default="", help="shown to operators")
        uncordon = acts.add_parser("uncordon", help="give a node new containers again")
        uncordon.add_argument("node")
        token = acts.add_parser("token", help="print a token with which one machine can join, once")
        token.add_argument(
            "--ttl-minutes", type=commands.whole(1, LONGEST_TTL), default=DEFAULT_TTL, help="how long it can be used"
        )
        self.add_output(token)
        revoke = acts.add_parser("revoke-token", help="make a token useless that no machine has joined with")
        revoke.add_argument("token", help="its id: what is between bhn_ and the next _")
        drain = acts.add_parser("drain", help="empty a node: its tenants are released, with a save")
        drain.add_argument("node")
        drain.add_argument(
            "--deadline", type=commands.whole(0, LONGEST_DRAIN), default=0, metavar="MINUTES",
            help="how long its tenants may go on before they are released (default: 0)",
        )  # fmt: skip
        drain.add_argument("--reason", default="", help="shown to operators")
        remove = acts.add_parser("remove", help="remove a node that does not come back")
        remove.add_argument("node")
        remove.add_argument("--force", action="store_true", help="give up state there whose save has failed")
        lost = acts.add_parser("lost", help="give a node up: its tenants claim elsewhere, with what they last saved")
        lost.add_argument("node")
        lost.add_argument("--is-off", action="store_true", help="nothing runs there any more; see to that first")
        lost.add_argument("--reason", default="", help="shown to operators")

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
            case "drain":
                after = timedelta(minutes=options["deadline"])
                node_changes.drain(options["node"], options["reason"][:500], after=after)
                self.say(f"Node {options['node']} is drained.")
            case "remove":
                node_removals.remove(options["node"], force=options["force"])
                self.say(f"Node {options['node']} is removed.")
            case "lost":
                node_loss.declare(options["node"], options["reason"][:500], is_off=options["is_off"])
                self.say(f"Node {options['node']} is lost. Its tenants claim elsewhere.")
            case "token":
                self._make_token(options)
            case "revoke-token":
                node_tokens.revoke(options["token"])
                self.say(f"Token {options['token']} is revoked.")

    def _make_token(self, options: dict[str, Any]) -> None:
        row, token = node_tokens.create(timedelta(minutes=options["ttl_minutes"]))
        self.say(f"One machine can join with it until {row.expires_at:%H:%M} UTC: manage.py join URL --token TOKEN")
        self.result(options, {"id": row.pk, "token": token, "expiresAt": row.expires_at}, token)

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

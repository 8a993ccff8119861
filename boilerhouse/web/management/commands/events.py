"""Print events: one line each, in the order of their commits."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet

from boilerhouse.core.bounds import MAX_ID
from boilerhouse.core.events import TYPES
from boilerhouse.core.models import Deployment, Event
from boilerhouse.core.text import one_line
from boilerhouse.process import commands, pids
from boilerhouse.web.event_stream import render_event

LOOK_EVERY_S = 0.3
PAGE = 500


class Command(commands.Command):
    help = "Print events; --follow continues with new ones. As JSON, one event per line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-f", "--follow", action="store_true")
        parser.add_argument("--after", type=commands.whole(0, MAX_ID), help="only events after this id")
        parser.add_argument(
            "--limit", type=commands.whole(1, 100_000), default=50, help="at most this many past events"
        )
        parser.add_argument("--type", action="append", default=[], choices=sorted(TYPES))
        parser.add_argument("--pool")
        parser.add_argument("--tenant")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Event.objects.order_by("id")
        named = {"pool_id": options["pool"], "tenant_id": options["tenant"], "type__in": options["type"]}
        rows = rows.filter(**{name: value for name, value in named.items() if value})
        after = options["after"]
        if after is None:
            last = list(rows.order_by("-id").values_list("pk", flat=True)[: options["limit"]])
            after = (last[-1] - 1) if last else 0
        elif after < (Deployment.objects.values_list("events_forgotten_to", flat=True).first() or 0):
            raise CommandError(
                "Events after that id have been deleted. Start without --after.", returncode=commands.NOT_FOUND
            )
        after = self._print(rows, after, options)
        if not options["follow"]:
            return
        with pids.stopping() as stop:
            while not stop.wait(LOOK_EVERY_S):
                after = self._print(rows, after, options)
        sys.exit(130)

    def _print(self, rows: QuerySet[Event], after: int, options: dict[str, Any]) -> int:
        while page := list(rows.filter(pk__gt=after)[:PAGE]):
            for event in page:
                self.stdout.write(_line(event) if options["output"] == "table" else _json(event))
            self.stdout.flush()
            after = page[-1].pk
            if len(page) < PAGE:
                break
        return after


def _json(event: Event) -> str:
    return json.dumps(render_event(event, reads_logs=True), cls=DjangoJSONEncoder)


def _line(event: Event) -> str:
    about = " ".join(part for part in (event.pool_id, event.tenant_id) if part)
    plain = {name: value for name, value in event.payload.items() if not isinstance(value, dict | list)}
    more = " ".join(f"{name}={one_line(str(value))}" for name, value in plain.items())
    return f"{event.created_at:%Y-%m-%d %H:%M:%S} {event.pk:>8} {event.type:<24} {about} {more}".rstrip()

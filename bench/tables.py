"""Growth: the same things with ten thousand, a hundred thousand and a million events and sync runs in the tables."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import requests

from bench import bare, figures
from bench.load import Connection, Tenants
from bench.pages import sign_in
from bench.server import Server, cpu_s

ROWS = (10_000, 100_000, 1_000_000)
OTHERS = 500
"""Tenants whose rows these are."""
CLAIMS, ASKED, CPU_S = 8, 12, 2.0


def measure(server: Server, sizes: tuple[int, ...] = ROWS) -> dict[str, Any]:
    """For each size, p50 of claims, releases, lists and pages, and the controller's share of a processor."""
    tenants, found = Tenants(server, "tables"), dict[str, Any]()
    session = sign_in(server.api.base)
    seeded = 0
    for rows in sizes:
        began = time.monotonic()
        _seed(tenants, seeded, rows)
        seeded = rows
        filled = time.monotonic() - began
        tenants.size(CLAIMS + 2, CLAIMS + 2)
        claimed = [bare.timed(tenants.claim) for _ in range(CLAIMS + 2)][2:]
        held = next(iter(tenants.held.values()))
        one: dict[str, Any] = {"seededS": round(filled, 1), "claim": figures.of([claimed])}
        connection = Connection(server.api.base, server.api.key)
        for name, path in (
            ("events, newest", "/api/v1/events?limit=50"),
            ("events of a tenant", f"/api/v1/events?limit=50&tenantId={held}"),
            ("runs, newest", "/api/v1/sync-runs?limit=50"),
            ("runs of a tenant", f"/api/v1/tenants/{held}/runs"),
            ("status of a tenant", f"/api/v1/tenants/{held}/status"),
        ):
            one[name] = _asked(partial(connection.ask, "GET", path))
        for name, path in (("page: overview", "/"), ("page: activity", "/activity/"), ("page: sync", "/sync/")):
            one[name] = _asked(partial(_load, session, server.api.base + path))
        one["release"] = figures.of([[bare.timed(tenants.release) for _ in range(CLAIMS // 2)]])
        controller = server.pid("controller")
        before = cpu_s(controller)
        time.sleep(CPU_S)
        one["controllerPercent"] = round(100 * (cpu_s(controller) - before) / CPU_S, 1)
        found[str(rows)] = one
        tenants.release_all()
    tenants.end()
    return found


def _load(session: requests.Session, url: str) -> None:
    session.get(url, timeout=30).raise_for_status()


def _asked(ask: Any) -> dict[str, Any]:
    return figures.of([[bare.timed(ask) for _ in range(ASKED + 2)][2:]])


def _seed(tenants: Tenants, have: int, want: int) -> None:
    """``want`` events and runs of other tenants, all of the last day."""
    from django.db import connection
    from django.utils import timezone

    from boilerhouse.core.models import Event
    from syncing.models import SyncRun

    now = timezone.now()
    if not have:
        have = 10_000
        ago = [now - timedelta(seconds=86_400 * number / have) for number in range(have)]
        Event.objects.bulk_create(
            [
                Event(
                    type="container.claimed", pool_id="other", tenant_id=f"o-{number % OTHERS}", actor="key bench",
                    container_id=str(uuid4()), payload={"source": "warm", "latencyMs": 9}, created_at=at,
                )
                for number, at in enumerate(reversed(ago))
            ],
            batch_size=1000,
        )  # fmt: skip
        SyncRun.objects.bulk_create(
            [
                SyncRun(
                    spec_id=tenants.spec_id, tenant_id=f"o-{number % OTHERS}", generation=1, direction="upload",
                    trigger="release", state="succeeded", created_at=at, started_at=at, finished_at=at,
                    progress={"bytes": 10_000, "files": 3},
                )
                for number, at in enumerate(reversed(ago))
            ],
            batch_size=1000,
        )  # fmt: skip
    is_sqlite = connection.vendor == "sqlite"
    fresh = "lower(hex(randomblob(16)))" if is_sqlite else "gen_random_uuid()"
    while have < want:
        add = min(want - have, 9 * have)
        for model, keyed in ((Event, False), (SyncRun, True)):
            names = [field.column for field in model._meta.concrete_fields if field.column != "id"]
            columns = ", ".join(f'"{name}"' for name in names)
            times = ", ".join(f"({number})" for number in range(-(-add // have)))
            source = f'SELECT {fresh + ", " if keyed else ""}{columns} FROM "{model._meta.db_table}"'
            into = f'"{model._meta.db_table}" ({"id, " if keyed else ""}{columns})'
            numbers = f"(VALUES {times}) AS numbers"
            with connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO {into} {source}, {numbers}")
        have += add
    if not is_sqlite:  # as autovacuum does soon after; SQLite's tables are never analysed, here as in a deployment
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def table(found: dict[str, Any]) -> list[str]:
    sizes = list(found)
    head = f"{'p50 with rows in events and in runs':<40}" + "".join(f"{int(size):>14,}" for size in sizes)
    rows = [head]
    for name in found[sizes[0]]:
        if name == "seededS":
            continue
        cells = [found[size][name] for size in sizes]
        shown = [f"{cell} %" if name == "controllerPercent" else f"{cell['p50Ms']} ms" for cell in cells]
        label = "controller, share of a processor" if name == "controllerPercent" else name
        rows.append(f"  {label:<38}" + "".join(f"{one:>14}" for one in shown))
    return rows

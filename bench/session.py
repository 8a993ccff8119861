"""One database's part of the bench: a deployment, the groups that were asked for, a JSON file. Started by ``bench``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import (
    alone,
    burst,
    commands,
    crud,
    fan_out,
    files,
    pages,
    periodic,
    refill,
    rest,
    scale,
    state,
    tables,
    transfers,
    weight,
)
from bench.server import Server, running

ORDER = [
    "rest",
    "refill",
    "scale",
    "alone",
    "burst",
    "half",
    "state",
    "periodic",
    "transfers",
    "commands",
    "files",
    "crud",
    "events",
    "pages",
    "weight",
    "tables",
    "growth",
]
PLAIN: dict[str, Callable[[Server], Any]] = {
    "periodic": periodic.measure, "transfers": transfers.measure, "events": fan_out.measure, "pages": pages.measure,
    "weight": weight.measure, "growth": pages.measure_growth,
}  # fmt: skip
"""Groups that are the same on each database and whether it is to be quick or not."""
REFILL_PER_S = 5.0
"""What half of is asked for where refill was not measured."""


def measure(server: Server, group: str, found: dict[str, Any], *, quick: bool, is_default: bool) -> Any:
    """The figures of one group; ``found`` holds those of the groups before it."""
    match group:
        case "rest":
            return rest.measure(server, quick=quick)
        case "refill":
            measured = refill.measure(server, 1 if quick else refill.ROUNDS)
            return measured if quick else {**measured, "claims": refill.claims_meanwhile(server)}
        case "scale":
            return scale.measure(server, quick=quick, sizes=scale.SIZES if is_default else (10, 200))
        case "alone":
            return alone.measure(server, quick=quick)
        case "burst":
            return burst.measure(server, quick=quick, most=is_default)
        case "half":
            measured = found.get("refill")
            return burst.half_rate(server, statistics.median(measured["perSecond"]) if measured else REFILL_PER_S)
        case "state":
            return state.measure(server, quick=quick)
        case "commands":
            return commands.measure(server, quick=quick)
        case "files":
            return files.measure(server, quick=quick)
        case "crud":
            return crud.measure(server, all_of_it=is_default)
        case "tables":
            return tables.measure(server, tables.ROWS if is_default else (tables.ROWS[0], tables.ROWS[-1]))
    return PLAIN[group](server)


def claim_phases(server: Server) -> dict[str, float]:
    """Milliseconds, mean over all claims of the session, of each phase that the product's own metrics tell."""
    from prometheus_client.parser import text_string_to_metric_families as families

    answer = server.api.session.get(
        f"{server.api.base}/metrics", headers={"Authorization": f"Bearer {server.api.key}"}, timeout=30
    )
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for family in families(answer.text):
        if family.name.endswith("claim_phase_seconds"):
            for sample in family.samples:
                into = sums if sample.name.endswith("_sum") else counts if sample.name.endswith("_count") else None
                if into is not None:
                    into[sample.labels["phase"]] = sample.value
    return {phase: round(1000 * sums[phase] / count, 2) for phase, count in counts.items() if count}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.session")
    parser.add_argument("--groups", nargs="+", required=True, choices=ORDER)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    is_default = "postgres" not in os.environ.get("DATABASE_URL", "")
    found: dict[str, Any] = {"groups": {}, "measuredAt": {}, "seconds": {}, "loadBefore": {}}
    with running() as server:
        for group in ORDER:
            if group not in options.groups:
                continue
            began = time.monotonic()
            found["loadBefore"][group] = round(os.getloadavg()[0], 1)
            groups = found["groups"]
            groups[group] = measure(server, group, groups, quick=options.quick, is_default=is_default)
            found["seconds"][group] = round(time.monotonic() - began, 1)
            found["measuredAt"][group] = datetime.now(UTC).isoformat(timespec="seconds")
            print(f"bench: {group}: {found['seconds'][group]:.0f} s", file=sys.stderr, flush=True)
            if group == "scale":
                found["claimPhasesMs"] = claim_phases(server)
        found["engine"] = server.runtime.ping()
        found["database"] = _database()
    options.into.write_text(json.dumps(found))


def _database() -> str:
    from django.db import connection

    if connection.vendor == "sqlite":
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}"
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {cursor.fetchone()[0].split()[0]}"


if __name__ == "__main__":
    main()

"""`make bench`: figures of the product on both databases, each beside the bare thing in the same run.

A check that fails (exclusive claims, populations, equal bytes, lost events) ends the bench, and nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import report
from bench.server import ROOT
from bench.session import ORDER

RESULTS = ROOT / "bench" / "results"
SQLITE = [group for group in ORDER if group != "growth"]
"""All but ten minutes of open pages, which are asked for by name."""
POSTGRESQL = ["rest", "scale", "alone", "burst", "crud", "tables"]
QUICK = {"SQLite": ["rest", "scale", "burst", "state"], "PostgreSQL": ["rest", "burst"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", nargs="+", choices=ORDER, help="measure these; keep the others' last figures")
    parser.add_argument("--database", choices=["SQLite", "PostgreSQL"], help="on this one alone")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of a few groups; nothing is written")
    options = parser.parse_args()
    asked = QUICK if options.quick else {"SQLite": SQLITE, "PostgreSQL": POSTGRESQL}
    began = time.monotonic()
    latest = RESULTS / "latest.json"
    known = json.loads(latest.read_text()) if options.only and latest.exists() else {}
    databases: dict[str, Any] = known.get("databases", {})
    for database, groups in asked.items():
        if options.database not in (None, database):
            continue
        if options.only:
            groups = [group for group in options.only if options.database or group in groups]
        if not groups:
            continue
        found = run(database, groups, quick=options.quick)
        before = databases.get(database, {})
        databases[database] = {
            name: {**before.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in found.items()
        }
    everything = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "isWhole": not (options.only or options.database),
        "machine": machine(),
        "databases": databases,
    }
    if options.quick:
        print(report.tables(everything))
        return
    RESULTS.mkdir(exist_ok=True)
    latest.write_text(json.dumps(everything, indent=1) + "\n")
    print(report.write(everything, RESULTS))


def run(database: str, groups: list[str], *, quick: bool) -> dict[str, Any]:
    """A session in a process of its own, with a PostgreSQL of its own where that is asked for."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    start = [str(ROOT / "scripts" / "postgresql.sh")] if database == "PostgreSQL" else []
    with tempfile.TemporaryDirectory(prefix="bh-bench-") as directory:
        into = Path(directory) / "found.json"
        arguments = ["--into", str(into), "--groups", *groups, *(["--quick"] if quick else [])]
        print(f"bench: {database}", file=sys.stderr, flush=True)
        command = [*start, sys.executable, "-m", "bench.session", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {database}: failed; nothing is reported")
        found: dict[str, Any] = json.loads(into.read_text())
        return found


def machine() -> dict[str, Any]:
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "memoryGb": round(int(memory.split()[1]) / 1024**2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


if __name__ == "__main__":
    main()

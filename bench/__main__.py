"""`make bench`: figures of the product, each beside the bare thing in the same run.

Warm claim: one client, tenants seen for the first time, a pool whose state syncs to S3, nothing to restore; from the
request to the answer over HTTP. Bare: one inspect at the Docker engine and the same files by write and rename.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import claims, crud, fan_out, pages, refill, report, transfers
from bench.api import Api

GROUPS = ["refill", "claim", "claims", "transfers", "crud", "events", "pages"]
QUICK = ["refill", "claim", "claims"]
LONG = ["growth"]
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
CONFIG, SECRETS = {"model": "small", "greeting": "x" * 1000}, {f"SECRET_{n}": "y" * 100 for n in range(3)}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def bare(runtime: Any, container: str, directory: Path) -> float:
    """One inspect and the files of a claim, by write and rename, in milliseconds."""
    started = time.perf_counter()
    for name, content in {"config.json": json.dumps(CONFIG), **SECRETS, "claim.json": "{}" * 50}.items():
        draft = directory / f".{secrets.token_hex(4)}"
        draft.write_text(content)
        draft.rename(directory / name)
    runtime.inspect(container)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--claims", type=int, default=60)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*GROUPS, *LONG],
        help="measure these; keep the others' last figures",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds of a few groups; nothing is written")
    options = parser.parse_args()
    options.only = options.only or (QUICK if options.quick else GROUPS)
    options.claims = 20 if options.quick else options.claims
    directory = Path(tempfile.mkdtemp(prefix="bh-bench-"))
    os.environ |= {"BOILERHOUSE_DATA_DIR": str(directory), "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    os.environ.setdefault("BOILERHOUSE_LOG_LEVEL", "WARNING")
    os.environ["BOILERHOUSE_THROTTLE_RATE"] = "0"
    database = "PostgreSQL" if "postgres" in os.environ.get("DATABASE_URL", "") else "SQLite"
    RESULTS.mkdir(exist_ok=True)
    latest = RESULTS / ("latest.json" if database == "SQLite" else "latest-postgresql.json")
    import django

    django.setup()
    import requests

    from boilerhouse.dashboard.supervisor import embedded_s3, free_port
    from pools import images, lifecycle
    from pools.errors import ImageMissing
    from pools.runtime import get_runtime

    runtime = get_runtime()
    try:
        runtime.ensure_image(images.EXAMPLE_IMAGE, "never")
    except ImageMissing:
        for _ in images.build_example():
            pass
    port, s3 = free_port(), embedded_s3(free_port())
    manage = [sys.executable, str(ROOT / "manage.py")]
    log = (directory / "up.log").open("wb")
    up = subprocess.Popen(
        [*manage, "up", "--s3", "--port", str(port), "--s3-port", s3.endpoint.rsplit(":", 1)[1]],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while True:
            try:
                if requests.get(f"{base}/api/v1/health/ready", timeout=5).status_code == 200:
                    break
            except requests.RequestException:
                pass
            if time.monotonic() > deadline or up.poll() is not None:
                raise SystemExit((directory / "up.log").read_text()[-3000:])
            time.sleep(0.3)
        made = [*manage, "create_api_key", "--name", "bench", "--role", "admin"]
        key = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        api = Api(base, key)
        known = json.loads(latest.read_text()) if latest.exists() else {}
        found: dict[str, Any] = {}
        if "refill" in options.only:
            found["refill"] = refill.measure(api, runtime, 1 if options.quick else refill.ROUNDS)
            found["claimsDuringRefill"] = refill.claims_meanwhile(api)
        if "claim" in options.only:
            found |= measure(api, s3, options.claims, runtime, lifecycle.runtime_name)
        if "claims" in options.only:
            rates = (found.get("refill") or known["refill"])["perSecond"]
            rate = statistics.median(rates)
            found["claims"] = claims.measure(api, s3, runtime, rate=rate, quick=options.quick)
        if "transfers" in options.only:
            found["transfers"] = transfers.measure(api, s3)
        if "crud" in options.only:
            found["crud"] = crud.measure(api)
        if "events" in options.only:
            found["events"] = fan_out.measure(base, key, web_memory_kb)
        if "pages" in options.only:
            found["pages"] = pages.measure(base, manage, up.pid)
        if "growth" in options.only:
            found["growth"] = pages.measure_growth(base, manage, up.pid, web_memory_kb)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=30)
        subprocess.run([*manage, "purge", "--yes"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)
    cores = os.cpu_count()
    machine = {
        "cores": cores,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": runtime.ping(),
    }
    at = datetime.now(UTC).isoformat(timespec="seconds")
    measured = {**known.get("measuredAt", {}), **dict.fromkeys(options.only, at)}
    if options.quick:
        print(table(found))
        return
    everything = {**known, "at": at, "measuredAt": measured, "machine": machine, "database": database, **found}
    latest.write_text(json.dumps(everything, indent=2) + "\n")
    text = table(everything)
    if database == "SQLite":
        report.write(everything, text, RESULTS)
    print(text)


def web_memory_kb() -> int:
    """Resident memory of the web process."""
    from boilerhouse.core import processes
    from boilerhouse.core.models import Process

    living = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WEB)
    status = Path(f"/proc/{living.latest('started_at').pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def measure(api: Any, s3: Any, claims: int, runtime: Any, name_of: Any) -> dict[str, Any]:
    """Warm up, then claim ``claims`` times, one bare measurement after each claim."""
    from uuid import UUID

    size = claims + 5
    workload = {
        "id": "bench", "name": "bench", "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
        "volumes": {"state": {"containerPath": "/state"}, "secrets": {"containerPath": "/run/secrets"}},
        "ports": [{"name": "http", "containerPort": 8080}], "stopTimeoutMs": 0,
        "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
    }  # fmt: skip
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    policy = {"onClaim": True, "onRelease": True}
    api.call("POST", "workloads", workload, (201,))
    api.call("POST", "pools", {"id": "bench", "workloadId": "bench", "minSize": size, "maxSize": size, "minIdle": 0})
    sink = s3.sink("bench/${tenantId}/")
    api.call("POST", "sync-specs", {"poolId": "bench", "mappings": [mapping], "sink": sink, "policy": policy})
    started = time.monotonic()
    while api.call("GET", "pools/bench")["status"]["idle"] < size:
        if time.monotonic() - started > 300:
            raise SystemExit("the pool did not warm up")
        time.sleep(0.2)
    filled = time.monotonic() - started
    time.sleep(2)
    scratch = Path(tempfile.mkdtemp(dir="/dev/shm"))
    claim_ms: list[float] = []
    bare_ms: list[float] = []
    containers = set()
    for number in range(size):
        tenant = f"bench-{secrets.token_hex(6)}"
        body = {"poolId": "bench", "config": CONFIG, "secrets": SECRETS}
        began = time.perf_counter()
        claimed = api.call("POST", f"tenants/{tenant}/claim", body, (201,))
        took = (time.perf_counter() - began) * 1000
        if claimed["source"] != "warm" or claimed["containerId"] in containers:
            raise SystemExit(f"not a correct warm claim: {claimed}")
        containers.add(claimed["containerId"])
        lone = bare(runtime, name_of(UUID(claimed["containerId"])), scratch)
        if number >= size - claims:  # the first few warm the process up
            claim_ms.append(took)
            bare_ms.append(lone)
    shutil.rmtree(scratch)
    figures = {
        "n": len(claim_ms),
        "claim": {"p50Ms": round(statistics.median(claim_ms), 2), "p99Ms": round(percentile(claim_ms, 0.99), 2)},
        "bare": {"p50Ms": round(statistics.median(bare_ms), 2), "p99Ms": round(percentile(bare_ms, 0.99), 2)},
        "targetP50Ms": 25,
    }
    return {"fillSeconds": round(filled, 1), "warmClaim": figures}


def table(report: dict[str, Any]) -> str:
    lines: list[str] = []
    if found := report.get("warmClaim"):
        claim, lone = found["claim"], found["bare"]
        rows = [
            ("", "p50", "p99"),
            ("warm claim, first-time tenant, S3 pool", f"{claim['p50Ms']} ms", f"{claim['p99Ms']} ms"),
            ("bare inspect + file writes", f"{lone['p50Ms']} ms", f"{lone['p99Ms']} ms"),
            ("ratio", f"{claim['p50Ms'] / lone['p50Ms']:.1f}", f"{claim['p99Ms'] / lone['p99Ms']:.1f}"),
        ]
        met = "met" if claim["p50Ms"] <= found["targetP50Ms"] else "not met"
        lines += [f"{label:<42}{p50:>12}{p99:>12}" for label, p50, p99 in rows]
        lines.append(f"n = {found['n']}; target p50 ≤ {found['targetP50Ms']} ms: {met}")
    if found := report.get("refill"):
        met = "met" if found["share"] >= found["targetShare"] else "not met"
        lines += [
            "",
            f"refill of {found['count']}, containers per second         {found['perSecond']}",
            f"bare create + start + probe, {found['parallel']} at once      {found['barePerSecond']}",
            f"share of bare (median of rounds) {found['share']:.0%}; target ≥ {found['targetShare']:.0%}: {met}",
        ]
        during = report["claimsDuringRefill"]
        lines.append(
            f"warm claim while a pool refills: p50 {during['p50Ms']} ms, p99 {during['p99Ms']} ms, n = {during['n']}"
        )
    if found := report.get("claims"):
        lines += ["", *claims.table(found)]
    if found := report.get("transfers"):
        lines += ["", *transfers.table(found)]
    if found := report.get("crud"):
        lines += ["", *crud.table(found)]
    if found := report.get("events"):
        lines += ["", *fan_out.table(found)]
    if found := report.get("pages"):
        lines += ["", *pages.table(found)]
    if found := report.get("growth"):
        lines += ["", *pages.growth_table(found)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

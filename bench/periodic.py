"""Fifty tenants whose state is saved every ten seconds while they change it: is it kept up, and what does it cost."""

# ruff: noqa: RUF001  the report's own signs

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import figures, transfers
from bench.load import Tenants
from bench.server import Server

TENANTS, INTERVAL_S, SECONDS = 50, 10, 20
FILES, BYTES = 10, 10_000
PARALLEL = 2
"""Processes that save: as many transfers at once does the bare thing."""


def measure(server: Server) -> dict[str, Any]:
    """Ends the bench when a run failed, a tenant was not saved, or the last save is not what a tenant has."""
    from django.utils import timezone

    from pools import volumes
    from syncing import rclone
    from syncing.models import SyncRun, SyncSpec

    tenants = Tenants(server, "periodic", interval_ms=INTERVAL_S * 1000)
    tenants.size(TENANTS, TENANTS)
    with ThreadPoolExecutor(4) as threads:
        claimed = list(threads.map(lambda _: tenants.claim(), range(TENANTS)))
    states = [volumes.volume_path(UUID(one["containerId"]), "state") for one in claimed]
    for state in states:
        for number in range(FILES):
            change_file(state, number)
    time.sleep(INTERVAL_S * 1.5)
    since, before = timezone.now(), server.cpu_s()
    began = time.monotonic()
    turn = 0
    while time.monotonic() - began < SECONDS:
        for state in states:
            change_file(state, turn % FILES)
        turn += 1
        time.sleep(max(0.0, began + turn * INTERVAL_S / 2 - time.monotonic()))
    took = time.monotonic() - began
    spent = [after - before.get(one, 0.0) for one, after in server.cpu_s().items() if one[0] != "S3"]
    runs = list(SyncRun.objects.filter(spec_id=tenants.spec_id, trigger="interval", created_at__gte=since))
    failed = [run for run in runs if run.state in ("failed", "cancelled")]
    if failed:
        raise SystemExit(f"{len(failed)} saves failed: {failed[0].error_code} {failed[0].error_detail}")
    done = [run for run in runs if run.finished_at and run.started_at]
    lasting = [(run.finished_at - run.started_at) / timedelta(milliseconds=1) for run in done]
    by_tenant: dict[str, list[Any]] = {}
    for run in sorted(done, key=lambda run: run.started_at):
        by_tenant.setdefault(run.tenant_id, []).append(run.started_at)
    if len(by_tenant) < TENANTS:
        raise SystemExit(f"only {len(by_tenant)} of {TENANTS} tenants were saved")
    gaps = [
        (after - one) / timedelta(milliseconds=1)
        for starts in by_tenant.values() for one, after in pairwise(starts)
    ]  # fmt: skip
    spec = SyncSpec.objects.get(pk=tenants.spec_id)
    sink = spec.resolved_sink()

    def bare_save(number: int) -> float:
        far = f"bare/periodic-{number}"
        up = rclone.upload(sink, far, [], deletes=True, inside="", backup=f".boilerhouse-trash/{far}")
        return transfers.bare_rclone(up, states[number], sink)

    with ThreadPoolExecutor(PARALLEL) as threads:
        sent = time.monotonic()
        lone = list(threads.map(bare_save, range(TENANTS)))
        sweep = time.monotonic() - sent
    for number in range(TENANTS):
        sink.delete_all(f"bare/periodic-{number}")
    tenants.end()
    return {
        "tenants": TENANTS,
        "intervalS": INTERVAL_S,
        "seconds": round(took, 1),
        "runs": len(done),
        "perSecond": round(len(done) / took, 2),
        "run": figures.beside(figures.of([lasting]), figures.of([lone])),
        "gap": figures.of([gaps]),
        "cpuPercent": round(100 * sum(spent) / took, 1),
        "bareSweepS": round(sweep, 2),
    }


def change_file(state: Path, number: int) -> None:
    uid = state.stat().st_uid
    draft = state / f".draft-{number}"
    draft.write_bytes(os.urandom(BYTES))
    os.chown(draft, uid, uid)
    draft.rename(state / f"f{number}")


def table(found: dict[str, Any]) -> list[str]:
    run, gap = found["run"], found["gap"]
    return [
        f"{found['tenants']} tenants saved every {found['intervalS']} s while they change files:"
        f" {found['runs']} saves in {found['seconds']} s, none failed",
        f"  from one save's start to the next: p50 {gap['p50Ms'] / 1000:.1f} s, p95 {gap['p95Ms'] / 1000:.1f} s,"
        f" longest {gap['maxMs'] / 1000:.1f} s",
        f"  a save: p50 {run['p50Ms']:.0f} ms, p95 {run['p95Ms']:.0f} ms; bare rclone p50 {run['bare']['p50Ms']:.0f} ms"
        f" ({run['ratioP50']:.2f} ×); all of them once by bare rclone, {PARALLEL} at once: {found['bareSweepS']} s",
        f"  all processes but the sink: {found['cpuPercent']} % of one processor",
    ]

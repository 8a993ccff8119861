"""Restore and save beside bare rclone with the same flags, unjailed, and beside ``cp``; near and 30 ms away."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bench import bare, figures
from bench.delay import DelayedRelay
from bench.server import Server

UID = 1_310_000
ROUND_TRIP_S = 0.030


@dataclass(frozen=True)
class Case:
    name: str
    files: int
    bytes: int
    rounds: int
    is_tried_far: bool = True


WARM_UP = Case("first connections", 1, 10_000, 1)
CASES = [
    Case("100 KB in 10 files", 10, 10_000, 3, is_tried_far=False),
    Case("10 MB in 1 file", 1, 10_000_000, 3),
    Case("10 MB in 1,000 files", 1000, 10_000, 3),
]


def measure(server: Server) -> list[dict[str, Any]]:
    """One row per case and distance, in milliseconds; medians of the case's rounds."""
    from django.conf import settings

    from boilerhouse.core.deployment import deployment_id

    api, s3 = server.api, server.s3
    workload = {
        "id": "transfers", "name": "transfers", "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
        "volumes": {"state": {"containerPath": "/state"}},
    }  # fmt: skip
    api.call("POST", "workloads", workload, (201,))
    api.call("POST", "pools", {"id": "transfers", "workloadId": "transfers", "minSize": 0, "maxSize": 1, "minIdle": 0})
    # Directories of our own making are none of the controller's business: it would remove them as left over.
    own = Path(settings.BOILERHOUSE_DATA_DIR) / "bench"
    own.mkdir()
    (own / "deployment-id").write_text(deployment_id())
    (own / "keys").symlink_to(own.parent / "keys")
    settings.BOILERHOUSE_DATA_DIR = own
    far = DelayedRelay(s3.endpoint, ROUND_TRIP_S)
    rows = []
    try:
        for distance, endpoint in (("near", s3.endpoint), ("30 ms", far.endpoint)):
            sink = {**s3.sink(f"{distance.replace(' ', '')}/${{tenantId}}/"), "endpoint": endpoint}
            mapping = {"containerPath": "/state", "sinkPath": "s/", "direction": "bidirectional", "mode": "sync"}
            body = {"poolId": "transfers", "mappings": [mapping], "sink": sink}
            spec = api.call("POST", "sync-specs", {**body, "policy": {"onClaim": True, "onRelease": True}}, (201,))
            _round(WARM_UP, spec["id"])
            for case in CASES:
                if distance == "near" or case.is_tried_far:
                    rows.append({"case": case.name, "distance": distance, **_case(case, spec["id"])})
    finally:
        far.stop()
        settings.BOILERHOUSE_DATA_DIR = own.parent
    return rows


def _case(case: Case, spec_id: str) -> dict[str, Any]:
    times: dict[str, list[float]] = {}
    for _ in range(case.rounds):
        for name, took in _round(case, spec_id).items():
            times.setdefault(name, []).append(took)
    found: dict[str, Any] = {name: round(statistics.median(values), 1) for name, values in times.items()}
    found["rounds"] = case.rounds
    for verb in ("save", "restore"):
        found[f"{verb}Ratio"] = round(found[f"{verb}Ms"] / found[f"{verb}RcloneMs"], 2)
        found[f"{verb}Met"] = found[f"{verb}Ms"] <= figures.TRANSFER.of(found[f"{verb}RcloneMs"])
    found["rcloneMaxRssMb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    return found


def _round(case: Case, spec_id: str) -> dict[str, float]:
    from django.conf import settings

    from pools import nodes, volumes
    from pools.models import Pool
    from syncing import rclone, restores, saves, sink_checks, targets
    from syncing.models import SyncSpec
    from syncing.states import Trigger

    spec = SyncSpec.objects.prefetch_related("mappings").get(pk=spec_id)
    workload = Pool.objects.get(pk=spec.pool_id).workload.latest.spec
    tenant, took = f"bench-{secrets.token_hex(6)}", {}

    def target(container: UUID, generation: int, lock: int) -> targets.TransferTarget:
        return targets.TransferTarget(
            container, workload.owner(UID), spec.pool_id, workload, tenant, generation, lock, nodes.here(),
            is_stopped=True,
        )  # fmt: skip

    first, second = uuid4(), uuid4()
    for container in (first, second):
        volumes.prepare(container, UID, workload)
    state = volumes.volume_path(first, "state")
    for number in range(case.files):
        path = state / f"d{number % 10}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, case.bytes, 1_000_000):
                file.write(os.urandom(min(1_000_000, case.bytes - start)))
    subprocess.run(["chown", "-R", f"{UID}:{UID}", str(state)], check=True)
    scratch = Path(tempfile.mkdtemp(dir=settings.BOILERHOUSE_DATA_DIR, prefix="bare-"))
    try:
        with volumes.locked(first, within_s=30) as lock:
            restores.record_restored(sink_checks.check_spec(spec, tenant).answer(), target(first, 1, lock))
            took["saveMs"] = bare.timed(
                lambda: saves.save(target(first, 1, lock), [spec], Trigger.RELEASE, lambda: True)
            )
        with volumes.locked(second, within_s=30) as lock:
            sink_states = sink_checks.check_spec(spec, tenant).answer()
            took["restoreMs"] = bare.timed(
                lambda: restores.restore(target(second, 2, lock), sink_states, Trigger.CLAIM, lambda: True)
            )
        _check_equal(state, volumes.volume_path(second, "state"))
        sink, location = spec.resolved_sink(), f"{spec.sink['prefix'].split('/')[0]}/bare-{tenant}"
        up = rclone.upload(sink, location, [], deletes=True, inside="", backup=f".boilerhouse-trash/bare/{tenant}")
        took["saveRcloneMs"] = bare_rclone(up, state, sink)
        down = rclone.download(sink, location, [])
        took["restoreRcloneMs"] = bare_rclone(down, scratch / "restored", sink)
        _check_equal(state, scratch / "restored")
        took["cpMs"] = bare.timed(lambda: subprocess.run(["cp", "-r", str(state), str(scratch / "copy")], check=True))
        for one in (f"{location}", f"{spec.sink['prefix'].split('/')[0]}/{tenant}"):
            sink.delete_all(one)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for container in (first, second):
            volumes.wipe(container)
    return took


def _rclone(arguments: list[str], directory: Path, sink: Any) -> None:
    from syncing.jail import VOLUME, rclone_path

    directory.mkdir(exist_ok=True)
    own = [str(directory) if argument == VOLUME else argument for argument in arguments]
    environment = {"RCLONE_CONFIG": "/dev/null", "PATH": "/bin", "HOME": "/tmp", **sink.environment()}
    done = subprocess.run([rclone_path(), *own], env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def bare_rclone(arguments: list[str], directory: Path, sink: Any) -> float:
    """Milliseconds of a bare rclone that succeeds: ``rclone serve s3`` fails a write into a new folder now and then."""
    for _ in range(4):
        try:
            return bare.timed(lambda: _rclone(arguments, directory, sink))
        except RuntimeError as error:
            said = str(error)
            print(f"bare rclone failed and is tried again: {said.splitlines()[0][:300]}", file=sys.stderr)
    raise SystemExit(said)


def _check_equal(one: Path, other: Path) -> None:
    done = subprocess.run(["diff", "-rq", str(one), str(other)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"what came back is not what was saved: {done.stdout[:500]}")


def table(rows: list[dict[str, Any]]) -> list[str]:
    head = ("state", "distance", "save", "rclone", "ratio", "restore", "rclone", "ratio", "cp", "within 15 % + 80 ms")
    lines = [("{:<22}{:<9}" + "{:>10}" * 7 + "  {}").format(*head)]
    for row in rows:
        met = "met" if row["saveMet"] and row["restoreMet"] else "not met"
        figures = [f"{row[n]:.0f} ms" for n in ("saveMs", "saveRcloneMs")] + [f"{row['saveRatio']:.2f}"]
        figures += [f"{row[n]:.0f} ms" for n in ("restoreMs", "restoreRcloneMs")] + [f"{row['restoreRatio']:.2f}"]
        figures += [f"{row['cpMs']:.0f} ms"]
        lines.append(("{:<22}{:<9}" + "{:>10}" * 7 + "  {}").format(row["case"], row["distance"], *figures, met))
    lines.append(f"rclone's memory: at most {max(row['rcloneMaxRssMb'] for row in rows)} MB per run")
    return lines

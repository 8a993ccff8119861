"""A tenant's state through claims and releases: to the container's first answer, restored, and saved and gone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import bare, figures, refill, transfers
from bench.load import Tenants
from bench.server import Server

SETTLED_S = 0.3


@dataclass(frozen=True)
class Case:
    key: str
    name: str
    files: int
    bytes: int
    rounds: int


CASES = [
    Case("100KB", "100 KB in 10 files", 10, 10_000, 6),
    Case("10MB", "10 MB in 1 file", 1, 10_000_000, 3),
    Case("1000", "10 MB in 1,000 files", 1000, 10_000, 3),
]


def measure(server: Server, *, quick: bool = False) -> dict[str, Any]:
    """Two idle ones are there before each step, and nothing else is under way."""
    tenants = Tenants(server, "state")
    tenants.size(0, 4, min_idle=2)
    times: dict[str, list[float]] = {}
    bare_times: dict[str, list[float]] = {}

    def note(name: str, ours: float, lone: float) -> None:
        times.setdefault(name, []).append(ours)
        bare_times.setdefault(name, []).append(lone)

    for case in CASES[:1] if quick else CASES:
        for number in range((3 if quick else case.rounds) + 1):
            for name, ours, lone in _round(server, tenants, case):
                if number:  # the first one warms up
                    note(name, ours, lone)
    tenants.end()
    return {name: figures.beside(figures.of([ours]), figures.of([bare_times[name]])) for name, ours in times.items()}


def _settle(tenants: Tenants) -> None:
    refill.wait_idle(tenants.pool, 2)
    time.sleep(SETTLED_S)


def _round(server: Server, tenants: Tenants, case: Case) -> list[tuple[str, float, float]]:
    from syncing import rclone
    from syncing.models import SyncSpec

    spec = SyncSpec.objects.prefetch_related("mappings").get(pk=tenants.spec_id)
    sink, mapping = spec.resolved_sink(), spec.mappings.get()
    mapping.spec = spec
    tenant, found = f"s-{secrets.token_hex(6)}", []
    with bare.scratch() as scratch, bare.disk() as disk:
        _settle(tenants)
        began = time.perf_counter()
        claimed = tenants.claim(tenant)
        bare.ask_container(claimed["endpoints"][0])
        ours = (time.perf_counter() - began) * 1000
        name = _name(claimed)
        lone = bare.timed(
            lambda: (bare.claim(server.runtime, name, scratch), bare.ask_container(claimed["endpoints"][0]))
        )
        if case.key == "100KB":
            found.append(("firstAnswer", ours, lone))
        digest = _write_state(claimed["containerId"], case)
        copied = disk / "copy"
        shutil.copytree(_state(claimed["containerId"]), copied)
        _settle(tenants)
        saved = bare.timed(lambda: tenants.release(claimed["containerId"]))
        _settle(tenants)
        location = mapping.location(tenant)
        far = f"bare/{tenant}"
        up = rclone.upload(sink, far, [], deletes=True, inside="", backup=f".boilerhouse-trash/{far}")
        lone = bare.end(server.runtime, tenants.pool) + transfers.bare_rclone(up, copied, sink)
        found.append((f"release{case.key}", saved, lone))
        began = time.perf_counter()
        again = tenants.claim(tenant)
        restored = (time.perf_counter() - began) * 1000
        if again["restored"] != {"files": case.files, "bytes": case.files * case.bytes}:
            raise SystemExit(f"not what was saved: {again['restored']}")
        if _digest(_state(again["containerId"])) != digest:
            raise SystemExit("what came back is not what was saved")
        _settle(tenants)
        down = transfers.bare_rclone(rclone.download(sink, location, []), disk / "restored", sink)
        lone = down + bare.timed(lambda: bare.claim(server.runtime, _name(again), scratch))
        found.append((f"restored{case.key}", restored, lone))
        tenants.release(again["containerId"])
        sink.delete_all(far)
    return found


def _name(claimed: dict[str, Any]) -> str:
    from pools import lifecycle

    return lifecycle.runtime_name(UUID(claimed["containerId"]))


def _state(container: str) -> Path:
    from pools import volumes

    return volumes.volume_path(UUID(container), "state")


def _write_state(container: str, case: Case) -> str:
    """Files of chance, owned by the container's user, as if it had written them; their digest."""
    directory = _state(container)
    uid = directory.stat().st_uid
    for number in range(case.files):
        path = directory / f"d{number % 10}" / f"f{number}"
        if not path.parent.exists():
            path.parent.mkdir()
            os.chown(path.parent, uid, uid)
        path.write_bytes(os.urandom(case.bytes))
        os.chown(path, uid, uid)
    return _digest(directory)


def _digest(directory: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(directory)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()

"""A dry run of a spec in a temporary container: it starts, its health check runs, it is removed.

It has no row, no tenant and no network, and its own label, so that no other code counts or repairs it. One at a time
per host; leftovers of a killed dry run are removed by the next one or by the controller.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import UUID

from django.conf import settings

from boilerhouse.core import file_locks
from boilerhouse.core.deployment import data_dir, deployment_id, node_id
from boilerhouse.core.errors import BoilerhouseError, Conflict
from boilerhouse.core.ids import uuid7
from pools import (
    accounts,
    container_commands,
    errors,
    guest,
    health,
    host,
    image_pulls,
    image_warnings,
    last_output,
    lifecycle,
    mounts,
    permissions,
    suitability,
    version_images,
    volumes,
)
from pools.models import Container, WorkloadVersion
from pools.runtime import get_runtime
from pools.runtime.base import Mount
from pools.spec import Owner, Volume, WorkloadSpec

TRIAL_LABEL = "boilerhouse.trial"
LIMIT_S = 30.0
PULL_S = 20.0
"""How long a dry run waits for the image. The pull continues, so the next dry run benefits."""
SETTLE_S = 1.0
ENDING_S = LIMIT_S + PULL_S
"""How long the removal of the deployment waits for a dry run."""
OUTPUT_BYTES = 4000
LOG_LINES = 50


class TrialRunning(Conflict):
    """Another dry run is in progress on this host."""

    code = "trial_running"


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run."""

    is_healthy: bool
    message: str
    """The result as a sentence."""
    exit_code: int | None
    output: str
    """Output of the health check."""
    log: str
    """Output of the container."""
    started_ms: int
    """Milliseconds until it ran."""
    probe_ms: int
    attempts: int
    warnings: tuple[str, ...] = ()


def run(spec: WorkloadSpec, latest: WorkloadVersion | None = None) -> DryRun:
    """Run the spec once, with the image that its version would run after ``latest``. Raises TrialRunning."""
    with _alone():
        _remove_left_behind()
        trial_id = uuid7()
        try:
            return _try(trial_id, spec, latest)
        finally:
            get_runtime().remove(_name(trial_id))
            volumes.destroy(_home(trial_id))


def sweep() -> int:
    """Remove leftovers of a killed dry run, unless one is in progress. Return 1 if it could look for them."""
    if not _root().exists():
        return 0
    try:
        with _alone():
            _remove_left_behind()
    except TrialRunning:
        return 0
    return 1


def remove_all() -> None:
    """Remove all leftovers, at the end of the deployment."""
    if _root().exists():
        with _alone(within_s=ENDING_S):
            _remove_left_behind()


def _root() -> Path:
    return data_dir() / "trials"


def _home(trial_id: UUID) -> Path:
    return _root() / str(trial_id)


def _socket_dir(trial_id: UUID) -> Path:
    """The directory of its guest agent's socket; no volume can have that name."""
    return _home(trial_id) / ".run"


def _name(trial_id: UUID) -> str:
    return f"bh-trial-{trial_id}"


@contextmanager
def _alone(*, within_s: float = 0.0) -> Iterator[None]:
    _root().mkdir(exist_ok=True, mode=0o700)
    with file_locks.locked(_root() / "lock", within_s=within_s) as lock:
        if lock is None:
            raise TrialRunning("Another health check is being tested on this host. Wait until it ends.")
        yield


def _remove_left_behind() -> None:
    for observed in host.of_this_node(get_runtime().list({TRIAL_LABEL: deployment_id()})):
        get_runtime().remove(observed.handle.name)
    for path in _root().iterdir():
        if path.is_dir():
            volumes.destroy(path)


def _try(trial_id: UUID, spec: WorkloadSpec, latest: WorkloadVersion | None) -> DryRun:
    runtime, name, began = get_runtime(), _name(trial_id), time.monotonic()
    uid = spec.fixed_uid
    uid = settings.BOILERHOUSE_UID_RANGE[1] if uid is None else uid  # beyond those that are leased
    pins = latest.pins_for(spec) if latest is not None else {}
    number = latest.number if latest is not None else 0
    version = WorkloadVersion(workload_id="trial", number=number, spec_json=spec.to_json(), **pins)
    try:
        suitability.check(runtime)
        version_image = version_images.of_version(version, partial(image_pulls.image_for_trial, wait_s=PULL_S))
        image = version_image.image
        mounts.check(spec, image)
        permissions.check(spec)
        binds = tuple(_mount(trial_id, spec.owner(uid), volume) for volume in spec.volumes)
        binds += accounts.binds(_home(trial_id), spec)
        volumes.make_dirs(_home(trial_id).joinpath, uid, spec, image.working_dir)
        _home(trial_id).mkdir(exist_ok=True, mode=0o700)  # if it has no volume
        accounts.write(_home(trial_id), runtime, image, spec, spec.owner(uid))
        row = Container(id=trial_id, pool_id="trial", version=version, uid=uid, node_id=node_id())
        agent = guest.agent_for(spec) if lifecycle.own_command(spec, image) else None
        if agent is not None:
            guest.prepare_at(_socket_dir(trial_id), spec.owner(uid))
        binds += guest.binds_at(_socket_dir(trial_id), agent)
        plan = lifecycle.plan_of(row, replace(spec, ports=()), "none", image, agent=agent)
        labels = {TRIAL_LABEL: deployment_id(), **host.node_labels()}
        plan = replace(plan, name=name, labels=labels, mounts=binds, network="none", dns=())
        plan = replace(plan, probe=None, is_probe_off=True)
        runtime.create(plan)
        runtime.start(name)
        observed = runtime.inspect_made(plan)
        if observed is not None and observed.is_running:
            guest.seal_at(_socket_dir(trial_id), observed.pid)
        started_ms = round((time.monotonic() - began) * 1000)
        trial = _probe(trial_id, health.check_of(spec, image), started_ms)
    except BoilerhouseError as error:
        return DryRun(False, error.detail, None, "", _log(name), round((time.monotonic() - began) * 1000), 0, 0)
    warnings = [warning.detail for warning in mounts.warnings(mounts.declared(spec, image.volumes).bare)]
    if version_image.failed is not None:
        warnings.append(image_warnings.stale(version_image.failed.error))
    return replace(trial, log=_log(name), warnings=tuple(warnings))


def _mount(trial_id: UUID, owner: Owner, volume: Volume) -> Mount:
    path = _home(trial_id) / volume.name
    path.mkdir(parents=True, mode=0o700)
    os.chown(path, *owner)
    return Mount(str(path), volume.container_path, volume.mode == "ro" or volume.name == "secrets")


def _probe(trial_id: UUID, check: health.Check | None, started_ms: int) -> DryRun:
    runtime, name = get_runtime(), _name(trial_id)
    if check is None:
        time.sleep(SETTLE_S)
        observed = runtime.inspect(name)
        if observed is not None and observed.is_running:
            return DryRun(True, "The container runs. It has no health check.", None, "", "", started_ms, 0, 0)
        code = observed.exit_code if observed else None
        return DryRun(
            False,
            f"The container ended immediately with {last_output.ended(observed)}.",
            code,
            "",
            "",
            started_ms,
            0,
            0,
        )
    probe = check.probe
    deadline = time.monotonic() + min(LIMIT_S, (check.patience_ms + probe.timeout_ms) / 1000)
    attempts = 0
    while True:
        attempts += 1
        try:
            result = container_commands.run_at(
                _socket_dir(trial_id), name, probe.command, probe.timeout_ms, limit_bytes=OUTPUT_BYTES
            )
        except errors.NotRunning:
            observed = runtime.inspect(name)
            code = observed.exit_code if observed else None
            return DryRun(
                False, f"The container ended with {last_output.ended(observed)}.", code, "", "", started_ms, 0, attempts
            )
        except errors.CommandLost:  # perhaps because the container ended, which the engine notices a moment later
            if time.monotonic() > deadline:
                raise
            time.sleep(lifecycle.PROBE_EVERY_S)
            continue
        output = (result.stdout + result.stderr).decode(errors="replace")
        if result.exit_code == 0:
            message = f"Healthy at try {attempts}." if attempts > 1 else "Healthy at the first try."
            return DryRun(True, message, 0, output, "", started_ms, result.duration_ms, attempts)
        if time.monotonic() > deadline:
            message = f"Not healthy after {attempts} tries; the last ended with exit code {result.exit_code}"
            message = health.failing(probe.command, message, is_images=True) if check.is_images else f"{message}."
            return DryRun(False, message, result.exit_code, output, "", started_ms, result.duration_ms, attempts)
        time.sleep(lifecycle.PROBE_EVERY_S)


def _log(name: str) -> str:
    """All of its output if that is short, otherwise the most informative lines."""
    try:
        output = get_runtime().logs(name, LOG_LINES, limit_bytes=OUTPUT_BYTES + 1)
    except BoilerhouseError:
        return ""
    fits = len(output) <= OUTPUT_BYTES and output.count(b"\n") < LOG_LINES
    return output.decode(errors="replace") if fits else last_output.of(get_runtime(), name)

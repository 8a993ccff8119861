"""Detects moved image tags, and rolls to the new image if configured.

Tags are checked from time to time, one after another, and a registry that does not answer is asked only once per round.
The result is recorded in the version. A different image becomes a new version, of which pools start one container
first: on request, or automatically by the workload's ``imageUpdate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, Subquery

from boilerhouse.core import audit, clock, file_locks
from boilerhouse.core.deployment import data_dir
from boilerhouse.core.events import emit, recording
from boilerhouse.process.steps import each
from boilerhouse.queues.tasks import enqueue
from pools import image_warnings, references, registry_logins, services, version_images
from pools.errors import EngineFailure, EngineUnavailable, FixedImage, ImageMissing, WorkloadNotFound
from pools.models import Pool, Workload, WorkloadVersion
from pools.pull_errors import PullFailed, PullFault
from pools.runtime import get_runtime
from pools.runtime.base import Image

log = structlog.get_logger(__name__)

HERE = timedelta(seconds=60)
"""The check interval of a tag that only this machine knows."""
DEAF = frozenset({PullFault.TIMEOUT, PullFault.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh."""

    version: int
    digest: str
    """The image that the tag names; empty while no container of the version was healthy, because its next start checks
    the tag."""
    is_new: bool
    """Whether a version was created for it."""


def is_fixed(version: WorkloadVersion) -> bool:
    """Whether its image is named by digest or id, which never changes."""
    try:
        reference = references.parse(version.spec.image)
    except references.InvalidReference:
        return True  # from before names were checked
    return bool(reference.digest) or reference.is_id


def is_of_registry(version: WorkloadVersion) -> bool:
    """Whether its tag is resolved by a registry, not by the engine."""
    return bool(version.manifest_digest) and version.spec.pull_policy != "never"


def look(version: WorkloadVersion) -> None:
    """Resolve the version's tag and record the result. Raises PullFailed, ImageMissing, EngineUnavailable."""
    try:
        digest = _named_now(version)
    except EngineFailure as error:
        _note(version, version.tag_digest, error.detail)
        raise
    _note(version, digest, "")


def record_pulled_image(version: WorkloadVersion, image: Image) -> None:
    """Record that a start pulled the version's tag and got this other image, and roll if configured."""
    _note(version, next(iter(version_images.manifests(version, image)), image.id), "")
    if version.spec.rolls_to_new_images:
        _take_up(version)


def _named_now(version: WorkloadVersion) -> str:
    """The digest; the version's own if that is another digest of the same image."""
    runtime, reference = get_runtime(), references.parse(version.spec.image)
    if not is_of_registry(version):
        return runtime.find_image(version.spec.image).id
    digest = runtime.named_digest(reference, registry_logins.login_for(reference))
    if digest == version.manifest_digest or not version.image_digest:
        return digest
    try:
        image = runtime.find_image(version.image_digest)
    except ImageMissing:
        return digest
    return version.manifest_digest if digest in version_images.manifests(version, image) else digest


def _note(version: WorkloadVersion, digest: str, error: str) -> None:
    version.tag_digest, version.tag_error, version.tag_asked_at = digest, error, clock.now()
    with recording():
        version.save(update_fields=["tag_digest", "tag_error", "tag_asked_at"])
        if version.workload.latest.pk == version.pk:
            _tell(version)


def _tell(version: WorkloadVersion) -> None:
    """Record on the pools, and report once each time, that the tag names another image than they run."""
    moved_to = version.tag_digest if version.is_moved else ""
    for pool in version.workload.pools.exclude(moved_to=moved_to).order_by("pk"):
        Pool.objects.filter(pk=pool.pk).update(moved_to=moved_to)
        if moved_to:
            message = image_warnings.moved(moved_to)
            emit(
                "pool.warning", pool_id=pool.pk, code=message.code, version=version.number, digest=moved_to,
                detail=message.detail,
            )  # fmt: skip


def ask_refresh(workload_id: str) -> None:
    """Have a worker run ``refresh``. Raises WorkloadNotFound, FixedImage."""
    with recording():
        version = _refreshable(workload_id)
        WorkloadVersion.objects.filter(pk=version.pk).update(refresh_asked_at=clock.now())
        audit.record("workload.refresh", workload_id, after={"version": version.number})
        enqueue("pool", "pools.tasks.look_at_tags")


def refresh(workload_id: str) -> Refreshed:
    """Resolve the workload's tag. A different image becomes a new version, to which its pools roll once it is healthy.

    Raises WorkloadNotFound, FixedImage, ImageMissing, PullFailed, EngineUnavailable.
    """
    return _refresh(_refreshable(workload_id))


def _refreshable(workload_id: str) -> WorkloadVersion:
    workload = Workload.objects.filter(pk=workload_id).first()
    if workload is None:
        raise WorkloadNotFound(f"No workload {workload_id}.")
    version = workload.latest
    if is_fixed(version):
        raise FixedImage(f"{version.spec.image} never names another image. To run another image, change the workload.")
    return version


def _refresh(version: WorkloadVersion) -> Refreshed:
    if not version.image_digest and not version.manifest_digest:
        _start_again(version.workload)  # its next start resolves the tag anyway
        return Refreshed(version.number, "", is_new=False)
    look(version)
    return _take_up(version) or Refreshed(version.number, version.tag_digest, is_new=False)


def _start_again(workload: Workload) -> None:
    with recording():
        for pool in workload.pools.order_by("pk"):
            services.try_again(pool.pk)
            enqueue("pool", "pools.tasks.refill", pool.pk)


def _take_up(version: WorkloadVersion) -> Refreshed | None:
    """Create a new version for the image that the tag names; None if there is none, or the workload has changed."""
    if not version.is_moved:
        return None
    pin = {"manifest_digest" if is_of_registry(version) else "image_digest": version.tag_digest}
    with recording():
        workload = services.lock_workload(version.workload_id)
        if workload.latest.pk != version.pk:
            return None
        new_version = services.add_version(workload, version.number + 1, version.spec_json, **pin)
        emit("workload.updated", workloadId=workload.pk, version=new_version.number, digest=version.tag_digest)
        before = {"version": version.number, "digest": version.manifest_digest or version.image_digest}
        after = {"version": new_version.number, "digest": version.tag_digest}
        audit.record("workload.update", workload.pk, before=before, after=after)
    return Refreshed(new_version.number, version.tag_digest, is_new=True)


def due() -> list[WorkloadVersion]:
    """The versions whose tag is due, longest waiting first."""
    newest = WorkloadVersion.objects.filter(workload=OuterRef("workload")).order_by("-number")
    pools = Pool.objects.filter(workload=OuterRef("workload"), is_deleting=False)
    rows = WorkloadVersion.objects.annotate(newest=Subquery(newest.values("pk")[:1])).filter(pk=F("newest"))
    rows = rows.filter(Q(refresh_asked_at__isnull=False) | (Q(image_digest__gt="") & Exists(pools)))
    now = clock.now()
    candidates = [row for row in rows.select_related("workload") if not is_fixed(row) and _is_due(row, now)]
    return sorted(candidates, key=lambda row: row.tag_asked_at or datetime.min.replace(tzinfo=now.tzinfo))


def _is_due(version: WorkloadVersion, now: datetime) -> bool:
    every = timedelta(seconds=settings.BOILERHOUSE_IMAGE_CHECK_S) if is_of_registry(version) else HERE
    if version.refresh_asked_at is not None:
        return True
    return bool(every) and (version.tag_asked_at is None or now - version.tag_asked_at >= every)


def look_around() -> None:
    """Check every tag that is due, one after another; nothing while another round runs on this node.

    Tags that become due meanwhile are included. Raises EngineUnavailable.
    """
    with file_locks.locked(data_dir() / "tags.lock") as lock:
        deaf: dict[str, str] = {}
        while lock is not None and (versions := due()):
            each(versions, partial(_look_in_round, deaf=deaf), ends=(EngineUnavailable,))


def _look_in_round(version: WorkloadVersion, deaf: dict[str, str]) -> int:
    """Check one; return 1. ``deaf``: registries that did not answer in this round, with their errors."""
    registry = references.parse(version.spec.image).registry
    is_asked = version.refresh_asked_at is not None
    outcome: dict[str, Any] = {"refreshed": "unchanged"}
    try:
        if is_of_registry(version) and registry in deaf:
            _note(version, version.tag_digest, deaf[registry])
            outcome = {"refreshed": "failed", "detail": deaf[registry]}
        elif is_asked:
            outcome = {"refreshed": "rolls" if _refresh(version).is_new else "unchanged"}
        else:
            look(version)
            if version.spec.rolls_to_new_images:
                _take_up(version)
    except ImageMissing as error:
        outcome = {"refreshed": "failed", "detail": error.detail}
        log.warning("tag not resolved", image=version.spec.image, detail=error.detail)
        if isinstance(error, PullFailed) and error.fault in DEAF:
            deaf[registry] = error.detail
    if is_asked:
        with recording():
            WorkloadVersion.objects.filter(pk=version.pk).update(refresh_asked_at=None)
            emit("workload.updated", workloadId=version.workload_id, version=version.number, **outcome)
    return 1

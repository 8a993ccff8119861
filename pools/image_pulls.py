"""Makes a workload's image available on this node, by its ``pullPolicy``.

A start does not wait for a pull: the pull is requested in a row (``ImagePull``), the controller's threads execute it
(``pull_runs``), and the starts that refer to the row resume when it has ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models.functions import Now

from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from boilerhouse.core.events import emit, recording
from boilerhouse.process import processes
from boilerhouse.process.steps import each
from boilerhouse.queues import wakeup_pipes
from pools import errors, references
from pools.models import Container, ImagePull, Pool
from pools.pull_errors import PullFailed, PullFault
from pools.references import Reference
from pools.runtime import get_runtime
from pools.runtime.base import Image
from pools.spec import WorkloadSpec
from pools.states import PullState, Trouble

log = structlog.get_logger(__name__)

BELL = "pulls"
AGAIN_AFTER_S, THROTTLED_AFTER_S = 60, 600
"""The retry interval of a failed pull that a pool works without."""
TRIAL_WANTS = timedelta(hours=1)
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class ImageForStart:
    """An image on this node."""

    image: Image
    failed: ImagePull | None = None
    """The failed pull, because of which the image may be an older one."""


def image_for_start(container: Container, spec: WorkloadSpec) -> ImageForStart:
    """The image for a container's start. Without it, this process gives up the start, which resumes later.

    Raises ImagePending then; ImageMissing, PullFailed, EngineUnavailable.
    """
    if (image := _without_pull(spec)) is not None:
        return ImageForStart(image)
    with recording():
        container.pull = pull = _locked(spec)
        if not _is_settled(pull, container.created_at):
            _ask(pull)
            Container.objects.filter(pk=container.pk, owner=processes.current()).update(pull=pull, owner=None)
    return _outcome(spec, pull)


def image_for_trial(spec: WorkloadSpec, wait_s: float) -> ImageForStart:
    """The image, if it is here or arrives within the time.

    Raises ImagePending with the progress, ImageMissing, PullFailed, EngineUnavailable.
    """
    if (image := _without_pull(spec)) is not None:
        return ImageForStart(image)
    began, until = clock.now(), time.monotonic() + wait_s
    with recording():
        pull = _locked(spec)
        _ask(pull)
        ImagePull.objects.filter(pk=pull.pk).update(wanted_until=Now() + TRIAL_WANTS)
    while not _is_settled(pull, began) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        pull.refresh_from_db()
    return _outcome(spec, pull)


def _without_pull(spec: WorkloadSpec) -> Image | None:
    """The local image if it needs no pull; None if it does."""
    reference = _parsed(spec.image)
    if spec.pull_policy == "always" and not (reference.is_id or reference.digest):  # these never mean another image
        return None
    try:
        return get_runtime().find_image(spec.image)
    except errors.ImageMissing as error:
        if spec.pull_policy != "never" and not reference.is_id:
            return None
        why = "pullPolicy is never" if spec.pull_policy == "never" else "an id cannot be pulled"
        message = f"Image {spec.image} is not on this node, and {why}."
        raise errors.ImageMissing(f"{message} Build or load it, or correct the workload's image.") from error


def _parsed(image: str) -> Reference:
    try:
        return references.parse(image)
    except references.InvalidReference as error:
        raise errors.ImageMissing(f"{image} is not an image name. {error}") from error


def _locked(spec: WorkloadSpec) -> ImagePull:
    key = {"node_id": node_id(), "image": spec.image}
    ImagePull.objects.get_or_create(**key, defaults={"state": PullState.DONE})
    return ImagePull.objects.select_for_update(no_key=True).get(**key)


def _is_settled(pull: ImagePull, since: datetime) -> bool:
    """Whether the result is newer than ``since``, or a failure.

    A successful pull that began before may have read an older manifest. A failed one has failed for all waiting starts.
    """
    if pull.is_under_way or pull.finished_at is None or pull.started_at is None:
        return False
    return pull.started_at >= since or (pull.state == PullState.FAILED and pull.finished_at >= since)


def _ask(pull: ImagePull) -> None:
    """Request the pull unless it is in progress; its last failure stays until it succeeds."""
    if not pull.is_under_way:
        ended = ImagePull.objects.filter(pk=pull.pk)
        ended.transition(PullState(pull.state), PullState.WAITING, asked_at=Now(), owner=None, progress={})
        pull.refresh_from_db()
    transaction.on_commit(partial(wakeup_pipes.notify, BELL), robust=True)


def _outcome(spec: WorkloadSpec, pull: ImagePull) -> ImageForStart:
    if pull.is_under_way:
        raise errors.ImagePending(f"{pull.words()}.")
    if pull.state == PullState.DONE:
        return ImageForStart(get_runtime().find_image(spec.image))
    if pull.fault == PullFault.ENGINE_DOWN:
        raise errors.EngineUnavailable(pull.error)
    try:
        return ImageForStart(get_runtime().find_image(spec.image), pull)
    except errors.ImageMissing:
        raise PullFailed(pull.error, PullFault(pull.fault)) from None


def count_failure(pool: Pool, pull: ImagePull) -> None:
    """Record on the pool that it works without the result of this pull; call it in a transaction."""
    if pool.failed_pull_id == pull.pk:
        return
    Pool.objects.filter(pk=pool.pk).update(failed_pull=pull)
    pool.failed_pull = pull
    if stale := pool.stale_image:
        emit("pool.warning", pool_id=pool.pk, code="image_stale", image=pull.image, fault=pull.fault, detail=stale)


def clear_failures(pull: ImagePull) -> list[str]:
    """Clear the effects of the pull's failure on pools after its success. Returns those whose roll may be retried."""
    rolls = []
    for pool in Pool.objects.select_for_update(no_key=True).filter(failed_pull=pull).order_by("pk"):
        changes: dict[str, Any] = {"failed_pull": None}
        if pool.trouble == Trouble.ROLL_HALTED:
            changes |= {"trouble": "", "last_error": "", "halted_version": None, "halted_network": None}
            rolls.append(pool.pk)
        Pool.objects.filter(pk=pool.pk).update(**changes)
        code = "roll_halted" if pool.pk in rolls else "image_stale"
        emit("pool.recovered", pool_id=pool.pk, code=code, trouble=pool.trouble, image=pull.image)
    return rolls


def ask_again() -> int:
    """Retry pulls whose failure affects pools; clear those that no longer concern their pool."""
    return each(Pool.objects.exclude(failed_pull=None).select_related("failed_pull", "workload"), _ask_again)


def _ask_again(pool: Pool) -> int:
    assert pool.failed_pull
    if not _concerns(pool, pool.failed_pull.image):
        with recording():
            Pool.objects.filter(pk=pool.pk, failed_pull=pool.failed_pull).update(failed_pull=None)
        return 1
    with recording():
        pull = ImagePull.objects.select_for_update(no_key=True).get(pk=pool.failed_pull.pk)
        rest = timedelta(seconds=THROTTLED_AFTER_S if pull.fault == PullFault.THROTTLED else AGAIN_AFTER_S)
        if pull.is_under_way or (pull.finished_at and pull.finished_at > clock.now() - rest):
            return 0
        _ask(pull)
    return 1


def _concerns(pool: Pool, image: str) -> bool:
    latest, serving = pool.workload.latest, pool.serving_version
    is_halted = pool.halted is not None and image in (latest.spec.image, latest.pinned_image)
    specs = (latest.spec, serving.spec)
    return is_halted or any(spec.image == image and spec.pull_policy == "always" for spec in specs)

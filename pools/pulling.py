"""Having a workload's image on this machine, by its ``pullPolicy``."""

from __future__ import annotations

import structlog

from pools import references, registry_logins
from pools.errors import ImageMissing
from pools.references import Reference
from pools.runtime import get_runtime
from pools.runtime.base import Image
from pools.spec import WorkloadSpec

log = structlog.get_logger(__name__)


def image_for(spec: WorkloadSpec) -> Image:
    """Have the image here. Raises ImageMissing, PullFailed, EngineUnavailable."""
    runtime, reference = get_runtime(), _parsed(spec.image)
    if spec.pull_policy != "always" or reference.is_id or reference.digest:  # these two never mean another image
        try:
            return runtime.find_image(spec.image)
        except ImageMissing as error:
            if spec.pull_policy == "never" or reference.is_id:
                why = "pullPolicy is never" if spec.pull_policy == "never" else "an id cannot be pulled"
                said = f"Image {spec.image} is not on this machine, and {why}."
                raise ImageMissing(f"{said} Build or load it, or correct the workload's image.") from error
    pull(reference)
    return runtime.find_image(spec.image)


def _parsed(image: str) -> Reference:
    try:
        return references.parse(image)
    except references.InvalidReference as error:
        raise ImageMissing(f"{image} is no name of an image. {error}") from error


def pull(reference: Reference) -> None:
    """Fetch an image from its registry. Raises PullFailed with the engine's words."""
    log.info("pulling image", image=reference.text)
    for _ in get_runtime().pull(reference, registry_logins.login_for(reference)):
        pass

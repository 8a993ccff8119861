"""The one image that the containers of a version run, whatever its tag names now.

A version starts with the image that its tag names. Once a container of it was healthy, it runs that image until a
refresh (``tags``) or another name creates a new version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from django.db.models import Q

from pools import references
from pools.errors import ImageGone, ImageMissing, OtherImage
from pools.image_pulls import ImageForStart
from pools.models import WorkloadVersion
from pools.runtime import get_runtime
from pools.runtime.base import Image
from pools.spec import WorkloadSpec

Pull = Callable[[WorkloadSpec], ImageForStart]
"""Makes the image of a spec available on this node, by its ``pullPolicy``."""


def for_start(version: WorkloadVersion, pull: Pull) -> ImageForStart:
    """The image for a start: as ``of_version``, but for ``always`` what the tag names at its registry."""
    spec = version.spec
    is_always_pulled = spec.pull_policy == "always" and bool(version.image_digest or not version.manifest_digest)
    return pull(spec) if is_always_pulled else of_version(version, pull)


def of_version(version: WorkloadVersion, pull: Pull) -> ImageForStart:
    """The image that the version runs, or what its tag names if there is none yet. Raises ImageGone, and as
    ``pull``."""
    spec = version.spec
    if version.image_digest and (image := _here(version.image_digest)) is not None:
        return ImageForStart(image)
    if pinned := version.pinned_image:
        if spec.pull_policy != "never":
            return pull(replace(spec, image=pinned, pull_policy="missing"))
        if (image := _here(pinned)) is not None:
            return ImageForStart(image)
    pulled_image = pull(spec)
    # It was built or loaded here, or became healthy before manifests were recorded, so only the tag identifies it.
    if not is_of(version, pulled_image.image):
        raise ImageGone(
            f"The image that version {version.number} runs ({version.image_digest or version.manifest_digest}) is"
            f" no longer on this node, and {spec.image} now names another image. Refresh the workload to run that"
            " one."
        )
    return pulled_image


def _here(image_id: str) -> Image | None:
    try:
        return get_runtime().find_image(image_id)
    except ImageMissing:
        return None


def is_of(version: WorkloadVersion, image: Image) -> bool:
    """Whether containers of the version may run this image."""
    if image.id == version.image_digest or not (version.image_digest or version.manifest_digest):
        return True
    # An engine with another image store now has other ids for its images.
    return bool(version.manifest_digest) and version.manifest_digest in manifests(version, image)


def prove(version: WorkloadVersion, image: Image) -> None:
    """Record that a container with this image was healthy: the version runs it from now on.

    Raises OtherImage if it already runs another one: two pools started at once, and the tag moved in between.
    """
    manifest = manifest_of(version, image)
    if image.id == version.image_digest and manifest in ("", version.manifest_digest):
        return
    same, now = Q(image_digest__in=("", image.id)), {"image_digest": image.id}
    if manifest:
        same, now = same | Q(manifest_digest=manifest), {**now, "manifest_digest": manifest}
    if not WorkloadVersion.objects.filter(same, pk=version.pk).update(**now):
        raise OtherImage(f"Version {version.number} now runs another image than {image.id}; the next start uses it.")
    for name, value in now.items():
        setattr(version, name, value)


def manifest_of(version: WorkloadVersion, image: Image) -> str:
    """The image's digest in the registry of the version's image; empty if it came from none."""
    digests = manifests(version, image)
    return version.manifest_digest if version.manifest_digest in digests else next(iter(digests), "")


def manifests(version: WorkloadVersion, image: Image) -> list[str]:
    """All its digests in that registry: lists for several platforms may share one image."""
    parsed = references.parse(version.spec.image)
    digests = [references.parse(reference) for reference in image.digests]
    return [
        reference.digest
        for reference in digests
        if (reference.registry, reference.repository) == (parsed.registry, parsed.repository)
    ]

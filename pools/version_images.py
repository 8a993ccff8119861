"""Which image the containers of a version run: one, whatever its tag names by now.

A version begins with what its tag names. Once a container of it was healthy it runs the image of that one, until a
refresh (``tags``) or another name makes a new version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from django.db.models import Q

from pools import references
from pools.errors import ImageGone, ImageMissing, OtherImage
from pools.models import WorkloadVersion
from pools.pulling import Found
from pools.runtime import get_runtime
from pools.runtime.base import Image
from pools.spec import WorkloadSpec

Pull = Callable[[WorkloadSpec], Found]
"""Has the image of a spec on this machine, by its ``pullPolicy``."""


def asked(version: WorkloadVersion, pull: Pull) -> Found:
    """What a start begins with: ``own``, but by ``always`` what the tag names at its registry. Raises as ``own``."""
    spec = version.spec
    is_asking = spec.pull_policy == "always" and bool(version.image_digest or not version.manifest_digest)
    return pull(spec) if is_asking else own(version, pull)


def own(version: WorkloadVersion, pull: Pull) -> Found:
    """The image that the version runs; what its tag names where it runs none yet. Raises ImageGone, and as ``pull``."""
    spec = version.spec
    if version.image_digest and (image := _here(version.image_digest)) is not None:
        return Found(image)
    if pinned := version.pinned_image:
        if spec.pull_policy != "never":
            return pull(replace(spec, image=pinned, pull_policy="missing"))
        if (image := _here(pinned)) is not None:
            return Found(image)
    found = pull(spec)
    # It was built or loaded here, or proven before manifests were kept: only the tag leads to it.
    if not is_of(version, found.image):
        raise ImageGone(
            f"The image that version {version.number} runs ({version.image_digest or version.manifest_digest}) is no"
            f" longer on this machine, and {spec.image} names another one by now. Refresh the workload to run that."
        )
    return found


def _here(image_id: str) -> Image | None:
    try:
        return get_runtime().find_image(image_id)
    except ImageMissing:
        return None


def is_of(version: WorkloadVersion, image: Image) -> bool:
    """Whether containers of the version may run this image."""
    if image.id == version.image_digest or not (version.image_digest or version.manifest_digest):
        return True
    # An engine that keeps its images in another way now has other ids for them.
    return bool(version.manifest_digest) and version.manifest_digest in manifests(version, image)


def prove(version: WorkloadVersion, image: Image) -> None:
    """A container with this image was healthy: the version runs it from now on.

    Raises OtherImage where it runs another one by now: two pools began at once, and the tag moved in between.
    """
    manifest = manifest_of(version, image)
    if image.id == version.image_digest and manifest in ("", version.manifest_digest):
        return
    same, now = Q(image_digest__in=("", image.id)), {"image_digest": image.id}
    if manifest:
        same, now = same | Q(manifest_digest=manifest), {**now, "manifest_digest": manifest}
    if not WorkloadVersion.objects.filter(same, pk=version.pk).update(**now):
        raise OtherImage(f"Version {version.number} runs another image than {image.id} by now; the next start does.")
    for name, value in now.items():
        setattr(version, name, value)


def manifest_of(version: WorkloadVersion, image: Image) -> str:
    """Under which digest the registry of the version's image has this one; empty where it came from none."""
    digests = manifests(version, image)
    return version.manifest_digest if version.manifest_digest in digests else next(iter(digests), "")


def manifests(version: WorkloadVersion, image: Image) -> list[str]:
    """All digests under which that registry has it: lists for several platforms may share one image."""
    wanted = references.parse(version.spec.image)
    known = [references.parse(one) for one in image.digests]
    return [one.digest for one in known if (one.registry, one.repository) == (wanted.registry, wanted.repository)]

"""Warnings about the image of a version or a pool, as text."""

from __future__ import annotations

from boilerhouse.core.errors import FieldError

MOVED, MIXED, UNKNOWN = "image_moved", "image_mixed", "image_tag_unknown"


def moved(digest: str) -> FieldError:
    """The tag now names another image; containers start from the old one."""
    return FieldError(
        "/image",
        f"The image's tag has moved and now names {digest}. Containers still start from the image that has become"
        " healthy. Refresh the workload to test the new image and roll to it.",
        MOVED,
    )


def stale(why: str) -> str:
    """The newest image could not be pulled, and an older one is used."""
    return f"The pool serves the image on the node, which may be outdated. {why}"


def mixed(count: int) -> FieldError:
    """Containers created before versions were tied to one image."""
    return FieldError(
        "/image",
        f"{count} container{' runs' if count == 1 else 's run'} a different image than the one that became"
        " healthy in this version.",
        MIXED,
    )


def unknown(detail: str) -> FieldError:
    """The image that the tag names is unknown."""
    return FieldError("/image", f"Boilerhouse could not check whether the image's tag has moved. {detail}", UNKNOWN)

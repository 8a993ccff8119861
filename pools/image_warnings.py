"""What to know of the image that a version or a pool runs, in words."""

from __future__ import annotations

from boilerhouse.core.errors import FieldError

MOVED, MIXED, UNKNOWN = "image_moved", "image_mixed", "image_tag_unknown"


def moved(digest: str) -> FieldError:
    """The tag names another image by now; containers start from the old one."""
    return FieldError(
        "/image",
        f"The image's tag has moved: it names {digest} now. Containers still start from the image that was proven."
        " Refresh the workload to prove the new one and roll to it.",
        MOVED,
    )


def stale(why: str) -> str:
    """The newest image could not be pulled, and an older one is here."""
    return f"The image on the node serves, which may be an older one. {why}"


def mixed(count: int) -> FieldError:
    """Containers from before a version ran one image only."""
    return FieldError(
        "/image",
        f"{count} container{' runs' if count == 1 else 's run'} another image than the version was proven with.",
        MIXED,
    )


def unknown(detail: str) -> FieldError:
    """Nobody can say what the tag names."""
    return FieldError("/image", f"Whether the image's tag has moved is not known. {detail}", UNKNOWN)

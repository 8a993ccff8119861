"""The process limits (ulimits) that a workload may set, and their maximums in a deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.conf import settings

from boilerhouse.core.errors import FieldError
from pools.spec import Ulimit

UNLIMITED = -1
FEWEST_FILES = 64
"""With fewer, the engine's own init cannot start."""
CEILINGS: dict[str, int] = {
    "core": 0,  # the kernel writes core files where the node configures, outside the container
    "cpu": UNLIMITED,
    "data": UNLIMITED,
    "fsize": UNLIMITED,
    "locks": UNLIMITED,
    "memlock": UNLIMITED,  # it counts towards memoryMb, and there is no swap
    "msgqueue": 819_200,
    "nice": 0,  # a higher priority than everything else on the node
    "nofile": 65_536,
    "nproc": UNLIMITED,  # limited by pidsLimit
    "rss": UNLIMITED,
    "rtprio": 0,  # real-time processes starve all others on a processor
    "rttime": UNLIMITED,
    "sigpending": 65_536,
    "stack": UNLIMITED,
}
"""The maximum hard limit of each name that the engine knows; BOILERHOUSE_MAX_ULIMITS changes them."""


def ceilings() -> dict[str, int]:
    """The maximums in this deployment."""
    return {**CEILINGS, **settings.BOILERHOUSE_MAX_ULIMITS}


def problems(limits: Iterable[Ulimit]) -> Iterator[FieldError]:
    """Limits that this deployment does not allow or that contradict each other, with pointers."""
    highest, names = ceilings(), set[str]()
    for index, limit in enumerate(limits):
        at = f"/ulimits/{index}"
        if limit.name in names:
            yield FieldError(f"{at}/name", f"{limit.name} is listed twice.", "duplicate")
        names.add(limit.name)
        if _size(limit.soft) > _size(limit.hard):
            yield FieldError(f"{at}/soft", f"Must not exceed hard ({limit.hard}).", "out_of_range")
        if _size(limit.hard) > _size(highest[limit.name]):
            detail = f"This deployment allows {limit.name} up to {highest[limit.name]} (BOILERHOUSE_MAX_ULIMITS)."
            yield FieldError(f"{at}/hard", detail, "not_allowed")
        if limit.name == "nofile" and 0 <= limit.soft < FEWEST_FILES:
            yield FieldError(f"{at}/soft", f"Must be at least {FEWEST_FILES}, or no container starts.", "out_of_range")


def _size(limit: int) -> float:
    return float("inf") if limit == UNLIMITED else limit

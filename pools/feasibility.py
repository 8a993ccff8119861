"""Whether this host can run a spec at all. Impossible specs are refused when they are saved, not at the first start."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from boilerhouse.core.errors import FieldError, Invalid
from pools import mounts, suitability
from pools.errors import EngineFailure, EngineUnavailable
from pools.runtime import get_runtime
from pools.runtime.base import Capabilities, Image
from pools.spec import WorkloadSpec


def seed_path(name: str) -> Path:
    """The path of a workload's seed directory."""
    return Path(settings.BOILERHOUSE_SEED_DIR) / name


def check_feasible(spec: WorkloadSpec) -> Image | None:
    """Raise Invalid with a pointer for each impossible setting. An unavailable engine refuses nothing.

    Returns the image on this node; None if it is missing or cannot be inspected.
    """
    wrong: list[FieldError] = []
    if spec.seed is not None:
        if "/" in spec.seed or spec.seed.startswith(".") or "\0" in spec.seed:
            wrong.append(FieldError("/seed", "Must be the name of a directory, not a path.", "invalid"))
        elif not seed_path(spec.seed).is_dir():
            detail = f"No directory {spec.seed} in {settings.BOILERHOUSE_SEED_DIR}."
            wrong.append(FieldError("/seed", detail, "not_found"))
        if spec.volume("state") is None:
            wrong.append(
                FieldError(
                    "/seed", "The seed needs a state volume, which the workload does not have.", "no_state_volume"
                )
            )
    can = _capabilities()
    if can is not None:
        resources, security = spec.resources, spec.security
        if can.cpus and resources.cpus > can.cpus:
            wrong.append(FieldError("/resources/cpus", f"This host has only {can.cpus} CPUs.", "out_of_range"))
        if can.memory_mb and resources.memory_mb > can.memory_mb:
            detail = f"This host has only {can.memory_mb} MiB of memory."
            wrong.append(FieldError("/resources/memoryMb", detail, "out_of_range"))
        if security.runtime and can.runtimes and security.runtime not in can.runtimes:
            detail = f"The engine has only these runtimes: {', '.join(sorted(can.runtimes))}."
            wrong.append(FieldError("/security/runtime", detail, "not_found"))
    image = None if can is None else _image(spec.image)
    if image is not None:
        wrong += mounts.declared(spec, image.volumes).wrong
    if wrong:
        raise Invalid(*wrong)
    return image


def _image(name: str) -> Image | None:
    try:
        return get_runtime().find_image(name)
    except (EngineFailure, EngineUnavailable):
        return None


def _capabilities() -> Capabilities | None:
    try:
        return suitability.cached_capabilities(get_runtime())
    except EngineUnavailable:
        return None

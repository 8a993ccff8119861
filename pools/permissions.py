"""Workload settings that the deployment must allow: checked when the workload is saved, and again before each start.

A device of the node weakens isolation. Removing one from the list also stops stored versions that use it.
"""

from __future__ import annotations

from collections.abc import Iterator

from boilerhouse.core import deployment_settings
from boilerhouse.core.errors import FieldError
from pools import limits
from pools.errors import CannotGive
from pools.spec import WorkloadSpec

GPUS = "gpus"
"""In the list of devices: all GPUs, through the engine's device requests."""


def problems(spec: WorkloadSpec) -> list[FieldError]:
    """Settings that the deployment does not allow now, with pointers."""
    wrong = list(limits.problems(spec.ulimits))
    if spec.devices or spec.resources.gpus:
        wrong += _devices(spec, deployment_settings.current().allowed_devices)
    return wrong


def _devices(spec: WorkloadSpec, allowed: tuple[str, ...]) -> Iterator[FieldError]:
    if spec.resources.gpus and GPUS not in allowed:
        detail = f"This deployment does not allow GPUs ({GPUS} in BOILERHOUSE_ALLOWED_DEVICES)."
        yield FieldError("/resources/gpus", detail, "not_allowed")
    for index, device in enumerate(spec.devices):
        if device.path not in allowed:
            named = ", ".join(name for name in allowed if name != GPUS) or "none"
            detail = f"This deployment allows only these devices: {named} (BOILERHOUSE_ALLOWED_DEVICES)."
            yield FieldError(f"/devices/{index}/path", detail, "not_allowed")


def check(spec: WorkloadSpec) -> None:
    """Raise CannotGive for a version that was stored when more was allowed."""
    if wrong := problems(spec):
        message = " ".join(f"{problem.pointer}: {problem.detail}" for problem in wrong)
        raise CannotGive(f"The deployment no longer allows what the workload requires. {message}")

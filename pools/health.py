"""The health check of a container: the workload's own, otherwise the image's HEALTHCHECK unless it is disabled."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pools.runtime.base import Image, Probe
from pools.spec import HealthCheck, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Check:
    """A health check and its origin."""

    probe: Probe
    is_images: bool

    @property
    def patience_ms(self) -> int:
        """How long a container may take to pass the check for the first time."""
        own = self.probe.start_period_ms
        return own + self.probe.retries * self.probe.interval_ms if self.is_images else own


def own_probe(check: HealthCheck) -> Probe:
    return Probe(check.command, check.interval_ms, check.timeout_ms, check.retries, check.start_period_ms)


def check_of(spec: WorkloadSpec, image: Image) -> Check | None:
    """The check that determines the container's health; None if there is none."""
    if spec.health_check is not None:
        return Check(own_probe(spec.health_check), is_images=False)
    if spec.is_health_check_off or image.probe is None:
        return None
    return Check(image.probe, is_images=True)


def failing(command: Sequence[str], output: str, *, is_images: bool) -> str:
    """The message for a failing check, with a remedy if the workload did not request the check."""
    words = f" fails: {output.strip().rstrip('.')}." if output.strip() else " fails."
    if not is_images:
        return f"Its health check{words}"
    return (
        f"The image's own HEALTHCHECK ({shlex.join(command)[:200]}){words} The workload did not ask for it: set"
        " healthCheck to null to disable it, or give the workload its own healthCheck."
    )

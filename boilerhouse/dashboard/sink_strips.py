"""The checks of each sink in the last day, as a strip of equal spans of time: a span without a check is a gap."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from boilerhouse.core import clock
from boilerhouse.dashboard import time_steps
from syncing.models import SinkProbe

SPAN = timedelta(hours=24)
SLOTS = 48
"""Each is half an hour."""
GOOD, BAD, NONE = "", "e", "u"


@dataclass(slots=True)
class Strip:
    """One sink's last day."""

    cells: list[str] = field(default_factory=lambda: [NONE] * SLOTS)
    """Oldest first: at least one failed check, only good ones, or none."""
    checks: int = 0
    failed: int = 0
    last: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self.last is None

    @property
    def words(self) -> str:
        """The same for those who do not see it: ``288 checks, 3 failed``."""
        if self.is_empty:
            return "no checks in 24 h"
        checks = f"{self.checks:,} check{'' if self.checks == 1 else 's'}"
        return f"{checks}, {self.failed:,} failed" if self.failed else f"{checks}, none failed"


def of_specs(spec_ids: Collection[str]) -> dict[str, Strip]:
    """By spec; specs without a check have an empty strip. It ends at a whole minute, and moves on no more often."""
    start = time_steps.floor(clock.now(), timedelta(minutes=1)) - SPAN
    strips = {spec_id: Strip() for spec_id in spec_ids}
    probes = SinkProbe.objects.filter(spec__in=list(spec_ids), at__gt=start).order_by("at")
    for spec_id, at, is_healthy in probes.values_list("spec_id", "at", "is_healthy"):
        strip, slot = strips[spec_id], min(SLOTS - 1, int((at - start) / SPAN * SLOTS))
        strip.checks, strip.last = strip.checks + 1, at
        if not is_healthy:
            strip.failed += 1
            strip.cells[slot] = BAD
        elif strip.cells[slot] == NONE:
            strip.cells[slot] = GOOD
    return strips

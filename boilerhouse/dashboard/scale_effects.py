"""What a target size would do to a pool now, and which sizes are allowed."""

from __future__ import annotations

from dataclasses import dataclass

from pools.models import Pool, PoolStatus

MAX_DIGITS = 5


@dataclass(frozen=True, slots=True)
class ScaleEffect:
    """The effect of a typed size; ``typed`` is None before anything was typed."""

    pool: Pool
    status: PoolStatus
    typed: str | None

    @property
    def text(self) -> str:
        """What the field shows."""
        return str(self.status.desired_size) if self.typed is None else self.typed

    @property
    def size(self) -> int | None:
        """The typed size; None if it is no number."""
        text = (self.typed or "").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None

    @property
    def least(self) -> int:
        return min(self.pool.max_size, max(self.pool.min_size, self.status.claimed))

    @property
    def is_allowed(self) -> bool:
        return self.size is not None and self.least <= self.size <= self.pool.max_size

    @property
    def error(self) -> str:
        """What to enter instead; empty if the size is allowed or nothing was typed."""
        if self.typed is None or self.is_allowed:
            return ""
        limits = f"{self.least} to {self.pool.max_size}"
        if self.size is None:
            return f"Enter a whole number, {limits}."
        if self.size < self.status.claimed:
            claimed = self.status.claimed
            return f"Enter {limits}. {claimed} container{' is' if claimed == 1 else 's are'} claimed."
        return f"Enter {limits}."

    @property
    def _change(self) -> int:
        """How many more containers there would be."""
        present = self.status.starting + self.status.idle + self.status.claimed
        return self.pool.desired_size(self.status.claimed, self.size) - present

    @property
    def starts(self) -> int:
        return max(0, self._change)

    @property
    def removes(self) -> int:
        return max(0, min(self.status.idle, -self._change))

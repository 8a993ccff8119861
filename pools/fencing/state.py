"""What the fence of this node keeps in RAM: gone after a reboot, as the containers are. No database is needed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from boilerhouse.core import deployment

ROOT = Path("/run/boilerhouse-fence")


def _path(name: str) -> Path:
    """A node's id names it among all deployments and nodes of a machine."""
    return ROOT / deployment.node_id() / name


def prepare() -> None:
    """The directory exists."""
    _path("").mkdir(parents=True, exist_ok=True, mode=0o700)


def mark() -> Path:
    """Exists while the fence keeps containers frozen."""
    return _path("frozen")


def is_frozen() -> bool:
    """Whether the fence keeps this node's containers frozen, so that nothing else may thaw one."""
    return mark().exists()


@dataclass(slots=True)
class Known:
    """What the fence's next process goes by until the database confirms a lease."""

    leased_at: float
    """By CLOCK_BOOTTIME, before the database was asked."""
    epoch: int | None
    guard_pid: int
    guard_started: int | None
    peers: dict[str, str] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)

    def store(self) -> None:
        path = _path("known")
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        os.replace(new, path)


def load() -> Known | None:
    """None after a reboot, or if no fence has run."""
    try:
        return Known(**json.loads(_path("known").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget() -> None:
    _path("known").unlink(missing_ok=True)
    mark().unlink(missing_ok=True)

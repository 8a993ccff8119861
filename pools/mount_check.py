"""The actual mounts of a running container: links in an image can redirect a volume's path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pools import host_processes
from pools.errors import CannotMount
from pools.runtime.base import Observed

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of ``mountinfo``."""

    source: tuple[str, str]
    """Device, and the directory in its file system."""
    point: PurePosixPath


def check(observed: Observed, volumes: Mapping[str, Path]) -> None:
    """Raise CannotMount if something is mounted over or inside a volume.

    ``volumes``: name → directory on this host. Nothing is checked if this host cannot see the mounts.
    """
    text = host_processes.mount_info(observed.pid, observed.handle.runtime_id)
    if text is None:
        return
    there, here = _parsed(text), _parsed(Path("/proc/self/mountinfo").read_bytes())
    for name, directory in volumes.items():
        source = _source_of(directory, here)
        positions = [index for index, mount in enumerate(there) if mount.source == source]
        if not positions:
            continue
        point = there[positions[-1]].point
        over = [mount.point for mount in there[positions[-1] + 1 :] if point.is_relative_to(mount.point)]
        inside = [mount.point for mount in there if mount.point != point and mount.point.is_relative_to(point)]
        for other in over + inside:
            raise CannotMount(
                f"Because of a link in the image, the volume {name} is mounted at {point}, and something else at"
                f" {other}; data written there would be lost. Mount the volume at a path without links."
            )


def _parsed(text: bytes) -> list[Mounted]:
    mounts = []
    for line in text.splitlines():
        _, _, device, root, point, _ = line.split(b" ", 5)
        mounts.append(Mounted((device.decode(), _plain(root)), PurePosixPath(_plain(point))))
    return mounts


def _plain(field: bytes) -> str:
    """Spaces and similar characters are escaped as octal numbers."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field).decode(errors="replace")


def _source_of(directory: Path, here: Sequence[Mounted]) -> tuple[str, str] | None:
    """The directory as its file system names it."""
    real = PurePosixPath(directory.resolve())
    holding = [mount for mount in here if real.is_relative_to(mount.point)]
    if not holding:
        return None
    deepest = max(
        reversed(holding), key=lambda mount: len(mount.point.parts)
    )  # of several on one path, the last is on top
    device, root = deepest.source
    return device, str(PurePosixPath(root) / real.relative_to(deepest.point))

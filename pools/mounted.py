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


def check(seen: Observed, volumes: Mapping[str, Path]) -> None:
    """Raise CannotMount if something is mounted over or inside a volume.

    ``volumes``: name → directory on this host. Nothing is checked if this host cannot see the mounts.
    """
    text = host_processes.mount_info(seen.pid, seen.handle.runtime_id)
    if text is None:
        return
    there, here = _parsed(text), _parsed(Path("/proc/self/mountinfo").read_bytes())
    for name, directory in volumes.items():
        source = _source_of(directory, here)
        found = [index for index, one in enumerate(there) if one.source == source]
        if not found:
            continue
        point = there[found[-1]].point
        over = [one.point for one in there[found[-1] + 1 :] if point.is_relative_to(one.point)]
        inside = [one.point for one in there if one.point != point and one.point.is_relative_to(point)]
        for other in over + inside:
            raise CannotMount(
                f"Because of a link in the image, the volume {name} is mounted at {point}, and something else at"
                f" {other}; data written there would be lost. Mount the volume at a path without links."
            )


def _parsed(text: bytes) -> list[Mounted]:
    found = []
    for line in text.splitlines():
        _, _, device, root, point, _ = line.split(b" ", 5)
        found.append(Mounted((device.decode(), _plain(root)), PurePosixPath(_plain(point))))
    return found


def _plain(field: bytes) -> str:
    """Spaces and similar characters are escaped as octal numbers."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field).decode(errors="replace")


def _source_of(directory: Path, here: Sequence[Mounted]) -> tuple[str, str] | None:
    """The directory as its file system names it."""
    real = PurePosixPath(directory.resolve())
    holding = [one for one in here if real.is_relative_to(one.point)]
    if not holding:
        return None
    deepest = max(reversed(holding), key=lambda one: len(one.point.parts))  # of several on one path, the last is on top
    device, root = deepest.source
    return device, str(PurePosixPath(root) / real.relative_to(deepest.point))

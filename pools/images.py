"""Builds images through the engine's API, without a client plugin."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pools.errors import ImageMissing
from pools.runtime import get_runtime

EXAMPLE_IMAGE = "boilerhouse/example-workload:1"
EXAMPLE_CONTEXT = Path(__file__).resolve().parent.parent / "docker" / "example-workload"
BUSYBOX = Path("/bin/busybox")


def pack(context: Path, extra: Mapping[str, Path]) -> bytes:
    """A build context as a tar archive: the directory, and other files under new names.

    Its files are readable by everyone, whatever the umask of the checkout was, because containers run under their own
    uids.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(context, arcname=".", filter=_readable)
        for name, path in extra.items():
            archive.add(path.resolve(), arcname=name, filter=_readable)
    return buffer.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def build(context: Path, tag: str, extra: Mapping[str, Path]) -> Iterator[str]:
    """Build ``context`` into ``tag``; yield the engine's lines. Raises EngineFailure."""
    yield from get_runtime().build(pack(context, extra), tag)


def build_example() -> Iterator[str]:
    """Build the example workload with this host's static busybox."""
    yield from build(EXAMPLE_CONTEXT, EXAMPLE_IMAGE, {"busybox": BUSYBOX})


def ensure_example() -> None:
    """Make the example workload's image available, building it if necessary. Raises EngineFailure."""
    try:
        get_runtime().find_image(EXAMPLE_IMAGE)
    except ImageMissing:
        for _ in build_example():
            pass

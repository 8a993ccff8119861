"""File attributes that object storage lacks: names, modes, times, links, holes. They are applied to restored files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from boilerhouse.process import stalls
from pools.file_names import plain
from pools.spec import Owner
from pools.volumes.handles import DIRECTORY, KEPT_BITS, allow_mode, descend, make_dir


def restore_names(staging: Path, names: list[str]) -> None:
    """Rename restored files and directories to their exact names, if the sink spelled them differently.

    A name without a unique match in its directory is left alone.
    """
    for parent, expected in _by_parent(names):
        with contextlib.suppress(FileNotFoundError), _parent(staging, f"{parent}x") as (opened, _):
            present = set(os.listdir(opened))
            others: dict[str, list[str]] = {}
            for other in present.difference(expected):
                stalls.step()
                others.setdefault(plain(other), []).append(other)
            for name in expected:
                stalls.step()
                alike = others.get(plain(name), [])
                if name not in present and len(alike) == 1:
                    os.rename(alike[0], name, src_dir_fd=opened, dst_dir_fd=opened)


def _by_parent(paths: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Directory (empty, or ending in a slash) and its names; a directory comes before its content."""
    names: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: path.count("/")):
        parent, slash, name = path.rpartition("/")
        names.setdefault(parent + slash, []).append(name)
    yield from names.items()


def apply_mtimes(staging: Path, mtimes: dict[str, int]) -> list[str]:
    """Set the modification times of restored files; return the paths that do not exist."""
    missing = []
    for parent, names in _by_parent(mtimes):
        try:
            with _parent(staging, f"{parent}x") as (opened, _):
                for name in names:
                    stalls.step()
                    at = mtimes[parent + name]
                    try:
                        os.utime(name, ns=(at, at), dir_fd=opened, follow_symlinks=False)
                    except FileNotFoundError:
                        missing.append(parent + name)
        except (FileNotFoundError, NotADirectoryError):
            missing += [parent + name for name in names]
    return missing


def modes_on_way(volume: Path, relative: PurePosixPath) -> list[int]:
    """The modes of the directories from a volume's root to a mapping's directory, that one last.

    The root is included only if it is the mapping's directory itself.
    """
    modes = []
    for depth in range(1 if relative.parts else 0, len(relative.parts) + 1):
        directory = descend(volume, PurePosixPath(*relative.parts[:depth]))
        modes.append(os.fstat(directory).st_mode & KEPT_BITS)
        os.close(directory)
    return modes


def apply_modes_on_way(volume: Path, relative: PurePosixPath, modes: list[int]) -> None:
    """Set the modes of these directories; if their number differs, only the last."""
    ways = [PurePosixPath(*relative.parts[:depth]) for depth in range(1, len(relative.parts) + 1)] or [relative]
    if len(ways) != len(modes):
        ways, modes = ways[-1:], modes[-1:]
    for way, mode in zip(ways, modes, strict=False):
        directory = descend(volume, way)
        try:
            os.fchmod(directory, mode & KEPT_BITS)
        finally:
            os.close(directory)


def dig_holes(staging: Path, paths: Iterable[str]) -> None:
    """Punch the holes of restored sparse files: blocks of zeros no longer use disk space."""
    for parent, names in _by_parent(paths):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _parent(staging, f"{parent}x") as (opened, _):
            for name in names:
                stalls.step()
                with contextlib.suppress(FileNotFoundError):
                    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened)
                    try:
                        stalls.run(["fallocate", "--dig-holes", f"/proc/{os.getpid()}/fd/{file}"])
                    finally:
                        os.close(file)


def apply_manifest(staging: Path, owner: Owner, modes: dict[str, int], links: dict[str, str], empty: list[str]) -> None:
    """Set the modes, links and empty directories of restored files; only inside ``staging``."""
    for parent, names in _by_parent(empty):
        with _parent(staging, f"{parent}x", create_for=owner) as (opened, _):
            for name in names:
                stalls.step()
                _ensure_dir(opened, _inside(name).name, owner)
    for parent, names in _by_parent(links):
        with _parent(staging, f"{parent}x", create_for=owner) as (opened, _):
            for name in names:
                stalls.step()
                with contextlib.suppress(FileExistsError):  # in copy mode, a later file may have replaced the link
                    os.symlink(links[parent + name], _inside(name).name, dir_fd=opened)
                    os.chown(name, *owner, dir_fd=opened, follow_symlinks=False)
    for parent, names in reversed(list(_by_parent(modes))):  # a directory without permissions last
        with contextlib.suppress(FileNotFoundError), _parent(staging, f"{parent}x") as (opened, _):
            for name in names:
                stalls.step()
                with contextlib.suppress(FileNotFoundError):
                    allow_mode(opened, _inside(name).name, modes[parent + name] & KEPT_BITS)


def _ensure_dir(parent: int, name: str, owner: Owner) -> None:
    try:
        make_dir(parent, name, owner)
    except FileExistsError:
        os.close(os.open(name, DIRECTORY, dir_fd=parent))  # raises if it is something else


@contextmanager
def _parent(staging: Path, path: str, create_for: Owner | None = None) -> Iterator[tuple[int, str]]:
    """The open directory of ``path``, and the path's last part."""
    inside = _inside(path)
    parent = descend(staging, inside.parent, create_for)
    try:
        yield parent, inside.name
    finally:
        os.close(parent)


def _inside(path: str) -> PurePosixPath:
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise ValueError(f"manifest names a path outside the volume: {path[:100]!r}")
    return inside

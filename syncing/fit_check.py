"""Checks before a save that the state will fit into the container's disk limit when it is restored.

On disk, a sparse file uses less than its length, and hard links share their content and inode. At a sink, there are no
holes and every name is a separate file. So a restore can need more space than the state uses now, on a file system of
the same size. If the limit is only watched, the state may already exceed it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

from pools import quota, volumes
from pools.file_names import folders, plain, show
from pools.spec import WorkloadSpec
from syncing import errors, patterns, services
from syncing.models import SyncMapping
from syncing.targets import TransferTarget, place_of

SMALLEST_BLOCK = 1024
"""The inode ratio of ext4; small file systems have it."""
SHOWN = 3


def room_of(
    names: Mapping[str, int], links: Mapping[str, str], empty_dirs: Iterable[str], block: int = SMALLEST_BLOCK
) -> int:
    """The minimum disk use in bytes of restoring these files, links and directories with this block size."""
    paths = [*names, *links, *(f"{path}/x" for path in empty_dirs)]
    return _room_for(names.values(), block) + block * (
        _directories(paths) + sum(len(target) > 59 for target in links.values())
    )


def _inodes_of(census: volumes.Census) -> int:
    paths = [*census.stamps, *census.links, *(f"{path}/x" for path in census.empty_dirs)]
    return len(census.stamps) + len(census.links) + _directories(paths)


def _directories(paths: list[str]) -> int:
    """The number of directories that contain the paths, including the mapping's own."""
    return len(folders(paths)) + bool(paths)


def _room_for(sizes: Iterable[int], block: int) -> int:
    return sum(-(-size // block) * block for size in sizes)


def check(target: TransferTarget, mapping: SyncMapping, local: volumes.Census, present: Mapping[str, int]) -> None:
    """Raise TooLarge if what the container's claims restore, including ``local``, would not fit into its disk limit.

    ``kept``: files that the sink keeps for the mapping, whether or not they exist here.
    """
    disk = quota.capacity(target.node.volumes.home(target.container_id), target.spec.resources)
    if disk is None:
        return
    others = services.mappings_to_restore(target.pool_id)
    if mapping.pk not in {other.pk for other in others}:
        return
    censuses = {other.pk: _census(target, other) for other in others if other.pk != mapping.pk}
    censuses[mapping.pk] = local
    if _is_small(censuses.values(), present, disk):
        return
    here = set(map(plain, local.stamps))
    only_there = {name: size for name, size in present.items() if plain(name) not in here}
    kept_room = _room_for(only_there.values(), disk.block)
    need = (
        sum(room_of(census.sizes(), census.links, census.empty_dirs, disk.block) for census in censuses.values())
        + kept_room
    )
    inodes = sum(map(_inodes_of, censuses.values())) + len(only_there)
    if inodes > disk.files:
        raise errors.TooLarge(_words_of_files(target.spec, inodes, disk.files))
    if need <= disk.bytes:
        return
    has_own = quota.used_bytes(target.node.volumes.home(target.container_id)) is not None
    if has_own and not only_there and not any(census.grows for census in censuses.values()):
        return  # it is on that disk now
    grows = {f"{other.container_path}/{path}": by for other in others for path, by in censuses[other.pk].grows.items()}
    raise errors.TooLarge(_words(target.spec, need, disk.bytes, grows, only_there))


def _is_small(censuses: Collection[volumes.Census], present: Mapping[str, int], disk: quota.Capacity) -> bool:
    """Whether it certainly fits, by a quick estimate that is too high."""
    paths = [path for census in censuses for path in (*census.stamps, *census.links, *census.empty_dirs)]
    inodes = sum(2 + path.count("/") for path in paths) + len(present)
    need = sum(stamp.size for census in censuses for stamp in census.stamps.values()) + sum(present.values())
    return inodes <= disk.files and need + disk.block * (inodes + len(paths) + len(present)) <= disk.bytes


def _words(spec: WorkloadSpec, need: int, capacity: int, grows: dict[str, int], only_there: Mapping[str, int]) -> str:
    reasons = []
    if grows:
        largest = sorted(grows, key=lambda path: -grows[path])
        named = ", ".join(f"{show(path)} ({grows[path]} bytes more)" for path in largest[:SHOWN])
        rest = f" and {len(largest) - SHOWN} more" if len(largest) > SHOWN else ""
        reasons.append(
            f"Sparse files and hard links take their full size when they are restored: {named}{rest}. Remove"
            " them, or keep each content under one name"
        )
    if only_there:
        reasons.append(
            f"{len(only_there)} files that the container no longer has are kept at the sink in mode copy and come back"
        )
    return (
        f"The saved state takes {need} bytes when it is restored; {_limit_words(spec)} allows {capacity}."
        f" {'. '.join(reasons or ['Remove files'])}; or {_remedy(spec)}."
    )


def _words_of_files(spec: WorkloadSpec, inodes: int, files: int) -> str:
    return (
        f"The saved state has {inodes} files, links and directories when it is restored; {_limit_words(spec)}"
        f" allows {files}. Remove some; or {_remedy(spec)}."
    )


def _limit_words(spec: WorkloadSpec) -> str:
    limit = quota.limit_of(spec.resources)
    return limit.name if limit else "its disk"


def _remedy(spec: WorkloadSpec) -> str:
    limit = quota.limit_of(spec.resources)
    return limit.remedy if limit else "give it a larger one"


def _census(target: TransferTarget, mapping: SyncMapping) -> volumes.Census:
    volume, relative = place_of(target, mapping)
    try:
        root = volumes.descend(volume, relative)
    except OSError:
        return volumes.Census()  # it does not exist yet, or is not a directory; its own save reports that
    try:
        return volumes.census(root, patterns.matcher(mapping.pattern), volumes.ANY_SIZE)
    finally:
        os.close(root)


def check_room(target: TransferTarget, need: int, location: str, *, beside: bool) -> None:
    """Raise DiskFull before the first byte if a restore of ``need`` bytes has no space to be staged.

    ``beside``: it is merged into existing files, so it needs its space in addition to them.
    """
    home, limit = target.node.volumes.home(target.container_id), quota.limit_of(target.spec.resources)
    disk = os.statvfs(target.node.volumes.staging_dir(target.container_id))
    free = disk.f_bavail * disk.f_frsize
    if quota.used_bytes(home) is None:
        if limit and need > limit.bytes:
            raise errors.DiskFull(
                f"The state at {location} needs {need} bytes; {limit.name} allows {limit.bytes}. To restore it,"
                f" {limit.remedy}."
            )
        if need > free:
            raise errors.DiskFull(f"The state at {location} needs {need} bytes, but only {free} are free on this node.")
    elif need > free:
        why = " It is staged beside the current files before it is merged." if beside else ""
        raise errors.DiskFull(
            f"The state at {location} needs {need} bytes, but only {free} are free on the container's disk"
            f" ({_limit_words(target.spec)}).{why} Raise the workload's diskMb."
        )

"""Whether a container's state fits its disk limit when it comes back, found out before a save sends anything.

A file may take less of a disk than it is long (holes), and several names of one file take it once. At a sink there are
no holes and every name is a file of its own; so a restore needs more than lies here now, and it needs it on a file
system of the same size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pools import quota, volumes
from pools.names import plain, show
from pools.spec import WorkloadSpec
from syncing import errors, patterns, services
from syncing.models import SyncMapping
from syncing.sites import Site, place_of

SMALLEST_BLOCK = 1024
"""Of ext4; small file systems have it."""
SHOWN = 3


def room_of(
    names: Mapping[str, int], links: Mapping[str, str], empty_dirs: Iterable[str], block: int = SMALLEST_BLOCK
) -> int:
    """What a restore of these files, links and directories takes of a disk with such blocks, at least, in bytes."""
    paths = [*names, *links, *(f"{path}/x" for path in empty_dirs)]
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return _room_for(names.values(), block) + block * (len(folders) + sum(len(one) > 59 for one in links.values()))


def _room_for(sizes: Iterable[int], block: int) -> int:
    return sum(-(-size // block) * block for size in sizes)


def check(site: Site, mapping: SyncMapping, local: volumes.Census, kept: Mapping[str, int]) -> None:
    """Raise TooLarge where what the container's claims restore, ``local`` among it, would not fit its disk.

    ``kept`` is what the sink has of the mapping by now and keeps, whether it is here or not.
    """
    disk = quota.capacity(volumes.home(site.container_id))
    if disk is None:
        return
    others = services.mappings_to_restore(site.pool_id)
    if mapping.pk not in {other.pk for other in others}:
        return
    censuses = {other.pk: _census(site, other) for other in others if other.pk != mapping.pk}
    censuses[mapping.pk] = local
    here = set(map(plain, local.seen))
    only_there = {name: size for name, size in kept.items() if plain(name) not in here}
    kept_room = _room_for(only_there.values(), disk.block)
    need = sum(room_of(one.sizes(), one.links, one.empty_dirs, disk.block) for one in censuses.values()) + kept_room
    more = sum(sum(one.grows.values()) for one in censuses.values()) + kept_room
    if not more or need <= disk.bytes:  # without growth it lies on that very disk now
        return
    grows = {f"{other.container_path}/{path}": by for other in others for path, by in censuses[other.pk].grows.items()}
    raise errors.TooLarge(_words(site.spec, need, disk.bytes, grows, only_there))


def _words(spec: WorkloadSpec, need: int, capacity: int, grows: dict[str, int], only_there: Mapping[str, int]) -> str:
    reasons = []
    if grows:
        largest = sorted(grows, key=lambda path: -grows[path])
        named = ", ".join(f"{show(path)} ({grows[path]} bytes more)" for path in largest[:SHOWN])
        rest = f" and {len(largest) - SHOWN} more" if len(largest) > SHOWN else ""
        reasons.append(
            f"Files with holes and further names of one file take their full size then: {named}{rest}. Remove them, or"
            " keep each content under one name"
        )
    if only_there:
        reasons.append(
            f"{len(only_there)} files that the container no longer has are kept at the sink in mode copy and come back"
        )
    return (
        f"What is saved takes {need} bytes when it comes back; diskMb {spec.resources.disk_mb} holds {capacity}."
        f" {'. '.join(reasons)}; or raise diskMb of the workload."
    )


def _census(site: Site, mapping: SyncMapping) -> volumes.Census:
    volume, relative = place_of(site, mapping)
    try:
        root = volumes.descend(volume, relative)
    except OSError:
        return volumes.Census()  # not there yet, or something else is; its own save says so
    try:
        return volumes.census(root, patterns.matcher(mapping.pattern), volumes.ANY_SIZE)
    finally:
        os.close(root)


def check_room(site: Site, need: int, location: str, *, beside: bool) -> None:
    """Raise DiskFull before the first byte where a restore of ``need`` bytes has no room to be staged.

    ``beside``: it is merged into what is there, so it needs its room beside that.
    """
    disk = os.statvfs(volumes.staging_dir(site.container_id))
    free, disk_mb = disk.f_bavail * disk.f_frsize, site.spec.resources.disk_mb
    if need <= free:
        return
    if quota.capacity(volumes.home(site.container_id)) is None:
        raise errors.DiskFull(f"The state at {location} needs {need} bytes; {free} are free on this node.")
    why = " It is staged beside what the container has before it is merged." if beside else ""
    raise errors.DiskFull(
        f"The state at {location} needs {need} bytes; {free} are free on the container's disk (diskMb {disk_mb})."
        f"{why} Raise diskMb of the workload."
    )

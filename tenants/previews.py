"""Previews of syncs and of the files that a pattern matches, from names and sizes; nothing is changed.

A changed file of the same size is only detected by checksum when the sync runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pools import volumes
from pools.nodes import node_of
from syncing import errors as sync_errors
from syncing import patterns, places
from syncing import services as syncing
from syncing.mapping_saves import may_delete
from syncing.models import SyncMapping
from syncing.states import Direction
from syncing.targets import TransferTarget, place_of, planted
from tenants import errors, validation
from tenants.models import Assignment
from tenants.states import AssignmentState
from tenants.transfer_target import target_of

LOOK_AT = 20_000
"""Maximum number of files of one directory that are read."""
LOOK_S = 5.0
"""Maximum time, because files that do not match the pattern are not counted otherwise."""
NAMED = 20


@dataclass(slots=True)
class Matched:
    """The files of a directory that a mapping matches."""

    container_path: str
    pattern: str
    files: int = 0
    bytes: int = 0
    names: list[str] = field(default_factory=list)
    others: int = 0
    other_names: list[str] = field(default_factory=list)
    is_cut: bool = False
    problem: str = ""


@dataclass(slots=True)
class Planned:
    """What a mapping would do now."""

    spec_id: str
    container_path: str
    location: str
    new: int = 0
    changed: int = 0
    same: int = 0
    deletes: int = 0
    bytes: int = 0
    is_cut: bool = False
    problem: str = ""


def matches_among(names: Iterable[str], mappings: Iterable[tuple[str, str]]) -> list[Matched]:
    """Which of these paths each (containerPath, pattern) matches; paths are as in the container."""
    paths = [PurePosixPath(name) for name in names]
    results = []
    for container_path, pattern in mappings:
        root = PurePosixPath(container_path)
        inside = {str(path.relative_to(root)): 0 for path in paths if path.is_relative_to(root) and path != root}
        results.append(_matched(container_path, pattern, inside))
    return results


def matches_of_tenant(tenant_id: str, pool_id: str, mappings: Iterable[tuple[str, str]]) -> list[Matched]:
    """The same for the files in the tenant's container. Raises Invalid, NotAssigned, OtherNode."""
    target = _target(tenant_id, pool_id)
    results = []
    for container_path, pattern in mappings:
        mapping = SyncMapping(container_path=container_path)
        try:
            census = _census(target, mapping, "")
        except (sync_errors.SyncFailed, OSError) as error:
            results.append(Matched(container_path, pattern, problem=_words(error)))
            continue
        sizes = {name: stamp.size for name, stamp in census.stamps.items()}
        results.append(_matched(container_path, pattern, sizes, is_cut=census.is_cut))
    return results


def _matched(container_path: str, pattern: str, sizes: dict[str, int], *, is_cut: bool = False) -> Matched:
    result = Matched(container_path, pattern, is_cut=is_cut)
    if pattern and (problem := patterns.check(pattern)):
        result.problem = problem
        return result
    fits = patterns.matcher(pattern)
    for name in sorted(sizes):
        if fits is None or fits(name):
            result.files, result.bytes = result.files + 1, result.bytes + sizes[name]
            if len(result.names) < NAMED:
                result.names.append(name)
        else:
            result.others += 1
            if len(result.other_names) < NAMED:
                result.other_names.append(name)
    return result


def of_sync(tenant_id: str, direction: Direction) -> list[Planned]:
    """What a save (upload) or a restore (download) of the tenant would do. Raises Invalid, NotAssigned, OtherNode."""
    target = _target(tenant_id, None)
    results = []
    for spec in syncing.specs_for(target.pool_id, direction):
        for mapping in spec.mappings.all():
            if mapping.uploads if direction == Direction.UPLOAD else mapping.restores:
                mapping.spec = spec
                results.append(_plan(target, mapping, direction))
    return results


def _plan(target: TransferTarget, mapping: SyncMapping, direction: Direction) -> Planned:
    location = mapping.location(target.tenant_id)
    planned = Planned(mapping.spec_id, mapping.container_path, location)
    try:
        here = _census(target, mapping, mapping.pattern)
        there: dict[str, int] = {}
        fits = patterns.matcher(mapping.pattern)
        until = time.monotonic() + LOOK_S
        for name, size in places.sink_of(mapping.spec).names(location):
            if fits is None or fits(name):
                there[name] = size
            if len(there) >= LOOK_AT or time.monotonic() > until:
                planned.is_cut = True
                break
    except (sync_errors.SyncFailed, OSError) as error:
        planned.problem = _words(error)
        return planned
    planned.is_cut |= here.is_cut
    sizes = {name: stamp.size for name, stamp in here.stamps.items()}
    source, destination = (sizes, there) if direction == Direction.UPLOAD else (there, sizes)
    for name, size in source.items():
        if name not in destination:
            planned.new, planned.bytes = planned.new + 1, planned.bytes + size
        elif destination[name] != size:
            planned.changed, planned.bytes = planned.changed + 1, planned.bytes + size
        else:
            planned.same += 1
    if direction == Direction.UPLOAD and may_delete(mapping, target, location):
        planned.deletes = len(destination.keys() - source.keys())
    return planned


def _target(tenant_id: str, pool_id: str | None) -> TransferTarget:
    validation.check_tenant_id(tenant_id)
    rows = Assignment.objects.filter(tenant_id=tenant_id, state=AssignmentState.ASSIGNED)
    rows = rows.select_related("version", "container")
    row = (rows if pool_id is None else rows.filter(pool_id=pool_id)).first()
    if row is None or row.version is None or row.uid is None:
        raise errors.NotAssigned
    node_of(row).check()
    return target_of(row, -1, is_stopped=False)


def _census(target: TransferTarget, mapping: SyncMapping, pattern: str) -> volumes.Census:
    volume, relative = place_of(target, mapping)
    try:
        with planted(mapping):
            root = volumes.descend(volume, relative)
    except FileNotFoundError:
        return volumes.Census()
    try:
        until = time.monotonic() + LOOK_S
        return volumes.census(root, patterns.matcher(pattern), sys.maxsize, max_entries=LOOK_AT, until=until)
    except TimeoutError as error:
        raise sync_errors.SyncFailed(f"Counting its files takes more than {LOOK_S:.0f} s.") from error
    finally:
        os.close(root)


def _words(error: sync_errors.SyncFailed | OSError) -> str:
    if isinstance(error, OSError):
        return f"The system reports: {error.strerror or type(error).__name__}."  # the rest may name paths of the node
    return error.detail

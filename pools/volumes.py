"""Containers' directories on this node; the only module that touches what a tenant can write.

``<data>/containers/<id>/{claimed, lock, .saved/, .snapshot/, staging/, <volume>/}`` and ``<ram>/<id>/secrets/``; with a
disk limit staging and volumes lie on a file system of their own, ``disk/``. Everything that reaches
into a volume goes through directory handles that refuse links: a tenant may plant anything there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self
from uuid import UUID

from boilerhouse.core import deployment, file_locks, stalling
from boilerhouse.core.steps import each
from pools import quota
from pools.errors import DirectoryGone, DirtyContainer, HostNotReady, Locked
from pools.names import plain
from pools.spec import Owner, WorkloadSpec

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN_FILE, PLAIN_DIR = 0o644, 0o755
"""Modes that a restored file and directory have by themselves; only others are recorded."""
KEPT_BITS = 0o3777
"""Of a mode: all but setuid, which a container without new privileges has no use for."""
ANY_SIZE = sys.maxsize
MAX_PATH_BYTES = 900
"""Longest path below a mapping that fits an object key of 1,024 bytes with its prefix."""


def containers_dir() -> Path:
    return deployment.data_dir() / "containers"


def trash_dir() -> Path:
    return deployment.data_dir() / "trash"


def home(container_id: UUID) -> Path:
    return containers_dir() / str(container_id)


def secrets_dir(container_id: UUID) -> Path:
    return deployment.ram_dir() / str(container_id) / "secrets"


def volume_path(container_id: UUID, volume: str) -> Path:
    """Where a volume lies on this host, for the engine's mount."""
    return secrets_dir(container_id) if volume == "secrets" else quota.root(home(container_id)) / volume


def placeholder_dir() -> Path:
    """A directory that stays empty, for mounts that only keep a place from the engine."""
    path = deployment.data_dir() / "empty"
    path.mkdir(exist_ok=True, mode=0o500)
    return path


def staging_dir(container_id: UUID) -> Path:
    """On the file system of the volumes, so that what is staged moves in by rename."""
    return quota.root(home(container_id)) / "staging"


def prepare(container_id: UUID, uid: int, spec: WorkloadSpec) -> None:
    """Make a container's directories, volumes owned by its user, everything above for root only.

    Raises HostNotReady where the data directory itself is not there: what is made in an empty mount point is hidden
    when the mount comes back.
    """
    if not deployment.is_in_place():
        raise HostNotReady(f"{deployment.data_dir()} is not this deployment's data directory. Is it mounted?")
    for parent in (containers_dir(), trash_dir()):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    home(container_id).mkdir(exist_ok=True, mode=0o700)
    (home(container_id) / "lock").touch(mode=0o600)
    quota.ensure(home(container_id), spec.resources.disk_mb)
    staging_dir(container_id).mkdir(exist_ok=True, mode=0o700)
    for volume in spec.volumes:
        path = volume_path(container_id, volume.name)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chown(path, *spec.owner(uid))
        path.chmod(0o500 if volume.name == "secrets" else 0o700)


def make_dirs(place: Callable[[str], Path], uid: int, spec: WorkloadSpec, image_dir: str) -> None:
    """Make where the container's process begins, and its home, each where that lies in a volume, its user's.

    The engine would make the first root's, and the container could not write there. ``place`` says where a volume
    lies, ``image_dir`` is what the image says.
    """
    for path in (spec.working_dir or image_dir, spec.user.home):
        found = spec.volume_of(os.path.normpath(path or "/"))
        if found is not None and found[0].name != "secrets":
            volume, relative = found
            os.close(descend(place(volume.name), relative, create_for=spec.owner(uid)))


def check(container_id: UUID, spec: WorkloadSpec) -> None:
    """Return if every volume that ``prepare`` made is there. Raises DirectoryGone, HostNotReady."""
    for volume in spec.volumes:
        path = volume_path(container_id, volume.name)
        if not path.is_dir():
            raise _gone(path)


def _gone(path: Path) -> DirectoryGone:
    return DirectoryGone(f"The directory {path} is not there on node {deployment.node_id()}.")


@contextmanager
def locked(container_id: UUID, *, within_s: float = 0.0) -> Iterator[int]:
    """Hold the container's file lock; yields its descriptor for a child to inherit (hazards.md#b1).

    The kernel frees it only when the last process that holds the descriptor is dead, which may be never.
    Raises DirectoryGone when the directory is not there, or was wiped while waiting; Locked when another still holds it
    after ``within_s`` seconds.
    """
    path = home(container_id) / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise _gone(path.parent) from error
    try:
        if not file_locks.take(descriptor, within_s):
            raise Locked(f"Something else works on the container {container_id}.")
        try:
            same = os.stat(path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        if not same:
            raise _gone(path.parent)
        yield descriptor
    finally:
        os.close(descriptor)


def latch(container_id: UUID, tenant_id: str, generation: int) -> None:
    """Mark the container as this tenant's for ever, durably, before its first byte (hazards.md#a1).

    Doing it twice for the same claim is fine. Raises DirtyContainer when another claim was there.
    """
    path = home(container_id) / "claimed"
    content = _latch_of(tenant_id, generation)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        if read_latch(container_id) != content:
            raise DirtyContainer from error
        return
    except FileNotFoundError as error:
        raise _gone(path.parent) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_latch(container_id: UUID) -> str | None:
    """What the latch holds, None if the container never saw a tenant."""
    try:
        return (home(container_id) / "claimed").read_text()
    except FileNotFoundError:
        return None


def _latch_of(tenant_id: str, generation: int) -> str:
    return json.dumps({"tenantId": tenant_id, "generation": generation})


def is_anothers(container_id: UUID, tenant_id: str, generation: int) -> bool:
    """Whether the container has seen another claim than this one, whose state may be unsaved in it."""
    return read_latch(container_id) not in (None, _latch_of(tenant_id, generation))


def tenant_of(container_id: UUID) -> str:
    """Whose the container is by its latch; empty if it never saw a tenant."""
    try:
        return str(json.loads(read_latch(container_id) or "{}").get("tenantId", ""))
    except ValueError:
        return ""  # a power cut before its content reached the disk


def provision(
    container_id: UUID,
    owner: Owner,
    config: dict[str, Any] | None,
    claim_secrets: dict[str, str],
    claim: dict[str, Any],
) -> None:
    """Write config and secrets, then ``claim.json`` last, each by write and rename, 0400 of the container's user."""
    directory = _open(secrets_dir(container_id))
    try:
        if config is not None:
            _write(directory, "config.json", json.dumps(config).encode(), owner)
        for name, value in claim_secrets.items():
            _write(directory, name, value.encode(), owner)
        _write(directory, "claim.json", json.dumps(claim).encode(), owner)
    finally:
        os.close(directory)


def _write(directory: int, name: str, content: bytes, owner: Owner) -> None:
    draft = f".{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), *owner)
    os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)


# Staging: restores land where the container cannot see them ------------------------------------------


def new_staging(container_id: UUID, owner: Owner, name: str) -> Path:
    """A fresh, empty directory of the container's user, on the volume's file system."""
    path = staging_dir(container_id) / name
    if path.exists():
        destroy(path)
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError as error:
        raise _gone(path.parent) from error
    os.chown(path, *owner)
    return path


def _open(root: Path) -> int:
    try:
        return os.open(root, _DIRECTORY)
    except FileNotFoundError as error:
        raise _gone(root) from error


def descend(root: Path, relative: PurePosixPath, create_for: Owner | None = None) -> int:
    """Open a directory below ``root`` without following a link; make missing ones for ``create_for``.

    The caller closes it. Raises DirectoryGone when ``root`` itself is missing, FileNotFoundError for what is missing
    in it, NotADirectoryError / OSError(ELOOP) for anything planted.
    """
    current = _open(root)
    try:
        for part in relative.parts:
            if create_for is not None:
                with contextlib.suppress(FileExistsError):
                    _make_dir(current, part, create_for)
            inner = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = inner
    except BaseException:
        os.close(current)
        raise
    return current


def _make_dir(parent: int, name: str, owner: Owner) -> None:
    """A plain directory of the container's user, whatever this process's umask. Raises FileExistsError."""
    os.mkdir(name, 0o700, dir_fd=parent)
    _allow(parent, name, PLAIN_DIR)
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)


def move_in(
    container_id: UUID, owner: Owner, staging: Path, volume: Path, relative: PurePosixPath, replace: bool
) -> None:
    """Move what was restored into the volume; with ``replace`` whatever was there before goes first."""
    aside = staging_dir(container_id) / f"old-{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    source, old = os.open(staging, _DIRECTORY), os.open(aside, _DIRECTORY)
    target = descend(volume, relative, create_for=owner)
    try:
        if replace:
            for name in os.listdir(target):
                stalling.moved()  # and never ended half way
                os.rename(name, name, src_dir_fd=target, dst_dir_fd=old)
            for name in os.listdir(source):
                stalling.moved()
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        else:
            _merge(source, target)
    finally:
        for descriptor in (source, old, target):
            os.close(descriptor)
    destroy(aside)
    destroy(staging)


def _is_there(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _merge(source: int, target: int) -> None:
    """Move each thing; a directory that is there keeps its mode, another comes with its own."""
    for entry in _entries(source, may_end=False):
        stalling.moved()
        if stat.S_ISDIR(entry.mode) and _is_there(target, entry.name):
            inner_source = os.open(entry.name, _DIRECTORY, dir_fd=source)
            try:
                inner_target = os.open(entry.name, _DIRECTORY, dir_fd=target)
                try:
                    _merge(inner_source, inner_target)
                finally:
                    os.close(inner_target)
            finally:
                os.close(inner_source)
        else:
            os.rename(entry.name, entry.name, src_dir_fd=source, dst_dir_fd=target)


def plant(container_id: UUID, owner: Owner, source: Path, volume: str) -> None:
    """Copy a directory of the host's into a volume, owned by ``owner``; links stay links. Overwrites, never deletes."""
    staging = new_staging(container_id, owner, "seed")
    stalling.run(["cp", "-rP", "--preserve=mode,timestamps,links", "--", f"{source}/.", str(staging)])
    stalling.run(["chown", "-R", "--no-dereference", f"{owner.uid}:{owner.gid}", "--", str(staging)])
    move_in(container_id, owner, staging, volume_path(container_id, volume), PurePosixPath(), replace=False)


# Census: what is in a directory, without opening a file ---------------------------------------------


class Stamp(NamedTuple):
    """What a file's inode says of its content.

    Equal stamps are equal content, where the file was written out (``copies``) at the time of the first: no container
    can set a ctime.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, seen: os.stat_result) -> Self:
        return cls(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)

    def is_settled(self, at_ns: int) -> bool:
        """Whether a change after ``at_ns`` gets another ctime: clocks of file systems tick, some once per second."""
        tick = COARSE_TICK_NS if self.ctime_ns % 1_000_000_000 == 0 else FINE_TICK_NS
        return at_ns - self.ctime_ns > tick


FINE_TICK_NS, COARSE_TICK_NS = 50_000_000, 1_050_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    mode: int
    stamp: Stamp
    blocks: int
    """Of 512 bytes, that it takes of the disk."""
    links: int
    """How many names it has."""

    @property
    def has_holes(self) -> bool:
        return self.size >= 4096 and self.blocks * 512 + 4096 <= self.size

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def mtime_ns(self) -> int:
        return self.stamp.mtime_ns


def _entries(directory: int, *, until: float = math.inf, may_end: bool = True) -> list[Entry]:
    """Raises TimeoutError, and what ``stalling.step`` raises unless it may not end here."""
    found = []
    for name in sorted(os.listdir(directory)):
        if may_end:
            stalling.step()
        if time.monotonic() > until:
            raise TimeoutError
        try:
            seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a live tenant removed it meanwhile
        found.append(Entry(name, seen.st_mode, Stamp.of(seen), seen.st_blocks, seen.st_nlink))
    return found


@dataclass(slots=True)
class Census:
    """What lies below a directory: counts, and all that object storage cannot hold by itself."""

    files: int = 0
    bytes: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    """Path → mode, of files and directories whose mode is not the plain 0644 / 0755."""
    links: dict[str, str] = field(default_factory=dict)
    """Path → target, of symbolic links."""
    empty_dirs: list[str] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    """Paths (of no value) whose last part holds characters that sinks write in different ways."""
    skipped: list[str] = field(default_factory=list)
    """Sockets, FIFOs and devices."""
    unsaveable: list[tuple[str, str]] = field(default_factory=list)
    """Path and why, of what cannot be saved exactly."""
    seen: dict[str, Stamp] = field(default_factory=dict)
    """Path → what its inode says, of every file."""
    sparse: dict[str, None] = field(default_factory=dict)
    """Files with holes."""
    grows: dict[str, int] = field(default_factory=dict)
    """Path → bytes of disk that a file takes more when it comes back: full of zeros, or a further name of another."""
    is_cut: bool = False
    """There are more files than were asked for; the rest was not looked at."""

    def sizes(self) -> dict[str, int]:
        """Path → size, of every file."""
        return {path: stamp.size for path, stamp in self.seen.items()}

    def correct(self, path: str, stamp: Stamp | None) -> None:
        """Say of a file what was copied of it, where that is not what was counted; None: it had gone by then."""
        counted = self.seen.get(path)
        if counted is None or counted == stamp:
            return
        self.bytes += (stamp.size if stamp else 0) - counted.size
        if stamp:
            self.seen[path] = stamp
            return
        self.files -= 1
        del self.seen[path]
        for told in (self.modes, self.grows, self.names, self.sparse):
            told.pop(path, None)


def census(
    root: int,
    matches: Callable[[str], bool] | None,
    max_file_bytes: int,
    *,
    max_path_bytes: int = MAX_PATH_BYTES,
    max_entries: int = sys.maxsize,
    until: float = math.inf,
) -> Census:
    """Count what lies below the open directory ``root``, without changing anything there.

    Longer paths and larger files are ``unsaveable``. It ends at ``max_entries``: files, links, directories. ``matches``
    limits files and links to a mapping's pattern; None means everything. Raises TimeoutError when it is not done
    ``until`` then (monotonic seconds).
    """
    result, counted = Census(), 0
    named: set[int] = set()
    stack: list[tuple[int, str, list[Entry]]] = [(os.dup(root), "", _entries(root, until=until))]
    try:
        while stack:
            stalling.step()
            if time.monotonic() > until:
                raise TimeoutError
            directory, prefix, entries = stack[-1]
            if not entries:
                os.close(stack.pop()[0])
                continue
            entry, counted = entries.pop(), counted + 1
            if counted > max_entries:
                result.is_cut = True
                return result
            path, mode = prefix + entry.name, entry.mode & KEPT_BITS
            wanted = matches is None or matches(path)
            if plain(entry.name) != entry.name and (wanted or stat.S_ISDIR(entry.mode)):
                result.names[path] = None
            if len(os.fsencode(path)) > min(max_path_bytes, MAX_PATH_BYTES):
                if wanted or stat.S_ISDIR(entry.mode):
                    result.unsaveable.append((path[:200] + "…", "its path is too long for the sink"))
            elif stat.S_ISDIR(entry.mode):
                try:
                    inner = os.open(entry.name, _DIRECTORY, dir_fd=directory)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # replaced meanwhile by a live tenant; never followed
                children = _entries(inner, until=until)
                if matches is None:
                    if mode != PLAIN_DIR:
                        result.modes[path] = mode
                    if not children:
                        result.empty_dirs.append(path)
                stack.append((inner, f"{path}/", children))
            elif not wanted:
                continue
            elif stat.S_ISREG(entry.mode):
                if entry.size > max_file_bytes:
                    result.unsaveable.append((path, f"it has {entry.size} bytes; {max_file_bytes} is the limit"))
                result.files += 1
                result.bytes += entry.size
                result.seen[path] = entry.stamp
                if entry.has_holes:
                    result.sparse[path] = None
                if entry.has_holes or entry.links > 1:
                    here = 0 if entry.stamp.inode in named else entry.blocks * 512
                    named.add(entry.stamp.inode)
                    if entry.size > here:
                        result.grows[path] = entry.size - here
                if mode != PLAIN_FILE:
                    result.modes[path] = mode
            elif stat.S_ISLNK(entry.mode):
                try:
                    result.links[path] = os.readlink(entry.name, dir_fd=directory)
                except OSError:
                    continue  # no longer a link: the live tenant's next save has it
            else:
                result.skipped.append(path)
    finally:
        for directory, _, _ in stack:
            os.close(directory)
    return result


def _allow(directory: int, name: str, mode: int) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def restore_names(staging: Path, names: list[str]) -> None:
    """Give restored files and directories back the exact names that the sink wrote in another way.

    A name that nothing in its directory can stand for, or more than one thing, is left alone.
    """
    for parent, wanted in _by_parent(names):
        with contextlib.suppress(FileNotFoundError), _parent(staging, f"{parent}x") as (opened, _):
            present = set(os.listdir(opened))
            others: dict[str, list[str]] = {}
            for other in present.difference(wanted):
                stalling.step()
                others.setdefault(plain(other), []).append(other)
            for name in wanted:
                stalling.step()
                alike = others.get(plain(name), [])
                if name not in present and len(alike) == 1:
                    os.rename(alike[0], name, src_dir_fd=opened, dst_dir_fd=opened)


def _by_parent(paths: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Directory (empty, or ending in a slash) and the names in it; a directory comes before what lies below it."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: path.count("/")):
        parent, slash, name = path.rpartition("/")
        found.setdefault(parent + slash, []).append(name)
    yield from found.items()


def apply_mtimes(staging: Path, mtimes: dict[str, int]) -> list[str]:
    """Give restored files their modification times back; return the paths that are not there."""
    missing = []
    for parent, names in _by_parent(mtimes):
        try:
            with _parent(staging, f"{parent}x") as (opened, _):
                for name in names:
                    stalling.step()
                    at = mtimes[parent + name]
                    try:
                        os.utime(name, ns=(at, at), dir_fd=opened, follow_symlinks=False)
                    except FileNotFoundError:
                        missing.append(parent + name)
        except (FileNotFoundError, NotADirectoryError):
            missing += [parent + name for name in names]
    return missing


def modes_on_way(volume: Path, relative: PurePosixPath) -> list[int]:
    """The modes of the directories that lead from a volume's root to a mapping's directory, that one's last.

    The root is one of them only if it is the mapping's directory itself.
    """
    found = []
    for depth in range(1 if relative.parts else 0, len(relative.parts) + 1):
        directory = descend(volume, PurePosixPath(*relative.parts[:depth]))
        found.append(os.fstat(directory).st_mode & KEPT_BITS)
        os.close(directory)
    return found


def apply_modes_on_way(volume: Path, relative: PurePosixPath, modes: list[int]) -> None:
    """Give those directories their modes back; of another number of them only the last."""
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
    """Give restored files that had holes theirs back: blocks of zeros no longer take any of the disk."""
    for parent, names in _by_parent(paths):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _parent(staging, f"{parent}x") as (opened, _):
            for name in names:
                stalling.step()
                with contextlib.suppress(FileNotFoundError):
                    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened)
                    try:
                        stalling.run(["fallocate", "--dig-holes", f"/proc/{os.getpid()}/fd/{file}"])
                    finally:
                        os.close(file)


def apply_manifest(staging: Path, owner: Owner, modes: dict[str, int], links: dict[str, str], empty: list[str]) -> None:
    """Give restored files their modes, links and empty directories back; only inside ``staging``."""
    for parent, names in _by_parent(empty):
        with _parent(staging, f"{parent}x", create_for=owner) as (opened, _):
            for name in names:
                stalling.step()
                _ensure_dir(opened, _inside(name).name, owner)
    for parent, names in _by_parent(links):
        with _parent(staging, f"{parent}x", create_for=owner) as (opened, _):
            for name in names:
                stalling.step()
                with contextlib.suppress(FileExistsError):  # in copy mode a later file may have replaced the link
                    os.symlink(links[parent + name], _inside(name).name, dir_fd=opened)
                    os.chown(name, *owner, dir_fd=opened, follow_symlinks=False)
    for parent, names in reversed(list(_by_parent(modes))):  # a closed directory last
        with contextlib.suppress(FileNotFoundError), _parent(staging, f"{parent}x") as (opened, _):
            for name in names:
                stalling.step()
                with contextlib.suppress(FileNotFoundError):
                    _allow(opened, _inside(name).name, modes[parent + name] & KEPT_BITS)


def _ensure_dir(parent: int, name: str, owner: Owner) -> None:
    try:
        _make_dir(parent, name, owner)
    except FileExistsError:
        os.close(os.open(name, _DIRECTORY, dir_fd=parent))  # raises where it is something else


@contextmanager
def _parent(staging: Path, path: str, create_for: Owner | None = None) -> Iterator[tuple[int, str]]:
    """The open directory that holds ``path``, and the path's last part."""
    inside = _inside(path)
    parent = descend(staging, inside.parent, create_for)
    try:
        yield parent, inside.name
    finally:
        os.close(parent)


def _inside(path: str) -> PurePosixPath:
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise ValueError(f"manifest names a path outside: {path[:100]!r}")
    return inside


# Watching: how large, and when last changed ------------------------------------------------------------

MAX_WALK_ENTRIES, MAX_WALK_S, MAX_WALK_DEPTH = 20_000, 1.0, 200
_CLOCK_EVERY = 100
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What a live tenant that removes or replaces something leaves whoever looks at it."""


@dataclass(slots=True)
class Walked:
    """What a bounded walk over a container's volumes found."""

    bytes: int = 0
    entries: int = 0
    """Files, directories and all else that has a name."""
    newest_change: float = 0.0
    """The youngest inode change (ctime: mtime can be set to 2099), in Unix seconds; 0 if nothing lies there."""
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class WalkBounds:
    """What a walk ends at, unfinished."""

    entries: int = MAX_WALK_ENTRIES
    bytes: int = ANY_SIZE
    seconds: float = MAX_WALK_S


def walk(container_id: UUID, names: list[str], bounds: WalkBounds = WalkBounds()) -> Walked:
    """Measure the volumes ``names`` without opening a file or following a link, and no more than 200 levels deep.

    Raises DirectoryGone when a volume is not there: nothing is known of it then.
    """
    found, until = Walked(), time.monotonic() + bounds.seconds
    for name in names:
        root = _open(volume_path(container_id, name))
        try:
            _walk_below(root, found, bounds, until)
        finally:
            os.close(root)
        if not found.is_complete:
            break
    return found


def _walk_below(root: int, found: Walked, bounds: WalkBounds, until: float) -> None:
    """Add what lies below the open directory; each level is open while it is looked at, so that no path is followed."""
    found.newest_change = max(found.newest_change, os.fstat(root).st_ctime)
    levels = [os.scandir(root)]
    descriptors: list[int] = []
    try:
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop().close()
                if descriptors:
                    os.close(descriptors.pop())
                continue
            found.entries += 1
            is_late = found.entries % _CLOCK_EVERY == 0 and time.monotonic() > until
            if is_late or found.entries > bounds.entries or found.bytes > bounds.bytes:
                found.is_complete = False
                return
            try:
                seen = entry.stat(follow_symlinks=False)
                found.bytes += seen.st_blocks * 512
                found.newest_change = max(found.newest_change, seen.st_ctime)
                if not stat.S_ISDIR(seen.st_mode):
                    continue
                if len(levels) >= MAX_WALK_DEPTH:
                    found.is_complete = False
                    return
                descriptors.append(os.open(entry.name, _DIRECTORY, dir_fd=descriptors[-1] if descriptors else root))
                levels.append(os.scandir(descriptors[-1]))
            except OSError as error:
                if error.errno not in _REPLACED:
                    raise
    finally:
        for level in levels:
            level.close()
        for descriptor in descriptors:
            os.close(descriptor)


# Snapshots: copies that a save of a running container sends ------------------------------------------


def snapshot_dir(home_or_disk: Path) -> Path:
    """Where a snapshot lies; no volume can have that name."""
    return home_or_disk / ".snapshot"


def clear_snapshots(container_id: UUID) -> None:
    """Remove what a save that was killed has left. The caller holds the container's lock."""
    for parent in (home(container_id), home(container_id) / quota.MOUNT):
        destroy(snapshot_dir(parent))


def sweep_snapshots() -> int:
    """Remove what killed saves have left in containers that nobody works on; return in how many."""
    return each(on_disk(), _sweep_snapshots)


def _sweep_snapshots(container_id: UUID) -> int:
    if any(snapshot_dir(one).exists() for one in (home(container_id), home(container_id) / quota.MOUNT)):
        with contextlib.suppress(DirectoryGone, Locked), locked(container_id):
            clear_snapshots(container_id)
            return 1
    return 0


# Ends -------------------------------------------------------------------------------------------------


def wipe(container_id: UUID) -> None:
    """Remove everything of the container from this host. The rename comes first, so a late path fails."""
    trash_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    trashed = trash_dir() / str(container_id)
    if home(container_id).exists():
        quota.release(home(container_id))
        home(container_id).rename(trashed)
    destroy(trashed)
    destroy(secrets_dir(container_id).parent)


def discard(container_id: UUID) -> None:
    """Put the container's unsaved state aside; it stays recoverable until ``empty_trash`` ages it out."""
    if home(container_id).exists():
        quota.release(home(container_id))
        home(container_id).rename(trash_dir() / f"{container_id}.discarded-{int(time.time())}")
    destroy(secrets_dir(container_id).parent)


def erase_discarded(tenant_id: str) -> int:
    """Remove what was put aside of this tenant's discarded state; return how many directories."""
    found = []
    for path in trash_dir().glob("*.discarded-*"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads((path / "claimed").read_text()).get("tenantId") == tenant_id:
                found.append(path)
    for path in found:
        destroy(path)
    return len(found)


def on_disk() -> dict[UUID, float]:
    """Every container that has a directory here, and when that was made or changed, in Unix seconds."""
    found: dict[UUID, float] = {}
    for parent in (containers_dir(), deployment.ram_dir()):
        if not parent.is_dir():
            continue
        for path in parent.iterdir():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found[UUID(path.name)] = max(found.get(UUID(path.name), 0), path.stat().st_mtime)
    return found


def empty_trash(retention_s: int) -> int:
    """Finish half-done wipes and remove discarded state older than ``retention_s``; return how many."""
    oldest = time.time() - retention_s

    def remove(path: Path) -> int:
        _, discarded, stamp = path.name.partition(".discarded-")
        if discarded and int(stamp) >= oldest:
            return 0
        destroy(path)
        return 1

    return each(trash_dir().glob("*"), remove)


def destroy(path: Path) -> None:
    """``rm -rf``: deep trees break Python's own; never across a mount."""
    if path.is_symlink() or path.exists():
        stalling.run(["rm", "-rf", "--one-file-system", "--", str(path)])
